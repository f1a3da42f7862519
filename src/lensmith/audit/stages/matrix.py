"""A matrix of logits that grows in both directions as an audit needs more, and is never read twice.

Columns come in groups, each with its rows in a file of its own: when the matrix grows, old rows get the new columns and
new rows get all. Rows may grow for the first groups alone. Every call reads a reference column besides, and what is
kept are differences to it, so that calls which return logits up to different constants fit together.

A group's file is a JSON header line that names its columns, then float64 rows, little-endian, appended as they come:
what a crash cannot take, nobody pays twice. Each row ends with the resolution that it was read to. A row that a crash
cut short is cut off when the file is opened.

Legend: N rows (contexts), M columns (tokens).
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.estimators.spectrum import drop_missing
from lensmith.audit.findings.finding import Cost
from lensmith.audit.querying.contexts import Contexts
from lensmith.audit.readouts.base import LogitReader
from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import Endpoint
from lensmith.core.errors import InputError
from lensmith.core.files import write_atomic


class RowStore:
    """Rows (n, m) of one matrix, in a file. `extend` appends; `matrix` is what is there, `resolution_nats` how exact.

    `purpose` and `columns` must be those that the file was begun with: else InputError. `rows_at_once` are kept whole:
    what a crash left of such a group is cut off with the row that was cut short.
    """

    def __init__(self, path: Path, purpose: str, columns: Sequence[int], *, rows_at_once: int = 1) -> None:
        self.path = path
        self.columns = tuple(int(column) for column in columns)
        header = json.dumps({"purpose": purpose, "columns": self.columns, "then": "resolution_nats"}).encode() + b"\n"
        self._row_bytes = 8 * (len(self.columns) + 1)
        if path.exists():
            self._start = _checked_start(path, header)
            rows = (path.stat().st_size - self._start) // self._row_bytes
            rows -= rows % rows_at_once
            os.truncate(path, self._start + rows * self._row_bytes)
        else:
            write_atomic(path, header)
            self._start, rows = len(header), 0
        self.num_rows = rows

    def extend(self, rows_NM: NDArray[np.float64], resolution_nats: float) -> None:
        """Appends rows (n, m) and sees that they are on the disk."""
        assert rows_NM.ndim == 2 and rows_NM.shape[1] == len(self.columns), "rows of another matrix"
        with self.path.open("ab") as file:
            file.write(np.insert(rows_NM, rows_NM.shape[1], resolution_nats, axis=1).astype("<f8").tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.num_rows += len(rows_NM)

    def matrix(self) -> NDArray[np.float64]:
        """All rows (n, m), mapped from the file rather than read."""
        return self._mapped()[:, :-1]

    def resolution_nats(self, rows: int) -> float:
        """That of the first rows, as `Reading` has it."""
        return float(np.sqrt((self._mapped()[:rows, -1] ** 2).mean())) if self.num_rows else 0.0

    def _mapped(self) -> NDArray[np.float64]:
        shape = (self.num_rows, len(self.columns) + 1)
        if self.num_rows == 0:
            return np.empty(shape)
        return np.memmap(self.path, dtype="<f8", mode="r", offset=self._start, shape=shape)


def _checked_start(path: Path, header: bytes) -> int:
    with path.open("rb") as file:
        found = file.readline()
    if found != header:
        raise InputError(f"{path} holds rows of another matrix", hint="choose another --out")
    return len(header)


_QUERIES_A_CALL = 256
"""What is read between two writes to the disk."""
_LEAST_ROWS = 16
"""Readers that go step by step within a row ask for several rows at a time."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Differences (N, M), and which token each column is; the reference comes first, and is 0."""

    logits_NM: NDArray[np.float64]
    token_ids_M: IdArray


