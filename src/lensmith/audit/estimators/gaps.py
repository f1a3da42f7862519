"""Where singular values fall from signal to noise: a rule that would rather say nothing than something wrong.

The papers take the largest ratio of consecutive values (Carlini et al., arXiv 2403.06634, algorithm 1). On noisy
outputs a large ratio among the first values beats the true one, so here a ratio counts by how much it stands out from
its neighbours: the log-ratio minus the local median, over the local median deviation. Where more than one stands out,
the last one is the rank (after it there is noise only); the others are listed, because a model whose outputs were
padded after training shows its true width as an earlier gap. The rule is stricter for small ranks: with few values
before it a gap says little, since the signal itself may fall that steeply into the noise.

Where only the end of a spectrum was computed, `before` says how many larger values are missing.

Legend: K values.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lensmith.audit.findings.wording import ratio
from lensmith.core.arrays import Float64Array

WINDOW = 24
"""Neighbours on each side that a gap is compared with."""
MIN_SCORE = 20.0
MIN_RATIO = 1.5
MIN_TAIL = 8
"""Values that must follow a gap before it is believed."""
_EDGE = 5
"""The last values fall steeply in any matrix and are not looked at."""
_DOMINANCE = 2.0
"""How many times the largest log-ratio among the values before it a believed log-ratio must be."""
_RIVAL = 50.0
"""An earlier gap of this ratio, or of the square of the last one's where that is more, leaves the rank open."""
ARITHMETIC = 4e-7
"""Below this part of the largest value, float32 arithmetic makes directions of its own: sums of products that one
large term dominates are rounded alike in all contexts. Three to four units of its last place."""
_FEW_VALUES = 40.0
"""A gap after r values must have a ratio of at least 1 + 40 / r: 41 for the first value, 1.5 from 80 on."""
_SMALLEST_DEVIATION = 1e-4


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A fall between the values number `rank` and `rank` + 1 (counted from 1).

    `score`: how far it stands out from its neighbours, in local median deviations. `dominance`: its log-ratio over the
    largest log-ratio among the values before it.
    """

    rank: int
    ratio: float
    score: float
    dominance: float


@dataclass(frozen=True, kw_only=True)
class RankReading:
    """What `count` values say of the rank: `gap` is believed, or None and `reason` why; `gaps`: all significant."""

    gap: Gap | None
    gaps: tuple[Gap, ...]
    count: int
    reason: str

    @property
    def rank(self) -> int | None:
        return self.gap.rank if self.gap else None


def significant_gaps(values_K: Float64Array, *, before: int = 0) -> tuple[Gap, ...]:
    """The falls with a score of 20 and a ratio of 1.5 at least, by rank. `values_K`: positive, largest first."""
    falls = -np.diff(np.log(values_K))[: len(values_K) - 1 - _EDGE]
    if len(falls) < 2:
        return ()
    score_K = _scores(falls)
    chosen = np.flatnonzero((score_K >= MIN_SCORE) & (falls >= np.log(MIN_RATIO)))
    return tuple(_gap(falls, score_K, int(index), before) for index in chosen)


def read_rank(values_K: Float64Array, *, largest: float | None = None, before: int = 0) -> RankReading:
    """The rank that a spectrum shows, or why it shows none.

    `largest`: the largest value before anything but the rows' means was taken out, where that is not among `values_K`;
    arithmetic rounds at its size.
    """
    gaps, count = significant_gaps(values_K, before=before), before + len(values_K)
    if not gaps:
        reason = f"no value falls out of line: the rank is over {max(count - _EDGE, 0)}, or lost in noise"
        return RankReading(gap=None, gaps=(), count=count, reason=reason)
    last = _before_rounding(values_K, gaps, largest or float(values_K[0]), before)
    if not is_deep_enough(last, count):
        reason = f"the gap at {last.rank} (x{last.ratio:.3g}, {count - last.rank} values after it) is no proof yet"
    elif last.dominance < _DOMINANCE:
        reason = f"the gap at {last.rank} (x{last.ratio:.3g}) is hardly larger than one before it"
    elif rivals := [gap for gap in gaps if gap.rank < last.rank and gap.ratio >= max(_RIVAL, last.ratio**2)]:
        reason = f"the gap at {last.rank} (x{last.ratio:.3g}) is small beside the one at {rivals[-1].rank}"
    else:
        reason = f"values fall {ratio(last.ratio)}-fold after number {last.rank}"
        return RankReading(gap=last, gaps=gaps, count=count, reason=reason)
    return RankReading(gap=None, gaps=gaps, count=count, reason=reason)


def _before_rounding(values_K: Float64Array, gaps: tuple[Gap, ...], largest: float, before: int) -> Gap:
    """The last gap; or, where gaps stand within what float32 arithmetic makes by itself, the large one before them."""
    *earlier, last = gaps
    for gap in earlier:
        is_large = gap.ratio >= max(_RIVAL, last.ratio**2)
        above, below = values_K[gap.rank - before - 1 : gap.rank - before + 1]
        if is_large and below < ARITHMETIC * largest <= above:
            return gap
    return last


def is_deep_enough(gap: Gap, count: int) -> bool:
    """Whether enough of `count` values follow a fall that is steep enough."""
    return count - gap.rank >= MIN_TAIL and is_steep_enough(gap)


def is_steep_enough(gap: Gap) -> bool:
    """Whether the fall is more than so few values before it can show by chance."""
    return gap.ratio >= 1 + _FEW_VALUES / gap.rank


def shows_gap_at(values_K: Float64Array, rank: int, *, beside: int | None = None, before: int = 0) -> bool:
    """Whether the largest fall among the values from `rank` - 24 on is the one after number `rank`, and stands out.

    A weaker test than `read_rank`, for confirming on part of the data what the whole has shown. `beside`: another rank
    whose gap may be larger. `before`: no more than `rank` - 25.
    """
    rank, beside = rank - before, beside and beside - before
    falls = -np.diff(np.log(values_K))[: len(values_K) - 3]
    start = max(0, rank - 1 - WINDOW)
    if rank < 1 or rank > len(falls):
        return False
    rivals = np.delete(falls, [rank - 1, beside - 1] if beside else [rank - 1])[start:]
    is_largest = falls[rank - 1] > rivals.max(initial=0.0)
    neighbours = np.delete(falls[start : rank + WINDOW], rank - 1 - start)
    deviation = max(float(np.median(np.abs(neighbours - np.median(neighbours)))), _SMALLEST_DEVIATION)
    score = (falls[rank - 1] - np.median(neighbours)) / deviation
    return bool(is_largest and falls[rank - 1] >= np.log(1.2) and score >= MIN_SCORE / 2)


def may_hide_a_rival(values_K: Float64Array) -> bool:
    """Whether, once one direction more is centred out, these values may have a fall that leaves the rank open.

    The values without it lie between these (Cauchy's interlacing theorem), so that a fall among them is no larger than
    two falls here.
    """
    return bool((values_K[2:] * _RIVAL <= values_K[:-2]).any())


def _scores(falls_K: Float64Array) -> Float64Array:
    padding = np.full(WINDOW, np.nan)
    around_KW = sliding_window_view(np.concatenate([padding, falls_K, padding]), 2 * WINDOW + 1).copy()
    around_KW[:, WINDOW] = np.nan  # a gap is no neighbour of itself
    median_K = np.nanmedian(around_KW, axis=1)
    deviation_K = np.nanmedian(np.abs(around_KW - median_K[:, None]), axis=1)
    result: Float64Array = (falls_K - median_K) / np.maximum(deviation_K, _SMALLEST_DEVIATION)
    return result


def _gap(falls_K: Float64Array, score_K: Float64Array, index: int, before: int) -> Gap:
    larger = falls_K[max(0, index - WINDOW) : index]
    steepest = max(float(larger.max()), 1e-9) if larger.size else np.inf
    # With nothing before it there is nothing to compare with; the ratio that few values need decides alone.
    dominance = float(falls_K[index]) / steepest if np.isfinite(steepest) else _DOMINANCE
    ratio = float(np.exp(min(falls_K[index], 700.0)))
    return Gap(rank=before + index + 1, ratio=ratio, score=float(score_K[index]), dominance=dominance)
