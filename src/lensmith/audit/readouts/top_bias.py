"""The read-outs that need a bias which moves the logprobs: top-k with a reference token, and a single top logprob.

P3 (Carlini et al., arXiv 2403.06634, section 5.3, "logprob-4" of their table): K - 1 targets and one reference token
are lifted into the top K, and the difference of two logprobs, less the difference of their biases, is that of the
logits: K - 1 logits a request, exact to what is told. Ours differs in the bias: once a row is known, each column has
its own, so that all scores meet near the top, where float32 has small steps; and the reference is the row's natural
top, which is in the top K whatever happens. With `positions` the reference is lifted above the targets, so that it
stands at every position and one request reads several contexts (the paper's multi-token expansion).

P6 (the same paper, section 5.4; Finlayson et al., arXiv 2403.09539, for the odds formula): one token is biased and the
top logprob alone is told. The paper's bias of -1 loses almost everything for unlikely tokens; a bias that makes the
token nearly tie with all others together keeps it, and takes one or two steps to find.

One logprob follows from that one number. Let p be the token's probability without the bias and B its bias. Where
another token stays on top, its logprob falls by log(1 + p (e^B - 1)) (Carlini et al., arXiv 2403.06634, section 5.4,
there with B = -1). Where the biased token is on top with logprob y', the odds give log p (Finlayson et al., arXiv
2403.09539): logit(p) = logit(e^y') - B. Both lose least where the token ties with all others together, p e^B = 1, and
then about twice the precision of what is returned.

Legend: N rows, T positions, M token ids, K top tokens, C targets of one request. B is a bias in nats.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from lensmith.audit.estimators.noise import FLOAT32_ERROR_NATS, float32_nats
from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.readouts.base import (
    Asker,
    Prior,
    Reading,
    biased_logprob,
    checked_ids,
    chunks_of,
    cost_of,
    greedy,
    logprobs_of,
    require_limits,
)
from lensmith.core.arrays import Float64Array, IdArray
from lensmith.core.endpoint import NO_TOKEN, TEXT_IDS_FROM, Answer, Endpoint, Request
from lensmith.core.errors import InputError, NotExposedError

FAR_STEP_NATS = 12.0
"""How far to go where a bias was so far off that nothing can be seen: float32 sees about this far both ways."""

LOGPROB_FLOOR = -700.0


@dataclass(frozen=True, kw_only=True)
class Tie:
    """What one answer said: the token's logprob (NaN: nothing), its error, and the bias to try if that is too much."""

    logprob: float
    error_nats: float
    next_bias: float


def tied(logprob: float) -> float:
    """The bias with which a token of that logprob ties with all others together."""
    return -max(logprob, LOGPROB_FLOOR)


def tie_from_answer(base: float, top: float, bias: float, *, is_target: bool, logprob_error_nats: float) -> Tie:
    """The logprob of a token with `bias`, from the top logprob without (`base`) and with it (`top`).

    `is_target`: the token itself is on top. `logprob_error_nats` is the standard error of what is told.
    """
    return _from_odds(top, bias, logprob_error_nats) if is_target else _from_fall(base, top, bias, logprob_error_nats)


def _from_odds(top: float, bias: float, logprob_error_nats: float) -> Tie:
    others = -np.expm1(min(top, 0.0))
    if others <= 4 * logprob_error_nats:
        return Tie(logprob=np.nan, error_nats=np.inf, next_bias=bias - FAR_STEP_NATS)
    log_odds = top - np.log(others) - bias
    logprob = float(-np.log1p(np.exp(-log_odds)) if log_odds > -30 else log_odds)
    return Tie(logprob=logprob, error_nats=float(logprob_error_nats / others), next_bias=tied(logprob))


def _from_fall(base: float, top: float, bias: float, logprob_error_nats: float) -> Tie:
    added = np.expm1(base - top)
    if added <= 8 * logprob_error_nats or bias <= 0:
        return Tie(logprob=np.nan, error_nats=np.inf, next_bias=max(bias, 0.0) + FAR_STEP_NATS)
    logprob = float(np.log(added) - bias - np.log(-np.expm1(-bias)))
    error = np.sqrt(2.0) * logprob_error_nats * (1 + added) / added
    return Tie(logprob=logprob, error_nats=float(error), next_bias=tied(logprob))


START_BIAS_NATS = 40.0
"""Without a prior: over the distance from the likeliest to the least likely token of most models."""

