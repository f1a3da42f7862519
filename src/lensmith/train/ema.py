"""An exponential moving average of the weights, which usually scores better than the last weights do.

The decay rises with the step, min(decay, (1 + step) / (10 + step)), so that the average soon forgets the random
weights it began with. It is a function of the step alone: a resumed average equals an uninterrupted one.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lensmith.train.optim import trainable


class WeightAverage:
    """The average of a model's trainable parameters. Buffers and frozen parameters stay the model's own."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters: list[Tensor] = list(trainable(model).values())
        self._decay = decay
        self._average: list[Tensor] = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after update number `step` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._parameters, 1.0 - decay)

    @torch.no_grad()
    def take(self) -> None:
        """Makes the model's present weights the average."""
        torch._foreach_copy_(self._average, self._parameters)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context the model holds the average; afterwards its own weights again, bit for bit."""
        own = [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            torch._foreach_copy_(self._parameters, self._average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, own)