class GrowingMatrix:
    """Differences to the reference column, (N, M), of `contexts` by `columns`, read through one read-out.

    `columns` are candidates in the order in which they are taken; `columns[0]` is the reference and not in the matrix.
    A reader of several positions gives so many rows a context.
    """

    def __init__(self, folder: Path, contexts: Contexts, reader: LogitReader, columns: IdArray) -> None:
        self.folder = folder
        self.contexts = contexts
        self.reader = reader
        self._positions = int(getattr(reader, "positions", 1))
        self.columns = columns
        self._groups: dict[int, RowStore] = {}

    @property
    def most_columns(self) -> int:
        return len(self.columns) - 1

    def cost_of(self, rows: int, columns: int) -> Cost:
        """What growing to (rows, columns) takes: nothing for what is there."""
        spans = self._spans(columns)
        there = [min(rows, self._rows_there(start, stop)) for start, stop in spans]
        costs = [
            self.reader.queries_for(max(there) - had, stop - start + 1)
            for (start, stop), had in zip(spans, there, strict=True)
            if had < max(there)
        ]
        if max(there) < rows:
            costs.append(self.reader.queries_for(rows - max(there), spans[-1][1] + 1))
        return Cost(
            queries=sum(cost.queries for cost in costs), tokens=sum(cost.tokens for cost in costs), extrapolated=True
        )

    def grow(self, endpoint: Endpoint, rows: int, columns: int, on_rows: Callable[[int, int], None]) -> None:
        """Reads what is missing up to (rows, columns). Rows that were read stay if it ends early.

        A group that is behind catches up by itself; rows that all groups lack are read for all of them at once, so
        that calls which tell several columns are full.
        """
        groups = [self._group(start, stop) for start, stop in self._spans(columns)]
        first_rows = min(rows, max(group.num_rows for group in groups))
        for group in groups:
            self._read(endpoint, [group], first_rows, lambda done: on_rows(done, rows))
        self._read(endpoint, groups, rows, lambda done: on_rows(done, rows))

    def _read(self, endpoint: Endpoint, groups: list[RowStore], rows: int, on_done: Callable[[int], None]) -> None:
        """Brings groups that have the same number of rows up to `rows`."""
        ids = np.concatenate([self.columns[:1], *(group.columns for group in groups)])
        at_once = max(_LEAST_ROWS, _QUERIES_A_CALL // max(1, self.reader.queries_for(1, len(ids)).queries))
        ends = np.cumsum([len(group.columns) for group in groups])
        while (there := groups[0].num_rows) < rows:
            first, last = there // self._positions, -(-min(rows, there + at_once) // self._positions)
            contexts = self.contexts.take(first, last)
            reading = self.reader.read(endpoint, contexts, ids)
            logits_NM = reading.logits_NM
            parts = np.split(logits_NM[:, 1:] - logits_NM[:, :1], ends[:-1], axis=1)
            for group, part_NM in zip(groups, parts, strict=True):
                group.extend(part_NM, reading.resolution_nats)
            on_done(groups[0].num_rows)

    def resolution_nats(self, rows: int, columns: int) -> float:
        """To how many nats the values were read: the root mean square over all of them."""
        spans = self._spans(columns)
        squares = [self._group(*span).resolution_nats(rows) ** 2 for span in spans]
        widths = [min(stop, columns) - start for start, stop in spans]
        return float(np.sqrt(np.average(squares, weights=widths)))

    def whole(self, rows: int, columns: int, *, first_row: int = 0) -> Part:
        """The differences as they were read; NaN where one could not be."""
        parts = [
            self._group(start, stop).matrix()[first_row:rows, : columns - start] for start, stop in self._spans(columns)
        ]
        # The reference is a column like the others: its difference to itself is 0.
        whole_NM = np.concatenate([np.zeros((rows - first_row, 1)), *parts], axis=1)
        return Part(logits_NM=whole_NM, token_ids_M=self.columns[: 1 + columns])

    def complete(self, rows: int, columns: int) -> Part:
        """The differences without rows or columns that could not be read whole: nothing is filled, since filled values
        would break the rank."""
        whole = self.whole(rows, columns)
        kept = drop_missing(whole.logits_NM)
        return Part(
            logits_NM=np.asarray(kept.matrix_NM, dtype=np.float64), token_ids_M=whole.token_ids_M[kept.tokens_M]
        )

    def _spans(self, columns: int) -> list[tuple[int, int]]:
        """The groups that hold the first `columns` columns. A new group begins where the old ones end."""
        spans = [(start, start + len(group.columns)) for start, group in self._groups.items() if start < columns]
        end = spans[-1][1] if spans else 0
        return [*spans, (end, columns)] if end < columns else spans

    def _rows_there(self, start: int, stop: int) -> int:
        is_there = start in self._groups or self._path(start, stop).exists()
        return self._group(start, stop).num_rows if is_there else 0

    def _path(self, start: int, stop: int) -> Path:
        return self.folder / f"{self.reader.read_out.value}-{start}-{stop}.rows"

    def _group(self, start: int, stop: int) -> RowStore:
        if start in self._groups:
            return self._groups[start]
        ids = [int(token_id) for token_id in self.columns[1 + start : 1 + stop]]
        purpose = f"{self.contexts.form.value} {self.contexts.seed} minus {int(self.columns[0])}"
        purpose += f", {self._positions} positions" if self._positions > 1 else ""
        store = RowStore(self._path(start, stop), purpose, ids, rows_at_once=self._positions)
        self._groups[start] = store
        return store
