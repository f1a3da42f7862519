"""What all kinds of sources share: a configuration that opens one, what is held out of it, and what is wrong in it."""

import enum
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from lensmith.core.errors import ImageError, InputError
from lensmith.core.images import open_picture
from lensmith.data.documents import BadRecordError, Source

HELD_OUT_SHARE = 0.1
UNREADABLE_PICTURE = "a picture cannot be read"
_PACKED = (".zip", ".gz", ".bz2", ".xz", ".zst")
_HALVES = re.compile("[\ud800-\udfff]")


class SourceConfig(Protocol):
    """Says where documents are and how they are read. `kind` names it in `SOURCES`."""

    kind: ClassVar[str]

    def open(self) -> Source:
        """The source. Raises InputError where there is none, or it is damaged as a whole."""
        ...


class Portion(enum.Enum):
    """Which of a source's documents: what is held out is for measuring and never trained on."""

    ALL = "all"
    TRAIN = "train"
    HELD_OUT = "held_out"

    def takes(self, group: str) -> bool:
        """Whether a group of documents is in it. A hash of its name decides, so new documents move no old ones."""
        if self is Portion.ALL:
            return True
        digest = hashlib.blake2b(f"held out: {group}".encode("utf-8", "surrogatepass")).digest()
        drawn = int.from_bytes(digest[:8]) / 2**64
        return (drawn < HELD_OUT_SHARE) is (self is Portion.HELD_OUT)


class HeldOutBy(enum.Enum):
    """What is held out as a whole: groups, so that a kind of picture is in one portion alone, or single records."""

    GROUPS = "groups"
    RECORDS = "records"


def files_named(paths: Sequence[Path], *suffixes: str) -> tuple[Path, ...]:
    """The files in `paths`, and of each folder there those that end in one of `suffixes`, sorted.

    Raises InputError where a path is not there, or a folder has no such file, or has them compressed.
    """
    found: list[Path] = []
    for path in paths:
        files = sorted(each for each in path.iterdir() if each.name.endswith(suffixes)) if path.is_dir() else [path]
        if not files and (packed := _compressed(path, suffixes)) is not None:
            raise InputError(
                f"what is in {path} is compressed, so that nothing in it can be read by its place",
                expected=f"files of {', '.join(suffixes)}",
                actual=packed.name,
                hint="unpack them: for example `unzip` for .zip, `gunzip` for .gz",
            )
        if not files or not files[0].is_file():
            raise InputError(
                "there is nothing to read", expected=f"a file or folder of {', '.join(suffixes)}", actual=path
            )
        found += files
    if not found:
        raise InputError("the source names no file", expected=f"files or folders of {', '.join(suffixes)}")
    return tuple(found)


def _compressed(folder: Path, suffixes: Sequence[str]) -> Path | None:
    """The first file in a folder that would be one of `suffixes` once it is unpacked."""
    endings = tuple(suffix + packed for suffix in suffixes for packed in _PACKED)
    return min((each for each in folder.iterdir() if each.name.endswith(endings)), default=None)


def well_formed(text: str) -> str:
    """The text with U+FFFD for what no UTF-8 can say: halves of characters in JSON, bytes in names of files."""
    return _HALVES.sub("\ufffd", text)


@dataclass(frozen=True, kw_only=True)
class Problems:
    """Records that cannot be used, by cause: how many, and what the first few errors say."""

    records: int
    counts: dict[str, int]
    first: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        lines = [f"{sum(self.counts.values())} of {self.records} records cannot be used"]
        for cause, count in self.counts.items():
            lines += [f"{count} x {cause}", *(f"  {said}" for said in self.first[cause])]
        return "\n".join(lines)


def problems(source: Source, *, most_shown: int = 3) -> Problems:
    """Reads every record and decodes every picture; causes come most frequent first."""
    counts = Counter[str]()
    first: dict[str, list[str]] = {}
    for index in range(len(source)):
        cause, said = _problem(source, index)
        if cause:
            counts[cause] += 1
            if len(shown := first.setdefault(cause, [])) < most_shown:
                shown.append(f"record {index}{said}")
    return Problems(
        records=len(source),
        counts=dict(counts.most_common()),
        first={cause: tuple(shown) for cause, shown in first.items()},
    )


def _problem(source: Source, index: int) -> tuple[str, str]:
    """A record's cause, "" for none, and what else its error says."""
    try:
        document = source.document(index)
        for ref in document.pictures:
            try:
                open_picture(source.picture(ref))
            except ImageError as error:
                return UNREADABLE_PICTURE, f": {document.key}: {error.problem}"
    except BadRecordError as error:
        return error.problem, f": {error.actual}" if error.actual is not None else ""
    return "", ""
