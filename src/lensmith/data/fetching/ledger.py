"""What came of each address: a line of JSON for each, in the order in which they were done, and the pictures beside it.

    pictures.jsonl    {"url", "outcome", "file", "size_bytes", "sha256", "said"}
    ab/abcdef...jpg   a picture, named by the hash of its address

A ledger only grows, so a fetch that was killed loses at most the line that it was writing.
"""

import enum
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from lensmith.core.errors import InputError

LEDGER_FILE = "pictures.jsonl"


class Outcome(enum.Enum):
    """What came of an address. The first group is for good; the second may be otherwise another day."""

    OK = "ok"
    GONE = "gone"
    """The server says that there is no such picture (404, 410)."""
    DENIED = "denied"
    """The server does not give it (any other status that is no success)."""
    OPTED_OUT = "opted out"
    """The server asks not to use it for training (X-Robots-Tag)."""
    REFUSED = "refused"
    """It was not asked for: no http address, or one that is not public."""
    NOT_A_PICTURE = "not a picture"
    TOO_LARGE = "too large"

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    """No such host, no connection, or one that broke."""
    BUSY = "busy"
    """The server was busy at each try (429, 5xx)."""

    @property
    def is_final(self) -> bool:
        """Whether asking again makes no sense."""
        return self not in (Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.BUSY)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """One address. `file` is relative to the ledger's folder, "" where there is none; `said`: what went wrong."""

    url: str
    outcome: Outcome
    file: str = ""
    size_bytes: int = 0
    sha256: str = ""
    said: str = ""

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Raises ValueError, KeyError or TypeError for what is no line of a ledger."""
        values: dict[str, Any] = json.loads(line)
        return cls(**{**values, "outcome": Outcome(values["outcome"])})

    def to_line(self) -> bytes:
        return json.dumps({**vars(self), "outcome": self.outcome.value}).encode() + b"\n"


def read_ledger(folder: Path) -> Iterator[Fetched]:
    """Its lines; of an address that was asked for again the last one counts. A last line that was cut is left out.

    Raises InputError for a line that is none of a ledger's.
    """
    path = folder / LEDGER_FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                fetched = Fetched.from_line(line)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}, line {number}: not a line of a ledger",
                    actual=repr(line[:80]),
                    hint="take the line out; its address is then fetched again",
                ) from error
            yield fetched


def append_to_ledger(folder: Path) -> BinaryIO:
    """The ledger, open for more lines behind its last whole one."""
    path = folder / LEDGER_FILE
    if path.exists():
        with path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0:  # one step unless it was cut
                file.seek(end - 1)
                if file.read(1) == b"\n":
                    break
                end -= 1
            file.truncate(end)
    return path.open("ab", buffering=0)
