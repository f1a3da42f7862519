"""The stages of an audit: prove a read-out on a small block, and find the width through it.

A read-out is proven by reading one block twice: what a model says must come out the same and differ between tokens and
contexts; noise, or a refusal in disguise, does neither. Where the interface itself tells some of these logprobs, the
block must agree with them too.

Sources: Carlini et al., arXiv 2403.06634, sections 4 and 5; Finlayson et al., arXiv 2403.09539.
Legend: N rows (contexts), M columns (tokens).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.contexts import Contexts, Form
from lensmith.audit.cures import cure
from lensmith.audit.findings import Cost, Finding, ReadOut, Severity
from lensmith.audit.growth import GrowingMatrix
from lensmith.audit.meter import BudgetError, Meter
from lensmith.audit.one_head import Heads
from lensmith.audit.price import Price, with_price
from lensmith.audit.probed import Probed
from lensmith.audit.reader_choice import Choice, choose
from lensmith.audit.reading import Reader
from lensmith.audit.watched_growth import FIRST_ROWS, GROWTH, WatchedGrowth
from lensmith.audit.width import NormType, Status, WidthEstimate, estimate_width
from lensmith.audit.wording import figure, ratio
from lensmith.core.endpoint import RefusedError
from lensmith.core.errors import InputError, NotExposedError

_BLOCK_ROWS = 4
_BLOCK_COLUMNS = 16
_BLOCK_START = 1_000_000
"""Contexts of the proof are others than those of the matrix."""
SECOND_SEED = 7_919
"""A seed changes nothing for a greedy server and makes the second read a question of its own."""
_WATCHED = (ReadOut.P1, ReadOut.P2)
"""Read-outs that tell what the model computed, to the precision of a float32."""
_FLOAT32_NATS = 1e-4
"""More than a model's own arithmetic in float32 makes of the noise of one value."""
_COLUMNS_PER_ROW = 1.25
_MOST_COLUMNS = 16_384
_MOST_ROWS_PER_COLUMN = 4
_LEAST_AGREEMENT = 0.98
"""Correlation of two reads of one block that is taken for reading: noise of a seventh of the logits' spread passes."""

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every stage needs."""

    meter: Meter
    probed: Probed
    form: Form
    folder: Path
    price: Price
    server: str | None
    retest: str
    seed: int

    def contexts(self, read_out: ReadOut) -> Contexts:
        """Prompt logprobs need contexts that a token can be put behind; all others take the form that was answered."""
        ids = read_out is ReadOut.P5 and self.probed.takes_token_ids
        return Contexts(Form.TOKEN_IDS if ids else self.form, self.seed)

    def finding(self, read_out: ReadOut | None, before: Cost, **parts: object) -> Finding:
        """A finding with its price, cure and retest filled in. `before`: what had been spent when its stage began."""
        now = self.meter.spent
        spent = Cost(
            queries=now.queries - before.queries,
            tokens=now.tokens - before.tokens,
            seconds=now.seconds - before.seconds,
        )
        filled: dict[str, object] = {
            "read_out": read_out,
            "spent": with_price(spent, self.price),
            "cure": "" if read_out is None else cure(read_out, self.server),
            "retest": self.retest,
        }
        return Finding(**{**filled, **parts})  # type: ignore[arg-type]  # the parts' types are the callers' affair


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Whether a read-out reads. `unresolved` says why it could not be told."""

    holds: bool = False
    findings: tuple[Finding, ...] = ()
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WidthOutcome:
    """What a read-out told of the width. `matrix` and `size` are what was read; `at_least` is proven in any case."""

    read_out: ReadOut | None = None
    width: int | None = None
    interval: tuple[int, int] | None = None
    at_least: int = 0
    note: str = ""
    singular_values: tuple[float, ...] = ()
    finding: Finding | None = None
    out_of_budget: bool = False
    matrix: GrowingMatrix | None = None
    rows: int = 0
    columns: int = 0
    rank: int = 0
    norm: NormType = NormType.UNKNOWN
    heads: Heads = Heads.ONE


