"""Says while outputs come in when their rank seems reached, so that a precise endpoint is not asked for more.

Gram-Schmidt: what each new context adds to those before it. From float32 logprobs the addition falls by orders of
magnitude at the first context beyond the rank; from coarse ones it fades, the watch stays silent, and the caller reads
whole batches as planned. It proves nothing by itself: what it stops is confirmed by `estimate_width`.

Legend: N contexts, M tokens, B contexts of one batch, R directions so far.
"""

import numpy as np

from lensmith.audit.spectrum import Float64Array
from lensmith.core.endpoint import FloatArray
from lensmith.core.errors import InputError, ShapeError

_MEMORY = 24
"""Contexts before the fall that it is compared with."""
_UNSETTLED = 8
"""Contexts right after the fall, in which the noise of those before it is still many times enlarged."""


class RankWatch:
    """Takes contexts as they come. `reached` is the rank that they seem to have, None until it shows.

    `fall`: how many times less than the 24 contexts before (or as many as there were) add in the median all later ones
    must add, of which there must be `spare` beyond the first 8. Memory: float64, contexts x tokens.
    """

    def __init__(self, *, spare: int = 4, fall: float = 20.0) -> None:
        self.spare = spare
        self.fall = fall
        self.contexts = 0
        self.reached: int | None = None
        self._basis_RM: Float64Array = np.zeros((0, 0))
        self._directions = 0
        self._added: list[float] = []
        self._looked = 1
        self._fell_at: int | None = None

    def push(self, outputs_BM: FloatArray) -> int | None:
        """Adds contexts (B, M) and returns `reached`. Raises ShapeError unless all have the same tokens, InputError for
        values that are not finite."""
        if outputs_BM.ndim != 2 or (self.contexts and outputs_BM.shape[1] != self._basis_RM.shape[1]):
            expected = f"B x {self._basis_RM.shape[1]}" if self.contexts else "contexts x tokens"
            raise ShapeError("contexts differ in their tokens", expected=expected, actual=outputs_BM.shape)
        rows_BM = outputs_BM.astype(np.float64)
        rows_BM -= rows_BM.mean(axis=1, keepdims=True)
        norms_B = np.sqrt((rows_BM**2).sum(axis=1))
        if not np.isfinite(norms_B).all():
            raise InputError("outputs with missing values", expected="finite values")
        rows_BM /= np.maximum(norms_B, np.finfo(np.float64).tiny)[:, None]
        for start in range(0, len(rows_BM), 64):
            self._add(rows_BM[start : start + 64])
        self._look()
        return self.reached

    def _add(self, rows_BM: Float64Array) -> None:
        basis_RM = self._basis_RM[: self._directions]
        for _ in range(2 if len(basis_RM) else 0):  # once leaves rounding errors as large as what a context adds
            rows_BM = rows_BM - (rows_BM @ basis_RM.T) @ basis_RM
        directions_MB, triangle_BB = np.linalg.qr(rows_BM.T)
        self._added.extend(np.abs(np.diagonal(triangle_BB)))
        self._added.extend([0.0] * (len(rows_BM) - triangle_BB.shape[0]))
        self.contexts += len(rows_BM)
        self._append(directions_MB.T)

    def _append(self, new_BM: Float64Array) -> None:
        needed = self._directions + len(new_BM)
        if needed > len(self._basis_RM):
            grown = np.zeros((max(needed, 2 * len(self._basis_RM)), new_BM.shape[1]))
            if self._directions:
                grown[: self._directions] = self._basis_RM[: self._directions]
            self._basis_RM = grown
        self._basis_RM[self._directions : needed] = new_BM
        self._directions = needed

    def _look(self) -> None:
        """The first context around which what is added falls for good, and how many contexts add more than that."""
        added_N = np.array(self._added)
        if self._fell_at is not None and self._levels(added_N, self._fell_at) is None:
            self._fell_at = None
        while self._fell_at is None and self._looked + _UNSETTLED + self.spare <= len(added_N):
            if self._levels(added_N, self._looked) is not None:
                self._fell_at = self._looked
            self._looked += 1
        levels = None if self._fell_at is None else self._levels(added_N, self._fell_at)
        self.reached = None if levels is None else int((added_N > np.sqrt(levels[0] * levels[1])).sum())

    def _levels(self, added_N: Float64Array, place: int) -> tuple[float, float] | None:
        """What contexts add shortly before a place, and at most some way after it; None unless it falls between."""
        before = float(np.median(added_N[max(0, place - _MEMORY) : place]))
        after = max(float(added_N[place + _UNSETTLED :].max()), np.finfo(np.float64).tiny)
        return (before, after) if after * self.fall < before else None
