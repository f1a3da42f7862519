"""An audit's log: a header that says which audit it is, then one JSON object a line, flushed as it is written.

An audit's log stays, and answers what it can when the same audit is run again. What is to report on today (a snapshot,
a signature) notes at its end that it is finished, and the next run asks all anew.
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lensmith.core.errors import ConfigError, InputError, NotExposedError

LOG_NAME, MATRICES_NAME = "events.jsonl", "matrices"
"""A session's log, and what it has read of matrices, in its folder."""
_FINISHED = b'{"event": "finished"}\n'


class EventLog:
    """The file. Raises ConfigError where it belongs to another audit. A last line that a crash cut short is dropped."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.past: list[dict[str, Any]] = []
        _make_folder(path)
        lines = list(_whole_lines(path))
        if lines:
            _check_header(lines[0], header, path)
            self.past = lines[1:]
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        if not lines:
            self.write("audit", **header)

    def write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}, sort_keys=True)
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        with self._lock:
            if not self._file.closed:
                os.fsync(self._file.fileno())
                self._file.close()


@contextlib.contextmanager
def asked_anew(folder: Path) -> Iterator[None]:
    """For a session in `folder` that is to tell what holds now: removes what a finished one left there, and keeps what
    an unfinished one did. Whoever has an answer calls `mark_finished`; that nothing is told is an answer too."""
    path = folder / LOG_NAME
    if path.is_file() and _last_line(path) == _FINISHED:
        shutil.rmtree(folder / MATRICES_NAME, ignore_errors=True)
        if (folder / MATRICES_NAME).exists():
            raise ConfigError(
                f"{folder / MATRICES_NAME} cannot be removed", expected="what an earlier run read", hint="remove it"
            )
        path.unlink()  # last: without it nobody knows what the rest is
    try:
        yield
    except NotExposedError:
        mark_finished(folder)
        raise


def mark_finished(folder: Path) -> None:
    """Says that the log's session has told what it was to tell; where there is a log, which is closed."""
    path = folder / LOG_NAME
    if path.is_file():
        with path.open("ab") as file:
            file.write(_FINISHED)
            file.flush()
            os.fsync(file.fileno())


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_FINISHED) - 1))
        return file.read().rpartition(b"\n" + _FINISHED)[1][1:]


def _make_folder(path: Path) -> None:
    """Raises ConfigError where the log's folder, or the log, cannot be one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path.parent} cannot hold an audit", expected="a folder", actual="a file", hint="choose another --out"
        ) from error
    if path.is_dir():
        raise ConfigError(
            f"{path} cannot hold a log", expected="a file", actual="a folder", hint="choose another --out"
        )


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The file's events; what a crash left of a last line is cut off the file, so that the next line stands alone."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                event = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path} is damaged", expected="one JSON object a line", actual=error) from error
            end += len(line)
            yield event
    if end < path.stat().st_size:
        os.truncate(path, end)


def _check_header(found: Mapping[str, Any], header: Mapping[str, Any], path: Path) -> None:
    there = {key: value for key, value in found.items() if key != "event"}
    wanted = json.loads(json.dumps(header))
    if there != wanted:
        different = sorted(key for key in {*there, *wanted} if there.get(key) != wanted.get(key))
        raise ConfigError(
            f"{path} belongs to another audit (different: {', '.join(different)})",
            expected={key: wanted.get(key) for key in different},
            actual={key: there.get(key) for key in different},
            hint="choose another --out, or the options that it was begun with",
        )
