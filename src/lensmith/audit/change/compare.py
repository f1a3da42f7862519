"""Whether the model behind an interface changed, and how, from two snapshots of its outputs.

Finlayson et al., arXiv 2403.09539, section on detecting updates; Yang & Wu, arXiv 2407.01235. Equal outputs: the same
model. Other outputs in the same image: a hidden prompt, or a change below the output head. An image that differs in r
directions: a change of the head of rank r, such as a LoRA. Another image: another model. Every threshold comes from the
noise of the two snapshots themselves; what is too noisy to tell is said to be so.

Legend: N contexts, M tokens, R rank of the image, K values.
"""

import enum
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from lensmith.audit.estimators.image import Image, learn_image, off_image
from lensmith.audit.estimators.spectrum import drop_missing, gram_values
from lensmith.audit.estimators.width import Needs, Status, WidthEstimate, estimate_width
from lensmith.core.arrays import Float64Array, FloatArray, IdArray
from lensmith.core.errors import InputError, ShapeError
from lensmith.core.files import sha256_of_bytes, write_atomic

_SAME = 4.0
"""Outputs within so many standard deviations of the noise are the same."""
_UNKNOWN_REPEATS = 100.0
"""Without repeats, what a model's own arithmetic may add to the noise of one value on its way through the layers."""
_NOISE, _SIGNAL = 1.5, 3.0
"""A value of the residual below / above so many times the largest that noise makes is noise / signal."""
_SMALLEST_SIDE = 16
_SPARE = 8


class Change(enum.Enum):
    """What happened between two snapshots."""

    SAME = "same"
    HIDDEN_PROMPT_OR_BELOW_HEAD = "hidden prompt, or a change below the head"
    LOW_RANK_CHANGE = "low-rank change of the head"
    ANOTHER_MODEL = "another model"
    COULD_NOT_TELL = "could not tell"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Outputs (logprobs or logits) of `contexts` (any names that tell them apart) over `token_ids_M`; NaN: not told.

    `repeat_nats`: the root mean square difference of two readings of one context, where it was measured.
    """

    outputs_NM: FloatArray
    contexts: tuple[str, ...]
    token_ids_M: IdArray
    repeat_nats: float | None = None

    def __post_init__(self) -> None:
        expected = (len(self.contexts), len(self.token_ids_M))
        if self.outputs_NM.shape != expected:
            raise ShapeError("outputs, contexts and tokens differ", expected=expected, actual=self.outputs_NM.shape)
        if len(set(self.contexts)) < expected[0] or len(np.unique(self.token_ids_M)) < expected[1]:
            raise InputError("a snapshot names each context and each token once")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What happened, and the figures that say so.

    `rank`: of a low-rank change, None where noise hides it within `rank_interval`. `difference_nats`: root mean square
    over the contexts that both have (None: they share none), `noise_nats` what noise alone would make of it.
    `off_image_share`: the part of the new outputs' energy that lies outside the old image. `needs`: what to read for a
    verdict.
    """

    change: Change
    reason: str
    rank: int | None = None
    rank_interval: tuple[int, int] | None = None
    difference_nats: float | None = None
    noise_nats: float | None = None
    off_image_share: float | None = None
    needs: Needs | None = None