def metadata_finding(stage: Stage) -> Finding:
    """What the interface says of the model without being asked."""
    facts = dict(stage.probed.facts)
    told = ", ".join(f"{name} = {value}" for name, value in sorted(facts.items()))
    return stage.finding(
        ReadOut.P0,
        stage.meter.spent,
        code="META",
        title="The interface states the model's size",
        severity=Severity.LOW,
        was_read=f"The metadata says {told}.",
        evidence=facts,
        spent=_one_query(stage),
        whole=_one_query(stage),
    )


def _one_query(stage: Stage) -> Cost:
    """What the probe paid for an answer that is a finding by itself."""
    return with_price(Cost(queries=1), stage.price)


def prove(stage: Stage, read_out: ReadOut) -> Proof:
    """Reads a small block twice through `read_out`. Raises BudgetError where the budget does not reach for that."""
    before = stage.meter.spent
    if read_out is ReadOut.P5 and not stage.probed.takes_token_ids:
        return Proof(findings=(_echo_leak(stage),))
    contexts = stage.contexts(read_out).take(_BLOCK_START, _BLOCK_START + _BLOCK_ROWS)
    again = [replace(context, seed=SECOND_SEED) for context in contexts]
    try:
        chosen = choose(read_out, stage.probed, stage.meter, contexts, columns=_BLOCK_COLUMNS, seed=stage.seed)
        first = chosen.reader.read(stage.meter, contexts, chosen.columns)
        second = chosen.reader.read(stage.meter, again, chosen.columns)
    except (RefusedError, NotExposedError, InputError) as error:
        return Proof(unresolved=(f"{read_out.value} ({read_out.title}): {error.problem}",))
    one_NM, two_NM = _centred(first.logits_NM), _centred(second.logits_NM)
    both_NM = np.isfinite(one_NM) & np.isfinite(two_NM)
    agreement = _correlation(one_NM[both_NM], two_NM[both_NM])
    if both_NM.mean() < 0.5 or not agreement >= _LEAST_AGREEMENT:
        told = f"{both_NM.mean():.0%} of a block was told, twice the same with a correlation of {agreement:.3f}"
        return Proof(unresolved=(f"{read_out.value} ({read_out.title}): it answers, but does not read logits: {told}",))
    return Proof(holds=True, findings=(_leak(stage, read_out, before, one_NM[both_NM], two_NM[both_NM]),))


def first_proven(stage: Stage) -> ReadOut | None:
    """The cheapest read-out that reads logits."""
    return next((read_out for read_out in stage.probed.readable() if prove(stage, read_out).holds), None)


def repeat_difference(stage: Stage, chosen: Choice) -> float:
    """The root mean square difference, in nats, of two reads of a few contexts over all columns."""
    contexts = stage.contexts(chosen.reader.read_out).take(_BLOCK_START, _BLOCK_START + _BLOCK_ROWS)
    again = [replace(context, seed=SECOND_SEED) for context in contexts]
    one_NM = _centred(chosen.reader.read(stage.meter, contexts, chosen.columns).logits_NM)
    two_NM = _centred(chosen.reader.read(stage.meter, again, chosen.columns).logits_NM)
    return float(np.sqrt(np.nanmean((one_NM - two_NM) ** 2)))


def _leak(stage: Stage, read_out: ReadOut, before: Cost, one: Float64Array, two: Float64Array) -> Finding:
    difference = float(np.sqrt(np.mean((one - two) ** 2)))
    spread = float(one.std())
    agreement = f"agree to {figure(difference, 2)} nats" if difference else "are equal"
    sentence = (
        f"{one.size} logits were read twice. The two readings {agreement}, while the logits themselves lie "
        f"{figure(spread, 2)} nats apart: what was read is the model, and not noise."
    )
    if read_out is ReadOut.P4A:
        sentence = (
            f"A token that a bias of +{stage.probed.largest_bias:g} forces is told with its true logprob, whether or "
            f"not it is among the top: that logprobs are taken before the bias does not close this. {sentence}"
        )
    return stage.finding(
        read_out,
        before,
        code=f"LEAK-{read_out.value}",
        title=f"The interface gives away {read_out.title}",
        severity=Severity.MEDIUM,
        was_read=sentence,
        evidence={"logits": one.size, "difference_nats": difference, "spread_nats": spread},
    )


