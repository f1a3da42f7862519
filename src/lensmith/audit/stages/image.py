"""The stage of an audit that shows what a model's image gives: whole outputs from a few of their tokens.

Sources: Finlayson et al., arXiv 2403.09539; see `image`. The error is measured on contexts that the image was not
learned from, beside the same prediction from an image that has nothing to do with the model.

Legend: N contexts learned from, K held out, M tokens, R rank, T tokens read.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lensmith.audit.estimators.image import Image, choose_tokens, learn_image, prediction_error, save_image
from lensmith.audit.estimators.spectrum import drop_missing
from lensmith.audit.findings.finding import Cost, Finding, FindingKind, ReadOut, Severity
from lensmith.audit.findings.wording import figure
from lensmith.audit.querying.meter import BudgetError
from lensmith.audit.readouts.choose import lasting_ids, reader_for
from lensmith.audit.stages.stage import AuditStage
from lensmith.audit.stages.width import WidthFound
from lensmith.core.arrays import Float64Array, IdArray

IMAGE_FILE = "image.npz"
_TOKENS_PER_RANK = 1.5
_HELD_OUT = 16
_SPARE = 8
"""Contexts beyond the rank that an image is learned from at least."""
_LEAST_GAIN = 2.0
_WORTH = 0.1
"""A prediction is one only if it errs by no more than this part of an unrelated image's error."""


@dataclass(frozen=True, kw_only=True)
class ImageOutcome:
    """The finding, or why there is none; empty where there was nothing to gain."""

    finding: Finding | None = None
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Predicted:
    """Errors are root mean squares in nats over all tokens but the T that were read."""

    image: Image
    held_out: int
    tokens_T: IdArray
    error_nats: float
    unrelated_nats: float
    spread_nats: float


def find_image(
    stage: AuditStage,
    width: WidthFound,
    columns: int,
    path: Path,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> ImageOutcome:
    """Learns the image from `columns` tokens of the contexts that showed the width, writes it to `path`, and tries it.

    Contexts to try it on are read anew; where the budget does not reach, some of those that are there are kept apart.
    """
    before, matrix = stage.meter.spent, width.matrix
    rows = width.rows + _HELD_OUT
    if matrix.cost_of(rows, columns).queries > stage.meter.queries_left:
        rows = width.rows
    try:
        matrix.grow(stage.meter, rows, columns, on_rows)
    except BudgetError as error:
        return ImageOutcome(unresolved=(f"the image: {error.problem}",))
    whole = matrix.whole(rows, columns)
    kept = drop_missing(whole.logits_NM)
    learned = min(len(kept.matrix_NM) - _HELD_OUT, int((kept.contexts_N < width.rows).sum()))
    if learned < width.rank + _SPARE:
        return ImageOutcome()
    outputs_NM = np.asarray(kept.matrix_NM, dtype=np.float64)
    ids_M = lasting_ids(whole.token_ids_M[kept.tokens_M], stage.meter.texts)
    image = learn_image(outputs_NM[:learned], width.rank, token_ids_M=ids_M)
    # What is left beside the image cannot tell of errors that it learned with the rest.
    image = replace(image, noise_nats=max(image.noise_nats, matrix.resolution_nats(rows, columns)))
    content_hash = save_image(image, path)
    tokens_read = math.ceil(_TOKENS_PER_RANK * (image.rank + 1))
    if len(ids_M) < _LEAST_GAIN * tokens_read:
        return ImageOutcome()
    tried = _tried(image, outputs_NM[learned:], tokens_read, stage.config.seed)
    if not tried.error_nats <= _WORTH * tried.unrelated_nats:
        errors = f"it errs by {figure(tried.error_nats, 2)} nats, an unrelated one by {figure(tried.unrelated_nats, 2)}"
        return ImageOutcome(unresolved=(f"the image: {errors}",))
    file = {"file": path.name, "content_hash": content_hash}
    return ImageOutcome(finding=_finding(stage, width, before, tried, file))


def unrelated_image(image: Image, *, seed: int) -> Image:
    """An image of the same size that has nothing to do with the model: the negative control."""
    random_MR = np.random.default_rng(seed).standard_normal(image.basis_MR.shape)
    basis_MR = np.linalg.qr(random_MR - random_MR.mean(axis=0))[0]
    return replace(image, basis_MR=basis_MR.astype(np.float32))


def _tried(image: Image, outputs_KM: Float64Array, tokens_read: int, seed: int) -> _Predicted:
    control = unrelated_image(image, seed=seed)
    tokens_T = choose_tokens(image, tokens_read, seed=seed)
    control_T = choose_tokens(control, tokens_read, seed=seed)
    return _Predicted(
        image=image,
        held_out=len(outputs_KM),
        tokens_T=tokens_T,
        error_nats=prediction_error(image, outputs_KM, tokens_T),
        unrelated_nats=prediction_error(control, outputs_KM, control_T),
        spread_nats=float((outputs_KM - outputs_KM.mean(axis=1, keepdims=True)).std()),
    )


def _finding(stage: AuditStage, width: WidthFound, before: Cost, tried: _Predicted, file: dict[str, str]) -> Finding:
    image = tried.image
    tokens, chosen = len(image.token_ids_M), len(tried.tokens_T)
    return stage.finding(
        FindingKind.IMAGE,
        width.read_out,
        title=f"Whole outputs follow from {chosen} of their {tokens} tokens",
        # No weights, so less than the layer; but it multiplies every other read-out, and tells the model from all
        # others for as long as its head stays: as much as the width.
        severity=Severity.HIGH,
        was_read=(
            f"The space of all outputs, {image.rank} dimensions, was learned from {image.contexts} contexts. On "
            f"{tried.held_out} other contexts, {chosen} of {tokens} tokens were read and the rest worked out, with an "
            f"error of {figure(tried.error_nats, 2)} nats: {tokens / chosen:.3g} times less to read. The image of an "
            f"unrelated model errs by {figure(tried.unrelated_nats, 2)} nats."
        ),
        evidence={
            "rank": image.rank,
            "contexts": image.contexts,
            "held_out": tried.held_out,
            "tokens": tokens,
            "tokens_read": chosen,
            "gain": tokens / chosen,
            "error_nats": tried.error_nats,
            "error_unrelated_nats": tried.unrelated_nats,
            "spread_nats": tried.spread_nats,
            "noise_nats": image.noise_nats,
            "queries_an_output": _queries_an_output(stage, chosen, tokens),
            **file,
        },
        spent=stage.spent_since(before),
    )


def _queries_an_output(stage: AuditStage, chosen: int, tokens: int) -> dict[str, list[int]]:
    """For each read-out that is paid by the token: the queries of one output, with the image and without."""
    queries = {
        read_out.value: [reader_for(read_out, stage.probed).queries_for(1, count).queries for count in (chosen, tokens)]
        for read_out in stage.probed.readable()
        if read_out is not ReadOut.P1
    }
    return {name: pair for name, pair in queries.items() if pair[0] < pair[1]}