def compare(before: Snapshot, after: Snapshot) -> Comparison:
    """What happened between two snapshots, from the tokens that both have.

    `before` needs more contexts than the model is wide; of `after` a few more than the rank of the change are enough.
    """
    old_NM, new_NM, shared = _aligned(before, after)
    if min(*old_NM.shape, *new_NM.shape) < _SMALLEST_SIDE:
        reason = f"{old_NM.shape[0]} and {new_NM.shape[0]} contexts x {old_NM.shape[1]} shared tokens are too few"
        return Comparison(change=Change.COULD_NOT_TELL, reason=reason)
    width = estimate_width(old_NM)
    image = None if width.rank is None else learn_image(old_NM, width.rank)
    difference = _rms_difference(old_NM, new_NM, shared)
    repeats = [snapshot.repeat_nats for snapshot in (before, after) if snapshot.repeat_nats is not None]
    noise = _noise(image, repeats)
    if difference is not None and (difference == 0 or (noise is not None and difference <= _SAME * noise)):
        reason = f"{len(shared)} contexts differ by {difference:.2g} nats, noise by {noise or 0:.2g}"
        return Comparison(change=Change.SAME, reason=reason, difference_nats=difference, noise_nats=noise)
    if image is None:
        return _no_image(width, difference)
    return _off_image(image, width, old_NM, new_NM, difference=difference, noise=noise, has_repeats=len(repeats) == 2)


def save_snapshot(snapshot: Snapshot, path: Path) -> str:
    """Writes a snapshot (.npz, outputs as float32) and returns the hash of the file."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        outputs_NM=snapshot.outputs_NM.astype(np.float32),
        contexts=np.array(snapshot.contexts, dtype=np.str_),
        token_ids_M=snapshot.token_ids_M,
        repeat_nats=np.array(np.nan if snapshot.repeat_nats is None else snapshot.repeat_nats),
    )
    write_atomic(path, buffer.getvalue())
    return sha256_of_bytes(buffer.getvalue())


def load_snapshot(path: Path) -> Snapshot:
    """Reads a snapshot. Raises InputError for a file that is none, or a damaged one (each part has its checksum)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            repeat_nats = float(stored["repeat_nats"])
            return Snapshot(
                outputs_NM=stored["outputs_NM"],
                contexts=tuple(map(str, stored["contexts"])),
                token_ids_M=stored["token_ids_M"],
                repeat_nats=None if np.isnan(repeat_nats) else repeat_nats,
            )
    except (OSError, ValueError, KeyError, BadZipFile, EOFError, TypeError) as error:
        raise InputError(f"{path.name} is no snapshot", expected="a file that save_snapshot wrote") from error


def _aligned(before: Snapshot, after: Snapshot) -> tuple[Float64Array, Float64Array, list[tuple[int, int]]]:
    """Both over the tokens that both have, complete, centred; and which contexts of the one are which of the other."""
    _, old_M, new_M = np.intersect1d(before.token_ids_M, after.token_ids_M, return_indices=True)
    old_NM, new_NM = before.outputs_NM[:, old_M], after.outputs_NM[:, new_M]
    part = drop_missing(np.concatenate([old_NM, new_NM]))
    is_old = part.contexts_N < len(old_NM)
    both_NM = part.matrix_NM.astype(np.float64)
    if both_NM.size:
        both_NM -= both_NM.mean(axis=1, keepdims=True)
    names_old = _kept(before.contexts, part.contexts_N[is_old])
    names_new = _kept(after.contexts, part.contexts_N[~is_old] - len(old_NM))
    place_of = {name: place for place, name in enumerate(names_new)}
    shared = [(place, place_of[name]) for place, name in enumerate(names_old) if name in place_of]
    return both_NM[is_old], both_NM[~is_old], shared


def _kept(names: Sequence[str], indices: IdArray) -> list[str]:
    return [names[place] for place in indices]


def _rms_difference(old_NM: Float64Array, new_NM: Float64Array, shared: list[tuple[int, int]]) -> float | None:
    if not shared:
        return None
    indices = np.array(shared)
    return float(np.sqrt(((old_NM[indices[:, 0]] - new_NM[indices[:, 1]]) ** 2).mean()))


def _noise(image: Image | None, repeats: list[float]) -> float | None:
    """The root mean square difference that noise alone makes between two readings; None: unknown."""
    known = [float(np.sqrt(2)) * image.noise_nats] if image else []
    return max([*known, *repeats], default=None)


