"""After the width: the output layer up to a linear map, where the budget reaches for it.

Source: Carlini et al., arXiv 2403.06634, section 4.2. Nothing of the layer is kept; what counts is that it was
recovered, which is scored against the operator's own weights where they are given.

Legend: N contexts, V tokens, H width, R rank.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lensmith.audit.estimators.layer import PUBLISHED_RMS, LayerScore, RecoveredLayer, recover_layer, score_layer
from lensmith.audit.estimators.spectrum import Centring, token_blocks
from lensmith.audit.estimators.width import NormType
from lensmith.audit.findings.finding import Cost, Finding, FindingKind, Severity
from lensmith.audit.findings.wording import figure
from lensmith.audit.querying.meter import BudgetError
from lensmith.audit.stages.matrix import Part
from lensmith.audit.stages.stage import AuditStage
from lensmith.audit.stages.width import WidthFound
from lensmith.audit.weights.head import TrueWeights
from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import TEXT_IDS_FROM

MOST_BYTES = 2_000_000_000
"""What the outputs may take in memory; beyond it, the layer is recovered for as many tokens as fit."""
_UNRELATED = 0.8
"""Weights that the layer misses by more than this part of what an unrelated layer misses them by are not its own: a
model's own, even quantised to a few bits and read through noise, it misses by far less."""


@dataclass(frozen=True, kw_only=True)
class LayerFound:
    """The layer, up to a linear map, with a row for each of `token_ids_V`; `columns` of the width's matrix were read.

    `is_own_truth`: the weights given, if any, are not found to be another model's. `row_error_nats`: what a row of the
    layer errs by for each unit of a context's place in it (of which the root mean square is 1).
    """

    finding: Finding
    layer: RecoveredLayer
    token_ids_V: IdArray
    columns: int
    is_own_truth: bool
    row_error_nats: float


@dataclass(frozen=True, kw_only=True)
class LayerOutcome:
    """The layer, where it was recovered, and what could not be told."""

    found: LayerFound | None = None
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """The score, where there is one; `note`: what is not as it should be; `is_own`: as `LayerFound.is_own_truth`."""

    score: LayerScore | None = None
    note: str = ""
    is_own: bool = True


def find_layer(
    stage: AuditStage,
    width: WidthFound,
    truth: TrueWeights | None,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> LayerOutcome:
    """Reads all tokens of the contexts that showed the width. Nothing is claimed where the budget does not reach."""
    before, matrix = stage.meter.spent, width.matrix
    columns = min(matrix.most_columns, MOST_BYTES // (8 * width.rows))
    cost = matrix.cost_of(width.rows, columns)
    if cost.queries > stage.meter.queries_left:
        lacking = f"the layer: it takes {cost.queries} more queries, and {stage.meter.queries_left:.0f} are left"
        return LayerOutcome(unresolved=(lacking,) if truth is not None else ())
    try:
        matrix.grow(stage.meter, width.rows, columns, on_rows)
    except BudgetError as error:
        return LayerOutcome(unresolved=(f"the layer: {error.problem}",))
    part = matrix.complete(width.rows, columns)
    rank = _rank_without_bias(width)
    layer = recover_layer(lambda: token_blocks(part.logits_NM), rank, centring=Centring.TOKENS_AND_CONTEXTS)
    # Other tokens than the width's may have been read less exactly, and the same each time.
    noise_nats = max(matrix.resolution_nats(width.rows, columns), stage.probed.spread_nats)
    lost = rank - layer.seen(noise_nats)
    if lost:
        reason = f"the layer: {lost} of {rank} directions lie below what its tokens were read to, {noise_nats:.2g} nats"
        return LayerOutcome(unresolved=(reason,))
    scored = _scored(layer.layer_VR, part.token_ids_M, width, truth)
    found = LayerFound(
        finding=_finding(stage, width, before, part, scored),
        layer=layer,
        token_ids_V=part.token_ids_M,
        columns=columns,
        is_own_truth=scored.is_own,
        row_error_nats=noise_nats / math.sqrt(len(part.logits_NM)),
    )
    return LayerOutcome(found=found, unresolved=(scored.note,) if scored.note else ())


def _rank_without_bias(width: WidthFound) -> int:
    """Centred over contexts too, outputs have no bias in them, so that of a LayerNorm's or a head's is one less."""
    has_bias = width.estimate.norm is NormType.LAYER_NORM or width.interval == (width.rank - 1, width.rank)
    return width.rank - (1 if has_bias else 0)


def _scored(layer_VR: np.ndarray, ids_V: IdArray, width: WidthFound, truth: TrueWeights | None) -> _Scored:
    if truth is None:
        return _Scored()
    if (ids_V >= TEXT_IDS_FROM).any():
        return _Scored(note="the layer's error: the server names tokens by text, and not by their row of the head")
    tokens, head_width = truth.head.shape
    if int(ids_V.max()) >= tokens:
        return _another(f"they have {tokens} tokens, and the endpoint at least {int(ids_V.max()) + 1}")
    lost = max(0, head_width - layer_VR.shape[1])
    score = score_layer(layer_VR, truth.head.rows(ids_V), lost=lost)
    if score.rms <= _UNRELATED * score.rms_unrelated:
        return _Scored(score=score)
    why = f"the layer misses them by {figure(score.rms, 2)}, and an unrelated one by {figure(score.rms_unrelated, 2)}"
    if width.width is not None and width.width != head_width:
        why += f"; their width is {head_width}, and the one found is {width.width}"
    return _another(why, score)


def _another(why: str, score: LayerScore | None = None) -> _Scored:
    return _Scored(score=score, note=f"the weights given are not this model's: {why}", is_own=False)


def _finding(stage: AuditStage, width: WidthFound, before: Cost, part: Part, scored: _Scored) -> Finding:
    read_out, score = width.read_out, scored.score
    contexts, tokens = part.logits_NM.shape
    was_read = f"{tokens} of the layer's rows, up to a linear map, from {contexts} contexts through {read_out.value}."
    evidence: dict[str, object] = {"contexts": contexts, "tokens": tokens, "rank": width.rank}
    if score is not None:
        evidence |= vars(score)
    if not scored.is_own:
        was_read += f" Not scored: {scored.note}."
        evidence["not_scored"] = scored.note
    elif score is not None:
        published = " to ".join(figure(rms, 2) for rms in PUBLISHED_RMS)
        was_read += (
            f" Root-mean-square error against the weights given: {figure(score.rms, 2)}; of an unrelated random layer: "
            f"{figure(score.rms_unrelated, 2)}; published: {published}."
        )
    return stage.finding(
        FindingKind.LAYER,
        read_out,
        title="The model's last layer was recovered, up to a linear map",
        severity=Severity.CRITICAL,
        was_read=was_read,
        evidence=evidence,
        spent=stage.spent_since(before),
    )
