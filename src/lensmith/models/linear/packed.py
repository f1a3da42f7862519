"""Linear layers whose weights lie in memory as this processor's matrix kernels want them; for inference on a CPU.

torch keeps a weight row by row, and its matrix product rearranges it at every call, or does not use the processor well:
writing a token with bfloat16 weights then runs at a quarter of the memory's speed, and float32 products take two to
four times as long as they need to (on processors that are not Intel's, more). oneDNN, which torch brings along, has
blocked layouts without that loss. The rearranging is done once here, layer by layer, so that memory grows by one layer
for a moment. In bfloat16 the result is the same to the bit; in float32 sums are taken in another order, and differ by a
few units in the last place.

A packed model can be neither trained, saved nor moved.

What is packed is no parameter of the model any more: `count_parameters` is how a model's size is told.

Legend: O outputs, I inputs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from lensmith.core.errors import LensmithError

SMALLEST = 1 << 18
"""Weights of a layer below which a call's own 10 microseconds count for more than what packing saves."""
_LIKELY_ROWS = 16


class Replacement(nn.Module):
    """A layer in the place of a linear one. Its weights are none of its parameters, in torch's sense.

    `stands_for` is how many parameters of the layer it replaced no other module holds.
    """

    stands_for: int = 0


AnyReplacement = TypeVar("AnyReplacement", bound=Replacement)


class Packed(Replacement):
    """A layer whose weights only this processor's kernels can read. What would lose them raises LensmithError."""

    def _save_to_state_dict(self, *_: Any) -> None:
        raise LensmithError("a packed model cannot be saved", hint="load it anew and save that")

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Packed":
        raise LensmithError(
            "a packed model can be neither moved nor made another precision",
            hint="do that before its layers are packed",
        )


class PackedLinear(Packed):
    """A linear layer in oneDNN's layout. `weight` has shape and precision, and no values."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.out_features, linear.in_features
        weight_OI = linear.weight.detach()
        self.weight = torch.empty(weight_OI.shape, dtype=weight_OI.dtype, device="meta")
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), _LIKELY_ROWS)
        self._bias_O = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self._bias_O, "none", [], ""))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias_O is not None}"


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have such layouts for a precision; for int8, and exact sums of them."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's affair
    if not (has_onednn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    if dtype is torch.int8:
        return hasattr(torch.ops.onednn, "qlinear_pointwise") and torch.cpu._is_vnni_supported()
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def pack_linear_layers(model: nn.Module, *, smallest: int = SMALLEST) -> int:
    """Replaces the linear layers that gain by it, where this processor can; returns how many those were.

    Layers on another device, or in another precision than float32 and bfloat16, are left alone. A weight that another
    module uses too, such as a head's that is also the embeddings', is kept beside its packed copy. `smallest`: the
    weights that a layer must have to gain.
    """
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear and _gains(module, smallest)]
    for _ in replace_linear_layers(model, names, PackedLinear):
        pass
    return len(names)


def replace_linear_layers(
    model: nn.Module, names: Sequence[str], build: Callable[[nn.Linear], AnyReplacement]
) -> Iterator[AnyReplacement]:
    """Puts what `build` makes in the place of each named linear layer, one at a time; yields what it put there.

    No layer that was replaced is kept: memory grows by one layer for a moment.
    """
    holders = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for name in names:
        linear = cast(nn.Linear, model.get_submodule(name))
        replacement = build(linear)
        for parameter in linear.parameters(recurse=False):
            holders[id(parameter)] -= 1
            replacement.stands_for += 0 if holders[id(parameter)] else parameter.numel()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacement)
        del linear, parameter
        yield replacement


def count_parameters(model: nn.Module) -> int:
    """How many parameters a model has, as published: tied ones once, packed and 8-bit ones as what they stand for."""
    replaced = sum(module.stands_for for module in model.modules() if isinstance(module, Replacement))
    return replaced + sum(parameter.numel() for parameter in model.parameters())


def _gains(linear: nn.Linear, smallest: int) -> bool:
    weight = linear.weight
    return weight.device.type == "cpu" and weight.numel() >= smallest and can_pack(weight.dtype)
