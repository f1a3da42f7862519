"""A random model from its final hidden state onwards: the part that the two leak papers recover.

The hidden state is a random function of the context, anisotropic as in real models; then come the final norm, the head,
a soft-cap, and the precision in which a server holds its logits. Each switch has a known consequence for an auditor
(Carlini et al., arXiv 2403.06634, sections on normalisation and defences).

Legend: N contexts, H width, P padding directions, V vocabulary with its padding.
"""

import enum
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.core.arrays import Float32Array, Float64Array, FloatArray
from lensmith.core.errors import ConfigError, ShapeError

_BLOCK_ENTRIES = 1 << 24  # logits computed at once: 64 MiB
_MOST_ROWS = 512


class Norm(enum.Enum):
    """The normalisation before the head. NONE leaves hidden states as long as they are."""

    RMS = "rms"
    LAYER = "layer"
    NONE = "none"


class Lattice(enum.Enum):
    """The precision in which logits are held before the softmax."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class FakeTruth:
    """What an auditor may find out: `logits = head_VH @ state_H + bias_V`, where `state_H` has the norm's gain in it.

    `head_VH @ diag(gain_H)` acts on the plain normalised state, which lies on a sphere.
    """

    width: int
    norm: Norm
    head_VH: Float32Array
    gain_H: Float32Array
    bias_V: Float32Array


@dataclass(frozen=True, kw_only=True)
class FakeModelConfig:
    """A random model.

    The standard deviations of the hidden dimensions fall as their rank to the power of minus `anisotropy`.
    `logit_std` is about that of the logits in nats. `soft_cap` c makes c*tanh(z/c) of a logit z.
    `padded_width` directions of Gaussian noise are added behind the norm, at `padding_amplitude` of the logits'
    standard deviation (the papers' post-hoc defence). `padded_vocabulary` rows of zeros follow the real tokens.
    """

    vocabulary: int
    width: int
    seed: int = 0
    norm: Norm = Norm.RMS
    norm_bias: bool = False
    head_bias: bool = False
    anisotropy: float = 0.5
    logit_std: float = 3.0
    soft_cap: float | None = None
    lattice: Lattice = Lattice.FLOAT32
    padded_width: int = 0
    padding_amplitude: float = 1e-2
    padded_vocabulary: int = 0

    def __post_init__(self) -> None:
        for name, least in (("vocabulary", 2), ("width", 1), ("padded_width", 0), ("padded_vocabulary", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: too small", expected=f"at least {least}", actual=getattr(self, name))
        if self.soft_cap is not None and self.soft_cap <= 0:
            raise ConfigError("soft_cap: must be above 0", actual=self.soft_cap)

    @property
    def rows(self) -> int:
        """The size of the head: tokens and padding."""
        return self.vocabulary + self.padded_vocabulary


class FakeModel:
    """Logits of contexts. The weights are drawn from the seed at first use, but for a head that is given.

    Heads of more than `float64_entries` are computed in float32. Raises ShapeError for a head of another size.
    """

    def __init__(
        self, config: FakeModelConfig, *, head_VH: FloatArray | None = None, float64_entries: int = 1 << 25
    ) -> None:
        shape = (config.rows, config.width)
        if head_VH is not None and head_VH.shape != shape:
            raise ShapeError("the head is of another size", expected=shape, actual=head_VH.shape)
        self.config = config
        self._given_head_VH, self._float64_entries = head_VH, float64_entries

    @functools.cached_property
    def truth(self) -> FakeTruth:
        config = self.config
        rng = self._rng("head")
        head_VH = rng.standard_normal((config.rows, config.width), dtype=np.float32)
        head_VH *= np.float32(config.logit_std / np.sqrt(config.width))
        bias_V = rng.standard_normal(config.rows, dtype=np.float32) * np.float32(config.head_bias)
        head_VH[config.vocabulary :] = 0
        if self._given_head_VH is not None:
            head_VH = self._given_head_VH.astype(np.float32)
        bias_V[config.vocabulary :] = 0
        gain_H = np.exp(0.2 * rng.standard_normal(config.width)).astype(np.float32)
        return FakeTruth(width=config.width, norm=config.norm, head_VH=head_VH, gain_H=gain_H, bias_V=bias_V)

    @property
    def rows_at_once(self) -> int:
        """How many contexts are best computed together."""
        return max(1, min(_MOST_ROWS, _BLOCK_ENTRIES // self.config.rows))

    def logits(self, contexts: Sequence[bytes], *, replica: int = 0, replica_spread: float = 0.0) -> Float32Array:
        """Logits (N, V) of contexts, each named by its bytes, on the lattice.

        A replica is another copy of the service: its hidden states differ by `replica_spread` of their size. Small
        heads are computed in float64, so that the result is the same for every batch; large ones in float32, so that a
        batch of another size may differ in the last bit.
        """
        states_NH = self._states(contexts, replica, replica_spread)
        head_HV = self._head_HV
        logits_NV: Any = states_NH.astype(head_HV.dtype) @ head_HV
        if self.config.head_bias:
            logits_NV += self.truth.bias_V
        if self.config.padded_width:
            logits_NV += self._padding(contexts)
        if self.config.soft_cap is not None:
            logits_NV = self.config.soft_cap * np.tanh(logits_NV / self.config.soft_cap)
        return _on_lattice(logits_NV.astype(np.float32, copy=False), self.config.lattice)

    def _states(self, contexts: Sequence[bytes], replica: int, spread: float) -> Float64Array:
        raw_NH: Any = self._normal(contexts, self.config.width, "state")
        if replica:
            raw_NH += spread * self._normal(contexts, self.config.width, f"replica {replica}")
        raw_NH = (raw_NH + self._mean_H) * self._scale_H
        if self.config.norm is Norm.LAYER:
            raw_NH -= raw_NH.mean(axis=1, keepdims=True)
        if self.config.norm is not Norm.NONE:
            raw_NH /= np.sqrt((raw_NH**2).mean(axis=1, keepdims=True))
        states_NH: Float64Array = raw_NH * self.truth.gain_H + self._norm_bias_H
        return states_NH

    def _padding(self, contexts: Sequence[bytes]) -> Float64Array:
        config = self.config
        noise_NP = self._normal(contexts, config.padded_width, "padding")
        added_NV = noise_NP @ self._padding_PV
        result: Float64Array = added_NV * config.padding_amplitude * config.logit_std / np.sqrt(config.padded_width)
        return result

    def _normal(self, contexts: Sequence[bytes], count: int, purpose: str) -> Float64Array:
        rows = [self._rng(purpose, context).standard_normal(count) for context in contexts]
        return np.array(rows, dtype=np.float64).reshape(len(contexts), count)

    def _rng(self, purpose: str, context: bytes = b"") -> np.random.Generator:
        key = hashlib.sha256(f"{self.config.seed} {purpose} ".encode() + context).digest()
        return np.random.Generator(np.random.SFC64(int.from_bytes(key[:16], "little")))

    @functools.cached_property
    def _head_HV(self) -> NDArray[Any]:  # noqa: N802 (shape letters)
        head_HV = self.truth.head_VH.T
        return head_HV if head_HV.size > self._float64_entries else head_HV.astype(np.float64)

    @functools.cached_property
    def _padding_PV(self) -> Float64Array:  # noqa: N802 (shape letters)
        shape = (self.config.padded_width, self.config.rows)
        return self._rng("padding directions").standard_normal(shape)

    @functools.cached_property
    def _scale_H(self) -> Float64Array:  # noqa: N802 (shape letters)
        ranks_H = self._rng("scale").permutation(self.config.width) + 1.0
        scale_H: Float64Array = np.exp(-self.config.anisotropy * np.log(ranks_H))
        return scale_H

    @functools.cached_property
    def _mean_H(self) -> Float64Array:  # noqa: N802 (shape letters)
        return self._rng("mean").standard_normal(self.config.width)

    @functools.cached_property
    def _norm_bias_H(self) -> Float64Array:  # noqa: N802 (shape letters)
        bias_H = 0.3 * self._rng("norm bias").standard_normal(self.config.width)
        return bias_H if self.config.norm_bias else np.zeros(self.config.width)


def _on_lattice(logits_NV: Float32Array, lattice: Lattice) -> Float32Array:
    if lattice is Lattice.FLOAT16:
        return logits_NV.astype(np.float16).astype(np.float32)
    if lattice is Lattice.BFLOAT16:
        bits_NV = np.ascontiguousarray(logits_NV).view(np.uint32)
        halves_NV = np.uint32(0x7FFF) + ((bits_NV >> np.uint32(16)) & np.uint32(1))  # ties to even
        return ((bits_NV + halves_NV) & np.uint32(0xFFFF0000)).view(np.float32)
    return logits_NV
