"""A model's image: the low-dimensional space that holds all its outputs, learned once and then used.

Finlayson et al., arXiv 2403.09539: centred log-probabilities are linear in the last hidden state, so all of them lie in
a space of about the model's width, which is unique to the model. Knowing it, a few tokens of an output tell all the
others, and one output tells whether it comes from this model. We choose the tokens by pivoted QR; about 1.5 to 2 times
the width reaches the noise floor. The constant that all logprobs of one output share is an unknown of every fit.

Legend: N contexts learned from, K outputs, M tokens of the image, R its dimension, T tokens read, C candidates.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from lensmith.audit.estimators.layer import recover_layer
from lensmith.audit.estimators.spectrum import Centring, token_blocks
from lensmith.core.arrays import Float64Array, FloatArray, IdArray
from lensmith.core.errors import InputError, ShapeError
from lensmith.core.files import sha256_of_bytes, write_atomic

_NOISE_ROWS = 128
_CANDIDATES = 8
_BLOCK = 8192


@dataclass(frozen=True, kw_only=True)
class Image:
    """`basis_MR`: orthonormal columns without a mean, for the tokens `token_ids_M`. `scale_R`: the root mean square of
    the coordinates of the outputs that it was learned from, of which there were `contexts`. `noise_nats`: the standard
    deviation of one value around the image."""

    token_ids_M: IdArray
    basis_MR: NDArray[np.float32]
    scale_R: Float64Array
    contexts: int
    noise_nats: float

    @property
    def rank(self) -> int:
        return int(self.basis_MR.shape[1])

    @property
    def content_hash(self) -> str:
        """SHA-256 of all that it holds."""
        return _hash_of(_arrays(self))

    def positions(self, token_ids_T: IdArray) -> IdArray:
        """Where these tokens stand in the image. Raises InputError for one that it does not have."""
        order_M = np.argsort(self.token_ids_M, kind="stable")
        found_T = np.searchsorted(self.token_ids_M, token_ids_T, sorter=order_M).clip(max=len(order_M) - 1)
        positions_T = order_M[found_T]
        unknown_T = np.asarray(token_ids_T)[self.token_ids_M[positions_T] != token_ids_T]
        if unknown_T.size:
            raise InputError("a token is not in the image", expected=f"one of {len(order_M)}", actual=int(unknown_T[0]))
        return np.asarray(positions_T, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class OffImage:
    """What an image leaves of K outputs: `left_KM`, its `rms_K` per value, and `expected_K`, what noise alone leaves.

    The image was learned from noisy outputs, so it errs, most in directions where they were small; outputs that are
    large there share that error. `noise_KK` is the covariance between outputs of what noise leaves, in units of the
    noise of one value.
    """

    left_KM: Float64Array
    rms_K: Float64Array
    expected_K: Float64Array
    noise_KK: Float64Array


def learn_image(outputs_NM: FloatArray, rank: int, *, token_ids_M: IdArray | None = None) -> Image:
    """The image from N complete outputs (logprobs or logits) over M tokens; `rank` as `estimate_width` measured it.

    `token_ids_M`: which tokens the columns are (None: 0 to M - 1). Raises InputError for fewer outputs than the rank,
    ShapeError where ids and columns differ.
    """
    contexts, tokens = outputs_NM.shape
    ids_M = np.arange(tokens) if token_ids_M is None else np.asarray(token_ids_M, dtype=np.int64)
    if ids_M.shape != (tokens,) or len(np.unique(ids_M)) != tokens:
        raise ShapeError("each column needs its own token id", expected=tokens, actual=ids_M.shape)
    recovered = recover_layer(lambda: token_blocks(outputs_NM), rank, centring=Centring.TOKENS)
    basis_MR = recovered.layer_VR
    rows = np.linspace(0, contexts - 1, min(contexts, _NOISE_ROWS)).astype(np.int64)
    left = _left(basis_MR, _centred(outputs_NM[rows]))[1]
    # Outputs that the image was learned from lie closer to it than new ones: what they had in noise it has learned.
    freedom = (1 - rank / contexts) * (1 - (rank + 1) / tokens)
    return Image(
        token_ids_M=ids_M,
        basis_MR=basis_MR,
        scale_R=recovered.values_R / np.sqrt(contexts),
        contexts=contexts,
        noise_nats=float(np.sqrt((left**2).mean() / max(freedom, 1e-6))),
    )


def off_image(image: Image, outputs_KM: FloatArray) -> OffImage:
    """The residual of outputs over the image's tokens (in its order). Near `expected_K`: they come from this model."""
    if outputs_KM.ndim != 2 or outputs_KM.shape[1] != len(image.token_ids_M):
        raise ShapeError("other tokens than the image's", expected=len(image.token_ids_M), actual=outputs_KM.shape)
    coordinates_KR, left_KM = _left(image.basis_MR, _centred(outputs_KM))
    return _off(image, left_KM, coordinates_KR, image.noise_nats)


