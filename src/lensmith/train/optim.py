"""AdamW, its learning rates, gradients made ready for it, and an average of the weights.

A part of the model may learn at a rate of its own, or not at all (`PartConfig`): its decay, which torch's AdamW
multiplies by the rate, is then smaller by as much.

Vectors (norms, biases, class tokens kept as vectors) are not decayed, as is usual since GPT-2: decay is for matrices.

The exponential moving average usually scores better than the last weights do. Its decay rises with the step,
min(decay, (1 + step) / (10 + step)), so that it soon forgets the random weights it began with. It is a function of the
step alone: a resumed average equals an uninterrupted one.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.core.errors import InputError
from lensmith.train.config import OptimConfig, ScheduleConfig
from lensmith.train.processes import local, whole


def lr_at(step: int, *, peak_lr: float, schedule: ScheduleConfig) -> float:
    """The learning rate of update number `step` (from 0).

    It rises linearly and reaches the peak with the last warm-up update, then falls along half a cosine and reaches
    `final_lr_fraction` of the peak with the last update of all; or it falls at the schedule's drops.
    """
    done = step + 1
    if done <= schedule.warmup_steps:
        return peak_lr * done / schedule.warmup_steps
    if schedule.drops:
        passed = [drop.lr_fraction for drop in schedule.drops if step / schedule.total_steps >= drop.after]
        return peak_lr * (passed[-1] if passed else 1.0)
    progress = min(1.0, (done - schedule.warmup_steps) / (schedule.total_steps - schedule.warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak_lr * (schedule.final_lr_fraction + (1.0 - schedule.final_lr_fraction) * cosine)


def freeze(model: nn.Module, config: OptimConfig) -> None:
    """Lets the parameters of the configuration's parts learn or not; others stay as they are.

    Raises InputError for a part that the model does not have.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in config.parts:
        if not any(map(part.holds, names)):
            tops = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise InputError("the model has no such part", expected=f"a part of {tops}", actual=part.name)
    for name, parameter in model.named_parameters():
        if any(part.holds(name) for part in config.parts):
            parameter.requires_grad_(config.lr_factor(name) > 0)
            if not parameter.requires_grad:
                parameter.grad = None


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that get gradients, by name, tied ones once. Raises InputError unless all are float32."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError("the model has no parameter that requires a gradient", hint="unfreeze at least one part")
    wrong = {name: p.dtype for name, p in parameters.items() if p.dtype != torch.float32}
    if wrong:
        name, dtype = next(iter(wrong.items()))
        raise InputError(
            f"{len(wrong)} trainable parameters are not float32, the first is {name}",
            expected=torch.float32,
            actual=dtype,
            hint="load the model in float32; `precision` decides what the forward pass computes in",
        )
    return parameters


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters in groups: for each `lr_factor`, matrices with decay, vectors without.

    Raises InputError where no parameter is left, or one is not float32.
    """
    parameters = trainable(model)
    factors = {name: config.lr_factor(name) for name in parameters}
    groups: list[dict[str, Any]] = []
    for factor in sorted(set(factors.values()), reverse=True):
        own = [(name, p) for name, p in parameters.items() if factors[name] == factor]
        matrices, vectors = [[pair for pair in own if (pair[1].ndim >= 2) is wanted] for wanted in (True, False)]
        groups += [
            {"params": matrices, "weight_decay": config.weight_decay, "lr_factor": factor},
            {"params": vectors, "weight_decay": 0.0, "lr_factor": factor},
        ]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters.values())
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.peak_lr,
        betas=config.betas,
        eps=config.eps,
        fused=fused or None,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives each group its rate: `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def scale_and_clip(model: nn.Module, *, target_tokens: int, clip_norm: float) -> Tensor:
    """Gradients of a sum become those of the mean over `target_tokens`; then their norm is limited.

    Returns the norm of the mean's gradient before it was limited (a scalar tensor). Dividing once, after all backward
    passes, needs no token count beforehand and is exact: the gradient is linear in the loss.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    torch._foreach_mul_(gradients, 1.0 / target_tokens)
    norm = whole(torch.nn.utils.get_total_norm(gradients))
    torch.nn.utils.clip_grads_with_norm_(list(model.parameters()), clip_norm, norm)
    return norm


class WeightAverage:
    """The average of a model's trainable parameters. Buffers and frozen parameters stay the model's own."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        # Shares, where the model is shared out: each process averages its own.
        self._parameters: list[Tensor] = local([parameter.detach() for parameter in trainable(model).values()])
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
