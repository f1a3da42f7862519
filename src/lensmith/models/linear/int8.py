"""Linear layers whose weights are kept as 8-bit integers: half of bfloat16's memory, and half of what a token reads.

Writing one token reads every weight once and does little with it, so its time is the weights' size over the memory's
speed. Each row of a weight is divided by a scale of its own, so that its largest value becomes 127, and rounded.
Activations are not: an activation is split into two 8-bit integers, of which the second holds what the first leaves,
together 15 bits where bfloat16 has 8. Both are multiplied with the integers of the weights in one pass over these, by
the processor's instructions for that, and the sums are exact. Without such a processor torch's own mixed product takes
its place. A prompt of many rows is bound by arithmetic, and there the integers become bfloat16, which holds them
exactly.

torchao's weight-only option is not used: unless it is compiled, it makes the whole weight of a layer anew for every
token, which takes longer than bfloat16 weights do.

Legend: O outputs, I inputs, R rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from lensmith.core.errors import ConfigError
from lensmith.models.linear.packed import Packed, Replacement, can_pack, replace_linear_layers

_MOST_ROWS = 16
"""Up to here products of integers are the quicker ones on a CPU."""
_LEVELS = 127
_FINER = 2 * _LEVELS
"""What the first integer leaves is at most half of its step."""
_ZERO = 128
"""The instructions want one unsigned factor; the shift is taken out of the sums."""
_BLOCK_BYTES = 32 << 20
"""How much of a weight is made bfloat16 at once."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What `quantize_linear_layers` changed, and the bytes of these weights before and after."""

    layers: int
    bytes_before: int
    bytes_after: int