def off_image_at(
    image: Image, token_ids_T: IdArray, values_KT: FloatArray, *, noise_nats: float | None = None
) -> OffImage:
    """As `off_image`, from some of the image's tokens. `noise_nats`: the outputs' own noise, where it is not the one
    that the image was learned from.

    Raises InputError for a token that is not in the image, or for no more of them than its rank and one.
    """
    tokens, own_nats = len(token_ids_T), image.noise_nats if noise_nats is None else noise_nats
    if tokens <= image.rank + 1:
        raise InputError("too few tokens to see what is left", expected=f"over {image.rank + 1}", actual=tokens)
    basis_TR = image.basis_MR[image.positions(token_ids_T)].astype(np.float64)
    centred_KT = _centred(values_KT)
    basis_TR -= basis_TR.mean(axis=0)
    solved_RK = np.linalg.lstsq(basis_TR, centred_KT.T, rcond=None)[0]
    left_KT = centred_KT - (basis_TR @ solved_RK).T
    return _off(image, left_KT, solved_RK.T, own_nats)


def _off(image: Image, left_KM: Float64Array, coordinates_KR: FloatArray, own_nats: float) -> OffImage:
    """What is left over some tokens of outputs with these coordinates, whose own noise of one value is `own_nats`."""
    # First-order perturbation: the direction learned with a singular value s errs by (noise / s) in every token.
    scaled_KR = coordinates_KR / (image.scale_R * np.sqrt(image.contexts))
    learned_KK = scaled_KR @ scaled_KR.T
    freedom = max(1 - (image.rank + 1) / left_KM.shape[1], 1e-6)
    variance_K = own_nats**2 + image.noise_nats**2 * np.diagonal(learned_KK)
    return OffImage(
        left_KM=left_KM,
        rms_K=np.sqrt((left_KM**2).mean(axis=1)),
        expected_K=np.sqrt(variance_K * freedom),
        noise_KK=np.eye(len(left_KM)) + learned_KK,
    )


def part_of(image: Image, token_ids_T: IdArray) -> Image:
    """The image without all but these tokens; its columns are no longer orthonormal. Raises as `Image.positions`."""
    positions_T = image.positions(token_ids_T)
    return replace(image, token_ids_M=image.token_ids_M[positions_T], basis_MR=image.basis_MR[positions_T])


def choose_tokens(image: Image, count: int, *, seed: int = 0) -> IdArray:
    """Which tokens to read, so that the rest follows with the least noise: by pivoted QR, best first.

    Chosen from a random sample of the tokens, eight times the dimension. Raises InputError unless count is over the
    image's rank and no more than its tokens.
    """
    tokens, rank = image.basis_MR.shape
    if not rank < count <= tokens:
        raise InputError("impossible number of tokens", expected=f"{rank + 1} to {tokens}", actual=count)
    sample = min(tokens, max(_CANDIDATES * (rank + 1), 2 * count))
    candidates_C = np.random.default_rng(seed).permutation(tokens)[:sample]
    constant_C1 = np.full((sample, 1), 1 / np.sqrt(tokens))
    rows_CR = np.concatenate([image.basis_MR[candidates_C].astype(np.float64), constant_C1], axis=1)
    chosen = np.empty(0, dtype=np.int64)
    while len(chosen) < count:  # after a whole basis is chosen, a next one from the tokens that remain
        remaining = np.setdiff1d(np.arange(sample), chosen)
        order = qr(rows_CR[remaining].T, mode="r", pivoting=True)[1]
        chosen = np.concatenate([chosen, remaining[order[: min(rank + 1, count - len(chosen))]]])
    result: IdArray = image.token_ids_M[candidates_C[chosen]]
    return result


def predict(image: Image, token_ids_T: IdArray, values_KT: FloatArray) -> Float64Array:
    """Whole outputs (K, M) from T of their logprobs or logits, centred over the tokens.

    `core.exposure.log_softmax` turns them into logprobs where the image holds the whole vocabulary. Raises InputError
    for T <= rank or a token that is not in the image, ShapeError where ids and values differ.
    """
    if values_KT.ndim != 2 or values_KT.shape[1] != len(token_ids_T):
        raise ShapeError("each value needs its token", expected=len(token_ids_T), actual=values_KT.shape)
    if len(token_ids_T) <= image.rank:
        raise InputError("too few tokens to tell the rest", expected=f"over {image.rank}", actual=len(token_ids_T))
    basis_TR = image.basis_MR[image.positions(token_ids_T)].astype(np.float64)
    design_TR = np.concatenate([basis_TR, np.ones((len(basis_TR), 1))], axis=1)
    solved_RK = np.linalg.lstsq(design_TR, values_KT.T.astype(np.float64), rcond=None)[0]
    return _outputs(image.basis_MR, solved_RK[:-1].T)


