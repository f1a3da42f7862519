"""The smallest eigenvalues of a Gram matrix and their space, where computing all of them would take too long.

All eigenvalues cost 4/3 K^3 multiplications and additions, most of them at the speed of memory; a Cholesky factor costs
1/3 K^3 at that of matrix products, and with it inverse subspace iteration finds the few smallest (Golub and Van Loan,
Matrix Computations, 4th edition, section 8.2.4). A factor can also grow with the matrix, a block of rows at a time.

Legend: K side of the Gram matrix, T directions or right-hand sides, R rows of a triangle, B new rows.
"""

import numpy as np
from numpy.linalg import LinAlgError
from scipy.linalg import cho_solve, cholesky, solve_triangular

from lensmith.core.arrays import Float64Array

_SHIFTS = (1e-16, 1e-14, 1e-12)
CLAMP = 1e-15
"""Rounding of a Gram matrix, as a part of its largest eigenvalue: none smaller is told apart."""
_POWER_STEPS = 10
_SETTLED = 1e-4
"""How far off an eigenvalue may be, relatively, beside rounding: far less than what falls are compared with."""
_MOST_STEPS = 10


class Triangle:
    """A lower triangular matrix that grows by blocks of rows. To solve with it takes a step a block, so a block should
    have many rows. Memory: half the square of all rows."""

    def __init__(self) -> None:
        self.size = 0
        self._blocks: list[tuple[Float64Array, Float64Array]] = []

    def forward(self, right_RT: Float64Array) -> Float64Array:
        """X (R, T), such that the triangle times X is `right_RT`."""
        solved_RT, start = np.empty_like(right_RT), 0
        for along_BR, corner_BB in self._blocks:
            block = slice(start, start + len(corner_BB))
            left_BT = right_RT[block] - along_BR @ solved_RT[:start]
            solved_RT[block] = solve_triangular(corner_BB, left_BT, lower=True, overwrite_b=True, check_finite=False)
            start = block.stop
        return solved_RT

    def extend(self, along_BR: Float64Array, corner_BB: Float64Array) -> None:
        """Adds rows: what stands under the triangle so far, and their own triangle, whose diagonal has no zero."""
        if len(corner_BB):
            self._blocks.append((along_BR, corner_BB))
            self.size += len(corner_BB)


class Factor:
    """The Cholesky factor of a Gram matrix (K, K), with as little added to its diagonal as rounding asks for.

    Memory: another matrix of that size. Raises LinAlgError where the matrix is none of products.
    """

    def __init__(self, products_KK: Float64Array) -> None:
        scale = float(np.diagonal(products_KK).max()) * len(products_KK)
        for shift in _SHIFTS:
            shifted_KK = np.array(products_KK, order="F")
            shifted_KK[np.diag_indices(len(shifted_KK))] += shift * scale
            try:
                self._lower_KK = cholesky(shifted_KK, lower=True, overwrite_a=True, check_finite=False)
                return
            except LinAlgError:
                if shift == _SHIFTS[-1]:
                    raise

    def solve(self, right_KT: Float64Array) -> Float64Array:
        """X (K, T), such that the Gram matrix times X is `right_KT`."""
        return np.asarray(cho_solve((self._lower_KK, True), right_KT, check_finite=False), dtype=np.float64)


def smallest_space(factor: Factor, side: int, size: int, *, steps: int) -> Float64Array:
    """An orthonormal basis (K, T) of about the space of the `size` smallest eigenvalues."""
    space_KT = np.random.default_rng(0).standard_normal((side, size))
    for _ in range(steps):
        space_KT = _orthonormal(factor.solve(space_KT))
    return space_KT


def smallest_values(products_KK: Float64Array, count: int) -> Float64Array | None:
    """Square roots of the `count` smallest eigenvalues, largest first, clamped as those of `gram_values`; None unless
    they settle, as those of an even spectrum may not."""
    side = len(products_KK)
    try:
        factor = Factor(products_KK)
    except LinAlgError:
        return None
    rounding = CLAMP * _largest(products_KK)
    # Half as many again: what bounds the space is then apart from what is asked for.
    space_KT = smallest_space(factor, side, min(side, count + count // 2), steps=2)
    before_T, last_change = np.full(count, np.inf), np.inf
    for _ in range(_MOST_STEPS):
        products_TT = space_KT.T @ products_KK @ space_KT
        eigenvalues_T = np.asarray(np.linalg.eigvalsh(products_TT)[count - 1 :: -1], dtype=np.float64)
        change = _largest_change(before_T, eigenvalues_T, rounding)
        # If steps go on to shrink by the same factor, this is what all those to come add up to.
        if change == 0 or (np.isfinite(last_change) and change < _SETTLED * (1 - change / last_change)):
            return np.sqrt(np.maximum(eigenvalues_T, rounding))
        before_T, last_change = eigenvalues_T, change
        space_KT = _orthonormal(factor.solve(space_KT))
    return None


def smallest_vectors(products_KK: Float64Array, count: int, *, whole_side: int) -> Float64Array:
    """Orthonormal eigenvectors (K, count) of the `count` smallest eigenvalues, from all of them up to the side
    `whole_side`. Raises LinAlgError as `Factor` does."""
    side = len(products_KK)
    if side <= whole_side:
        return np.asarray(np.linalg.eigh(products_KK)[1][:, :count], dtype=np.float64)
    space_KT = smallest_space(Factor(products_KK), side, min(side, count + count // 2), steps=3)
    turns_TT = np.linalg.eigh(space_KT.T @ products_KK @ space_KT)[1]
    return np.asarray(space_KT @ turns_TT[:, :count], dtype=np.float64)


def _largest_change(before_T: Float64Array, now_T: Float64Array, rounding: float) -> float:
    """The largest relative change that is not one of rounding alone."""
    change_T = np.abs(now_T - before_T)
    return float((change_T / np.maximum(now_T, rounding))[change_T > rounding].max(initial=0.0))


def _largest(products_KK: Float64Array) -> float:
    """The largest eigenvalue, from below, to some per cent."""
    direction_K = products_KK[int(np.diagonal(products_KK).argmax())]
    length = 0.0
    for _ in range(_POWER_STEPS):
        length = float(np.linalg.norm(direction_K))
        direction_K = products_KK @ (direction_K / max(length, np.finfo(np.float64).tiny))
    return length


def _orthonormal(space_KT: Float64Array) -> Float64Array:
    return np.asarray(np.linalg.qr(space_KT)[0], dtype=np.float64)
