"""After the layer up to a linear map: the same up to a rotation, where the model is narrow and the budget reaches.

Sources: Carlini et al., arXiv 2403.06634, on recovery up to symmetries; see `rotation`. The fit needs more contexts
than half the square of the rank, but a few tokens of each are enough: they tell a context's place in the layer.

Legend: N contexts, M tokens read of each, V tokens of the layer, R rank, H width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lensmith.audit.estimators.layer import RecoveredLayer
from lensmith.audit.estimators.rotation import (
    MAX_RANK,
    RotatedLayer,
    contexts_needed,
    error_up_to_rotation,
    recover_up_to_rotation,
)
from lensmith.audit.estimators.spectrum import Centring
from lensmith.audit.estimators.width import NormType
from lensmith.audit.findings.finding import Cost, Finding, FindingKind, Severity
from lensmith.audit.findings.wording import figure
from lensmith.audit.querying.meter import BudgetError
from lensmith.audit.stages.layer import MOST_BYTES, LayerFound
from lensmith.audit.stages.matrix import Part
from lensmith.audit.stages.stage import AuditStage
from lensmith.audit.stages.width import WidthFound
from lensmith.audit.weights.head import TrueWeights
from lensmith.core.arrays import Float64Array, IdArray
from lensmith.core.endpoint import TEXT_IDS_FROM
from lensmith.core.errors import NotExposedError

_TOKENS_PER_RANK = 8
"""More tokens of each context make its place no clearer: it is the layer's own error that counts."""


@dataclass(frozen=True, kw_only=True)
class RotationOutcome:
    """The finding, or `why_not` in words."""

    finding: Finding | None = None
    why_not: str = ""


@dataclass(frozen=True, kw_only=True)
class RotationScore:
    """Errors against the weights given, relative to them (Frobenius norm), after the best rotation.

    `error_linear`: of the layer that is known up to a linear map only, brought to the same size; what a rotation of
    anything unrelated leaves is near 1.
    """

    error: float
    error_linear: float


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """`note`: why there is no score though weights were given."""

    rotated: RotatedLayer
    contexts: int
    score: RotationScore | None
    note: str


