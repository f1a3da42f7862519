"""How a matrix of outputs grows from size to size, and stops early where its rank seems reached."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from lensmith.audit.growth import GrowingMatrix
from lensmith.audit.meter import Meter
from lensmith.audit.rank_watch import RankWatch

FIRST_ROWS = 64
GROWTH = 1.5
_STEP = 32
_AT_ONCE = 512
"""Contexts shown to the watch at a time: what they need in memory beside the matrix."""
_SPARE = 16
"""Contexts beyond the rank on which a width is confirmed, two parts of which share all but half of them."""


class WatchedGrowth:
    """One matrix that grows from size to size; `is_watched`: its values are as precise as a float32."""

    def __init__(self, meter: Meter, matrix: GrowingMatrix, *, is_watched: bool) -> None:
        self._meter, self._matrix = meter, matrix
        self._is_watched = is_watched
        self._watched_columns = self._watched_rows = 0
        self._ahead = GROWTH**2

    def to(self, rows: int, columns: int, on_rows: Callable[[int, int], None]) -> Iterator[int]:
        """Grows the matrix and yields its number of rows when it is time to look: at the end, and if watched also when
        the rank seems reached, which saves what a matrix is usually read beyond it."""
        # Few contexts too many are read, and many at once.
        step = _STEP * (1 if rows < 1024 else 2 if rows < 2048 else 4)
        for rows_read in range(FIRST_ROWS, rows, step):
            if not self._is_watched:
                break
            if rows_read <= self._watched_rows:
                continue
            self._matrix.grow(self._meter, rows_read, columns, on_rows)
            if self._seems_reached(rows_read, rows, columns):
                yield rows_read
                break
        self._matrix.grow(self._meter, rows, columns, on_rows)
        yield rows

    def _seems_reached(self, rows_read: int, rows: int, columns: int) -> bool:
        """Shows the watch what was read; a few more columns than rows show how many of these are independent."""
        if self._watched_columns < min(columns, rows + _STEP):
            # Enough for the next two sizes too, where they are there: a new start takes as long as all before it.
            last_rows = math.ceil(self._ahead * rows)
            self._watched_columns, self._watched_rows = min(columns, last_rows + _STEP), 0
            self._watch = RankWatch(room=min(last_rows, self._watched_columns))
        while self._watched_rows < rows_read:
            until = min(rows_read, self._watched_rows + _AT_ONCE)
            new_NM = self._matrix.whole(until, self._watched_columns, first_row=self._watched_rows).logits_NM
            if not np.isfinite(new_NM).all():
                return self._without_missing(rows_read, rows, columns)
            self._watch.push(new_NM)
            self._watched_rows = until
        reached = self._watch.reached
        return reached is not None and rows_read >= reached + _SPARE

    def _without_missing(self, rows_read: int, rows: int, columns: int) -> bool:
        """The same on no more columns than this size needs, which may all be there; else the watch is over."""
        self._is_watched = self._ahead > 1.0
        self._ahead, self._watched_columns = 1.0, 0
        return self._is_watched and self._seems_reached(rows_read, rows, columns)
