"""One update of the weights: micro-batches, backward passes, one division, clipping, AdamW, the average."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lensmith.core.errors import InputError
from lensmith.train import optim, precision
from lensmith.train.interfaces import DivergedError, LossParts, StepContext
from lensmith.train.prefetch import Prefetcher
from lensmith.train.run import Run


@dataclass(kw_only=True)
class _Sums:
    """One step's micro-batches added up."""

    loss: float
    target_tokens: int
    samples: int
    data_wait_s: float
    scalars: dict[str, float]


def update(run: Run, prefetcher: Prefetcher) -> dict[str, float]:
    """One update of the weights; its numbers for the log. Raises DivergedError before a bad update is made."""
    started = time.monotonic()
    optimizer, optim_config = run.state.optimizer, run.config.optim
    optimizer.zero_grad(set_to_none=True)
    sums = _accumulate(run, prefetcher)
    loss = sums.loss / sums.target_tokens
    norm = float(
        optim.scale_and_clip(run.state.model, target_tokens=sums.target_tokens, clip_norm=optim_config.clip_norm)
    )
    _require_finite(run, loss, norm)
    lr = optim.lr_at(run.step, peak_lr=optim_config.peak_lr, schedule=run.config.schedule)
    optim.set_lr(optimizer, lr)
    optimizer.step()
    if run.state.average is not None:
        run.state.average.update(run.step)
    run.step, run.loss = run.step + 1, loss
    record = {
        "step": run.step,
        "loss": loss,
        "lr": lr,
        "grad_norm": norm,
        "tokens": sums.target_tokens,
        "samples": sums.samples,
        "data_wait_s": sums.data_wait_s,
        "samples_per_s": sums.samples / (time.monotonic() - started),
    }
    if taken := record.keys() & sums.scalars.keys():
        raise InputError(f"the loss function's scalars use names of the log's own: {', '.join(sorted(taken))}")
    return record | sums.scalars


def _accumulate(run: Run, prefetcher: Prefetcher) -> _Sums:
    """Backward passes of all micro-batches. Gradients are then of the *sum* of the losses, see `scale_and_clip`."""
    total_steps = run.config.schedule.total_steps
    done: list[LossParts] = []
    data_wait_s = 0.0
    for micro in range(run.config.accumulate):
        started = time.monotonic()
        batch = prefetcher.take(run.step, micro)
        data_wait_s += time.monotonic() - started
        context = StepContext(step=run.step, micro=micro, total_steps=total_steps, device=run.device)
        with precision.autocast(run.config.precision, run.device):
            parts = run.loss_function(run.state.model, batch, context)
        torch.autograd.backward(parts.loss_sum)
        done.append(parts)
    target_tokens = sum(parts.target_tokens for parts in done)
    if target_tokens <= 0:
        raise InputError(f"update {run.step} (counted from 0) has no target token", hint="check the loss mask")
    return _Sums(
        # Read only now, so that an accelerator need not wait between micro-batches.
        loss=_total(parts.loss_sum for parts in done),
        target_tokens=target_tokens,
        samples=sum(parts.samples for parts in done),
        data_wait_s=data_wait_s,
        scalars=_mean_scalars(done),
    )


def _total(values: Iterable[Tensor]) -> float:
    return math.fsum(float(value.detach()) for value in values)


def _mean_scalars(done: list[LossParts]) -> dict[str, float]:
    """Means over the micro-batches that have the scalar and a target token, weighted by target tokens."""
    sums: dict[str, float] = {}
    weights: dict[str, int] = {}
    for parts in done:
        for name, value in parts.scalars.items():
            if parts.target_tokens:
                sums[name] = sums.get(name, 0.0) + float(value) * parts.target_tokens
                weights[name] = weights.get(name, 0) + parts.target_tokens
    return {name: total / weights[name] for name, total in sums.items()}


def _require_finite(run: Run, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    good = f"the last good checkpoint is {run.checkpoint.path}" if run.checkpoint else "no checkpoint was written yet"
    raise DivergedError(
        f"training diverged in step {run.step + 1}; {good}",
        expected="a finite loss and gradient norm",
        actual=f"loss {loss}, gradient norm {norm}",
        hint="lower the peak learning rate, warm up longer, or look at this step's batches",
    )
