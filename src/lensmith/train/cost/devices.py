"""What a model is trained on: GPUs by name, from their maker's tables. This machine's processor: `processor`.

A GPU's time is its highest rate times a share of it that is assumed: the model's arithmetic over what the device could
do in the time (MFU, as PaLM defines it, arXiv 2204.02311, section 4.1). What others published of theirs is the spread:

    21.3 %  GPT-3 with 175B weights        table 3 of PaLM has the first four
    30.2 %  Megatron-Turing with 530B
    32.5 %  Gopher with 280B
    46.2 %  PaLM with 540B
    38 to 43 %  Llama 3 with 405B          arXiv 2407.21783, section 3.3
    56.3 %  Megatron with 1T               the highest that is told in its README; arXiv 2205.05198
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lensmith.core.errors import InputError
from lensmith.train.config import Precision

ASSUMED_MFU = 0.40
PUBLISHED_MFU = (0.213, 0.563)
"""The lowest and the highest of the table above."""
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Floating-point operations a second in bfloat16 (dense) and float32. `memory_bytes` is the maker's figure; the few
    GB that a device has beyond it are left to the driver, to communication and to what the allocator cannot use."""

    name: str
    bfloat16_flops_per_s: float
    float32_flops_per_s: float
    memory_bytes: int

    def rate(self, precision: Precision) -> float:
        """Operations a second at most."""
        return self.bfloat16_flops_per_s if precision is Precision.BFLOAT16 else self.float32_flops_per_s


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        each.name: each
        for each in (
            Gpu(name="a100", bfloat16_flops_per_s=312e12, float32_flops_per_s=19.5e12, memory_bytes=80 * 10**9),
            Gpu(name="a100-40gb", bfloat16_flops_per_s=312e12, float32_flops_per_s=19.5e12, memory_bytes=40 * 10**9),
            Gpu(name="h100", bfloat16_flops_per_s=989.4e12, float32_flops_per_s=66.9e12, memory_bytes=80 * 10**9),
            Gpu(name="h200", bfloat16_flops_per_s=989.4e12, float32_flops_per_s=66.9e12, memory_bytes=141 * 10**9),
        )
    }
)


def gpu_named(name: str) -> Gpu:
    """Raises InputError that lists the devices."""
    if name not in GPUS:
        raise InputError("there is no such device", expected=", ".join((*GPUS, CPU)), actual=name)
    return GPUS[name]
