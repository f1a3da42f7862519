"""What greedy answers say of many logits at once: an interval a token, and where to place the next biases.

A race biases many tokens of one context; the answer is the token with the highest score, or the anchor (the token that
comes first without bias, score 0). Carlini et al. (arXiv 2403.06634, appendix on logprob-free attacks) call it
one-of-n where the biases give each token the same chance. The winner's logit is over its threshold and its score over
all others'; the losers' scores are under the winner's upper bound. Those difference constraints go on to bound both
while winners are refined, so the last races are kept (a race between wide intervals says nothing of narrow ones), and
`relax` sweeps over them (Bellman-Ford).

Ours differs in two ways that count. The population of logits is taken as normal, with a mean and spread that are
fitted to the intervals themselves (interval-censored likelihood on a grid), so that a first threshold cuts off the tail
that the race needs and not a part of a uniform range. And the number of tokens that are expected over their thresholds
is not one in all but about five: the answer is then nearly always a token, its interval is wider by two bits, and the
whole gains more than it costs (`benchmarks/readouts.py` runs both).

Gaps are logits minus the anchor's, in nats, so at most 0. Legend: M tokens, C tokens of one race, Q races, E all tokens
of all kept races, one race after the other, G grid points.
"""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.readouts.base import Prior
from lensmith.core.arrays import BoolArray, Float64Array, IdArray


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One race: the tokens in it and their biases, by place in the race's columns."""

    columns_C: NDArray[np.int64]
    biases_C: NDArray[np.float64]


ANCHOR = -1
"""The winner of a race in which no biased token came first."""

WIDE_SPREADS = 1.0
"""A token whose interval is wider than this many standard deviations of its prior is placed by the prior."""

RELAX_EVERY = 50
"""Races between two sweeps over the races before."""

EXACT_STEPS = 8.0
"""How many times what scores are exact to a threshold lies below the upper bound, at least."""

_FIT_TOKENS = 256
_NORMAL_AT = np.linspace(-8.0, 8.0, 4097)
_NORMAL_BELOW = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in _NORMAL_AT])