def prediction_error(image: Image, outputs_KM: FloatArray, token_ids_T: IdArray) -> float:
    """The root mean square error in nats of `predict` from these tokens, over all others of whole outputs."""
    positions_T = image.positions(token_ids_T)
    others_M = np.ones(len(image.token_ids_M), dtype=bool)
    others_M[positions_T] = False
    error_KM = predict(image, token_ids_T, outputs_KM[:, positions_T]) - _centred(outputs_KM)
    return float(np.sqrt((error_KM[:, others_M] ** 2).mean()))


def save_image(image: Image, path: Path) -> str:
    """Writes a signature (.npz) and returns its content hash."""
    arrays = _arrays(image)
    content_hash = _hash_of(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, content_hash=np.array(content_hash))  # type: ignore[arg-type]  # numpy's own stub
    write_atomic(path, buffer.getvalue())
    return content_hash


def load_image(path: Path) -> Image:
    """Reads a signature. Raises InputError for a file that is none, or whose content is not what was written."""
    expected = {"token_ids_M", "basis_MR", "scale_R", "contexts", "noise_nats", "content_hash"}
    try:
        with np.load(path, allow_pickle=False) as stored:
            if set(stored) != expected:
                raise InputError(f"{path.name} is no image", expected=sorted(expected), actual=sorted(stored))
            arrays = {name: stored[name] for name in sorted(stored)}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise InputError(f"{path.name} is no image", expected="a file that save_image wrote", actual=error) from error
    written = str(arrays.pop("content_hash"))
    if _hash_of(arrays) != written:
        raise InputError(f"{path.name} is damaged", expected=written, actual=_hash_of(arrays))
    return Image(
        token_ids_M=arrays["token_ids_M"],
        basis_MR=arrays["basis_MR"],
        scale_R=arrays["scale_R"],
        contexts=int(arrays["contexts"]),
        noise_nats=float(arrays["noise_nats"]),
    )


def _arrays(image: Image) -> dict[str, NDArray[Any]]:
    return {
        "token_ids_M": image.token_ids_M,
        "basis_MR": image.basis_MR,
        "scale_R": image.scale_R,
        "contexts": np.array(image.contexts),
        "noise_nats": np.array(image.noise_nats),
    }


def _hash_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    parts = [
        f"{name} {array.dtype.str} {array.shape} {sha256_of_bytes(array.tobytes())}\n"
        for name, array in sorted(arrays.items())
    ]
    return sha256_of_bytes("".join(parts).encode())


def _centred(outputs_KM: FloatArray) -> Float64Array:
    outputs = outputs_KM.astype(np.float64)
    result: Float64Array = outputs - outputs.mean(axis=1, keepdims=True)
    return result


def _left(basis_MR: NDArray[np.float32], centred_KM: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Coordinates (K, R) of outputs, and what the image leaves of them (K, M)."""
    coordinates_KR = _coordinates(basis_MR, centred_KM)
    left_KM = centred_KM - _outputs(basis_MR, coordinates_KR)
    # Once more: a basis in float32 is orthonormal to 1e-7 only, and outputs are large beside what is left of them.
    more_KR = _coordinates(basis_MR, left_KM)
    return coordinates_KR + more_KR, left_KM - _outputs(basis_MR, more_KR)


def _coordinates(basis_MR: NDArray[np.float32], centred_KM: Float64Array) -> Float64Array:
    coordinates_KR = np.zeros((len(centred_KM), basis_MR.shape[1]))
    for start in range(0, len(basis_MR), _BLOCK):
        coordinates_KR += centred_KM[:, start : start + _BLOCK] @ basis_MR[start : start + _BLOCK].astype(np.float64)
    return coordinates_KR


def _outputs(basis_MR: NDArray[np.float32], coordinates_KR: Float64Array) -> Float64Array:
    outputs_KM = np.empty((len(coordinates_KR), len(basis_MR)))
    for start in range(0, len(basis_MR), _BLOCK):
        outputs_KM[:, start : start + _BLOCK] = coordinates_KR @ basis_MR[start : start + _BLOCK].T.astype(np.float64)
    return outputs_KM
