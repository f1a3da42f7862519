"""The hidden width of a model, from a matrix of its outputs: exact, an interval, or unresolved; never a guess.

Source: Carlini et al., arXiv 2403.06634, algorithm 1 and the section on normalisation layers; Finlayson et al.,
arXiv 2403.09539. We differ in the decision (`gaps`), in confirming it on parts of the data, and in abstaining.

Outputs are centred over tokens, and compared with the same centred over contexts too, which removes a bias and with it
one direction. What the two ranks say of the width H:

    final norm                       centred over tokens   and over contexts
    RMSNorm                          H                     H
    RMSNorm, head bias               H + 1                 H
    LayerNorm                        H - 1                 H - 1
    LayerNorm with any bias          H                     H - 1

So each pair of ranks has two readings, and no output can tell them apart: a LayerNorm without a bias is an RMSNorm of
one less. The common ones (RMSNorm without, LayerNorm with a bias) are believed outright where their width is a multiple
of 8 from 32 on, as those of real models are; otherwise the answer is the interval of both, and `width` the likelier.

Contexts that repeat make a rank of their own, so rows that differ by no more than noise are counted once.

Legend: N contexts (rows), M tokens (columns), K values, S numbers in a row's sketch.
"""

import enum
import math
from dataclasses import dataclass, field, replace

import numpy as np

from lensmith.audit.estimators.gaps import (
    ARITHMETIC,
    MIN_TAIL,
    WINDOW,
    Gap,
    RankReading,
    is_deep_enough,
    is_steep_enough,
    may_hide_a_rival,
    read_rank,
    shows_gap_at,
)
from lensmith.audit.estimators.heads import Heads, heads_of
from lensmith.audit.estimators.noise import lattice_nats, noise_edge
from lensmith.audit.estimators.spectrum import Centring, Method, Spectra, Spectrum, drop_missing
from lensmith.audit.findings.wording import ratio
from lensmith.core.arrays import Float64Array, FloatArray, IdArray

_SKETCH = 32
_BLOCK = 1024
_TOLERANCE = 8.0
"""Two copies of one row lie twice the noise energy apart, within a quarter by the sketch; this is four times that."""


def distinct_rows(matrix_NM: FloatArray, noise_energy: float) -> int:
    """Rows that no row before them repeats. `noise_energy`: the expected square sum of one row's noise."""
    sketch_NS = _sketch(matrix_NM)
    tolerance = max(_TOLERANCE * noise_energy, 1e-24 * float((sketch_NS**2).sum(axis=1).mean()))
    energy_N = (sketch_NS**2).sum(axis=1)
    repeats = 0
    for start in range(0, len(sketch_NS), _BLOCK):
        stop = min(start + _BLOCK, len(sketch_NS))
        distance_BN = energy_N[start:stop, None] + energy_N[:stop] - 2 * sketch_NS[start:stop] @ sketch_NS[:stop].T
        distance_BN[np.arange(stop) >= np.arange(start, stop)[:, None]] = np.inf  # only rows before it count
        nearest_B = distance_BN.argmin(axis=1)
        # From the difference itself: the expansion above cancels where rows are close.
        exact_B = ((sketch_NS[start:stop] - sketch_NS[nearest_B]) ** 2).sum(axis=1)
        repeats += int((np.isfinite(distance_BN.min(axis=1)) & (exact_B <= tolerance)).sum())
    return len(sketch_NS) - repeats


def _sketch(matrix_NM: FloatArray) -> Float64Array:
    """Random projections of the centred rows, which keep distances to about a quarter."""
    rng = np.random.default_rng(0)
    directions_MS = rng.standard_normal((matrix_NM.shape[1], _SKETCH)) / np.sqrt(_SKETCH)
    directions_MS -= directions_MS.mean(axis=0)  # centring the projections centres the rows
    blocks = [matrix_NM[start : start + _BLOCK] @ directions_MS for start in range(0, len(matrix_NM), _BLOCK)]
    result: Float64Array = np.concatenate(blocks).astype(np.float64)
    return result


__all__ = ["Confirmation", "Needs", "NormType", "Status", "WidthEstimate", "estimate_width", "next_size", "width_of"]

_SMALLEST_SIDE = 16
_COMMON_MULTIPLE = 8
_LIKELY_MULTIPLE = 32
_SMALLEST_COMMON = 32
_ARITHMETIC_NATS = 1e-5
"""More than a model's own float32 arithmetic errs by in one logit."""


