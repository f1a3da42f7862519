"""The last layer up to a linear map, from outputs that stream through in blocks of tokens.

Carlini et al., arXiv 2403.06634, section on the last layer: with outputs Q = U S V', the right singular vectors V span
what the output head spans, so the head is V times an unknown invertible matrix. We never compute the decomposition of
Q: U and S come from the Gram matrix of contexts (`spectrum`), and each block of V is the block's outputs times U / S.
The shift that all tokens share cannot be seen in logprobs; it is left out on both sides of a score.

Legend: N contexts, V vocabulary, B tokens of a block, R rank, H width, C columns of the control.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.estimators.noise import noise_edge
from lensmith.audit.estimators.spectrum import Centring, context_gram
from lensmith.core.arrays import Float64Array, FloatArray
from lensmith.core.errors import InputError, ShapeError

PUBLISHED_RMS = (3e-5, 8e-4)
"""What Carlini et al. report for their recovered layers, against 2e-2 for an unrelated one."""
_BLOCK = 4096
_CONTROL_COLUMNS = 64

TokenBlocks = Callable[[], Iterable[FloatArray]]
"""Opens the outputs from the first token on, in blocks (N, B). Called once for each pass."""


class Rows(Protocol):
    """A matrix that is read in blocks of rows, such as an array or a head in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __getitem__(self, rows: slice, /) -> FloatArray:
        """These rows."""


@dataclass(frozen=True, kw_only=True)
class RecoveredLayer:
    """`layer_VR`: orthonormal columns, float32. Centred outputs are `coordinates_NR` times its transpose, and noise."""

    layer_VR: NDArray[np.float32]
    coordinates_NR: Float64Array
    values_R: Float64Array
    centring: Centring

    def seen(self, noise_nats: float) -> int:
        """How many directions are larger than what errors of this standard deviation make where there is none."""
        contexts, rank = self.coordinates_NR.shape
        edge = noise_edge(contexts - rank + 1, len(self.layer_VR) - rank + 1, noise_nats)
        return int((self.values_R > edge).sum())


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """How far a recovered layer is from the truth, in the head's own units.

    `rms`: root mean square of what the best linear map leaves. `rms_unrelated`: the same for a random layer of the
    truth's scale, `truth_rms` that scale. `rms_seen`: `rms` without the `lost` directions of largest error; a LayerNorm
    sends nothing through one direction of the head, so no output shows it.
    """

    rms: float
    rms_unrelated: float
    truth_rms: float
    rms_seen: float
    lost: int


def recover_layer(
    blocks: TokenBlocks, rank: int, *, centring: Centring = Centring.TOKENS_AND_CONTEXTS
) -> RecoveredLayer:
    """The head's column space from outputs of N contexts over V tokens, given their rank under this centring.

    Centred over contexts too, a bias of the head is left out. Two passes over `blocks`; memory: the result (V x R
    float32), three N x N float64 and one block. Raises InputError unless 1 <= rank < N, or where the outputs have less.
    """
    gram = context_gram(blocks())
    contexts = len(gram.products_NN)
    if not 1 <= rank < min(contexts, gram.tokens):
        raise InputError(
            "a layer needs more outputs than its rank", expected=f"1 to {min(contexts, gram.tokens) - 1}", actual=rank
        )
    eigenvalues_N, vectors_NN = np.linalg.eigh(gram.centred(centring))
    values_R = np.sqrt(np.maximum(eigenvalues_N[::-1][:rank], 0.0))
    if values_R[-1] <= 1e-8 * values_R[0]:
        raise InputError(
            "the outputs have a lower rank", expected=rank, actual=int((values_R > 1e-8 * values_R[0]).sum())
        )
    left_NR = np.ascontiguousarray(vectors_NN[:, ::-1][:, :rank])
    del vectors_NN
    layer_VR = np.empty((gram.tokens, rank), dtype=np.float32)
    start = 0
    for block_NB in blocks():
        stop = start + block_NB.shape[1]
        layer_VR[start:stop] = (block_NB - gram.means_N[:, None]).T @ (left_NR / values_R)
        start = stop
    return RecoveredLayer(layer_VR=layer_VR, coordinates_NR=left_NR * values_R, values_R=values_R, centring=centring)


