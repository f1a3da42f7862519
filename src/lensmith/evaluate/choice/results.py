"""The file of results: a head that says what was asked of which model, then one record a question, as they come.

A later run with the same head goes on where the file ends. A last line without its line break is a record that a crash
cut off; it is dropped. Anything else in the file that is not a record, or another head, is refused: numbers of two
models, files or modes never mix.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lensmith.core.errors import InputError
from lensmith.core.files import is_stream, lock, open_output
from lensmith.evaluate.choice.answers import READING_VERSION
from lensmith.evaluate.choice.question import PROMPT_VERSION, HowAsked, Mode, Result

FORMAT = "lensmith choice results"
_VERSION = 1
_HINT = "give another --out, or remove this file"


@dataclass(frozen=True, kw_only=True)
class ResultsHead:
    """What all results of a file share.

    The same model has the same `identity` (of its configuration and how it reads a question) and a `probe` (some of its
    logprobs) that differs by `tolerance` at most.
    """

    file: str
    file_sha256: str
    model: str
    identity: str
    probe: tuple[float, ...]
    tolerance: float
    how: HowAsked

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": _VERSION,
            "prompt_version": PROMPT_VERSION,
            "reading_version": READING_VERSION if self.how.mode is Mode.GENERATION else None,
            "file": self.file,
            "file_sha256": self.file_sha256,
            "model": self.model,
            "model_identity": self.identity,
            "model_probe": list(self.probe),
            **self.how.to_dict(),
        }


class ResultsFile:
    """Results on disk; `done` by id. Without a path they are only remembered."""

    def __init__(self, file: BinaryIO | None, how: HowAsked, done: dict[str, Result]) -> None:
        self._file, self._how, self.done = file, how, done

    def add(self, result: Result) -> None:
        """Appends one record. It is in the file, whatever becomes of this process, when the call returns."""
        self.done[result.id] = result
        if self._file is not None:
            self._file.write(_line(result.to_dict(self._how)))
            self._file.flush()


@contextlib.contextmanager
def open_results(path: Path | None, head: ResultsHead) -> Iterator[ResultsFile]:
    """The results in `path`, made if need be. Raises InputError where it holds others, or something else.

    A pipe or a stream of this process gets the head and every result: nothing can be read back from it.
    """
    if path is None:
        yield ResultsFile(None, head.how, {})
        return
    if is_stream(path):
        with open_output(path) as stream:
            stream.write(_line(head.to_dict()))
            yield ResultsFile(stream, head.how, {})
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        lock(file.fileno(), path)  # two runs at once would answer everything twice
        done = _resume(file, path, head)
        yield ResultsFile(file, head.how, done)
        os.fsync(file.fileno())


def _resume(file: BinaryIO, path: Path, head: ResultsHead) -> dict[str, Result]:
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines()
    if not lines and content and not _line(head.to_dict()).startswith(content):
        raise InputError(f"{path}: not a file of results", actual="no whole line", hint=_HINT)
    if whole < len(content):
        file.truncate(whole)
    if not lines:
        file.write(_line(head.to_dict()))
        file.flush()
        return {}
    _same_head(_record(lines[0], path, 1), head, path)
    done = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            result = Result.from_dict(_record(line, path, number))
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error.problem}", actual=error.actual, hint=_HINT) from error
        done[result.id] = result
    return done


def _record(line: bytes, path: Path, number: int) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}: line {number} is not JSON", actual=str(error), hint=_HINT) from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: line {number} is not a record", actual=type(values).__name__, hint=_HINT)
    return values


def _same_head(found: Mapping[str, Any], head: ResultsHead, path: Path) -> None:
    if found.get("format") != FORMAT:
        raise InputError(f"{path}: not a file of results", expected=f"a head with format {FORMAT!r}", hint=_HINT)
    # Names may change where what they name does not.
    free = ("file", "model", "model_probe")
    wanted = {name: value for name, value in head.to_dict().items() if name not in free}
    others = [name for name, value in wanted.items() if found.get(name) != value]
    if not _is_near(found.get("model_probe"), head.probe, head.tolerance):
        others.append("model_probe")
        wanted["model_probe"] = list(head.probe)
    if others:
        raise InputError(
            f"{path}: results of something else, which cannot be gone on with",
            expected=", ".join(f"{name} {_short(wanted[name])}" for name in others),
            actual=", ".join(f"{name} {_short(found.get(name))}" for name in others),
            hint=_HINT,
        )


def _is_near(found: Any, probe: tuple[float, ...], tolerance: float) -> bool:
    try:
        return len(found) == len(probe) and all(abs(a - b) <= tolerance for a, b in zip(found, probe, strict=True))
    except TypeError:
        return False


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"