class Status(enum.Enum):
    """EXACT: the width. INTERVAL: it is one of `interval`. UNRESOLVED: nothing is claimed."""

    EXACT = "exact"
    INTERVAL = "interval"
    UNRESOLVED = "unresolved"


class NormType(enum.Enum):
    """The last normalisation layer, as the two centrings tell it under the common reading."""

    RMS_NORM = "RMSNorm"
    LAYER_NORM = "LayerNorm"
    UNKNOWN = "unknown"


class Confirmation(enum.Enum):
    """On what the rank was found again: two parts with no context (or no token) in common, two that overlap."""

    DISJOINT = "disjoint halves"
    OVERLAPPING = "overlapping parts"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """How many contexts and tokens to read in all for the next attempt."""

    contexts: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class WidthEstimate:
    """What a matrix of outputs says of the width.

    `rank` is what was measured; `width` follows from it and the norm (None where unresolved), within `interval`
    (inclusive). `score` and `ratio` are those of the gap believed, `gaps` all significant ones: an earlier one may be
    the true width of a model that was padded after training. `at_least`: where nothing was resolved but the noise is
    known, the number of values that neither it nor a lattice of 16 bits can explain, and no more than lie before the
    first steep gap; not where `heads` of more than one model would add up in it. `contexts` and `tokens` are those
    used, after dropping.
    """

    status: Status
    reason: str
    width: int | None = None
    interval: tuple[int, int] | None = None
    rank: int | None = None
    score: float | None = None
    ratio: float | None = None
    gaps: tuple[Gap, ...] = ()
    norm: NormType = NormType.UNKNOWN
    confirmation: Confirmation = Confirmation.NONE
    at_least: int | None = None
    heads: Heads = Heads.ONE
    needs: Needs | None = None
    contexts: int
    tokens: int
    method: Method = Method.GRAM
    values_K: Float64Array = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)


def next_size(contexts: int, tokens: int, rank: int | None = None) -> Needs:
    """What to read next: 1.25 / 2, then 2 / 4, then 4 / 8 times the suspected rank, else twice as much as before."""
    if rank is not None:
        for context_factor, token_factor in ((1.25, 2), (2, 4), (4, 8)):
            size = Needs(contexts=math.ceil(context_factor * rank) + 24, tokens=token_factor * rank + 48)
            if size.contexts > 1.2 * contexts:
                return Needs(contexts=size.contexts, tokens=max(size.tokens, tokens))
    contexts = max(2 * contexts, 2 * _SMALLEST_SIDE)
    return Needs(contexts=contexts, tokens=max(2 * tokens, math.ceil(1.6 * contexts)))


def estimate_width(matrix_NM: FloatArray, *, noise_nats: float | None = None, seed: int = 0) -> WidthEstimate:
    """The width of the model whose logprobs (or logits) these are, N contexts by M tokens, M over N if possible.

    Missing values are NaN. `noise_nats`, where known (a read-out's resolution: the standard deviation of one value,
    whether or not it comes out the same again), keeps what lies below it from being taken for the model's, and gives a
    lower bound when nothing is resolved. `seed` chooses the parts that confirm. Raises ShapeError for anything but a
    matrix.
    """
    part = drop_missing(matrix_NM)
    contexts, tokens = part.matrix_NM.shape
    if min(contexts, tokens) < _SMALLEST_SIDE:
        reason = f"{contexts} contexts x {tokens} tokens are complete, too few to see any width"
        return WidthEstimate(
            status=Status.UNRESOLVED,
            reason=reason,
            contexts=contexts,
            tokens=tokens,
            needs=next_size(*matrix_NM.shape[:2]),
        )
    return width_of(Spectra(part.matrix_NM), noise_nats=noise_nats, seed=seed)