class Int8Linear(Replacement):
    """A linear layer for inference: `weight` (O, I) int8, `scale_O` and activations in bfloat16.

    It cannot be trained. Its error is that of rounding: at most half a step of 1/127 of the row's largest weight.
    """

    def __init__(self, weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        self.register_buffer("weight", weight_OI)
        self.register_buffer("scale", scale_O)
        self.register_buffer("bias", bias_O)

    @classmethod
    def of(cls, linear: nn.Linear) -> "Int8Linear":
        """The layer with its weights rounded. Raises ConfigError for weights that are not finite."""
        weight_OI = linear.weight.detach()
        scale_O = weight_OI.abs().amax(dim=1).float() / 127
        if not torch.isfinite(scale_O).all():
            raise ConfigError("weights that are not finite cannot be made integers", actual=str(linear))
        # The scale that is kept is the rounded one, so the integers must be made with that.
        scale_O = scale_O.to(torch.bfloat16)
        steps_OI = torch.empty(weight_OI.shape, dtype=torch.int8, device=weight_OI.device)
        for rows in _blocks(weight_OI.shape[0], weight_OI.shape[1]):
            divisor_O1 = scale_O[rows, None].float().clamp_min(torch.finfo(torch.float32).tiny)
            steps_OI[rows] = (weight_OI[rows].float() / divisor_O1).round().clamp(-127, 127).to(torch.int8)
        bias = None if linear.bias is None else linear.bias.detach().to(torch.bfloat16)
        return cls(steps_OI, scale_O, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) to (..., O) in bfloat16."""
        weight_OI, scale_O = cast(Tensor, self.weight), cast(Tensor, self.scale)
        rows_RI = inputs.reshape(-1, self.in_features).to(torch.bfloat16)
        if len(rows_RI) <= _MOST_ROWS and weight_OI.device.type == "cpu":
            result_RO = torch.ops.aten._weight_int8pack_mm(rows_RI.contiguous(), weight_OI, scale_O)
        else:
            result_RO = _by_bfloat16(rows_RI, weight_OI, scale_O)
        if self.bias is not None:
            result_RO = result_RO + self.bias
        return cast(Tensor, result_RO).reshape(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class PackedInt8Linear(Packed):
    """The same in the layout of this processor's integer kernels. `weight` has shape and precision, and no values."""

    def __init__(self, linear: Int8Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.out_features, linear.in_features
        self.stands_for = linear.stands_for
        weight_OI = cast(Tensor, linear.weight)
        self.weight = torch.empty(weight_OI.shape, dtype=torch.int8, device="meta")
        self._packed = torch.ops.onednn.qlinear_prepack(weight_OI, None)
        self._scale_O = cast(Tensor, linear.scale).float()
        self._zeros_O = torch.zeros(self.out_features, dtype=torch.int64)
        self._bias_O = cast(Tensor | None, linear.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) to (..., O) in bfloat16."""
        rows_RI = inputs.reshape(-1, self.in_features)
        if len(rows_RI) <= _MOST_ROWS:
            result_RO = self._by_integers(rows_RI)
        else:
            weight_OI = self._packed.to_dense().t()
            result_RO = _by_bfloat16(rows_RI.to(torch.bfloat16), weight_OI, self._scale_O.to(torch.bfloat16))
        if self._bias_O is not None:
            result_RO = result_RO + self._bias_O
        return result_RO.reshape(*inputs.shape[:-1], self.out_features)

    def _by_integers(self, rows_RI: Tensor) -> Tensor:
        rows = len(rows_RI)
        largest_R1 = torch.linalg.vector_norm(rows_RI.float(), ord=float("inf"), dim=-1, keepdim=True)
        step_R1 = largest_R1.div_(_LEVELS).clamp_min_(torch.finfo(torch.float32).tiny)
        scaled_RI = rows_RI / step_R1
        first_RI = scaled_RI.round()
        second_RI = scaled_RI.sub_(first_RI).mul_(_FINER).round_()
        integers = torch.cat([first_RI, second_RI]).add_(_ZERO).to(torch.uint8)
        sums = torch.ops.onednn.qlinear_pointwise(
            integers,
            1.0,
            _ZERO,
            self._packed,
            self._scale_O,
            self._zeros_O,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        joined_RO = torch.add(sums[:rows], sums[rows:], alpha=1 / _FINER).mul_(step_R1)
        return joined_RO.to(torch.bfloat16)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias_O is not None}"


def quantize_linear_layers(
    model: nn.Module,
    *,
    wanted: Callable[[str], bool] = lambda name: True,
    progress: Callable[[int], None] | None = None,
) -> Quantized:
    """Replaces the model's linear layers, head included, whose name is `wanted`; all else becomes bfloat16.

    A head that shares its weights with the embeddings gets integers of its own. One layer at a time, so memory never
    grows by more than one layer. The model can then be neither trained, saved nor moved. Raises ConfigError where it
    has no linear layer.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and wanted(name)]
    if not names:
        raise ConfigError(
            "nothing to make integers of", expected="a model with linear layers", actual=type(model).__name__
        )
    before = sum(cast(Tensor, model.get_submodule(name).weight).nbytes for name in names)
    after = 0
    for done, layer in enumerate(replace_linear_layers(model, names, Int8Linear.of), start=1):
        after += cast(Tensor, layer.weight).nbytes + cast(Tensor, layer.scale).nbytes
        if progress is not None:
            progress(done)
    model.to(torch.bfloat16)
    if can_pack(torch.int8):
        for name in names:
            parent, _, child = name.rpartition(".")
            layer = cast(Int8Linear, model.get_submodule(name))
            if cast(Tensor, layer.weight).device.type == "cpu":
                setattr(model.get_submodule(parent), child, PackedInt8Linear(layer))
    return Quantized(layers=len(names), bytes_before=before, bytes_after=after)


def weights_dtype(model: nn.Module) -> torch.dtype:
    """The precision that a model's weights are kept in: int8 where `quantize_linear_layers` changed it."""
    is_int8 = any(isinstance(module, (Int8Linear, PackedInt8Linear)) for module in model.modules())
    return torch.int8 if is_int8 else next(model.parameters()).dtype


def _by_bfloat16(rows_RI: Tensor, weight_OI: Tensor, scale_O: Tensor) -> Tensor:
    """The product with integers made bfloat16, a block at a time."""
    result_RO = rows_RI.new_empty(len(rows_RI), len(weight_OI))
    for block in _blocks(*weight_OI.shape):
        result_RO[:, block] = nn.functional.linear(rows_RI, weight_OI[block].to(torch.bfloat16))
    result_RO *= scale_O
    return result_RO


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (2 * columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
