"""Which numbers the forward pass computes in. Weights, gradients' sums and the optimizer stay float32 always.

bfloat16 has float32's range, so no loss scaling is needed; it is chosen only where the machine multiplies it faster
than it would emulate it.
"""

import contextlib
import enum

import torch


class Precision(enum.Enum):
    """What the forward pass computes in. AUTO is bfloat16 where the machine has instructions for it."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def resolve(precision: Precision, device: torch.device) -> Precision:
    """FLOAT32 or BFLOAT16: what AUTO means on this device."""
    if precision is not Precision.AUTO:
        return precision
    return Precision.BFLOAT16 if has_fast_bfloat16(device) else Precision.FLOAT32


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context for the forward pass: autocast to bfloat16, or nothing."""
    if resolve(precision, device) is Precision.BFLOAT16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