def width_of(found: Spectra, *, noise_nats: float | None = None, seed: int = 0) -> WidthEstimate:
    """As `estimate_width`, of a complete matrix's values."""
    whole = found.of(Centring.TOKENS)
    if whole.values_K[0] <= 1e-12 * math.sqrt(whole.contexts * whole.tokens) * max(found.largest, 1e-100):
        nothing = RankReading(gap=None, gaps=(), count=len(whole.values_K), reason="every token has the same value")
        return _unresolved(found, whole, nothing, noise_nats)
    reading = read_rank(whole.values_K)
    if not reading.gaps:
        return _unresolved(found, whole, reading, noise_nats)
    rank = (reading.gap or reading.gaps[-1]).rank
    down_to = _down_to(whole, rank)
    # What is looked for is the rank, or one less; of the values far above only whether they may have a rival matters.
    before = max(0, rank - 2 - WINDOW)
    before = 0 if may_hide_a_rival(whole.values_K[: before + 2]) else before
    end_K = found.end(Centring.TOKENS_AND_CONTEXTS, before=before, down_to=down_to)
    without_bias = read_rank(end_K, largest=float(whole.values_K[0]), before=before)
    reading = _with_help(reading, without_bias)
    if reading.rank is not None and noise_nats is not None and _is_lost_in(noise_nats, whole, reading.rank):
        reason = f"the gap at {reading.rank} lies below what the values were read to, {noise_nats:.2g} nats"
        reading = replace(reading, gap=None, reason=reason)
    if reading.rank is None:
        return _unresolved(found, whole, reading, noise_nats)
    beside = reading.rank - 1 if without_bias.rank == reading.rank - 1 else None
    parts = _Parts(rank=reading.rank, beside=beside, down_to=down_to, seed=seed)
    doubt = _doubt(found, whole, parts)
    if doubt.reason:
        reading = replace(reading, gap=None, reason=doubt.reason)
        known_nats = noise_nats if doubt.heads is Heads.ONE else None
        return replace(_unresolved(found, whole, reading, known_nats), heads=doubt.heads)
    return _resolved(whole, reading, without_bias, doubt.confirmation)


def _with_help(reading: RankReading, without_bias: RankReading) -> RankReading:
    """A bias adds one direction of any size; a weak one stands alone between two gaps, and the larger of them is no
    reason to doubt the last where the values without the bias end clearly right there."""
    last = reading.gaps[-1] if reading.gaps else None
    if reading.gap is None and last and without_bias.rank == last.rank - 1 and is_deep_enough(last, reading.count):
        return replace(
            reading, gap=last, reason=f"values fall {ratio(last.ratio)}-fold after number {last.rank}, a bias"
        )
    return reading


def _resolved(
    whole: Spectrum, reading: RankReading, without_bias: RankReading, confirmation: Confirmation
) -> WidthEstimate:
    gap = reading.gap
    assert gap is not None
    norm, readings = _readings(gap.rank, without_bias.rank)
    common, *others = readings
    likely = [width for width in others if width % _LIKELY_MULTIPLE == 0]
    exact = common % _COMMON_MULTIPLE == 0 and common >= _SMALLEST_COMMON
    width = common if exact or len(likely) != 1 else likely[0]
    if exact:
        reason = reading.reason
    else:
        names = " or ".join(map(str, sorted(readings)))
        reason = f"{reading.reason}; by the final norm's biases, which no output shows, the width is {names}"
    return WidthEstimate(
        status=Status.EXACT if exact else Status.INTERVAL,
        reason=reason,
        width=width,
        interval=(width, width) if exact else (min(readings), max(readings)),
        rank=gap.rank,
        score=gap.score,
        ratio=gap.ratio,
        gaps=reading.gaps,
        norm=norm if width == common else NormType.UNKNOWN,
        confirmation=confirmation,
        contexts=whole.contexts,
        tokens=whole.tokens,
        method=whole.method,
        values_K=whole.values_K,
    )


def _readings(rank: int, without_bias: int | None) -> tuple[NormType, tuple[int, ...]]:
    """The norm under the common reading, and the widths that the pair of ranks allows, the common one first."""
    if without_bias == rank:
        return NormType.RMS_NORM, (rank, rank + 1)
    if without_bias == rank - 1:
        return NormType.LAYER_NORM, (rank, rank - 1)
    return NormType.UNKNOWN, (rank, rank - 1, rank + 1)


def _unresolved(found: Spectra, whole: Spectrum, reading: RankReading, noise_nats: float | None) -> WidthEstimate:
    suspect = reading.gaps[-1].rank if reading.gaps else None
    return WidthEstimate(
        status=Status.UNRESOLVED,
        reason=reading.reason,
        gaps=reading.gaps,
        at_least=None if noise_nats is None else _beyond_noise(found, whole, reading, noise_nats),
        needs=next_size(whole.contexts, whole.tokens, suspect),
        contexts=whole.contexts,
        tokens=whole.tokens,
        method=whole.method,
        values_K=whole.values_K,
    )


