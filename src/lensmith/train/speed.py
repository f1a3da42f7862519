"""What a device could compute at most, beside which a run's speed is told.

Model FLOP utilisation is the arithmetic that the model needs (`flops`) over what the device could do in the same time.
The peak is a vendor's figure where the device is in the table and computes in bfloat16; of any other it is measured, as
the best of some matrix products before the first step. A measured peak is what this process could reach at that moment,
with its threads: less than the machine's, where something else runs.
"""

import time
from dataclasses import dataclass

import torch

from lensmith.train.config import Precision

_DENSE_BFLOAT16: tuple[tuple[str, float], ...] = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("A30", 165e12),
    ("A10", 125e12),
    ("L4", 121e12),
)
"""FLOPs a second without sparsity, from the vendor's data sheets; the first name that a device's contains."""
_SIDE, _TIMES = {"cpu": 768, "cuda": 8192}, 5


@dataclass(frozen=True, kw_only=True)
class Peak:
    """FLOPs a second of one device, and where the figure is from."""

    flops_per_s: float
    source: str


def peak_of(device: torch.device, precision: Precision) -> Peak:
    """The device's peak in this precision (not AUTO). Measuring takes a fraction of a second."""
    if device.type == "cuda" and precision is Precision.BFLOAT16:
        name = torch.cuda.get_device_name(device)
        for part, flops_per_s in _DENSE_BFLOAT16:
            if part in name:
                return Peak(flops_per_s=flops_per_s, source=f"data sheet of {part}, bfloat16 without sparsity")
    side = _SIDE.get(device.type, _SIDE["cuda"])
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    one = torch.ones(side, side, device=device, dtype=dtype)
    best_s = min(_seconds(one) for _ in range(_TIMES))
    return Peak(
        flops_per_s=2.0 * side**3 / best_s,
        source=f"measured: matrix products of {side} x {side} in {precision.value}, the best of {_TIMES}",
    )


def _seconds(one: torch.Tensor) -> float:
    began = time.perf_counter()
    product = one @ one
    float(product[0, 0])  # waits until an accelerator is done
    return time.perf_counter() - began
