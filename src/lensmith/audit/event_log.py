"""An audit's log: a header that says which audit it is, then one JSON object a line, flushed as it is written."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lensmith.core.errors import ConfigError, InputError


class EventLog:
    """An audit's JSONL file: a header that says which audit it is, then one event a line, flushed as it is written.

    Raises ConfigError where the file belongs to another audit. A last line that a crash cut short is dropped.
    """

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
