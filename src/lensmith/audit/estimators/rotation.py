"""The last layer up to a rotation, from the ellipsoid on which outputs lie.

A final RMSNorm puts hidden states on a sphere, so outputs lie on an ellipsoid whose shape tells the unknown linear map
of `layer` up to a rotation (Carlini et al., arXiv 2403.06634, section on recovering up to symmetries; the ellipse
attack, arXiv 2510.14086). A LayerNorm does the same in one dimension less; where a bias was removed by centring over
contexts, the ellipsoid's centre is unknown too. The symmetric form has R (R + 1) / 2 unknowns and needs more contexts
than that, so this is practical to a width of about 128. We fit it by plain least squares on whitened coordinates.

Legend: N contexts, V vocabulary, R rank, H width, P unknowns.
"""

from dataclasses import dataclass

import numpy as np

from lensmith.audit.estimators.layer import RecoveredLayer
from lensmith.audit.estimators.spectrum import Centring
from lensmith.core.arrays import Float64Array, FloatArray
from lensmith.core.errors import NotExposedError, ShapeError

MAX_RANK = 128
MAX_MISFIT = 0.1
"""The misfit is about the layer's relative error; the linear map alone is a rotation of the truth to 0.2 to 0.3."""
_SPARE = 1.25
_HELD_OUT = 0.1
_BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class RotatedLayer:
    """`layer_VR`: the head with the norm's gain (centred over tokens) up to a rotation. `misfit`: how far contexts that
    were held out lie from the ellipsoid, 1 being as far as if there were none. `reading_error`: by which part of
    themselves the layer's rows err for what their tokens were read to."""

    layer_VR: Float64Array
    misfit: float
    reading_error: float


def contexts_needed(rank: int) -> int:
    """How many contexts a fit of this rank takes."""
    return int(_SPARE * _unknowns(rank)) + 32


def recover_up_to_rotation(
    recovered: RecoveredLayer, *, width: int | None = None, row_error_nats: float = 0.0
) -> RotatedLayer:
    """The layer up to a rotation. `width`: the model's (None: the layer's rank), which sets the scale.

    `row_error_nats`: an output's error over the square root of the contexts from which the layer's rows were found. The
    misfit needs no such figure: what errs the same way twice errs in another for each context, which moves those held
    out off the ellipsoid, and what it adds to a token in all contexts is centred out. But it is that of the tokens that
    place a context, and others may have been read less exactly.

    Raises NotExposedError where the rank is over 128, the contexts are too few, they lie on no ellipsoid, or the rows
    were read too coarsely.
    """
    contexts, rank = recovered.coordinates_NR.shape
    if rank > MAX_RANK:
        raise NotExposedError("too wide for an ellipsoid", expected=f"a rank of at most {MAX_RANK}", actual=rank)
    if contexts < contexts_needed(rank):
        raise NotExposedError(
            "too few contexts for an ellipsoid", expected=f"{contexts_needed(rank)} contexts", actual=contexts
        )
    if not recovered.values_R[-1] > 1e-8 * recovered.values_R[0]:
        raise NotExposedError("the contexts span fewer directions than the layer", expected=rank)
    scale_R = recovered.values_R / np.sqrt(contexts)
    white_NR = recovered.coordinates_NR / scale_R
    has_centre = recovered.centring is Centring.TOKENS_AND_CONTEXTS
    held_out = int(_HELD_OUT * contexts)
    unknowns_P = _fit(white_NR[held_out:], has_centre)
    misfit = float(np.std(_features(white_NR[:held_out], has_centre) @ unknowns_P) / np.sqrt(2 / rank))
    if not misfit <= MAX_MISFIT:
        raise NotExposedError("outputs lie on no ellipsoid", expected=f"a misfit under {MAX_MISFIT}", actual=misfit)
    form_RR = _sphere_form(unknowns_P, rank) * (width or rank)
    eigenvalues_R, vectors_RR = np.linalg.eigh(form_RR)
    if eigenvalues_R[0] <= 0:
        raise NotExposedError("outputs lie on no ellipsoid", expected="a positive form", actual=float(eigenvalues_R[0]))
    unwhiten_RR = (vectors_RR / np.sqrt(eigenvalues_R)) @ vectors_RR.T
    layer_VR = (recovered.layer_VR * scale_R) @ unwhiten_RR
    # Along each axis of the whitened coordinates, whose root mean square is 1, rows err alike.
    error = row_error_nats * np.sqrt(len(layer_VR)) * np.linalg.norm(unwhiten_RR) / np.linalg.norm(layer_VR)
    if not error <= MAX_MISFIT:
        raise NotExposedError(
            "the layer's rows were read too coarsely", expected=f"an error under {MAX_MISFIT}", actual=float(error)
        )
    return RotatedLayer(layer_VR=layer_VR, misfit=misfit, reading_error=float(error))