def find_rotation(
    stage: AuditStage,
    width: WidthFound,
    found: LayerFound,
    truth: TrueWeights | None,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> RotationOutcome:
    """Reads as many contexts as the fit takes, and fits. Nothing is claimed that contexts left out do not bear out."""
    before, matrix = stage.meter.spent, width.matrix
    rank = found.layer.layer_VR.shape[1]
    if rank > MAX_RANK:
        return RotationOutcome(
            why_not=f"not tried: a rank of {rank} is over {MAX_RANK}, and the work of the fit grows as its sixth power"
        )
    rows, columns = contexts_needed(rank), min(found.columns, max(width.columns, 2 * rank))
    cost = matrix.cost_of(rows, columns)
    if cost.queries > stage.meter.queries_left:
        left = f"{stage.meter.queries_left:.0f} are left"
        return RotationOutcome(
            why_not=f"not tried: {rows} contexts are needed, which take {cost.queries} more queries, and {left}"
        )
    if 8 * rows * columns > MOST_BYTES:
        return RotationOutcome(why_not=f"not tried: {rows} contexts x {columns} tokens are more than is kept")
    try:
        matrix.grow(stage.meter, rows, columns, on_rows)
    except BudgetError as error:
        return RotationOutcome(why_not=f"not tried: {error.problem}")
    part = matrix.complete(rows, min(columns, _TOKENS_PER_RANK * rank))
    placed = _with_contexts(found.layer, found.token_ids_V, part)
    try:
        rotated = recover_up_to_rotation(placed, width=width.width, row_error_nats=found.row_error_nats)
    except NotExposedError as error:
        return RotationOutcome(why_not=f"tried in vain: {error.problem} ({error.actual})")
    score, note = _scored(rotated, found.token_ids_V, width, truth)
    fitted = _Fitted(rotated=rotated, contexts=len(part.logits_NM), score=score, note=note)
    return RotationOutcome(finding=_finding(stage, width, before, fitted))


def _with_contexts(layer: RecoveredLayer, token_ids_V: IdArray, part: Part) -> RecoveredLayer:
    """The same layer with the coordinates of many more contexts, along their own principal axes."""
    place_of = {token_id: place for place, token_id in enumerate(token_ids_V.tolist())}
    known = [column for column, token_id in enumerate(part.token_ids_M.tolist()) if token_id in place_of]
    rows_MR = layer.layer_VR[[place_of[part.token_ids_M[column]] for column in known]].astype(np.float64)
    outputs_NM = part.logits_NM[:, known]
    # The constant of each output is one more unknown; the mean over contexts goes as it did when the layer was found.
    design_MR = np.concatenate([rows_MR, np.ones((len(rows_MR), 1))], axis=1)
    coordinates_NR: Float64Array = np.linalg.lstsq(design_MR, outputs_NM.T, rcond=None)[0][:-1].T
    coordinates_NR = coordinates_NR - coordinates_NR.mean(axis=0)
    values_R, axes_RR = np.linalg.eigh(coordinates_NR.T @ coordinates_NR)
    axes_RR = axes_RR[:, ::-1]
    return RecoveredLayer(
        layer_VR=(layer.layer_VR @ axes_RR).astype(np.float32),
        coordinates_NR=coordinates_NR @ axes_RR,
        values_R=np.sqrt(np.maximum(values_R[::-1], 0.0)),
        centring=Centring.TOKENS_AND_CONTEXTS,
    )


def _scored(
    rotated: RotatedLayer, token_ids_V: IdArray, width: WidthFound, truth: TrueWeights | None
) -> tuple[RotationScore | None, str]:
    """The score, or None and why there is none though weights were given."""
    if truth is None:
        return None, ""
    if (token_ids_V >= TEXT_IDS_FROM).any():
        return None, "not scored: the server names tokens by text, and not by their row of the head"
    head, gain_H = truth.head, truth.gain_H
    if gain_H is None or len(gain_H) != head.shape[1]:
        return None, "not scored: the final norm's gain, which is in the layer found, is not among the weights given"
    head_VH = np.asarray(head.rows(token_ids_V)[:], dtype=np.float64)
    # Some models store the gain less one.
    scores = [_score(rotated, head_VH * gain, width.estimate.norm) for gain in (gain_H, 1 + gain_H)]
    return min(scores, key=lambda score: score.error), ""


def _score(rotated: RotatedLayer, gained_VH: Float64Array, norm: NormType) -> RotationScore:
    if norm is NormType.LAYER_NORM:
        gained_VH = gained_VH - gained_VH.mean(axis=1, keepdims=True)
    plain_VR = np.linalg.qr(rotated.layer_VR - rotated.layer_VR.mean(axis=0))[0]
    plain_VR *= np.linalg.norm(gained_VH) / np.linalg.norm(plain_VR)
    return RotationScore(
        error=error_up_to_rotation(rotated.layer_VR, gained_VH), error_linear=error_up_to_rotation(plain_VR, gained_VH)
    )


def _finding(stage: AuditStage, width: WidthFound, before: Cost, fitted: _Fitted) -> Finding:
    rotated, contexts, score, note = fitted.rotated, fitted.contexts, fitted.score, fitted.note
    tokens, rank = rotated.layer_VR.shape
    was_read = (
        f"{tokens} of the layer's rows with the final norm's gain, up to a rotation of {rank} dimensions, from "
        f"{contexts} contexts through {width.read_out.value}: outputs lie on an ellipsoid, and contexts that its fit "
        f"did not see miss it by {figure(rotated.misfit, 2)} of what they would without one. What its tokens were read "
        f"to is an error of {figure(rotated.reading_error, 2)} of the rows."
    )
    evidence: dict[str, object] = {"contexts": contexts, "tokens": tokens, "rank": rank}
    evidence |= {"misfit": rotated.misfit, "reading_error": rotated.reading_error}
    if score is not None:
        was_read += (
            f" Error against the weights given, after the best rotation: {figure(score.error, 2)} of them; of the "
            f"layer known up to a linear map only: {figure(score.error_linear, 2)}."
        )
        evidence |= {"error_up_to_rotation": score.error, "error_of_linear_map": score.error_linear}
    return stage.finding(
        FindingKind.ROTATION,
        width.read_out,
        title="The model's last layer was recovered, up to a rotation",
        severity=Severity.CRITICAL,
        was_read=f"{was_read} {note[:1].upper()}{note[1:]}".strip(),
        evidence={**evidence, **({"not_scored": note} if note else {})},
        spent=stage.spent_since(before),
    )
