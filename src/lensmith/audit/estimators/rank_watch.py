"""Says while outputs come in when their rank seems reached, or how far away it is, so that no more than that is asked.

What each new context adds to those before it is the diagonal of the Cholesky factor of their Gram matrix, which grows
with them. From float32 logprobs the addition falls by orders of magnitude at the first context beyond the rank; from
coarse ones it fades, the watch stays silent, and the caller reads whole batches as planned. It proves nothing by
itself: what it stops is confirmed by `estimate_width`. It needs no resolution of what it is shown for that reason:
errors that come out the same each time may end in a fall of their own, at which it stops, and the width's estimate,
which knows how large they are, takes them for no rank.

That takes N^2 M + N^3 / 3 multiplications and additions for N contexts, a third of what orthogonalising the contexts
twice would take, nearly all of them in matrix products. The price is that no addition below 1e-7 of a context's own
length is seen, as everywhere where a Gram matrix is used.

Legend: N contexts, M tokens, B contexts of one batch, R contexts that added something, K orders.
"""

import numpy as np

from lensmith.audit.estimators.cholesky import Triangle
from lensmith.core.arrays import Float64Array, FloatArray, IdArray
from lensmith.core.errors import InputError, ShapeError

_MEMORY = 24
"""Contexts before the fall that it is compared with."""
_FLOOR = 1e-7
"""What adds less than this part of its own length adds nothing that a Gram matrix can tell from rounding."""
_AT_ONCE = 128
"""Contexts whose own factor is made one by one; all else is matrix products."""
_UNSETTLED = 8
"""Contexts right after the fall, in which the noise of those before it is still many times enlarged."""
_ORDERS = 64
"""Orders of the same contexts over which what they add is averaged."""
_FEWEST = 4
_NOTHING = 10.0
"""What a context adds beyond the rank is at most so many times the energy of its errors."""


class RankWatch:
    """Takes contexts as they come. `reached` is the rank that they seem to have, None until it shows.

    `fall`: how many times less than the 24 contexts before (or as many as there were) add in the median all later ones
    must add, of which there must be `spare` beyond the first 8. `room`: how many contexts are expected. Memory:
    float64, contexts x tokens, and the square of the contexts.
    """

    def __init__(self, *, spare: int = 4, fall: float = 20.0, room: int = 0) -> None:
        self.spare = spare
        self._room = room
        self.fall = fall
        self.contexts = 0
        self.reached: int | None = None
        self._rows_RM: Float64Array = np.zeros((0, 0))
        self._factor = Triangle()
        self._added: list[float] = []
        self._looked = 1
        self._fell_at: int | None = None

    def push(self, outputs_BM: FloatArray) -> int | None:
        """Adds contexts (B, M) and returns `reached`. Raises ShapeError unless all have the same tokens, InputError for
        values that are not finite."""
        if outputs_BM.ndim != 2 or (self.contexts and outputs_BM.shape[1] != self._rows_RM.shape[1]):
            expected = f"B x {self._rows_RM.shape[1]}" if self.contexts else "contexts x tokens"
            raise ShapeError("contexts differ in their tokens", expected=expected, actual=outputs_BM.shape)
        rows_BM = outputs_BM.astype(np.float64)
        rows_BM -= rows_BM.mean(axis=1, keepdims=True)
        norms_B = np.sqrt((rows_BM**2).sum(axis=1))
        if not np.isfinite(norms_B).all():
            raise InputError("outputs with missing values", expected="finite values")
        rows_BM /= np.maximum(norms_B, np.finfo(np.float64).tiny)[:, None]
        for start in range(0, len(rows_BM), _AT_ONCE):
            self._add(rows_BM[start : start + _AT_ONCE])
        self._look()
        return self.reached

    def _add(self, rows_BM: Float64Array) -> None:
        kept = self._factor.size
        along_RB = self._factor.forward(self._rows_RM[:kept] @ rows_BM.T) if kept else np.zeros((0, len(rows_BM)))
        factor_BB, new_B = _cholesky(rows_BM @ rows_BM.T - along_RB.T @ along_RB)
        self._added.extend(np.maximum(np.diagonal(factor_BB), 0.0))
        self.contexts += len(rows_BM)
        self._factor.extend(along_RB.T[new_B], factor_BB[np.ix_(new_B, new_B)])
        self._make_room(rows_BM.shape[1])
        self._rows_RM[kept : self._factor.size] = rows_BM[new_B]

    def _make_room(self, tokens: int) -> None:
        if self._rows_RM.shape[1] == tokens and self._factor.size <= len(self._rows_RM):
            return
        grown_RM = np.zeros((max(self._factor.size, 2 * len(self._rows_RM), self._room), tokens))
        if len(self._rows_RM):
            grown_RM[: len(self._rows_RM)] = self._rows_RM
        self._rows_RM = grown_RM

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


def expected_rank(outputs_NM: FloatArray, noise_nats: float) -> float:
    """The least rank that contexts lead to expect of many more; infinite where they add ever more.

    The energy that a context adds to those before it falls ever more slowly, whatever the spectrum: its slope is an
    average of the covariance's eigenvalues in which the small ones weigh more with each context (by the equivalent of
    Derezinski, Liang, Liao and Mahoney, NeurIPS 2020, for the mean of such a projection). A straight line through what
    the middle and the last one add therefore reaches zero before the rank does. That is an expectation from few
    contexts, for deciding what to read next, and no bound to be claimed. What adds no more than errors of `noise_nats`
    do adds nothing.
    """
    contexts, tokens = outputs_NM.shape
    if contexts < _FEWEST:
        return float(contexts)
    rows_NM = outputs_NM - outputs_NM.mean(axis=1, keepdims=True, dtype=np.float64)
    products_NN = rows_NM @ rows_NM.T
    products_NN[np.diag_indices(contexts)] += _FLOOR**2 * np.trace(products_NN)
    rng = np.random.default_rng(0)
    orders_KN = np.array([rng.permutation(contexts) for _ in range(_ORDERS)])
    factors_KNN = np.linalg.cholesky(products_NN[orders_KN[:, :, None], orders_KN[:, None, :]])
    added_N = (np.diagonal(factors_KNN, axis1=1, axis2=2) ** 2).mean(axis=0)
    last, middle = contexts - 1, contexts // 2
    if added_N[last] <= _NOTHING * max(noise_nats**2 * tokens, _FLOOR**2 * np.trace(products_NN)):
        return float(last)
    fall = float(added_N[middle] - added_N[last])
    return last + float(added_N[last]) * (last - middle) / fall if fall > 0 else np.inf


def _cholesky(products_BB: Float64Array) -> tuple[Float64Array, IdArray]:
    """The lower factor, and which rows are not explained by those before them; the others get what rounding leaves on
    the diagonal, and explain nothing themselves."""
    left_BB = products_BB.copy()
    factor_BB = np.zeros_like(left_BB)
    new = []
    for row in range(len(left_BB)):
        factor_BB[row, row] = np.sqrt(max(left_BB[row, row], 0.0))
        if factor_BB[row, row] < _FLOOR:
            continue
        factor_BB[row:, row] = left_BB[row:, row] / factor_BB[row, row]
        left_BB[row:, row:] -= np.outer(factor_BB[row:, row], factor_BB[row:, row])
        new.append(row)
    return factor_BB, np.array(new, dtype=np.int64)