def _echo_leak(stage: Stage) -> Finding:
    """Where prompts are text only, the probe's answer is the proof: how a text is cut into tokens is not told."""
    return stage.finding(
        ReadOut.P5,
        stage.meter.spent,
        code="LEAK-P5",
        title=f"The interface gives away {ReadOut.P5.title}",
        severity=Severity.MEDIUM,
        was_read=f"One request told {stage.probed.notes['echo']}. No block was read: prompts are text, not token ids.",
        evidence={"echo": stage.probed.notes["echo"]},
        spent=_one_query(stage),
    )


def find_width(
    stage: Stage, read_out: ReadOut, on_rows: Callable[[int, int], None] = lambda done, total: None
) -> WidthOutcome:
    """Reads a growing matrix through `read_out` until its rank shows, the budget ends, or it cannot grow."""
    before = stage.meter.spent
    contexts = stage.contexts(read_out)
    most = min(_MOST_COLUMNS, _affordable_columns(stage)) + 1
    try:
        chosen = choose(read_out, stage.probed, stage.meter, contexts.take(0, 4), columns=most, seed=stage.seed)
    except BudgetError as error:
        return WidthOutcome(read_out=read_out, out_of_budget=True, note=error.problem)
    matrix = GrowingMatrix(stage.folder, contexts, chosen.reader, chosen.all_columns)
    outcome = WidthOutcome(read_out=read_out, matrix=matrix)
    sizes = _sizes(chosen.reader, len(chosen.columns) - 1)
    is_watched = matrix.reader.read_out in _WATCHED and stage.probed.is_precise
    growth = WatchedGrowth(stage.meter, matrix, is_watched=is_watched)
    for number, (rows, wanted_columns) in enumerate(sizes):
        cost = matrix.cost_of(rows, wanted_columns)
        if cost.queries > stage.meter.queries_left:
            return replace(outcome, out_of_budget=True, note=_short(outcome, rows, wanted_columns, cost, stage))
        try:
            for rows_read in growth.to(rows, wanted_columns, on_rows):
                if rows_read == rows and is_watched and _may_wait(stage, matrix, sizes[number + 1 :], number):
                    continue
                # Columns beyond the rows help against noise only, and where there is none cost time.
                columns = _enough_columns(rows_read, wanted_columns) if is_watched else wanted_columns
                judged = _judged(stage, outcome, before, rows_read, columns)
                if judged.heads is Heads.SEVERAL:
                    return judged  # more contexts come from as many heads
                if rows_read < rows and not _ends_in_noise(judged):
                    continue  # a fall within the spectrum, such as that before a padding: only more contexts tell
                outcome = judged
                if outcome.finding is not None:
                    return outcome
        except BudgetError as error:
            return replace(outcome, out_of_budget=True, note=f"{outcome.note}; {error.problem}")
    return replace(outcome, note=f"{outcome.note}; the vocabulary has no more columns to read")


def _may_wait(stage: Stage, matrix: GrowingMatrix, later: Sequence[tuple[int, int]], number: int) -> bool:
    """Whether a matrix need not be judged yet: where the watch saw no end of the rank, every third is enough, which
    keeps the time of all judgements near that of the last."""
    if number % 3 == 2 or not later:
        return False
    return matrix.cost_of(*later[0]).queries <= stage.meter.queries_left


def _enough_columns(rows: int, columns: int) -> int:
    return min(columns, math.ceil(_COLUMNS_PER_ROW * rows))


def _ends_in_noise(outcome: WidthOutcome) -> bool:
    """Whether what lies behind the rank is as small as the arithmetic of a float32 leaves it."""
    if outcome.finding is None:
        return False
    beyond = math.sqrt(outcome.rows - outcome.rank) + math.sqrt(outcome.columns - outcome.rank)
    return outcome.singular_values[outcome.rank] <= _FLOAT32_NATS * beyond


def _affordable_columns(stage: Stage) -> int:
    """More columns than this the budget cannot fill, were each logit a query; where a query tells many, all are."""
    if math.isinf(stage.meter.queries_left) or stage.probed.tells_ids or stage.probed.whole_vocabulary:
        return _MOST_COLUMNS
    return max(_BLOCK_COLUMNS, math.ceil(2 * math.sqrt(stage.meter.queries_left)))


