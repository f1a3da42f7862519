"""Records of a JSON-lines file or a tab-separated table, with where each lies, so that one can be read again alone.

A table's cells may be quoted and hold line breaks, as pandas writes them. A quote that is never closed would swallow
the rest of the file; such a record ends with its own line, and reading goes on with the next.
"""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record: its first line (from 1), where its bytes begin and end, its values; `problem` where it has none."""

    line: int
    offset: int
    end: int
    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Records:
    """Iterates over a file's records; `columns` are a table's."""

    def __init__(self, path: Path, *, is_table: bool) -> None:
        self.path, self.is_table = path, is_table
        self.columns: tuple[str, ...] = ()
        if is_table:
            with path.open("rb") as file:
                first = next(_table_rows(file, 0, 1), None)
            self.columns = tuple(cell.strip() for cell in first.cells) if first else ()

    def __iter__(self) -> Iterator[Record]:
        return self._table() if self.is_table else self._lines()

    def _lines(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            offset = 0
            for line, raw in enumerate(file, start=1):
                begin, offset = offset, offset + len(raw)
                if raw.removeprefix(_BOM).strip():
                    yield _json_record(raw, line, begin, offset)

    def _table(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            rows = _table_rows(file, 0, len(self.columns))
            next(rows, None)
            for row in rows:
                if any(cell.strip() for cell in row.cells):
                    yield _table_record(row, self.columns)


def record_at(path: Path, offset: int, columns: tuple[str, ...]) -> Record:
    """The record that begins at `offset`; of a table with `columns`, else of JSON lines."""
    with path.open("rb") as file:
        file.seek(offset)
        if not columns:
            raw = file.readline()
            return _json_record(raw, 0, offset, offset + len(raw))
        row = next(_table_rows(file, offset, len(columns)))
        return _table_record(row, columns)


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    offset: int
    end: int
    cells: list[str]
    problem: str = ""


class _Lines:
    """A file's lines as text, one at a time; knows where the next begins. The csv reader takes as many as it needs."""

    def __init__(self, file: BinaryIO, offset: int, line: int) -> None:
        self._file, self.offset, self.line = file, offset, line
        self.is_broken = False
        file.seek(offset)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        text = (raw.removeprefix(_BOM) if self.offset == 0 else raw).decode("utf-8", "surrogateescape")
        self.is_broken |= any("\udc80" <= char <= "\udcff" for char in text) if not text.isascii() else False
        self.offset += len(raw)
        self.line += 1
        return text


def _table_rows(file: BinaryIO, offset: int, width: int) -> Iterator[_Row]:
    """Rows from `offset` on. One of several lines that does not have `width` cells is cut after its first line."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        lines = _Lines(file, offset, 1)
        reader = csv.reader(lines, dialect="excel-tab")
        while True:
            begin, line, lines.is_broken = lines.offset, lines.line, False
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _Row(line=line, offset=begin, end=lines.offset, cells=["?"], problem=f"not a row: {error}")
                reader = csv.reader(lines, dialect="excel-tab")
                continue
            if lines.line - line > 1 and len(cells) != width and offset + begin > 0:
                lines = _Lines(file, begin, line)
                next(lines)
                reader = csv.reader(lines, dialect="excel-tab")
                problem = "a quote is opened and not closed, or cells are missing"
                yield _Row(line=line, offset=begin, end=lines.offset, cells=["?"], problem=problem)
                continue
            problem = "not UTF-8" if lines.is_broken else ""
            yield _Row(line=line, offset=begin, end=lines.offset, cells=cells, problem=problem)
    finally:
        csv.field_size_limit(limit)


def _table_record(row: _Row, columns: tuple[str, ...]) -> Record:
    problem = row.problem
    if not problem and len(row.cells) != len(columns):
        problem = f"{len(row.cells)} cells, where the table has {len(columns)} columns"
    values = {} if problem else dict(zip(columns, row.cells, strict=True))
    return Record(line=row.line, offset=row.offset, end=row.end, values=values, problem=problem)


def _json_record(raw: bytes, line: int, offset: int, end: int) -> Record:
    values: Any = None
    try:
        values = json.loads(raw.decode("utf-8-sig").strip())
        problem = "" if isinstance(values, dict) else f"not a JSON object, but {type(values).__name__}"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: {error.reason} at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at character {error.pos + 1}"
    except RecursionError:
        problem = "not JSON that can be read: nested too deeply"
    except ValueError as error:  # a number of thousands of digits
        problem = f"not JSON that can be read: {error}"
    return Record(line=line, offset=offset, end=end, values={} if problem else values, problem=problem)
