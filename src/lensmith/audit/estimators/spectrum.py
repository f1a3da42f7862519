"""Singular values of a centred matrix of logprobs, by a streamed float64 Gram matrix.

The width of a model is the rank of its outputs (Carlini et al., arXiv 2403.06634, algorithm 1; Finlayson et al.,
arXiv 2403.09539, section 3). Every row is centred over its tokens first, because the log-normaliser of logprobs would
add one direction. The symmetric eigenvalue problem of a Gram matrix is several times cheaper than a singular value
decomposition and takes the outputs in blocks; its price is a floor at about 1e-8 of the largest singular value, below
which nothing can be seen. Eigenvalues are clamped above zero before anyone takes their ratios, and where the values
reach down to that floor, the matrix itself is looked at below it. Values that an endpoint did not tell are never filled
in, because a filled-in mean has another rank: their rows and columns are dropped.

Legend: N contexts, M tokens, B tokens of one block, K values, at most min(N, M).
"""

import enum
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.linalg import LinAlgError

from lensmith.audit.estimators.cholesky import CLAMP, Factor, smallest_space, smallest_values, smallest_vectors
from lensmith.core.arrays import Float64Array, FloatArray, IdArray
from lensmith.core.errors import InputError, ShapeError

GRAM_FLOOR = 1e-7
"""Below this part of the largest singular value, values from a Gram matrix are not trusted."""
_TINY = float(np.finfo(np.float64).tiny)
_BLOCK = 2048
_LEAST_ENERGY = 0.25
"""Where fewer tokens leave less of the sum of squares, products are computed anew: rounding is that of all tokens."""
_INVERSE_STEPS = 2


class Centring(enum.Enum):
    """What is subtracted before the rank is taken: each row's mean, and each column's too."""

    TOKENS = "tokens"
    TOKENS_AND_CONTEXTS = "tokens and contexts"


class Method(enum.Enum):
    """Where singular values come from. TAIL: from the Gram matrix down to its floor, from the matrix below it."""

    GRAM = "gram"
    QR = "qr"
    TAIL = "tail"