def score_layer(layer_VR: Rows, truth_VH: Rows, *, lost: int = 0, seed: int = 0) -> LayerScore:
    """The distance of a recovered layer from the head's weights, over the best linear map and a common shift.

    `lost`: directions of the head that no output shows (the width less the layer's rank). `seed` makes the unrelated
    layer. Raises ShapeError where the two differ in tokens.
    """
    if layer_VR.shape[0] != truth_VH.shape[0]:
        raise ShapeError("layer and truth differ in tokens", expected=truth_VH.shape[0], actual=layer_VR.shape[0])
    tokens, width = truth_VH.shape
    control = _Control(columns=min(width, _CONTROL_COLUMNS), seed=seed)
    fit = _Fit(layer_VR.shape[1], width)
    for start in range(0, tokens, _BLOCK):
        fit.add(_float64(layer_VR, start), _float64(truth_VH, start))
    truth_rms = float(np.sqrt((fit.energy - (fit.truth_sum_H**2).sum() / tokens) / (tokens * width)))
    control_fit = _Fit(layer_VR.shape[1], control.columns)
    for start, block_BC in control.blocks(tokens, truth_rms):
        control_fit.add(_float64(layer_VR, start), block_BC)
    total, seen = _residual(layer_VR, truth_VH, fit, lost)
    return LayerScore(
        rms=float(np.sqrt(total / (tokens * width))),
        rms_unrelated=float(np.sqrt(control_fit.left_over() / (tokens * control.columns))),
        truth_rms=truth_rms,
        rms_seen=float(np.sqrt(seen / (tokens * width))),
        lost=lost,
    )


class _Fit:
    """Least squares with a common shift, from sums over blocks."""

    def __init__(self, rank: int, width: int) -> None:
        self.products_RR = np.zeros((rank, rank))
        self.products_RH = np.zeros((rank, width))
        self.layer_sum_R = np.zeros(rank)
        self.truth_sum_H = np.zeros(width)
        self.energy = 0.0
        self.tokens = 0

    def add(self, layer_BR: Float64Array, truth_BH: Float64Array) -> None:
        self.products_RR += layer_BR.T @ layer_BR
        self.products_RH += layer_BR.T @ truth_BH
        self.layer_sum_R += layer_BR.sum(axis=0)
        self.truth_sum_H += truth_BH.sum(axis=0)
        self.energy += float((truth_BH**2).sum())
        self.tokens += len(layer_BR)

    def solve(self) -> Float64Array:
        """The map (R, H) that brings the layer closest to the truth."""
        centred_RR = self.products_RR - np.outer(self.layer_sum_R, self.layer_sum_R / self.tokens)
        # A breath of ridge: a layer with repeated columns is no reason to fail, and one without does not feel it.
        centred_RR[np.diag_indices_from(centred_RR)] += 1e-13 * np.trace(centred_RR) / len(centred_RR)
        result: Float64Array = np.asarray(np.linalg.solve(centred_RR, self._centred()), dtype=np.float64)
        return result

    def left_over(self) -> float:
        """The square sum of what the best map leaves; for residuals that are not small beside the truth."""
        energy = self.energy - float((self.truth_sum_H**2).sum()) / self.tokens
        return max(energy - float((self.solve() * self._centred()).sum()), 0.0)

    def _centred(self) -> Float64Array:
        return self.products_RH - np.outer(self.layer_sum_R, self.truth_sum_H / self.tokens)


@dataclass(frozen=True, kw_only=True)
class _Control:
    """A random layer that has nothing to do with the model."""

    columns: int
    seed: int

    def blocks(self, tokens: int, scale: float) -> Iterator[tuple[int, Float64Array]]:
        rng = np.random.default_rng(self.seed)
        for start in range(0, tokens, _BLOCK):
            yield start, scale * rng.standard_normal((min(_BLOCK, tokens - start), self.columns))


def _residual(layer_VR: Rows, truth_VH: Rows, fit: _Fit, lost: int) -> tuple[float, float]:
    """The square sum of the residual, and the same without its `lost` largest directions; from the residual itself,
    because the difference of large sums would lose it."""
    map_RH = fit.solve()
    layer_mean_R, truth_mean_H = fit.layer_sum_R / fit.tokens, fit.truth_sum_H / fit.tokens
    total, products_HH = 0.0, np.zeros((len(truth_mean_H), len(truth_mean_H)) if lost else (0, 0))
    for start in range(0, fit.tokens, _BLOCK):
        left_BH = _float64(truth_VH, start) - truth_mean_H - (_float64(layer_VR, start) - layer_mean_R) @ map_RH
        total += float((left_BH**2).sum())
        if lost:
            products_HH += left_BH.T @ left_BH
    if not lost:
        return total, total
    return total, float(np.maximum(np.linalg.eigvalsh(products_HH)[:-lost], 0.0).sum())


def _float64(rows: Rows, start: int) -> Float64Array:
    return np.asarray(rows[start : start + _BLOCK], dtype=np.float64)
