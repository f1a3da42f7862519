"""Lower triangular systems in blocks: numpy solves none, and with blocks nearly all work is matrix products.

Legend: R rows of the triangle, T right-hand sides, B new rows.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

_BLOCK = 256


class Triangle:
    """A lower triangular matrix that grows by rows. `room`: how many are expected. Memory: the square of them."""

    def __init__(self, room: int = 0) -> None:
        self.size = 0
        self._rows_RR: Float64Array = np.zeros((room, room))
        self._inverses: list[Float64Array] = []

    def forward(self, right_RT: Float64Array) -> Float64Array:
        """X (R, T), such that the triangle times X is `right_RT`."""
        solved_RT = right_RT.copy()
        for block, inverse in zip(self._blocks(), self._inverses, strict=True):
            left_BT = solved_RT[block] - self._rows_RR[block, : block.start] @ solved_RT[: block.start]
            solved_RT[block] = inverse @ left_BT
        return solved_RT

    def backward(self, right_RT: Float64Array) -> Float64Array:
        """X (R, T), such that the transposed triangle times X is `right_RT`."""
        solved_RT = right_RT.copy()
        for block, inverse in reversed(list(zip(self._blocks(), self._inverses, strict=True))):
            left_BT = solved_RT[block] - self._rows_RR[block.stop : self.size, block].T @ solved_RT[block.stop :]
            solved_RT[block] = inverse.T @ left_BT
        return solved_RT

    def extend(self, along_BR: Float64Array, corner_BB: Float64Array) -> None:
        """Adds rows: what stands under the triangle so far, and their own triangle, whose diagonal has no zero."""
        before, self.size = self.size, self.size + len(corner_BB)
        if self.size > len(self._rows_RR):
            rows_RR = np.zeros((max(self.size, 2 * len(self._rows_RR)),) * 2)
            rows_RR[:before, :before] = self._rows_RR[:before, :before]
            self._rows_RR = rows_RR
        self._rows_RR[before : self.size, :before] = along_BR
        self._rows_RR[before : self.size, before : self.size] = corner_BB
        whole = before // _BLOCK
        del self._inverses[whole:]
        for block in itertools.islice(self._blocks(), whole, None):
            self._inverses.append(np.asarray(np.linalg.inv(self._rows_RR[block, block]), dtype=np.float64))

    def _blocks(self) -> list[slice]:
        return [slice(start, min(start + _BLOCK, self.size)) for start in range(0, self.size, _BLOCK)]
