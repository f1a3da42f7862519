"""Whether a step may be made: the loss is a number, and no spike.

A step is judged before its update, so that the weights are still those from before it. A spike is a matter of several
steps: at the first loss that looks like one the run writes a checkpoint, and stops where the others look so too. What
is typical is told by the median and the median absolute deviation, which a few spikes do not move.
"""

import collections
import math
import statistics
from collections.abc import Iterable

from lensmith.train.config import SpikeRule
from lensmith.train.folder import Checkpoint
from lensmith.train.interfaces import DivergedError

_LEAST_SHARE = 0.01
"""The deviation counts as at least this part of the median."""


class LossWatch:
    """Compares each loss with those before it; losses that look like a spike join none of them.

    `losses` are those of the steps before, which a run that goes on has in its log.
    """

    def __init__(self, rule: SpikeRule | None, losses: Iterable[float] = ()) -> None:
        self.rule = rule
        self._typical = collections.deque(losses, maxlen=None if rule is None else rule.window)
        self._suspects: list[float] = []

    @property
    def suspects(self) -> int:
        """How many losses in a row look like a spike, the last one included."""
        return len(self._suspects)

    @property
    def bound(self) -> float:
        """What a loss must exceed to look like a spike; infinite where nothing is judged (yet)."""
        if self.rule is None or len(self._typical) < self.rule.window:
            return math.inf
        median = statistics.median(self._typical)
        deviation = statistics.median(abs(loss - median) for loss in self._typical)
        return median + self.rule.factor * max(deviation, _LEAST_SHARE * abs(median))

    def see(self, loss: float) -> None:
        """Takes in the loss of a step that is about to be made."""
        if self.rule is None:
            return
        if loss > self.bound:
            self._suspects.append(loss)
        else:
            self._suspects.clear()
            self._typical.append(loss)

    def require_no_spike(self, step: int, checkpoint: Checkpoint | None) -> None:
        """Raises DivergedError where as many losses in a row look like a spike as the rule says, `step`'s the last."""
        if self.rule is None or self.suspects < self.rule.steps:
            return
        first = step - self.suspects + 1
        raise DivergedError(
            f"the loss spiked in steps {first} to {step}; {_standing(checkpoint)}",
            expected=f"at most {self.bound:.4g} ({self.rule.factor:g} median absolute deviations above the median "
            f"of {self.rule.window} steps)",
            actual=", ".join(f"{loss:.4g}" for loss in self._suspects),
            hint=f"{_pass_over(first, step)}, or lower the peak learning rate; `spike=None` in the recipe's "
            "TrainConfig turns this rule off",
        )


def require_finite(step: int, loss: float, norm: float, checkpoint: Checkpoint | None) -> None:
    """Raises DivergedError unless loss and gradient norm of `step` are numbers; `checkpoint` is from before it."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise DivergedError(
        f"training diverged in step {step}; {_standing(checkpoint)}",
        expected="a finite loss and gradient norm",
        actual=f"loss {loss}, gradient norm {norm}",
        hint=f"{_pass_over(step, step)}, or lower the peak learning rate, or warm up longer",
    )


def _standing(checkpoint: Checkpoint | None) -> str:
    return f"the checkpoint from before is {checkpoint.path}" if checkpoint else "no checkpoint was written"


def _pass_over(first: int, last: int) -> str:
    steps = str(first) if first == last else f"{first}-{last}"
    return f"the same command with --skip-steps {steps}, which passes over these batches (without, it meets them again)"
