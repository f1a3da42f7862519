"""Random last layers with a known truth, for the tests of the audit's numerics.

The four spectra, five precisions and five norms on which a width must never be wrong.
Legend: N contexts, V vocabulary, H width.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Norm(enum.Enum):
    """The final norm, and where biases stand."""

    RMS = "RMSNorm"
    RMS_HEAD_BIAS = "RMSNorm, head bias"
    LAYER = "LayerNorm"
    LAYER_NORM_BIAS = "LayerNorm with bias"
    LAYER_HEAD_BIAS = "LayerNorm, head bias"

    @property
    def centres(self) -> bool:
        return self.value.startswith("Layer")


def _outliers(width: int) -> Array:
    scales = np.arange(1, width + 1) ** -0.3
    scales[: max(1, width // 50)] *= 30
    return scales


SPECTRA: dict[str, Callable[[int], Array]] = {
    "flat": np.ones,
    "moderate": lambda width: np.arange(1, width + 1) ** -0.5,
    "steep": lambda width: np.arange(1, width + 1) ** -1.0,
    "outliers": _outliers,
}


def _bfloat16(values: Array) -> Array:
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


LOGIT_PRECISIONS: dict[str, Callable[[Array], Array]] = {
    "fp16": lambda logits: logits.astype(np.float16).astype(np.float64),
    "bf16": _bfloat16,
}
TOLD_PRECISIONS: dict[str, Callable[[Array], Array]] = {
    "float32": lambda told: told.astype(np.float32).astype(np.float64),
    "4 decimals": lambda told: np.round(told, 4),
    "2 decimals": lambda told: np.round(told, 2),
}
PRECISIONS = ("float32", "fp16", "bf16", "4 decimals", "2 decimals")


@dataclass(frozen=True, kw_only=True)
class LastLayer:
    """A final norm and an output head; `head_VH` times the norm's gain is `gained`."""

    head_VH: Array
    gain_H: Array
    norm_bias_H: Array
    head_bias_V: Array
    norm: Norm
    scales_H: Array
    mixing_HH: Array
    soft_cap: float | None = None
    padding_VP: Array | None = None

    @property
    def gained(self) -> Array:
        return self.head_VH * self.gain_H

    def normed(self, contexts: int, rng: np.random.Generator) -> Array:
        """Hidden states (N, H) before the gain."""
        raw_NH = (rng.standard_normal((contexts, len(self.scales_H))) * self.scales_H) @ self.mixing_HH
        if self.norm.centres:
            raw_NH -= raw_NH.mean(axis=1, keepdims=True)
        normed: Array = raw_NH / np.sqrt((raw_NH**2).mean(axis=1, keepdims=True))
        return normed

    def logits(self, contexts: int, rng: np.random.Generator) -> Array:
        return self.logits_of(self.normed(contexts, rng), rng)

    def logits_of(self, normed_NH: Array, rng: np.random.Generator) -> Array:
        logits_NV = (normed_NH * self.gain_H + self.norm_bias_H) @ self.head_VH.T + self.head_bias_V
        if self.padding_VP is not None:
            logits_NV += rng.standard_normal((len(normed_NH), self.padding_VP.shape[1])) @ self.padding_VP.T
        if self.soft_cap is not None:
            logits_NV = self.soft_cap * np.tanh(logits_NV / self.soft_cap)
        return logits_NV


def make_layer(width: int, vocabulary: int, *, spectrum: str, norm: Norm, seed: int, **changes: Any) -> LastLayer:
    rng = np.random.default_rng(seed)
    has_head_bias = norm in {Norm.RMS_HEAD_BIAS, Norm.LAYER_HEAD_BIAS}
    return LastLayer(
        head_VH=rng.standard_normal((vocabulary, width)) * 3 / np.sqrt(width),
        gain_H=rng.uniform(0.5, 1.5, width),
        norm_bias_H=rng.standard_normal(width) * 0.3 * (norm is Norm.LAYER_NORM_BIAS),
        head_bias_V=rng.standard_normal(vocabulary) * has_head_bias,
        norm=norm,
        scales_H=SPECTRA[spectrum](width),
        mixing_HH=np.linalg.qr(rng.standard_normal((width, width)))[0],
        **changes,
    )


def told(logits_NV: Array, precision: str = "float32") -> Array:
    """Logprobs as an endpoint of this precision tells them."""
    logits_NV = LOGIT_PRECISIONS.get(precision, np.asarray)(logits_NV)
    shifted_NV = logits_NV - logits_NV.max(axis=1, keepdims=True)
    logprobs_NV = shifted_NV - np.log(np.exp(shifted_NV).sum(axis=1, keepdims=True))
    return TOLD_PRECISIONS.get(precision, TOLD_PRECISIONS["float32"])(logprobs_NV)
