"""Rows of parquet files by their number, from any thread.

Parquet is read by row groups, so what is in one is decoded whole, and the last few are kept: files with pictures want
small groups.
"""

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import sha256_of_bytes

_KEPT_GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class ColumnKind:
    """What a column must hold: whether an Arrow type fits, and what errors call it."""

    words: str
    fits: Callable[[Any], bool]


TEXT = ColumnKind(words="text", fits=lambda kind: bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)))


@dataclass(frozen=True, kw_only=True)
class ParquetRow:
    """A row's Arrow values by column; `key` says where it is."""

    key: str
    values: Mapping[str, Any]


class ParquetRows:
    """The rows of files, one file after the other.

    `columns` are those that are read. The fingerprint is that of the files' footers, which tell sizes and bounds of all
    columns. Raises InputError for a file that is no parquet, ConfigError where a column is missing or of another kind.
    """

    def __init__(self, paths: Sequence[Path], columns: Mapping[str, ColumnKind]) -> None:
        self._paths, self._columns = paths, list(columns)
        self._groups: list[tuple[int, int]] = []
        rows = []
        for file, path in enumerate(paths):
            footer = _footer(path, columns)
            self._groups += [(file, group) for group in range(footer.num_row_groups)]
            rows += [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        self._ends = list(itertools.accumulate(rows))
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        self.fingerprint = sha256_of_bytes(b"".join(map(_footer_bytes, paths)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int) -> ParquetRow:
        """Raises InputError where its row group is damaged."""
        place, row = part_of(self._ends, index)
        file, group = self._groups[place]
        table = self._group(place)
        key = f"{self._paths[file].name}, row group {group}, row {row}"
        return ParquetRow(key=key, values={name: table[name][row] for name in self._columns})

    def _group(self, place: int) -> Any:
        with self._lock:  # a reader of parquet is for one thread
            if place not in self._kept:
                file, group = self._groups[place]
                try:
                    with pq.ParquetFile(self._paths[file]) as reader:
                        self._kept[place] = reader.read_row_group(group, columns=self._columns)
                except (OSError, pa.ArrowException) as error:
                    raise InputError(f"{self._paths[file]}: row group {group} is damaged", actual=error) from error
                while len(self._kept) > _KEPT_GROUPS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(place)
            return self._kept[place]


def part_of(ends: Sequence[int], index: int) -> tuple[int, int]:
    """Which part holds a record, and its number there; parts end before the records `ends`. Raises IndexError."""
    if not 0 <= index < (ends[-1] if ends else 0):
        raise IndexError(index)
    part = bisect.bisect_right(ends, index)
    return part, index - (ends[part - 1] if part else 0)


def _footer(path: Path, columns: Mapping[str, ColumnKind]) -> Any:
    try:
        with pq.ParquetFile(path) as file:
            footer, schema = file.metadata, file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet", actual=error) from error
    for name, kind in columns.items():
        if name not in schema.names or not kind.fits(schema.field(name).type):
            found = ", ".join(f"{each.name} ({each.type})" for each in schema)
            raise ConfigError(f"{path} has no fitting column {name!r}", expected=kind.words, actual=found)
    return footer


def _footer_bytes(path: Path) -> bytes:
    """Schema, sizes and bounds of all columns, as they stand at a file's end, before their length and a mark."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return file.read(length)
