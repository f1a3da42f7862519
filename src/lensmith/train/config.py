"""What a training run is: optimizer, schedule, precision, and how often it reports and saves.

Precision is what the forward pass computes in. Weights, gradients' sums and the optimizer stay float32 always. bfloat16
has float32's range, so no loss scaling is needed; it is chosen only where the machine multiplies it faster than it
would emulate it.
"""

import contextlib
import enum
import math
from dataclasses import dataclass, field

import torch

from lensmith.core.errors import ConfigError


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


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """How fast a part of the model learns. `name`: what its parameters' names begin with, up to a dot (or all of one).

    `lr_factor` times the schedule's rate is the part's; 0 freezes it: no gradient, no decay, no optimizer state.
    """

    name: str
    lr_factor: float = 1.0

    def __post_init__(self) -> None:
        _require(bool(self.name), "optim.parts.name", "the beginning of parameters' names", self.name)
        _require(0 <= self.lr_factor < math.inf, "optim.parts.lr_factor", "0 (frozen) or more", self.lr_factor)

    def holds(self, parameter: str) -> bool:
        """Whether the parameter of this name is of the part."""
        return parameter == self.name or parameter.startswith(f"{self.name}.")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW. `clip_norm` limits the gradient's norm over all parameters together; it must be finite.

    `parts` learn at rates of their own; of several that hold a parameter, the longest name decides, so that a part of
    a frozen part may learn. What none of them holds learns at the schedule's rate, unless it was frozen before.
    """

    peak_lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    eps: float = 1e-8
    clip_norm: float = 1.0
    parts: tuple[PartConfig, ...] = ()

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        _require(len(set(names)) == len(names), "optim.parts", "each part once", ", ".join(names))
        _require(self.peak_lr > 0, "optim.peak_lr", "above 0", self.peak_lr)
        _require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", "in [0, 1)", self.betas)
        _require(self.weight_decay >= 0, "optim.weight_decay", "0 or more", self.weight_decay)
        _require(self.eps > 0, "optim.eps", "above 0", self.eps)
        _require(0 < self.clip_norm < math.inf, "optim.clip_norm", "above 0 and finite", self.clip_norm)

    def lr_factor(self, parameter: str) -> float:
        """What the schedule's rate is multiplied by for the parameter of this name."""
        holding = [part for part in self.parts if part.holds(parameter)]
        return max(holding, key=lambda part: len(part.name)).lr_factor if holding else 1.0


@dataclass(frozen=True, kw_only=True)
class LrDrop:
    """Once `after` (a share of the steps) is done, the rate is `lr_fraction` of its peak."""

    after: float
    lr_fraction: float

    def __post_init__(self) -> None:
        _require(0 < self.after < 1, "schedule.drops.after", "between 0 and 1", self.after)
        _require(0 <= self.lr_fraction <= 1, "schedule.drops.lr_fraction", "0 to 1", self.lr_fraction)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up to the peak, then half a cosine down to `final_lr_fraction` of it (see `optim.lr_at`).

    A `final_lr_fraction` of 1 keeps the rate at its peak. With `drops` there is no cosine: the rate stays at its peak
    and falls at each of them, as DeepSeek's language models are trained.
    """

    total_steps: int
    warmup_steps: int
    final_lr_fraction: float = 0.05
    drops: tuple[LrDrop, ...] = ()

    def __post_init__(self) -> None:
        _require(self.total_steps > 0, "schedule.total_steps", "above 0", self.total_steps)
        _require(
            0 <= self.warmup_steps <= self.total_steps,
            "schedule.warmup_steps",
            f"0 to total_steps ({self.total_steps})",
            self.warmup_steps,
        )
        _require(0 <= self.final_lr_fraction <= 1, "schedule.final_lr_fraction", "0 to 1", self.final_lr_fraction)
        ends = [drop.after for drop in self.drops]
        _require(ends == sorted(set(ends)), "schedule.drops", "one after the other", ends)


@dataclass(frozen=True, kw_only=True)
class SpikeRule:
    """When a loss is a spike: `steps` times in a row above the median of `window` losses before by `factor` times their
    median absolute deviation (which counts as at least 1 % of the median, as a curve may be flat).

    Of losses that scatter as a normal distribution does, ten such deviations are 6.7 standard deviations. Nothing is
    judged before there are `window` losses.
    """

    window: int = 100
    factor: float = 10.0
    steps: int = 5

    def __post_init__(self) -> None:
        _require(self.window >= 10, "spike.window", "10 or more", self.window)
        _require(self.factor > 0, "spike.factor", "above 0", self.factor)
        _require(self.steps >= 1, "spike.steps", "1 or more", self.steps)


class Curves(enum.Enum):
    """Where the curves are written beside the JSONL log, which is always kept."""

    JSONL = "jsonl"
    TENSORBOARD = "tensorboard"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run. A checkpoint is written when either `checkpoint_every_*` is due, and always at the end.

    `accumulate` micro-batches make one step. `ema_decay` keeps an average of the weights. `deadline_s` ends the run
    cleanly, with a checkpoint, so long after `train` was called. `validate_every_steps=0` never validates.
    `prefetch_batches` are loaded ahead by `prefetch_threads` threads; their order does not depend on either.

    `spike` ends the run where the loss spikes, with a checkpoint from before; None never does. `recompute_layers`
    computes each transformer layer a second time in the backward pass instead of keeping what is within it: less
    memory, about a third more arithmetic, the same numbers. `compile_layers` has `torch.compile` make kernels of them:
    the numbers agree to rounding.
    """

    optim: OptimConfig
    schedule: ScheduleConfig
    accumulate: int = 1
    precision: Precision = Precision.AUTO
    ema_decay: float | None = None
    seed: int = 0
    checkpoint_every_s: float | None = 600.0
    checkpoint_every_steps: int | None = None
    keep_checkpoints: int = 2
    log_every_steps: int = 10
    validate_every_steps: int = 0
    deadline_s: float | None = None
    prefetch_batches: int = 4
    prefetch_threads: int = 1
    curves: Curves = Curves.TENSORBOARD
    spike: SpikeRule | None = field(default_factory=SpikeRule)
    recompute_layers: bool = False
    compile_layers: bool = False

    def __post_init__(self) -> None:
        for name in ("accumulate", "keep_checkpoints", "log_every_steps", "prefetch_batches", "prefetch_threads"):
            _require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        _require(self.validate_every_steps >= 0, "validate_every_steps", "0 (never) or more", self.validate_every_steps)
        for name in ("checkpoint_every_s", "checkpoint_every_steps", "deadline_s"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, "above 0, or None", value)
        _require(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", "between 0 and 1", self.ema_decay)


# Fields that change neither a weight nor a random number: a run may be resumed with other values.
OPERATIONAL_FIELDS = frozenset(
    {
        "checkpoint_every_s",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "log_every_steps",
        "validate_every_steps",
        "deadline_s",
        "prefetch_batches",
        "prefetch_threads",
        "curves",
        "spike",
        "spike.window",
        "spike.factor",
        "spike.steps",
        "recompute_layers",
        "compile_layers",  # told by the machine's notes: its numbers agree to rounding
    }
)


def _require(condition: bool, name: str, expected: str, actual: object) -> None:
    if not condition:
        raise ConfigError(f"{name} is out of range", expected=expected, actual=actual)
