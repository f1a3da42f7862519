"""The rows of logits that an audit has read so far, on disk as they come: what a crash cannot take, nobody pays twice.

One file a matrix: a JSON header line that names its columns, then float64 rows, little-endian, appended. A row that was
cut short by a crash is cut off when the file is opened.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lensmith.core.errors import InputError


class RowStore:
    """Rows (n, m) of one matrix, in a file. `extend` appends; `matrix` is what is there.

    `purpose` and `columns` must be those that the file was begun with: else InputError.
    """

    def __init__(self, path: Path, purpose: str, columns: Sequence[int]) -> None:
        self.path = path
        self.columns = tuple(int(column) for column in columns)
        header = json.dumps({"purpose": purpose, "columns": self.columns}).encode() + b"\n"
        self._row_bytes = 8 * len(self.columns)
        if path.exists():
            self._start = _checked_start(path, header)
            rows = (path.stat().st_size - self._start) // self._row_bytes
            os.truncate(path, self._start + rows * self._row_bytes)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(header)
            self._start, rows = len(header), 0
        self.num_rows = rows

    def extend(self, rows_NM: NDArray[np.float64]) -> None:
        """Appends rows (n, m) and sees that they are on the disk."""
        assert rows_NM.ndim == 2 and rows_NM.shape[1] == len(self.columns), "rows of another matrix"
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(rows_NM, dtype="<f8").tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.num_rows += len(rows_NM)

    def matrix(self) -> NDArray[np.float64]:
        """All rows (n, m), mapped from the file rather than read."""
        if self.num_rows == 0:
            return np.empty((0, len(self.columns)))
        return np.memmap(self.path, dtype="<f8", mode="r", offset=self._start, shape=(self.num_rows, len(self.columns)))


def _checked_start(path: Path, header: bytes) -> int:
    with path.open("rb") as file:
        found = file.readline()
    if found != header:
        raise InputError(f"{path} holds rows of another matrix", hint="choose another --out")
    return len(header)