def error_up_to_rotation(layer_VR: FloatArray, truth_VH: FloatArray) -> float:
    """The relative error (Frobenius norm) after the best rotation, both centred over tokens.

    `truth_VH`: the head times the norm's gain; for a LayerNorm without the mean of each row. Raises ShapeError.
    """
    if len(layer_VR) != len(truth_VH):
        raise ShapeError("layer and truth differ in tokens", expected=len(truth_VH), actual=len(layer_VR))
    layer_VR, truth_VH = layer_VR - layer_VR.mean(axis=0), truth_VH - truth_VH.mean(axis=0)
    left_RK, _, right_KH = np.linalg.svd(layer_VR.T @ truth_VH, full_matrices=False)
    return float(np.linalg.norm(layer_VR @ (left_RK @ right_KH) - truth_VH) / np.linalg.norm(truth_VH))


def _unknowns(rank: int) -> int:
    return rank * (rank + 1) // 2 + rank


def _features(white_NR: Float64Array, has_centre: bool) -> Float64Array:
    """All products of two coordinates, the mixed ones twice; and the coordinates, where the centre is unknown."""
    rows, columns = np.triu_indices(white_NR.shape[1])
    products_NP = white_NR[:, rows] * white_NR[:, columns] * np.where(rows == columns, 1.0, 2.0)
    return np.concatenate([products_NP, white_NR], axis=1) if has_centre else products_NP


def _fit(white_NR: Float64Array, has_centre: bool) -> Float64Array:
    """The quadratic form that is 1 on all contexts, by least squares over blocks."""
    products_PP: Float64Array | None = None
    sums_P = np.zeros(0)
    for start in range(0, len(white_NR), _BLOCK):
        features_BP = _features(white_NR[start : start + _BLOCK], has_centre)
        if products_PP is None:
            products_PP, sums_P = np.zeros((features_BP.shape[1], features_BP.shape[1])), np.zeros(features_BP.shape[1])
        products_PP += features_BP.T @ features_BP
        sums_P += features_BP.sum(axis=0)
    assert products_PP is not None
    # A breath of ridge: the normal equations of products of coordinates are well conditioned, never exactly singular.
    products_PP[np.diag_indices_from(products_PP)] *= 1 + 1e-13
    result: Float64Array = np.asarray(np.linalg.solve(products_PP, sums_P), dtype=np.float64)
    return result


def _sphere_form(unknowns_P: Float64Array, rank: int) -> Float64Array:
    """The form S with (z - c)' S (z - c) = 1, whatever the centre c."""
    rows, columns = np.triu_indices(rank)
    form_RR = np.zeros((rank, rank))
    form_RR[rows, columns] = form_RR[columns, rows] = unknowns_P[: len(rows)]
    linear_R = unknowns_P[len(rows) :]
    if not linear_R.size:
        return form_RR
    centre_R = -np.linalg.solve(form_RR, linear_R) / 2
    return form_RR / (1 + float(centre_R @ form_RR @ centre_R))
