"""A matrix of logits that grows in both directions as an audit needs more, and is never read twice.

Columns come in groups, each with its rows in a file of its own: when the matrix grows, old rows get the new columns and
new rows get all. Every call reads a reference column besides, and what is kept are differences to it, so that calls
which tell logits up to different constants fit together.

Legend: N rows (contexts), M columns (tokens).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.contexts import Contexts
from lensmith.audit.findings import Cost
from lensmith.audit.reading import Reader
from lensmith.audit.rows import RowStore
from lensmith.core.endpoint import Endpoint, IdArray

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
    """

    def __init__(self, folder: Path, contexts: Contexts, reader: Reader, columns: IdArray) -> None:
        self.folder = folder
        self.contexts = contexts
        self.reader = reader
        self.columns = columns
        self._groups: list[RowStore] = []

    @property
    def most_columns(self) -> int:
        return len(self.columns) - 1

    def cost_of(self, rows: int, columns: int) -> Cost:
        """What growing to (rows, columns) takes: nothing for what is there. An upper bound where groups share calls."""
        queries = tokens = 0
        for start, stop in self._spans(columns):
            there = self._rows_there(start, stop)
            if there < rows:
                cost = self.reader.queries_for(rows - there, stop - start + 1)
                queries, tokens = queries + cost.queries, tokens + cost.tokens
        return Cost(queries=queries, tokens=tokens, extrapolated=True)

    def grow(self, endpoint: Endpoint, rows: int, columns: int, on_rows: Callable[[int, int], None]) -> None:
        """Reads what is missing up to (rows, columns). Rows that were read stay if it ends early."""
        for start, stop in self._spans(columns):
            group = self._group(start, stop)
            ids = np.concatenate([self.columns[:1], self.columns[1 + start : 1 + stop]])
            at_once = max(_LEAST_ROWS, _QUERIES_A_CALL // max(1, self.reader.queries_for(1, len(ids)).queries))
            while group.num_rows < rows:
                end = min(rows, group.num_rows + at_once)
                reading = self.reader.read(endpoint, self.contexts.take(group.num_rows, end), ids)
                logits_NM = reading.logits_NM
                group.extend(logits_NM[:, 1:] - logits_NM[:, :1])
                on_rows(group.num_rows, rows)

    def whole(self, rows: int, columns: int) -> Part:
        """The differences as they were read; NaN where one could not be."""
        parts = [self._group(start, stop).matrix()[:rows] for start, stop in self._spans(columns)]
        return Part(
            logits_NM=np.concatenate([np.zeros((rows, 1)), *parts], axis=1), token_ids_M=self.columns[: 1 + columns]
        )

    def complete(self, rows: int, columns: int) -> Part:
        """The differences without rows or columns that could not be read whole.

        A column that fails in more than a tenth of the rows goes first, then every row that still has a hole: nothing
        is filled, since filled values would break the rank.
        """
        whole_NM = self.whole(rows, columns).logits_NM[:, 1:]
        bad_columns_M = np.isnan(whole_NM).mean(axis=0) > 0.1
        kept_NM = whole_NM[:, ~bad_columns_M]
        rows_N = np.isfinite(kept_NM).all(axis=1)
        # The reference is a column like the others: its difference to itself is 0.
        logits_NM = np.concatenate([np.zeros((int(rows_N.sum()), 1)), kept_NM[rows_N]], axis=1)
        ids_M = self.columns[1 : 1 + columns][~bad_columns_M]
        return Part(logits_NM=logits_NM, token_ids_M=np.concatenate([self.columns[:1], ids_M]))

    def _spans(self, columns: int) -> list[tuple[int, int]]:
        """The groups that make up the first `columns` columns. A new group begins where the old ones end."""
        spans, start = [], 0
        for group in self._groups:
            spans.append((start, start + len(group.columns)))
            start = spans[-1][1]
        if start < columns:
            spans.append((start, columns))
        return spans

    def _rows_there(self, start: int, stop: int) -> int:
        starts = [first for first, _ in self._spans(0)]
        return self._groups[starts.index(start)].num_rows if start in starts else 0

    def _group(self, start: int, stop: int) -> RowStore:
        starts = [first for first, _ in self._spans(0)]
        if start in starts:
            return self._groups[starts.index(start)]
        path = self.folder / f"{self.reader.read_out.value}-{start}-{stop}.rows"
        ids = [int(token_id) for token_id in self.columns[1 + start : 1 + stop]]
        purpose = f"{self.contexts.form.value} {self.contexts.seed} minus {int(self.columns[0])}"
        store = RowStore(path, purpose, ids)
        self._groups.append(store)
        return store