def _no_image(width: WidthEstimate, difference: float | None) -> Comparison:
    assert width.status is Status.UNRESOLVED
    return Comparison(
        change=Change.COULD_NOT_TELL,
        reason=f"the outputs differ, and the first snapshot does not show its image: {width.reason}",
        difference_nats=difference,
        needs=width.needs,
    )


def _off_image(
    image: Image,
    width: WidthEstimate,
    old_NM: Float64Array,
    new_NM: Float64Array,
    *,
    difference: float | None,
    noise: float | None,
    has_repeats: bool,
) -> Comparison:
    """The verdict for outputs that differ, from what the old image leaves of the new ones."""
    off = off_image(image, new_NM)
    # The error of the image that all outputs share would look like a change of low rank: whitening takes it out.
    white_KM = np.linalg.solve(np.linalg.cholesky(off.noise_KK), off.left_KM)
    values_K = gram_values(white_KM @ white_KM.T, len(white_KM))
    edge = _noise_edge(width, old_NM, new_NM)
    surely, maybe = int((values_K > _SIGNAL * edge).sum()), int((values_K > _NOISE * edge).sum())
    share = float((off.left_KM**2).sum() / max(float((new_NM**2).sum()), 1e-300))
    verdict = _verdict(surely, maybe, image.rank, len(new_NM), share)
    reason = {
        Change.HIDDEN_PROMPT_OR_BELOW_HEAD: "other outputs, all in the same image",
        Change.LOW_RANK_CHANGE: f"the image differs in {_either(surely, maybe)} directions",
        Change.ANOTHER_MODEL: f"{100 * share:.2g} % of the outputs lie outside the old image, in {surely} directions",
        Change.COULD_NOT_TELL: f"{_either(surely, maybe)} directions of {len(new_NM)} contexts leave the image",
    }[verdict]
    near = difference is not None and noise is not None and difference <= _UNKNOWN_REPEATS * noise
    if verdict is Change.HIDDEN_PROMPT_OR_BELOW_HEAD and near and not has_repeats:
        verdict = Change.COULD_NOT_TELL
        reason = f"outputs differ by {difference:.2g} nats, which may be noise: repeat requests to measure it"
    low_rank = verdict is Change.LOW_RANK_CHANGE
    return Comparison(
        change=verdict,
        reason=reason,
        rank=surely if low_rank and surely == maybe else None,
        rank_interval=(max(surely, 1), maybe) if low_rank else None,
        difference_nats=difference,
        noise_nats=noise,
        off_image_share=share,
        needs=Needs(contexts=2 * len(new_NM), tokens=new_NM.shape[1]) if verdict is Change.COULD_NOT_TELL else None,
    )


def _noise_edge(width: WidthEstimate, old_NM: Float64Array, new_NM: Float64Array) -> float:
    """The largest singular value that the old outputs' noise would make in the new ones."""
    assert width.rank is not None
    contexts, tokens = old_NM.shape
    scale = np.sqrt(contexts - width.rank) + np.sqrt(tokens - width.rank)
    return float(width.values_K[width.rank] * (np.sqrt(len(new_NM)) + np.sqrt(tokens)) / scale)


def _verdict(surely: int, maybe: int, rank: int, contexts: int, share: float) -> Change:
    if maybe == 0:
        return Change.HIDDEN_PROMPT_OR_BELOW_HEAD
    if surely == 0:
        return Change.COULD_NOT_TELL
    if surely >= rank / 2:
        return Change.ANOTHER_MODEL
    if maybe + _SPARE <= contexts:
        return Change.LOW_RANK_CHANGE if maybe < rank / 2 else Change.COULD_NOT_TELL
    # As many directions as contexts: they may be a part of any number. A new model leaves most of its energy outside.
    return Change.ANOTHER_MODEL if share > 1 / 4 else Change.COULD_NOT_TELL


def _either(surely: int, maybe: int) -> str:
    return str(surely) if surely == maybe else f"{surely} to {maybe}"