@dataclass(frozen=True, kw_only=True)
class WholeLimits:
    """Up to which side (contexts, or tokens where these are fewer) decompositions are whole.

    Beyond `qr_side`, of the values below the Gram matrix's floor only those are computed; beyond `vectors_side`, of
    the Gram matrix's vectors those asked for; beyond `values_side`, of its values the last, where these are at most
    `end_share` of all.
    """

    qr_side: int = 2600
    vectors_side: int = 1536
    values_side: int = 1023
    end_share: float = 1 / 16


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Singular values, largest first, all above zero; those that centring makes zero are left out."""

    values_K: Float64Array
    centring: Centring
    method: Method
    contexts: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class CompletePart:
    """A matrix without the rows and columns that were not told in full, and where its rows and columns stood."""

    matrix_NM: FloatArray
    contexts_N: IdArray
    tokens_M: IdArray


@dataclass(frozen=True, kw_only=True)
class Gram:
    """Products of all pairs of contexts of a matrix of `tokens` columns without its row means."""

    products_NN: Float64Array
    means_N: Float64Array
    tokens: int

    def centred(self, centring: Centring) -> Float64Array:
        """The same for the matrix whose columns are centred too, where `centring` says so."""
        if centring is Centring.TOKENS:
            return self.products_NN
        means_N = self.products_NN.mean(axis=0)
        result: Float64Array = self.products_NN - means_N - means_N[:, None] + means_N.mean()
        return result

    def part(self, contexts_P: IdArray, left_out_PB: FloatArray) -> "Gram | None":
        """The same for some contexts without some tokens, whose outputs are given; None where they are nearly
        all there is, since what rounding made of them would remain."""
        shifted_PB = left_out_PB.astype(np.float64) - self.means_N[contexts_P, None]
        sums_P, tokens = shifted_PB.sum(axis=1), self.tokens - shifted_PB.shape[1]
        products_PP = self.products_NN[np.ix_(contexts_P, contexts_P)]
        energy = float(np.trace(products_PP))
        products_PP -= shifted_PB @ shifted_PB.T
        products_PP -= np.outer(sums_P, sums_P / tokens)
        if np.trace(products_PP) < _LEAST_ENERGY * energy:
            return None
        return Gram(products_NN=products_PP, means_N=self.means_N[contexts_P] - sums_P / tokens, tokens=tokens)


def drop_missing(matrix_NM: FloatArray) -> CompletePart:
    """Drops contexts and tokens until no value is missing (NaN or infinite), the emptiest first.

    Raises ShapeError unless the matrix has two axes.
    """
    if matrix_NM.ndim != 2:
        raise ShapeError("a matrix of contexts x tokens is needed", expected="2 axes", actual=matrix_NM.shape)
    missing_NM = ~np.isfinite(matrix_NM)
    rows_N, columns_M = np.arange(matrix_NM.shape[0]), np.arange(matrix_NM.shape[1])
    if not missing_NM.any():
        return CompletePart(matrix_NM=matrix_NM, contexts_N=rows_N, tokens_M=columns_M)
    keep_N, keep_M = np.ones(len(rows_N), dtype=bool), np.ones(len(columns_M), dtype=bool)
    by_row_N, by_column_M = missing_NM.sum(axis=1), missing_NM.sum(axis=0)
    while by_row_N.any():
        row, column = int(by_row_N.argmax()), int(by_column_M.argmax())
        # A row's share of its own length against a column's, so that a wide matrix does not lose all its tokens.
        if by_row_N[row] / max(keep_M.sum(), 1) >= by_column_M[column] / max(keep_N.sum(), 1):
            keep_N[row] = False
            by_column_M -= missing_NM[row] & keep_M
            by_row_N[row] = 0
        else:
            keep_M[column] = False
            by_row_N -= missing_NM[:, column] & keep_N
            by_column_M[column] = 0
    return CompletePart(
        matrix_NM=matrix_NM[np.ix_(keep_N, keep_M)], contexts_N=rows_N[keep_N], tokens_M=columns_M[keep_M]
    )


def context_gram(blocks: Iterable[FloatArray]) -> Gram:
    """Products of all pairs of contexts over tokens that come in blocks (N, B), centred over all tokens at the end.

    Raises ShapeError where blocks differ in their number of contexts, InputError for values that are not finite.
    """
    products_NN: Float64Array | None = None
    sums_N = shift_N = np.zeros(0)
    tokens = 0
    for block_NB in blocks:
        if products_NN is None:
            # Almost centred from the start: the centring at the end then subtracts nothing large from large.
            shift_N = block_NB.mean(axis=1, dtype=np.float64)
            products_NN, sums_N = np.zeros((len(block_NB), len(block_NB))), np.zeros(len(block_NB))
        if len(block_NB) != len(products_NN):
            raise ShapeError("blocks differ in contexts", expected=len(products_NN), actual=len(block_NB))
        shifted_NB = block_NB.astype(np.float64) - shift_N[:, None]
        products_NN += shifted_NB @ shifted_NB.T
        sums_N += shifted_NB.sum(axis=1)
        tokens += shifted_NB.shape[1]
    if products_NN is None:
        raise InputError("no outputs", expected="at least one block of tokens", actual="none")
    if not np.isfinite(sums_N).all():
        raise InputError("outputs with missing values", expected="finite values", hint="drop_missing removes them")
    products_NN -= np.outer(sums_N, sums_N / tokens)
    return Gram(products_NN=products_NN, means_N=shift_N + sums_N / tokens, tokens=tokens)


def token_blocks(matrix_NM: FloatArray, block: int = _BLOCK) -> Iterable[FloatArray]:
    """The matrix in blocks of columns."""
    return (matrix_NM[:, start : start + block] for start in range(0, matrix_NM.shape[1], block))


def gram_values(products_KK: Float64Array, rank_limit: int) -> Float64Array:
    """Square roots of the eigenvalues, largest first, clamped above zero; the first `rank_limit` of them."""
    eigenvalues_K = np.linalg.eigvalsh(products_KK)[::-1]
    largest = max(float(eigenvalues_K[0]), _TINY)
    result: Float64Array = np.sqrt(np.maximum(eigenvalues_K, CLAMP * largest))[: max(rank_limit, 0)]
    return result


class Spectra:
    """The singular values of one complete matrix, however it is centred; the Gram matrix is computed once.

    Memory: beside the matrix, squares of float64 on its smaller side, and where values reach the Gram matrix's floor
    the blocks of a QR decomposition. Raises ShapeError for less than 2 x 2, InputError for values that are not finite.
    """

    def __init__(self, matrix_NM: FloatArray, *, limits: WholeLimits = WholeLimits()) -> None:
        if matrix_NM.ndim != 2 or min(matrix_NM.shape) < 2:
            raise ShapeError("too few outputs", expected="2 contexts x 2 tokens or more", actual=matrix_NM.shape)
        self.matrix_NM, self.limits = matrix_NM, limits
        self.largest = max(abs(float(matrix_NM.max())), abs(float(matrix_NM.min())))
        """The largest absolute value."""
        if not np.isfinite(self.largest):
            raise InputError("outputs with missing values", expected="finite values", hint="drop_missing removes them")

    @functools.cached_property
    def _gram(self) -> Gram | None:
        contexts, tokens = self.matrix_NM.shape
        return context_gram(token_blocks(self.matrix_NM)) if contexts <= tokens else None

    def of(self, centring: Centring, *, down_to: float = 0.0) -> Spectrum:
        """The values for this centring; those under `down_to` times the largest need not be told apart, which spares a
        decomposition where the Gram matrix sees that far."""
        contexts, tokens = self.matrix_NM.shape
        products_KK = self._products(centring)
        values_K = gram_values(products_KK, self._count(centring))
        method = Method.GRAM
        if down_to < GRAM_FLOOR and values_K.size and values_K[-1] < GRAM_FLOOR * values_K[0]:
            values_K, method = _below_the_floor(self.matrix_NM, centring, products_KK, values_K, self.limits)
        return Spectrum(values_K=values_K, centring=centring, method=method, contexts=contexts, tokens=tokens)

    def end(self, centring: Centring, *, before: int, down_to: float = 0.0) -> Float64Array:
        """The values after the first `before`, as `of` computes them; without the others where these are few."""
        count, side = self._count(centring) - before, min(self.matrix_NM.shape)
        if down_to >= GRAM_FLOOR and side > self.limits.values_side and 0 < count <= self.limits.end_share * side:
            values_K = smallest_values(self._products(centring), side - before)
            if values_K is not None:
                return values_K[:count]
        return self.of(centring, down_to=down_to).values_K[before:]

    def part(self, contexts_P: IdArray, tokens_Q: IdArray) -> Self:
        """Of some contexts and tokens; their products are those of all, less what few tokens were left out."""
        rows_PM = self.matrix_NM[contexts_P]
        part = type(self)(rows_PM[:, tokens_Q], limits=self.limits)
        tokens = self.matrix_NM.shape[1]
        if self._gram and len(contexts_P) <= len(tokens_Q) and 2 * len(tokens_Q) > tokens:
            gram = self._gram.part(contexts_P, np.delete(rows_PM, tokens_Q, axis=1))
            if gram:
                part._gram = gram
        return part

    def nothing(self, contexts_P: IdArray, size: int, *, down_to: float) -> Float64Array:
        """Orthonormal combinations (P, T) of these contexts that give next to nothing: of the `size` smallest values,
        which all stand below the part `down_to` of the largest. The Gram matrix tells them apart down to its floor,
        the matrix itself below it."""
        part = Spectra(self.matrix_NM[contexts_P])
        if self._gram:
            products_PP = self._gram.products_NN[np.ix_(contexts_P, contexts_P)]
        else:
            products_PP = context_gram(token_blocks(part.matrix_NM)).products_NN
        if down_to < 10 * GRAM_FLOOR and len(products_PP) <= part.matrix_NM.shape[1]:
            if len(products_PP) <= self.limits.qr_side:
                vectors_PP = np.linalg.svd(_triangle(part.matrix_NM, Centring.TOKENS))[2].T
                return np.ascontiguousarray(vectors_PP[:, -size:])
            space_PT = _tail_space(part.matrix_NM, Centring.TOKENS, products_PP, size)
            if space_PT is not None:
                return space_PT
        return smallest_vectors(products_PP, size, whole_side=self.limits.vectors_side)

    def _count(self, centring: Centring) -> int:
        """How many values the centring leaves above zero."""
        contexts, tokens = map(int, self.matrix_NM.shape)
        return min(contexts - (centring is Centring.TOKENS_AND_CONTEXTS), tokens - 1)

    def _products(self, centring: Centring) -> Float64Array:
        return self._gram.centred(centring) if self._gram else _token_gram(self.matrix_NM, centring)


def _token_gram(matrix_NM: FloatArray, centring: Centring) -> Float64Array:
    """Products of all pairs of tokens (M x M), where there are fewer tokens than contexts."""
    tokens = matrix_NM.shape[1]
    products_MM, sums_M = np.zeros((tokens, tokens)), np.zeros(tokens)
    for block_BM in _row_blocks(matrix_NM):
        products_MM += block_BM.T @ block_BM
        sums_M += block_BM.sum(axis=0)
    if centring is Centring.TOKENS_AND_CONTEXTS:
        products_MM -= np.outer(sums_M, sums_M / len(matrix_NM))
    return products_MM


def _row_blocks(matrix_NM: FloatArray) -> Iterable[Float64Array]:
    for start in range(0, len(matrix_NM), _BLOCK):
        block_BM = matrix_NM[start : start + _BLOCK].astype(np.float64)
        yield block_BM - block_BM.mean(axis=1, keepdims=True)


def _below_the_floor(
    matrix_NM: FloatArray,
    centring: Centring,
    products_KK: Float64Array,
    gram_values_K: Float64Array,
    limits: WholeLimits,
) -> tuple[Float64Array, Method]:
    """The values again, from the matrix itself, which shows them down to 1e-15 of the largest instead of 1e-8: all by
    QR where that is cheap, else the smallest by what the matrix makes of their space."""
    side, count = len(products_KK), len(gram_values_K)
    floor = GRAM_FLOOR * gram_values_K[0]
    kept = int((gram_values_K > 10 * floor).sum())
    space_KT = _tail_space(matrix_NM, centring, products_KK, side - kept) if side > limits.qr_side else None
    if space_KT is not None:
        made = np.concatenate([tall_BK @ space_KT for tall_BK in _tall_blocks(matrix_NM, centring)])
        tail_K = np.linalg.svd(made, compute_uv=False)[: count - kept]
        if tail_K[0] <= 2 * max(gram_values_K[kept], floor):  # else the short cut went wrong: the Gram matrix sees more
            tail_K = np.clip(tail_K, _TINY, gram_values_K[kept - 1])
            return np.concatenate([gram_values_K[:kept], tail_K]), Method.TAIL
    values_K = np.linalg.svd(_triangle(matrix_NM, centring), compute_uv=False)[:count]
    return np.maximum(values_K, _TINY), Method.QR


def _tail_space(matrix_NM: FloatArray, centring: Centring, products_KK: Float64Array, size: int) -> Float64Array | None:
    """An orthonormal basis (K, T) of the space of the T smallest singular values, by inverse subspace iteration; None
    where the Gram matrix cannot be factorised.

    What the matrix makes of any T-dimensional space bounds its T smallest singular values from above (Courant-Fischer).
    The Gram matrix's rounding tilts the space a little towards the large values; what the matrix makes of it tells by
    how much, and that is taken out at the end. The combinations that the first contexts explain of the last T will not
    do: K - T contexts of a model that is K - T wide are a square matrix, whose smallest value is by chance far below
    those of the whole, and which explains badly.
    """
    try:
        factor = Factor(products_KK)
    except LinAlgError:
        return None
    space_KT = smallest_space(factor, len(products_KK), size, steps=_INVERSE_STEPS)
    there_and_back = np.zeros(space_KT.shape)
    for tall_BK in _tall_blocks(matrix_NM, centring):
        there_and_back += tall_BK.T @ (tall_BK @ space_KT)
    tilt_KT = factor.solve(there_and_back)
    tilt_KT -= space_KT @ (space_KT.T @ tilt_KT)
    return np.asarray(np.linalg.qr(space_KT - tilt_KT)[0], dtype=np.float64)


def _triangle(matrix_NM: FloatArray, centring: Centring) -> Float64Array:
    """R of the QR decomposition of the matrix with its longer side down, taken in blocks of that side."""
    triangle: Float64Array | None = None
    for tall_BK in _tall_blocks(matrix_NM, centring):
        stacked = tall_BK if triangle is None else np.vstack([triangle, tall_BK])
        triangle = np.asarray(np.linalg.qr(stacked, mode="r"), dtype=np.float64)
    assert triangle is not None
    return triangle


def _tall_blocks(matrix_NM: FloatArray, centring: Centring) -> Iterable[Float64Array]:
    """The centred matrix with its longer side down, in float64, a block of that side at a time (B, K)."""
    row_means_N = matrix_NM.mean(axis=1, dtype=np.float64)
    column_means_M: Any = 0.0
    if centring is Centring.TOKENS_AND_CONTEXTS:
        column_means_M = matrix_NM.mean(axis=0, dtype=np.float64) - row_means_N.mean()
    contexts, tokens = matrix_NM.shape
    block = max(_BLOCK, min(contexts, tokens))
    for start in range(0, max(contexts, tokens), block):
        part = slice(start, start + block)
        if tokens >= contexts:
            means = column_means_M[part] if np.ndim(column_means_M) else 0.0
            yield (matrix_NM[:, part].astype(np.float64) - row_means_N[:, None] - means).T
        else:
            yield matrix_NM[part].astype(np.float64) - row_means_N[part, None] - column_means_M