CHECK_BIAS_NATS = 3.0
_LOGITS_NATS = 24.0
"""About the size of a model's largest logits, to which a bias is added."""
_MUCH_WORSE = 10.0
"""A value that errs by so many times more than most is not read: one column of them would pass for a direction."""
TIE_STEPS = 4
"""Biases are multiples of 1/4, which float32 holds and adds with little rounding; a tie need not be closer."""

FIRST_PAIRS = 8
"""A few logits tell what bias the others need."""

SMALL_BIAS_NATS = 0.5

SPREADS_ABOVE = 4.0
"""How many standard deviations a target is lifted above the natural top, so that it rarely falls short."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A context as it is: its most likely token and that token's logprob."""

    token_id: int
    logprob: float

    @property
    def has_id(self) -> bool:
        """Whether it is named by its id, and not by a number that a client gave its text."""
        return 0 <= self.token_id < TEXT_IDS_FROM


@dataclass(frozen=True, kw_only=True)
class TopBiasReader:
    """P3. `top` is the cap on top logprobs, `bias_limit` on a bias, `biased_ids` on how many ids it may name.

    `prior` chooses the biases; without one the first row is read with `START_BIAS_NATS` and gives it to the others.
    `own_reference`: the first column is the reference of every row, and no row's natural top need be known.
    """

    read_out: ClassVar[ReadOut] = ReadOut.P3
    top: int = 5
    bias_limit: float = 100.0
    biased_ids: int | None = None
    positions: int = 1
    own_reference: bool = False
    prior: Prior | None = None
    batch: int = 256
    logprob_error_nats: float = FLOAT32_ERROR_NATS

    def __post_init__(self) -> None:
        require_limits(bias_limit=self.bias_limit, positions=self.positions, batch=self.batch)
        if self.top < 2 or (self.biased_ids is not None and self.biased_ids < 2):
            raise InputError("a reference and a target are needed", expected="top and biased ids of 2 or more")

    @property
    def targets(self) -> int:
        """Logits a request."""
        return min(self.top, self.biased_ids or self.top) - 1

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`. NaN where a token did not enter the top with the largest bias.

        Raises NotExposedError where the bias does not move the logprobs.
        """
        ids_M = checked_ids(token_ids)
        asker = Asker(endpoint=endpoint, batch=self.batch)
        if self.own_reference:
            bases = [Base(token_id=int(ids_M[0]), logprob=math.nan)] * len(contexts)
        else:
            bases = ask_bases(asker, contexts)
            if not all(base.has_id for base in bases):
                raise NotExposedError("the top token is told by its text, so it cannot be biased by id")
            if bases:
                require_moved(asker, contexts[0], bases[0], self.bias_limit, self.logprob_error_nats)
        if self.prior is not None:
            self.prior.require_columns(ids_M)
        first = 1 if self.prior is None and not self.own_reference else len(contexts)
        parts = [self._rows(asker, contexts[:first], bases[:first], ids_M, self.prior)]
        if first < len(contexts):
            learned = self._reading(parts, ids_M, asker)
            prior = Prior.from_rows(learned) if learned.read_fraction > 0.5 else None
            parts.append(self._rows(asker, contexts[first:], bases[first:], ids_M, prior))
        return self._reading(parts, ids_M, asker)

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """One request a context for its reference, one for the check, and one for each `targets` logits.

        Exact where every target enters the top at once and the references are not among the columns.
        """
        contexts = math.ceil(rows / self.positions)
        requests = contexts * -(-max(1, columns - self.own_reference) // self.targets)
        tokens = cost_of(requests, self.positions, context_tokens).tokens
        checks = cost_of(0 if self.own_reference else contexts + 1, 1, context_tokens)
        return Cost(queries=requests + checks.queries, tokens=tokens + checks.tokens)

    def _reading(self, parts: Sequence[Float64Array], ids_M: IdArray, asker: Asker) -> Reading:
        logits_NM = np.concatenate([part_NTM.reshape(-1, len(ids_M)) for part_NTM in parts])
        is_top_N = (np.arange(len(logits_NM)) % self.positions == 0) & (not self.own_reference)
        # A value is a difference to the reference, whose error all targets of a request share.
        scores_nats = float32_nats(asker.largest_bias + _LOGITS_NATS)
        one_nats = math.hypot(asker.resolution_nats(self.logprob_error_nats), scores_nats)
        resolution_nats = one_nats * math.sqrt(self.targets + 1)
        top_N = np.where(is_top_N, 0.0, np.nan)
        return asker.reading(logits_NM, ids_M, resolution_nats, top_N)

    def _rows(
        self, asker: Asker, contexts: Sequence[Request], bases: Sequence[Base], ids_M: IdArray, prior: Prior | None
    ) -> Float64Array:
        """The rows (contexts, positions, columns) relative to each context's reference."""
        rows_NTM = np.full((len(contexts), self.positions, len(ids_M)), np.nan)
        for row, base in enumerate(bases):
            rows_NTM[row][:, ids_M == base.token_id] = 0.0
        for biases_M in self._bias_steps(len(ids_M), prior):
            jobs: list[tuple[int, IdArray]] = []
            for row, row_TM in enumerate(rows_NTM):
                missing = np.flatnonzero(np.isnan(row_TM).any(axis=0))
                jobs += [(row, columns_C) for columns_C in chunks_of(missing, self.targets)]
            if not jobs:
                break
            requests = [self._request(contexts[row], bases[row], ids_M, biases_M, each) for row, each in jobs]
            for (row, columns_C), request, answer in zip(jobs, requests, asker.ask(requests), strict=True):
                found_TC = self._found(answer, request, bases[row].token_id, ids_M[columns_C])
                rows_NTM[row][:, columns_C] = np.where(np.isnan(found_TC), rows_NTM[row][:, columns_C], found_TC)
        return rows_NTM

    def _bias_steps(self, columns: int, prior: Prior | None) -> list[Float64Array]:
        """The biases of each try: expected ones, then larger, then the largest."""
        if (
            self.own_reference or self.positions > 1
        ):  # the reference goes as far above the targets as they go above all others
            return [np.full(columns, min(START_BIAS_NATS, self.bias_limit / 2))]
        flat = [np.full(columns, min(each, self.bias_limit)) for each in (START_BIAS_NATS, self.bias_limit)]
        if prior is None:
            return flat if self.bias_limit > START_BIAS_NATS else flat[1:]
        # Whole numbers, which every server holds exactly: a bias that it rounds is an error of the logit.
        expected_M = np.ceil(SPREADS_ABOVE * prior.spread_M - prior.mean_M)
        return [np.clip(expected_M, 0.0, self.bias_limit), *flat]

    def _request(
        self, context: Request, base: Base, ids_M: IdArray, biases_M: Float64Array, columns_C: IdArray
    ) -> Request:
        biases = dict(zip(ids_M[columns_C].tolist(), biases_M[columns_C].tolist(), strict=True))
        # Far above all targets where it must be chosen at every position; else near them, where float32 is finest.
        is_lifted = self.own_reference or self.positions > 1
        lift = 2 * max(biases.values()) if is_lifted else min(biases.values()) // 4
        biases[base.token_id] = min(lift, self.bias_limit)
        return greedy(context, max_tokens=self.positions, logit_bias=biases, top_logprobs=self.top)

    def _found(self, answer: Answer, request: Request, reference: int, ids_C: IdArray) -> Float64Array:
        """Logits (positions, targets) relative to the reference; NaN where one of the two is not told."""
        logprobs, biases = logprobs_of(answer), request.logit_bias
        found_TC = np.full((self.positions, len(ids_C)), np.nan)
        written_T = answer.choices[0].token_ids_T
        column_of = {token_id: column for column, token_id in enumerate(ids_C.tolist())}
        for position, ids_K in enumerate(logprobs.top_ids_TK[: self.positions].tolist()):
            if position and int(written_T[position - 1]) != reference:
                break
            values = dict(zip(ids_K, logprobs.top_TK[position].tolist(), strict=True))
            if reference not in values:
                continue
            for token_id, value in values.items():
                if token_id in column_of:
                    difference = value - values[reference]
                    found_TC[position, column_of[token_id]] = difference - (biases[token_id] - biases[reference])
        return found_TC


@dataclass(frozen=True, kw_only=True)
class SingleTopReader:
    """P6. A value is taken when its error is `accept_nats` or less (20 times `logprob_error_nats` where that is more),
    after at most `steps` tries.

    Rows are absolute logprobs. A column's first bias comes from `prior`, or from the rows and columns read so far.
    """

    read_out: ClassVar[ReadOut] = ReadOut.P6
    bias_limit: float = 100.0
    prior: Prior | None = None
    steps: int = 6
    accept_nats: float = 2e-5
    batch: int = 256
    logprob_error_nats: float = FLOAT32_ERROR_NATS

    def __post_init__(self) -> None:
        require_limits(bias_limit=self.bias_limit, steps=self.steps, accept_nats=self.accept_nats, batch=self.batch)
        require_limits(logprob_error_nats=self.logprob_error_nats)

    @property
    def accepted_nats(self) -> float:
        """With which error a value is taken."""
        return max(self.accept_nats, 20 * self.logprob_error_nats)

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`. NaN where no bias within the limit made a token count.

        Raises NotExposedError where the bias does not move the logprobs.
        """
        ids_M = checked_ids(token_ids)
        asker = Asker(endpoint=endpoint, batch=self.batch)
        bases = ask_bases(asker, contexts)
        if bases and bases[0].has_id:
            require_moved(asker, contexts[0], bases[0], self.bias_limit, self.logprob_error_nats)
        elif bases:
            require_effect(asker, contexts[0], bases[0], {int(ids_M[0]): self.bias_limit}, self.logprob_error_nats)
        logprob_error_nats = asker.resolution_nats(self.logprob_error_nats)
        work = _TieWork(
            reader=replace(self, logprob_error_nats=logprob_error_nats),
            asker=asker,
            ids_M=ids_M,
            contexts=contexts,
            bases=bases,
        )
        pairs = [
            (row, column)
            for row, base in enumerate(bases)
            for column, token_id in enumerate(ids_M.tolist())
            if token_id != base.token_id
        ]
        start, size = 0, min(FIRST_PAIRS, self.batch)
        while start < len(pairs):
            work.run(pairs[start : start + size])
            start, size = start + size, min(2 * size, self.batch)
        for row, base in enumerate(bases):
            work.logits_NM[row, ids_M == base.token_id] = base.logprob
        errors = work.kept_errors()
        error_nats = float(np.sqrt((errors**2).mean())) if len(errors) else logprob_error_nats
        resolution_nats = math.hypot(error_nats, float32_nats(asker.largest_bias))
        top_N = np.array([base.logprob for base in bases])
        return asker.reading(work.logits_NM, ids_M, resolution_nats, top_N)

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """Between one and two requests a logit, counted as two; one a row, and one check."""
        return cost_of(rows * (2 * columns + 1) + 1, 1, context_tokens, extrapolated=True)


@dataclass(kw_only=True)
class _TieWork:
    """The state of one read: what is known of each logit, and which bias comes next."""

    reader: SingleTopReader
    asker: Asker
    ids_M: IdArray
    contexts: Sequence[Request]
    bases: Sequence[Base]
    logits_NM: Float64Array = field(init=False)
    errors_NM: Float64Array = field(init=False)
    names_M: dict[int, int] = field(default_factory=dict)
    tops: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.logits_NM = np.full((len(self.contexts), len(self.ids_M)), np.nan)
        self.errors_NM = np.full_like(self.logits_NM, np.nan)

    def run(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Reads these (row, column) pairs side by side, step by step."""
        limit = self.reader.bias_limit
        open_pairs = list(zip(pairs, self._first_biases(pairs), strict=True))
        for _ in range(self.reader.steps):
            if not open_pairs:
                return
            ties = self._ask(open_pairs)
            still_open = []
            for ((row, column), bias), tie in zip(open_pairs, ties, strict=True):
                if not tie.error_nats >= self.errors_NM[row, column]:
                    self.logits_NM[row, column], self.errors_NM[row, column] = tie.logprob, tie.error_nats
                next_bias = min(round(tie.next_bias * TIE_STEPS) / TIE_STEPS, limit)
                if not tie.error_nats <= self.reader.accepted_nats and abs(next_bias - bias) > 0.1:
                    still_open.append(((row, column), next_bias))
            open_pairs = still_open

    def kept_errors(self) -> Float64Array:
        """The errors of what was read; what errs far more than the rest counts as unread from then on, and so does a
        token that has the name of a row's top and is another, which no answer tells from it."""
        for column, name in self.names_M.items():
            for row, base in enumerate(self.bases):
                if base.token_id == name and (row, column) not in self.tops:
                    self.logits_NM[row, column] = self.errors_NM[row, column] = np.nan
        errors = self.errors_NM[np.isfinite(self.errors_NM)]
        if len(errors):
            most = max(_MUCH_WORSE * float(np.median(errors)), self.reader.accepted_nats)
            self.logits_NM[self.errors_NM > most] = np.nan
            errors = errors[errors <= most]
        return errors

    def _ask(self, open_pairs: Sequence[tuple[tuple[int, int], float]]) -> list[Tie]:
        requests = [
            greedy(self.contexts[row], logit_bias={int(self.ids_M[column]): bias}, top_logprobs=1)
            for (row, column), bias in open_pairs
        ]
        ties = []
        for ((row, column), bias), answer in zip(open_pairs, self.asker.ask(requests), strict=True):
            ties.append(self._tie(row, column, top_of(answer), bias))
        return ties

    def _tie(self, row: int, column: int, top: Base, bias: float) -> Tie:
        """What an answer said of a token. Where tokens are named by text, another top than before is the token that was
        biased, and a top that rises as far as its own bias would lift it is that token itself."""
        base, error_nats = self.bases[row], self.reader.logprob_error_nats
        if base.has_id:
            is_target = top.token_id == int(self.ids_M[column])
        else:
            is_target = top.token_id != base.token_id
            if is_target:
                self.names_M[column] = top.token_id
            elif top.logprob > base.logprob + 4 * error_nats:
                if bias > SMALL_BIAS_NATS:  # with a large one all that are lifted are nearly certain
                    return Tie(logprob=np.nan, error_nats=np.inf, next_bias=SMALL_BIAS_NATS)
                if abs(top.logprob - biased_logprob(base.logprob, bias)) > 4 * error_nats:
                    return Tie(logprob=np.nan, error_nats=np.inf, next_bias=bias)
                self.tops.add((row, column))
                return Tie(logprob=base.logprob, error_nats=error_nats, next_bias=bias)
        return tie_from_answer(base.logprob, top.logprob, bias, is_target=is_target, logprob_error_nats=error_nats)

    def _first_biases(self, pairs: Sequence[tuple[int, int]]) -> Float64Array:
        """The bias that would make each pair tie, as far as it can be expected."""
        tops_N = np.array([base.logprob for base in self.bases])
        prior = self.reader.prior
        if prior is not None:
            expected_M = prior.mean_M
        else:
            gaps_NM = self.logits_NM - tops_N[:, None]
            known_NM = np.isfinite(gaps_NM)
            overall = float(gaps_NM[known_NM].mean()) if known_NM.any() else -START_BIAS_NATS / 2
            total_M = np.where(known_NM, gaps_NM, 0.0).sum(axis=0)
            expected_M = (total_M + overall) / (known_NM.sum(axis=0) + 1)
        biases = [tied(expected_M[column] + tops_N[row]) for row, column in pairs]
        return np.asarray(np.minimum(np.round(np.array(biases) * TIE_STEPS) / TIE_STEPS, self.reader.bias_limit))