def _sizes(reader: Reader, most_columns: int) -> list[tuple[int, int]]:
    """Rows and columns to try, growing. Columns that cost nothing are all taken at once."""
    free = reader.queries_for(1, most_columns).queries == reader.queries_for(1, 2).queries
    sizes, rows = [], float(FIRST_ROWS)
    while rows <= _MOST_ROWS_PER_COLUMN * most_columns:
        wanted = most_columns if free else min(most_columns, math.ceil(_COLUMNS_PER_ROW * rows))
        sizes.append((math.ceil(rows), wanted))
        rows *= GROWTH
    return sizes


def _judged(stage: Stage, had: WidthOutcome, before: Cost, rows: int, columns: int) -> WidthOutcome:
    assert had.matrix is not None and had.read_out is not None, "set when the stage began"
    noise_nats = max(stage.probed.spread_nats, rounding_nats(stage.probed.decimals), 1e-5)
    estimate = estimate_width(had.matrix.complete(rows, columns).logits_NM, noise_nats=noise_nats, seed=stage.seed)
    outcome = replace(
        had,
        rows=rows,
        columns=columns,
        at_least=0 if estimate.heads is Heads.SEVERAL else max(had.at_least, estimate.at_least or 0),
        heads=estimate.heads,
        note=estimate.reason,
        singular_values=tuple(estimate.values_K.tolist()),
    )
    if estimate.status is Status.UNRESOLVED:
        return outcome
    assert estimate.width is not None, "resolved"
    return replace(
        outcome,
        width=estimate.width if estimate.status is Status.EXACT else None,
        interval=None if estimate.status is Status.EXACT else estimate.interval,
        rank=estimate.rank or 0,
        norm=estimate.norm,
        at_least=(estimate.interval or (estimate.width,))[0],
        finding=_width_finding(stage, had.read_out, before, estimate),
    )


def _width_finding(stage: Stage, read_out: ReadOut, before: Cost, estimate: WidthEstimate) -> Finding:
    exact = estimate.status is Status.EXACT
    low, high = estimate.interval or (estimate.width, estimate.width)
    told = f"{estimate.width}" if exact else f"between {low} and {high}, likely {estimate.width}"
    return stage.finding(
        read_out,
        before,
        code="WIDTH",
        title=f"The model's hidden width is {told}",
        severity=Severity.HIGH,
        was_read=(
            f"{estimate.contexts} x {estimate.tokens} logits through {read_out.value} ({read_out.title}) have rank "
            f"{estimate.rank}: the next singular value is {ratio(estimate.ratio or math.inf)} times smaller. "
            f"Found again on {estimate.confirmation.value}. Final norm: {estimate.norm.value}."
        ),
        evidence={
            "width": estimate.width,
            "interval": [low, high],
            "rank": estimate.rank,
            "ratio": estimate.ratio,
            "score": estimate.score,
            "norm": estimate.norm.value,
            "contexts": estimate.contexts,
            "tokens": estimate.tokens,
            "confirmed_on": estimate.confirmation.value,
            "significant_gaps": [{"rank": gap.rank, "ratio": gap.ratio, "score": gap.score} for gap in estimate.gaps],
        },
    )


def _short(outcome: WidthOutcome, rows: int, columns: int, cost: Cost, stage: Stage) -> str:
    assert outcome.read_out is not None, "set when the stage began"
    proven = f"at least {outcome.at_least} is proven; " if outcome.at_least else ""
    return (
        f"{proven}the next matrix, {rows} x {columns} logits through {outcome.read_out.value}, takes {cost.queries} "
        f"more queries, and {stage.meter.queries_left:.0f} are left"
    )


def rounding_nats(decimals: int | None) -> float:
    """The standard deviation that rounding to so many decimals adds."""
    return 0.0 if decimals is None else 10.0**-decimals / math.sqrt(12)


def _centred(logits_NM: Float64Array) -> Float64Array:
    """Without each row's constant."""
    rows_N = np.isfinite(logits_NM).any(axis=1)
    result = np.full(logits_NM.shape, np.nan)
    result[rows_N] = logits_NM[rows_N] - np.nanmean(logits_NM[rows_N], axis=1, keepdims=True)
    return result


def _correlation(one: Float64Array, two: Float64Array) -> float:
    if one.size < 3 or one.std() < 1e-9 or two.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one, two)[0, 1])
