"""Linear layers whose weights are kept as 8-bit integers: half of bfloat16's memory, and half of the time of a token.

Writing one token reads every weight once and does little with it, so its time is the weights' size over the memory's
speed. Each row of a weight is divided by a scale of its own, so that its largest value becomes 127, and rounded;
activations stay in bfloat16. torch multiplies the integers as they are where rows are few; a prompt of many rows is
bound by arithmetic, and there the integers become bfloat16 again (without error: they are below 256) a block at a time.

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

_MOST_ROWS = 16
"""Up to here torch's integer product is the quicker one on a CPU; on two cores both take alike at 12 to 16 rows."""
_BLOCK_BYTES = 32 << 20
"""How much of a weight is made bfloat16 at once."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What `quantize_linear_layers` changed, and the bytes of these weights before and after."""

    layers: int
    bytes_before: int
    bytes_after: int


class Int8Linear(nn.Module):
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
            result_RO = rows_RI.new_empty(len(rows_RI), self.out_features)
            for block in _blocks(self.out_features, self.in_features):
                result_RO[:, block] = nn.functional.linear(rows_RI, weight_OI[block].to(torch.bfloat16))
            result_RO *= scale_O
        if self.bias is not None:
            result_RO = result_RO + self.bias
        return cast(Tensor, result_RO).reshape(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def quantize_linear_layers(
    model: nn.Module,
    *,
    wanted: Callable[[str], bool] = lambda name: True,
    progress: Callable[[int], None] | None = None,
) -> Quantized:
    """Replaces the model's linear layers, head included, whose name is `wanted`; all else becomes bfloat16.

    A head that shares its weights with the embeddings gets integers of its own. One layer at a time, so memory never
    grows by more than one layer. Raises ConfigError where the model has no linear layer.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear) and wanted(name)]
    if not found:
        raise ConfigError(
            "nothing to make integers of", expected="a model with linear layers", actual=type(model).__name__
        )
    before = after = 0
    for done, (name, linear) in enumerate(found, start=1):
        before += linear.weight.nbytes
        layer = Int8Linear.of(linear)
        after += cast(Tensor, layer.weight).nbytes + cast(Tensor, layer.scale).nbytes
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
        if progress is not None:
            progress(done)
    model.to(torch.bfloat16)
    return Quantized(layers=len(found), bytes_before=before, bytes_after=after)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (2 * columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