# --- what both need -----------------------------------------------------------------------------------------------


def ask_bases(asker: Asker, contexts: Sequence[Request]) -> list[Base]:
    """Each context's most likely token."""
    return [top_of(answer) for answer in asker.ask([greedy(context, top_logprobs=1) for context in contexts])]


def require_effect(asker: Asker, context: Request, base: Base, biases: Mapping[int, float], error_nats: float) -> None:
    """Lifts tokens that are not known to be the top. Raises NotExposedError where that leaves the top as it was."""
    (answer,) = asker.ask([greedy(context, logit_bias=biases, top_logprobs=1)])
    after = top_of(answer)
    is_moved = abs(after.logprob - base.logprob) > 4 * asker.resolution_nats(error_nats)
    if after.token_id == base.token_id and not is_moved:
        raise NotExposedError("the bias does not move the logprobs", actual=f"{after.logprob:.6f}, as without it")


def top_of(answer: Answer) -> Base:
    """The most likely token at the first position. Raises NotExposedError where none is told."""
    logprobs = logprobs_of(answer)
    if not logprobs.top_TK.size or logprobs.top_ids_TK[0, 0] == NO_TOKEN:
        raise NotExposedError("the endpoint told no top logprob")
    return Base(token_id=int(logprobs.top_ids_TK[0, 0]), logprob=float(logprobs.top_TK[0, 0]))


def require_moved(asker: Asker, context: Request, base: Base, bias_limit: float, error_nats: float) -> None:
    """Biases the likeliest token, down where it is nearly certain, and looks whether its logprob follows."""
    bias = min(bias_limit, CHECK_BIAS_NATS) * (1.0 if base.logprob < np.log(0.9) else -1.0)
    (answer,) = asker.ask([greedy(context, logit_bias={base.token_id: bias}, top_logprobs=1)])
    after = top_of(answer)
    if after.token_id != base.token_id:
        return  # another token is the top now, so what is ranked has moved
    if_moved = biased_logprob(base.logprob, bias)
    has_moved = abs(after.logprob - if_moved) < abs(after.logprob - base.logprob)
    # A logprob that is rounded to 0 tells no probability from which to expect anything.
    if not has_moved and abs(after.logprob - base.logprob) <= 4 * asker.resolution_nats(error_nats):
        raise NotExposedError(
            "the bias does not move the logprobs, so it cannot bring tokens into the top",
            expected=f"a logprob near {if_moved:.6f} with a bias of {bias:g}",
            actual=f"{after.logprob:.6f}, and {base.logprob:.6f} without it",
            hint="read the forced token's own logprob (P4a) or the greedy token (P7)",
        )
