"""What the loop asks of its caller, and what it gives back.

A *step* is one update of the weights. `StepContext.step` and `Batches.batch_at` count from 0; everywhere else (log
lines, checkpoint names, `TrainResult.step`, `validate`) a step number is how many updates have been made.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from lensmith.core.errors import LensmithError

ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class Batches(Protocol[BatchT_co]):
    """The training data as a function: the same arguments always give the same batch.

    Called from background threads, so it must not draw from the global random states (python's, numpy's, torch's):
    it makes its own generator from `step` and `micro`. A batch may be of any type; only the loss function reads it.
    """

    def batch_at(self, step: int, micro: int) -> BatchT_co:
        """The micro-batch number `micro` (0 .. accumulate-1) of the update number `step` (from 0)."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """Where the loop stands when it asks for a loss. `device` is where the model lives."""

    step: int
    micro: int
    total_steps: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """What a micro-batch is made of, for the log alone: all tokens that the language model reads, targets or not.

    Of these, `padding_tokens` fill up shorter rows, and `blank_tokens` stand for a blank picture that nothing is learnt
    from. `flops`: what the model needs for them, forward and backward (see `flops`); 0 where it is not known.
    """

    tokens: int = 0
    padding_tokens: int = 0
    blank_tokens: int = 0
    flops: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LossParts:
    """One micro-batch's loss: a sum over target tokens (a scalar with gradient) and how many tokens it sums over.

    The step's loss is the sum of all sums over the sum of all counts, so that a token weighs the same in whichever
    micro-batch it lies. An auxiliary mean joins as `weight * mean * target_tokens`. `scalars` (without gradient)
    go to the log, averaged over micro-batches by target tokens. `samples` counts what `samples_per_s` reports; `work`
    is reported as tokens a second, shares of padding and of blanks, and model FLOP utilisation.
    """

    loss_sum: Tensor
    target_tokens: int
    samples: int = 0
    scalars: Mapping[str, Tensor | float] = field(default_factory=dict)
    work: StepWork = field(default_factory=StepWork)


LossFunction = Callable[[ModelT, BatchT, StepContext], LossParts]
Validate = Callable[[ModelT, int], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A report every `log_every_steps`: how far, how fast, how long still.

    Rates are over the steps since the last report; the time left is by the mean rate of this session, validation and
    checkpoints included. `target_tokens_per_s`, `tokens_per_s` (all that is read; None where the loss function does not
    say) and `mfu` (model FLOP utilisation, 0 to 1; None where it is not known) count the time of the steps alone.
    """

    step: int
    total_steps: int
    loss: float
    lr: float
    samples_per_s: float
    steps_per_s: float
    target_tokens_per_s: float
    tokens_per_s: float | None = None
    mfu: float | None = None
    time_left_s: float
    scalars: Mapping[str, float]


class StopReason(enum.Enum):
    """Why `train` returned."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    DEADLINE = "deadline"
    STEPS = "steps"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended: updates made in all, the last step's loss (None if no step was run), the newest checkpoint."""

    step: int
    stop: StopReason
    loss: float | None
    checkpoint: Path

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM ended it; the command line then exits with 130."""
        return self.stop is StopReason.INTERRUPTED


class DivergedError(LensmithError):
    """The loss or its gradient is no longer a finite number, or the loss has spiked."""


class LostProcessError(LensmithError):
    """Another of a run's processes is gone."""


class StorageError(LensmithError):
    """A run could not write a file: the disk is full, say. What was written before is whole."""


class BatchError(LensmithError):
    """The data function failed; the original error is the cause."""