@dataclass(kw_only=True)
class Intervals:
    """Intervals of the gaps of `count` tokens with one anchor.

    `lowest` is minus the largest bias: no answer says anything below it. `exact_nats` is how exactly the endpoint adds
    and compares scores; no interval becomes narrower. `prior` is of these columns.
    """

    count: int
    lowest: float
    exact_nats: float = 2e-6
    prior: Prior | None = None
    low_M: Float64Array = field(init=False)
    high_M: Float64Array = field(init=False)
    has_won_M: BoolArray = field(init=False)
    contradicted_M: BoolArray = field(init=False)
    races: int = 0
    _won: deque[tuple[Placement, int]] = field(init=False)
    strangers: int = 0
    _mean: float = field(init=False, default=0.0)
    _spread: float = field(init=False, default=1.0)
    _fits: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.low_M = np.full(self.count, self.lowest)
        self.high_M = np.zeros(self.count)
        self.has_won_M = np.zeros(self.count, dtype=bool)
        self.contradicted_M = np.zeros(self.count, dtype=bool)
        self._won = deque(maxlen=max(self.count, 1))
        self._refit()

    # --- what is known ------------------------------------------------------------------------------------------

    @property
    def widths(self) -> Float64Array:
        return self.high_M - self.low_M

    @property
    def centres(self) -> Float64Array:
        """The middle of each interval, by the prior where it is wide."""
        mean_M, spread_M = self._believed()
        below_M = (_below((self.low_M - mean_M) / spread_M) + _below((self.high_M - mean_M) / spread_M)) / 2
        by_prior_M = np.clip(mean_M + spread_M * _quantile(below_M), self.low_M, self.high_M)
        result: Float64Array = np.where(self._is_wide(spread_M), by_prior_M, (self.low_M + self.high_M) / 2)
        return result

    @property
    def errors(self) -> Float64Array:
        """The standard error of each centre."""
        return np.minimum(self.widths / math.sqrt(12.0), self._believed()[1])

    @property
    def readable(self) -> BoolArray:
        """Tokens that have won, so that their interval is closed at both ends, and whose answers agree."""
        result: BoolArray = self.has_won_M & ~self.contradicted_M
        return result

    # --- asking and hearing -------------------------------------------------------------------------------------

    def place(self, at_once: int, expected_over: float) -> Placement:
        """The next race: the `at_once` least known tokens, of which `expected_over` are expected to beat the anchor."""
        size = min(at_once, self.count)
        error_M = np.where(self.contradicted_M, -1.0, self.errors)
        columns_C = np.argpartition(-error_M, size - 1)[:size]
        columns_C = columns_C[np.argsort(-error_M[columns_C], kind="stable")].astype(np.int64)
        self._refit_if_due(columns_C)
        # A threshold closer to the upper bound than scores are exact would say nothing: then fewer tokens race.
        least_C = EXACT_STEPS * self.exact_nats / np.maximum(self.widths[columns_C], self.exact_nats)
        chance_C = np.minimum(np.maximum(expected_over / size, least_C), 0.5)
        size = max(int(np.searchsorted(np.cumsum(chance_C), max(expected_over, 0.5) + 1e-9)), 1)
        columns_C, chance_C = columns_C[:size], chance_C[:size]
        # As float32, which both sides hold exactly, whatever the wire and the server make of a number.
        biases_C = -self._thresholds(columns_C, chance_C).astype(np.float32).astype(np.float64)
        return Placement(columns_C=columns_C, biases_C=np.clip(biases_C, 0.0, -self.lowest))

    def place_known(self, at_once: int, margin_nats: float, seed: int) -> Placement:
        """A race that its first token must win, if the bounds of these tokens hold to within the margin.

        The first is the least likely one that was read, which needs the largest bias; the others are random.
        """
        columns = np.flatnonzero(self.readable)
        deepest = columns[self.centres[columns].argmin()]
        others = np.random.default_rng(seed).permutation(columns[columns != deepest])[: at_once - 1]
        over, under = -(self.low_M[deepest] - margin_nats), -(self.high_M[others] + margin_nats)
        biases_C = np.clip(np.concatenate([[over], under]), 0.0, -self.lowest)
        return Placement(columns_C=np.concatenate([[deepest], others]).astype(np.int64), biases_C=biases_C)

    def update(self, placement: Placement, winner: int) -> None:
        """Takes in who won: a place in `placement.columns_C`, or ANCHOR."""
        self.races += 1
        columns_C, biases_C, slack = placement.columns_C, placement.biases_C, self.exact_nats
        if winner == ANCHOR:
            self._lower(columns_C, -biases_C + slack)
            return
        column = columns_C[winner]
        best_loser = float((self.low_M[columns_C] + biases_C).max())
        floor = max(-biases_C[winner], best_loser - biases_C[winner]) - slack
        self._raise(int(column), floor)
        ceiling_C = self.high_M[column] + biases_C[winner] - biases_C + slack
        ceiling_C[winner] = self.high_M[column]
        self._lower(columns_C, ceiling_C)
        self.has_won_M[column] = True
        self._won.append((placement, winner))
        if self.races % RELAX_EVERY == 0:
            self.relax()

    def relax(self) -> None:
        """One sweep over the last races that a token won: each still bounds its winner from below and its losers from
        above. Bounds that move here move others in the next sweep (Bellman-Ford)."""
        columns_E = np.concatenate([race.columns_C for race, _ in self._won])
        biases_E = np.concatenate([race.biases_C for race, _ in self._won])
        sizes_Q = np.array([len(race.columns_C) for race, _ in self._won], dtype=np.int64)
        winners_Q = np.array([race.columns_C[winner] for race, winner in self._won], dtype=np.int64)
        winner_biases_Q = np.array([race.biases_C[winner] for race, winner in self._won])
        best_Q = np.maximum.reduceat(self.low_M[columns_E] + biases_E, np.cumsum(sizes_Q) - sizes_Q)
        ceiling_Q = self.high_M[winners_Q] + winner_biases_Q + self.exact_nats
        ceiling_E = np.repeat(ceiling_Q, sizes_Q) - biases_E
        ceiling_E[columns_E == np.repeat(winners_Q, sizes_Q)] = 0.0
        np.maximum.at(self.low_M, winners_Q, best_Q - winner_biases_Q - self.exact_nats)
        np.minimum.at(self.high_M, columns_E, ceiling_E)
        self._contradict(np.flatnonzero(self.high_M < self.low_M))

    def _lower(self, columns_C: IdArray, ceiling_C: Float64Array) -> None:
        self.high_M[columns_C] = np.minimum(self.high_M[columns_C], ceiling_C)
        self._contradict(columns_C[self.high_M[columns_C] < self.low_M[columns_C]])

    def _raise(self, column: int, floor: float) -> None:
        self.low_M[column] = max(self.low_M[column], floor)
        if self.low_M[column] > self.high_M[column]:
            self._contradict(np.array([column]))

    def _contradict(self, columns_C: IdArray) -> None:
        """Bounds that crossed cannot both be right: such a token is not read, and bounds no other from now on."""
        self.contradicted_M[columns_C] = True
        self.low_M[columns_C], self.high_M[columns_C] = self.lowest, 0.0

    # --- the prior ----------------------------------------------------------------------------------------------

    def _believed(self) -> tuple[Float64Array, Float64Array]:
        """Mean and spread of each gap before its own answers: the prior's, shifted and scaled as this row shows."""
        mean_M = np.zeros(self.count) if self.prior is None else self.prior.mean_M
        spread_M = np.ones(self.count) if self.prior is None else self.prior.spread_M
        return mean_M + self._mean * spread_M, self._spread * spread_M

    def _is_wide(self, spread_M: Float64Array) -> BoolArray:
        result: BoolArray = self.widths > WIDE_SPREADS * spread_M
        return result

    def _thresholds(self, columns_C: IdArray, chance_C: Float64Array) -> Float64Array:
        """Where each token is exceeded with its chance: by the prior where its interval is wide, else evenly."""
        mean_M, spread_M = self._believed()
        mean_C, spread_C = mean_M[columns_C], spread_M[columns_C]
        low_C, high_C = self.low_M[columns_C], self.high_M[columns_C]
        below_low_C, below_high_C = _below((low_C - mean_C) / spread_C), _below((high_C - mean_C) / spread_C)
        mass_C = below_high_C - below_low_C
        by_prior_C = mean_C + spread_C * _quantile(below_high_C - chance_C * mass_C)
        evenly_C = high_C - chance_C * (high_C - low_C)
        use_prior_C = self._is_wide(spread_M)[columns_C] & (mass_C > 1e-3)
        result: Float64Array = np.where(use_prior_C, np.clip(by_prior_C, low_C, high_C), evenly_C)
        return result

    def _refit_if_due(self, columns_C: IdArray) -> None:
        wide_C = self._is_wide(self._believed()[1])[columns_C]
        if wide_C.any() and (self.races < 64 or self.races >= 1.1 * self._fits):
            self._refit()

    def _refit(self) -> None:
        """Fits mean and spread of the population to the intervals, with the uncertainty of the fit in the spread."""
        self._fits = self.races
        informed = np.flatnonzero((self.high_M < 0) | self.has_won_M)
        if len(informed) > _FIT_TOKENS:
            informed = informed[:: -(-len(informed) // _FIT_TOKENS)]
        mean_M = np.zeros(self.count) if self.prior is None else self.prior.mean_M
        spread_M = np.ones(self.count) if self.prior is None else self.prior.spread_M
        low_C = (self.low_M - mean_M)[informed] / spread_M[informed]
        high_C = (self.high_M - mean_M)[informed] / spread_M[informed]
        if self.prior is None:
            means_G, spreads_G = np.linspace(0.6 * self.lowest, 0.0, 25), np.geomspace(1.0, 16.0, 9)
        else:
            means_G, spreads_G = np.linspace(-4.0, 4.0, 17), np.geomspace(0.4, 3.0, 7)
        for _ in range(2):
            fit = _fit(low_C, high_C, means_G, spreads_G)
            step = (means_G[1] - means_G[0]) / 2
            means_G = np.linspace(fit.mean - 2 * max(step, fit.mean_error), fit.mean + 2 * max(step, fit.mean_error), 9)
            spreads_G = fit.spread * np.geomspace(0.6, 1.6, 7)
        self._mean = min(fit.mean, 0.0) if self.prior is None else fit.mean
        self._spread = math.hypot(fit.spread, fit.mean_error)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    mean: float
    mean_error: float
    spread: float


def _fit(low_C: Float64Array, high_C: Float64Array, means_G: Float64Array, spreads_G: Float64Array) -> _Fit:
    """Posterior means over a grid of normal populations of which each value is known to lie in an interval."""
    scale_1G = 1.0 / spreads_G[None, :, None]
    between = _below((high_C - means_G[:, None, None]) * scale_1G) - _below((low_C - means_G[:, None, None]) * scale_1G)
    likelihood_GG = np.log(np.maximum(between, 1e-12)).sum(axis=2)
    weight_GG = np.exp(likelihood_GG - likelihood_GG.max())
    weight_GG /= weight_GG.sum()
    mean = float(weight_GG.sum(axis=1) @ means_G)
    variance = float(weight_GG.sum(axis=1) @ (means_G - mean) ** 2)
    return _Fit(mean=mean, mean_error=math.sqrt(variance), spread=float(weight_GG.sum(axis=0) @ spreads_G))


def _below(value: NDArray[np.float64]) -> Float64Array:
    """The normal distribution function, to about 1e-7."""
    return np.asarray(np.interp(value, _NORMAL_AT, _NORMAL_BELOW))


def _quantile(below: Float64Array) -> Float64Array:
    return np.asarray(np.interp(below, _NORMAL_BELOW, _NORMAL_AT))