def _beyond_noise(found: Spectra, whole: Spectrum, reading: RankReading, noise_nats: float) -> int:
    """How many values are over twice the largest that independent errors make, less one for a bias.

    Behind a steep gap that is no proof the rest may be what a soft-cap or frozen noise adds to a narrower model.
    """
    errors = (noise_nats, lattice_nats(found.matrix_NM, noise_nats), _ARITHMETIC_NATS)
    edge = noise_edge(whole.contexts, whole.tokens, math.hypot(*errors))
    beyond = int((whole.values_K > max(2 * edge, ARITHMETIC * float(whole.values_K[0]))).sum())
    before = min([beyond, *(gap.rank for gap in reading.gaps if is_steep_enough(gap))])
    return max(before - 1, 0)


def _is_lost_in(noise_nats: float, whole: Spectrum, rank: int) -> bool:
    """Whether noise alone makes values as large as the last one before the gap."""
    left = noise_edge(whole.contexts - rank + 1, whole.tokens - rank + 1, noise_nats)
    return bool(whole.values_K[rank - 1] <= left)


def _too_few_distinct(matrix_NM: FloatArray, whole: Spectrum, rank: int) -> str | None:
    """Contexts or tokens that repeat one another make a rank of their own: says so where that explains the gap."""
    tail_energy = float((whole.values_K[rank:] ** 2).sum())
    share = (1 - rank / whole.contexts) * (1 - rank / whole.tokens)
    noise_energy = tail_energy / max(share, 1e-3)  # in the whole matrix, of which the tail is what signal leaves
    enough = rank + 1 + MIN_TAIL
    for name, rows in (("contexts", matrix_NM), ("tokens", matrix_NM.T)):
        some = rows[:: max(1, len(rows) // (2 * enough))]  # most often enough, and a vocabulary's pairs are many
        if distinct_rows(some, noise_energy / len(rows)) < enough:
            distinct = distinct_rows(rows, noise_energy / len(rows))
            if distinct < enough:
                return f"{distinct} different {name} are too few to believe the gap at {rank}"
    return None


def _down_to(whole: Spectrum, rank: int) -> float:
    """How far below the largest value the gap after `rank` must be seen again."""
    return float(whole.values_K[rank - 1] / whole.values_K[0]) / 10


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Looks for the same gap in two parts that share as few contexts and tokens as the spare ones allow.

    `beside`: the rank without a bias, whose gap may be the larger. `down_to`: as `Spectra.of`.
    """

    rank: int
    beside: int | None
    down_to: float
    seed: int

    def confirm(self, whole: Spectra) -> Confirmation:
        rng = np.random.default_rng(self.seed)
        before = max(0, self.rank - 1 - WINDOW)
        contexts, contexts_disjoint = self._split(whole.matrix_NM.shape[0], rng)
        tokens, tokens_disjoint = self._split(whole.matrix_NM.shape[1], rng)
        for chosen_contexts, chosen_tokens in zip(contexts, tokens, strict=True):
            part = whole.part(chosen_contexts, chosen_tokens)
            end_K = part.end(Centring.TOKENS, before=before, down_to=self.down_to)
            if not shows_gap_at(end_K, self.rank, beside=self.beside, before=before):
                return Confirmation.NONE
        return Confirmation.DISJOINT if contexts_disjoint and tokens_disjoint else Confirmation.OVERLAPPING

    def _split(self, count: int, rng: np.random.Generator) -> tuple[list[IdArray], bool]:
        """Halves where each has enough for the rank, else all but half of the spare; and whether they are halves."""
        order = rng.permutation(count)
        if count // 2 >= 1.1 * self.rank + 2 * MIN_TAIL:
            return [order[: count // 2], order[count // 2 :]], True
        left_out = (count - self.rank) // 2
        return [order[left_out:], order[: count - left_out]], False


@dataclass(frozen=True, kw_only=True)
class _Doubt:
    """Why a gap is not believed after all (None: it is), and what else was found out about it."""

    reason: str | None = None
    heads: Heads = Heads.ONE
    confirmation: Confirmation = Confirmation.NONE


def _doubt(found: Spectra, whole: Spectrum, parts: _Parts) -> _Doubt:
    """Whether repeats or several heads make the gap, and whether it is found again."""
    too_few = _too_few_distinct(found.matrix_NM, whole, parts.rank)
    if too_few:
        return _Doubt(reason=too_few)
    heads = heads_of(found, parts.rank, down_to=10 * parts.down_to, seed=parts.seed)
    if heads is Heads.SEVERAL:
        return _Doubt(reason=heads.value, heads=heads)
    confirmation = parts.confirm(found)
    if confirmation is Confirmation.NONE:
        return _Doubt(reason=f"the gap at {parts.rank} was not found again in parts of the data", heads=heads)
    return _Doubt(reason=None if heads is Heads.ONE else heads.value, heads=heads, confirmation=confirmation)
