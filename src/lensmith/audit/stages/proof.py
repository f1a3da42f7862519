"""A read-out is proven on a small block, before anything is built on it.

The block is read twice: what a model says must come out the same and differ between tokens and contexts; noise, or a
refusal in disguise, does neither. Where the interface itself returns some of these logprobs, the block must agree with
them too.

Legend: N rows (contexts), M columns (tokens).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from lensmith.audit.findings.finding import Cost, Finding, FindingKind, ReadOut, Severity
from lensmith.audit.findings.wording import figure
from lensmith.audit.querying.price import with_price
from lensmith.audit.readouts.choose import ReadingPlan
from lensmith.audit.stages.stage import BLOCK_COLUMNS, AuditStage
from lensmith.core.arrays import Float64Array
from lensmith.core.endpoint import RefusedError
from lensmith.core.errors import InputError, NotExposedError

_BLOCK_ROWS = 4

_BLOCK_START = 1_000_000
"""Contexts of the proof are others than those of the matrix."""


SECOND_SEED = 7_919
"""A seed changes nothing for a greedy server and makes the second read a question of its own."""


_LEAST_AGREEMENT = 0.98
"""Correlation of two reads of one block that is taken for reading: noise of a seventh of the logits' spread passes."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Whether a read-out reads. `unresolved` says why it could not be told."""

    holds: bool = False
    findings: tuple[Finding, ...] = ()
    unresolved: tuple[str, ...] = ()


def metadata_finding(stage: AuditStage) -> Finding:
    """What the interface says of the model without being asked."""
    facts = dict(stage.probed.facts)
    stated = ", ".join(f"{name} = {value}" for name, value in sorted(facts.items()))
    return stage.finding(
        FindingKind.METADATA,
        ReadOut.P0,
        title="The interface states the model's size",
        severity=Severity.LOW,
        was_read=f"The metadata says {stated}.",
        evidence=facts,
        spent=_one_query(stage),
        whole=_one_query(stage),
    )


def _one_query(stage: AuditStage) -> Cost:
    """What the probe paid for an answer that is a finding by itself."""
    return with_price(Cost(queries=1), stage.price)


def prove(stage: AuditStage, read_out: ReadOut) -> Proof:
    """Reads a small block twice through `read_out`. Raises BudgetError where the budget does not reach for that."""
    before = stage.meter.spent
    if read_out is ReadOut.P5 and not stage.probed.takes_token_ids and stage.config.tokens is None:
        return Proof(findings=(_echo_leak(stage),))
    contexts = stage.contexts(read_out).take(_BLOCK_START, _BLOCK_START + _BLOCK_ROWS)
    again = [replace(context, seed=SECOND_SEED) for context in contexts]
    try:
        chosen = stage.plan(read_out, contexts, columns=BLOCK_COLUMNS)
        first = chosen.reader.read(stage.meter, contexts, chosen.columns)
        second = chosen.reader.read(stage.meter, again, chosen.columns)
    except (RefusedError, NotExposedError, InputError) as error:
        return Proof(unresolved=(f"{read_out.value} ({read_out.title}): {error.problem}",))
    one_NM, two_NM = _centred(first.logits_NM), _centred(second.logits_NM)
    both_NM = np.isfinite(one_NM) & np.isfinite(two_NM)
    agreement = _correlation(one_NM[both_NM], two_NM[both_NM])
    if both_NM.mean() < 0.5 or not agreement >= _LEAST_AGREEMENT:
        measured = f"{both_NM.mean():.0%} of a block was told, twice the same with a correlation of {agreement:.3f}"
        return Proof(
            unresolved=(f"{read_out.value} ({read_out.title}): it answers, but does not read logits: {measured}",)
        )
    return Proof(holds=True, findings=(_leak(stage, read_out, before, one_NM[both_NM], two_NM[both_NM]),))


def first_proven(stage: AuditStage) -> ReadOut | None:
    """The cheapest read-out that reads logits."""
    return next((read_out for read_out in stage.probed.readable() if prove(stage, read_out).holds), None)


def repeat_difference(stage: AuditStage, plan: ReadingPlan) -> float:
    """The root mean square difference, in nats, that two readings of one model may have over all columns: that of two
    reads of a few contexts, or what their resolution allows where that is more."""
    contexts = stage.contexts(plan.reader.read_out).take(_BLOCK_START, _BLOCK_START + _BLOCK_ROWS)
    again = [replace(context, seed=SECOND_SEED) for context in contexts]
    one, two = (plan.reader.read(stage.meter, asked, plan.columns) for asked in (contexts, again))
    difference_nats = float(np.sqrt(np.nanmean((_centred(one.logits_NM) - _centred(two.logits_NM)) ** 2)))
    return max(difference_nats, math.hypot(one.resolution_nats, two.resolution_nats))


def _leak(stage: AuditStage, read_out: ReadOut, before: Cost, one: Float64Array, two: Float64Array) -> Finding:
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
        FindingKind.LEAK,
        read_out,
        title=f"The interface gives away {read_out.title}",
        severity=Severity.MEDIUM,
        was_read=sentence,
        evidence={"logits": one.size, "difference_nats": difference, "spread_nats": spread},
        spent=stage.spent_since(before),
    )


def _echo_leak(stage: AuditStage) -> Finding:
    """Where prompts are text only, the probe's answer is the proof: how a text is cut into tokens is not told."""
    return stage.finding(
        FindingKind.LEAK,
        ReadOut.P5,
        title=f"The interface gives away {ReadOut.P5.title}",
        severity=Severity.MEDIUM,
        was_read=f"One request told {stage.probed.notes['echo']}. No block was read: prompts are text, not token ids.",
        evidence={"echo": stage.probed.notes["echo"]},
        spent=_one_query(stage),
    )


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
