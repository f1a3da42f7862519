"""After the width: the output layer up to a linear map, where the budget reaches for it.

Source: Carlini et al., arXiv 2403.06634, section 4.2. Nothing of the layer is kept; what counts is that it was
recovered, which is scored against the operator's own weights where they are given.

Legend: N contexts, V tokens, H width, R rank.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lensmith.audit.findings import Cost, Finding, Severity
from lensmith.audit.growth import Part
from lensmith.audit.layer import PUBLISHED_RMS, LayerScore, RecoveredLayer, recover_layer, score_layer
from lensmith.audit.meter import BudgetError
from lensmith.audit.spectrum import Centring, token_blocks
from lensmith.audit.stages import Stage, WidthOutcome
from lensmith.audit.truth import open_head
from lensmith.audit.width import NormType
from lensmith.core.endpoint import TEXT_IDS_FROM, IdArray
from lensmith.core.errors import InputError

MOST_BYTES = 2_000_000_000
"""What the outputs may take in memory; beyond it, the layer is recovered for as many tokens as fit."""


@dataclass(frozen=True, kw_only=True)
class LayerOutcome:
    """The finding and what it was made of, where the layer was recovered, and what could not be told.

    `layer` has a row for each of `token_ids_V`; `columns` of the width's matrix were read.
    """

    finding: Finding | None = None
    unresolved: tuple[str, ...] = ()
    layer: RecoveredLayer | None = None
    token_ids_V: IdArray | None = None
    columns: int = 0


def find_layer(
    stage: Stage,
    width: WidthOutcome,
    truth: Path | None,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> LayerOutcome:
    """Reads all tokens of the contexts that showed the width. Nothing is claimed where the budget does not reach."""
    before, matrix = stage.meter.spent, width.matrix
    assert matrix is not None, "the width was read from it"
    columns = min(matrix.most_columns, MOST_BYTES // (8 * width.rows))
    cost = matrix.cost_of(width.rows, columns)
    if cost.queries > stage.meter.queries_left:
        told = f"the layer: it takes {cost.queries} more queries, and {stage.meter.queries_left:.0f} are left"
        return LayerOutcome(unresolved=(told,) if truth is not None else ())
    try:
        matrix.grow(stage.meter, width.rows, columns, on_rows)
    except BudgetError as error:
        return LayerOutcome(unresolved=(f"the layer: {error.problem}",))
    part = matrix.complete(width.rows, columns)
    rank = _rank_without_bias(width)
    layer = recover_layer(lambda: token_blocks(part.logits_NM), rank, centring=Centring.TOKENS_AND_CONTEXTS)
    score, note = _scored(layer.layer_VR, part.token_ids_M, truth)
    return LayerOutcome(
        finding=_finding(stage, width, before, part, score),
        unresolved=(note,) if note else (),
        layer=layer,
        token_ids_V=part.token_ids_M,
        columns=columns,
    )


def _rank_without_bias(width: WidthOutcome) -> int:
    """Centred over contexts too, outputs have no bias in them, so that of a LayerNorm's or a head's is one less."""
    has_bias = width.norm is NormType.LAYER_NORM or width.interval == (width.rank - 1, width.rank)
    return width.rank - (1 if has_bias else 0)


def _scored(layer_VR: np.ndarray, ids_V: IdArray, truth: Path | None) -> tuple[LayerScore | None, str]:
    """The score, or None and why there is none though weights were given."""
    if truth is None:
        return None, ""
    if (ids_V >= TEXT_IDS_FROM).any():
        return (
            None,
            "the layer's error: the server names tokens by text, and not by their row of the head",
        )
    head = open_head(truth)
    if int(ids_V.max()) >= head.shape[0]:
        raise InputError(
            f"{truth} is the head of another model", expected=f"more than {ids_V.max()} tokens", actual=head.shape[0]
        )
    lost = max(0, head.shape[1] - layer_VR.shape[1])
    return score_layer(layer_VR, head.rows(ids_V), lost=lost), ""


def with_evidence(finding: Finding, **evidence: object) -> Finding:
    """The same finding with more evidence."""
    return replace(finding, evidence={**finding.evidence, **evidence})


def _finding(stage: Stage, width: WidthOutcome, before: Cost, part: Part, score: LayerScore | None) -> Finding:
    read_out = width.read_out
    assert read_out is not None, "the width was read through it"
    contexts, tokens = part.logits_NM.shape
    told = f"{tokens} of the layer's rows, up to a linear map, from {contexts} contexts through {read_out.value}."
    evidence: dict[str, object] = {"contexts": contexts, "tokens": tokens, "rank": width.rank}
    if score is not None:
        told += (
            f" Root-mean-square error against the weights given: {score.rms:.2g}; of an unrelated random layer: "
            f"{score.rms_unrelated:.2g}; published: {PUBLISHED_RMS[0]:g} to {PUBLISHED_RMS[1]:g}."
        )
        evidence |= vars(score)
    return stage.finding(
        read_out,
        before,
        code="LAYER",
        title="The model's last layer was recovered, up to a linear map",
        severity=Severity.CRITICAL,
        was_read=told,
        evidence=evidence,
    )
