"""The training loop: one pass over a schedule, resumable bit for bit after any update.

An update is: fetch micro-batches, backward passes, one division by all target tokens, clip, AdamW, average the weights.
Ctrl-C and SIGTERM become a wish to stop that is read between updates; a second Ctrl-C stops at once.
Data position is arithmetic (`batch_at(step, micro)`), so a checkpoint needs only the number of updates made. The same
holds for the learning rate and for the average's decay.

With several processes (`processes`) each has its own share of the weights and its own micro-batches; a step's sums are
over all of them, the first one writes, and all end together.
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import nn

from lensmith.core.errors import InputError
from lensmith.core.files import lock
from lensmith.train import checkpoint as checkpoints
from lensmith.train import optim
from lensmith.train.config import TrainConfig, autocast
from lensmith.train.folder import Checkpoint, newest_usable
from lensmith.train.interfaces import (
    Batches,
    BatchT,
    DivergedError,
    LossFunction,
    LossParts,
    ModelT,
    Progress,
    StepContext,
    StopReason,
    TrainResult,
    Validate,
)
from lensmith.train.log import StepCounter, StepLog, to_stderr
from lensmith.train.prefetch import Prefetcher
from lensmith.train.processes import ALONE, Processes

LOCK_FILE = ".lock"


@dataclass(kw_only=True)
class Run:
    """A run under way: what it trains, how many updates it has made, where it resumes and saves.

    `pause_at`: the number of updates at which this session ends, None for no such limit.
    """

    config: TrainConfig
    folder: Path
    state: checkpoints.TrainingState
    loss_function: LossFunction[Any, Any]
    device: torch.device
    notes: Mapping[str, Any]
    began: float
    processes: Processes = ALONE
    step: int = 0
    pause_at: int | None = None
    checkpoint: Checkpoint | None = None
    loss: float | None = None

    @classmethod
    def begin(
        cls,
        model: nn.Module,
        loss_function: LossFunction[Any, Any],
        config: TrainConfig,
        folder: Path,
        *,
        identity: Mapping[str, str | int | float],
        allow_changes: Set[str],
        processes: Processes,
    ) -> "Run":
        """A new run, or one that continues where the newest checkpoint in its folder stands."""
        began = time.monotonic()
        processes.shard(model)
        optim.freeze(model, config.optim)
        device = next(iter(optim.trainable(model).values())).device
        state = checkpoints.TrainingState(
            model=model,
            optimizer=optim.build_optimizer(model, config.optim),
            average=None if config.ema_decay is None else optim.WeightAverage(model, config.ema_decay),
        )
        run = cls(
            config=config,
            folder=folder,
            state=state,
            loss_function=loss_function,
            device=device,
            notes=checkpoints.notes_of(config, device, identity),
            began=began,
            processes=processes,
        )
        model.train()
        found = processes.first_then_all(lambda: newest_usable(folder))
        if found is None:
            checkpoints.seed_everything(config.seed + processes.rank)
            return run
        checkpoints.require_same(found, run.notes, allow_changes)
        checkpoints.restore(found, state)
        if not processes.is_first:
            checkpoints.seed_everything(config.seed + processes.rank + found.step * processes.count)
        run.checkpoint, run.step = found, found.step
        return run

    def save(self) -> Checkpoint:
        """Writes a checkpoint of this moment, unless the newest one is of this step already."""
        if self.checkpoint is None or self.checkpoint.step != self.step:
            self.checkpoint = checkpoints.save(
                self.folder,
                self.state,
                step=self.step,
                notes=self.notes,
                keep=self.config.keep_checkpoints,
                processes=self.processes,
            )
        return self.checkpoint


def train(
    model: ModelT,
    batches: Batches[BatchT],
    loss_function: LossFunction[ModelT, BatchT],
    config: TrainConfig,
    out_dir: str | Path,
    *,
    validate: Validate[ModelT] | None = None,
    on_progress: Callable[[Progress], None] = to_stderr,
    identity: Mapping[str, str | int | float] | None = None,
    allow_changes: Set[str] = frozenset(),
    steps: int | None = None,
    processes: Processes = ALONE,
) -> TrainResult:
    """Trains `model` in place, on the device it is on, from the newest checkpoint in `out_dir` or from the start.

    `validate(model, step)` runs every `validate_every_steps` updates, on the averaged weights where the run keeps an
    average; its numbers join the log. It cannot disturb the run: weights, random states and train/eval modes are put
    back. `identity` names what else must be equal on resume (hashes of the data and of the model's configuration);
    `allow_changes` names settings that may differ, such as `"schedule.total_steps"`.

    The first Ctrl-C or SIGTERM ends the run after the update under way, with a checkpoint; a second stops at once.
    `steps` ends it in the same way after so many updates of this call; the schedule stays that of the whole run. At
    the end the model holds the last weights; the averaged ones are in the checkpoint's `average.safetensors`.

    Raises CheckpointError (nothing usable to resume from), DivergedError (before the bad update is made), BatchError
    (the data function failed), InputError (the model cannot be trained, or another run writes into `out_dir`).
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if processes.is_first:
            lock(stack.enter_context((folder / LOCK_FILE).open("a")).fileno(), folder)
        run = Run.begin(
            model,
            loss_function,
            config,
            folder,
            identity=identity or {},
            allow_changes=allow_changes,
            processes=processes,
        )
        run.pause_at = None if steps is None else run.step + steps
        log = StepLog(folder, step=run.step, curves=config.curves) if processes.is_first else None
        if log is not None:
            stack.callback(log.close)
        signals = stack.enter_context(StopSignals())
        prefetcher = stack.enter_context(
            Prefetcher(
                batches,
                first_step=run.step,
                total_steps=config.schedule.total_steps,
                accumulate=config.accumulate,
                ahead=config.prefetch_batches,
                threads=config.prefetch_threads,
            )
        )
        return _run_to_the_end(run, prefetcher, log, signals, validate=validate, on_progress=on_progress)


def _run_to_the_end(
    run: Run,
    prefetcher: Prefetcher,
    log: StepLog | None,
    signals: "StopSignals",
    *,
    validate: Validate[Any] | None,
    on_progress: Callable[[Progress], None],
) -> TrainResult:
    config = run.config
    meter = StepCounter(config.schedule.total_steps)
    saved_at = time.monotonic()
    stop = _why_stop(run, signals)
    while stop is None:
        record = update(run, prefetcher)
        if validate is not None and config.validate_every_steps and run.step % config.validate_every_steps == 0:
            record |= _validated(run, validate)
        if log is not None:
            log.write(record)
        meter.add(record)
        stop = _why_stop(run, signals)
        if log is not None and (run.step % config.log_every_steps == 0 or stop is not None):
            log.draw(record)
            on_progress(meter.report(record))
        if stop is not None or _is_due(run, saved_at):
            # The log first: a checkpoint on disk is a promise that the curve up to it is there as well.
            if log is not None:
                log.sync()
            run.save()
            saved_at = time.monotonic()
    return TrainResult(step=run.step, stop=stop, loss=run.loss, checkpoint=run.save().path)


def _why_stop(run: Run, signals: "StopSignals") -> StopReason | None:
    if run.step >= run.config.schedule.total_steps:
        return StopReason.FINISHED
    if run.processes.any(signals.wanted):
        return StopReason.INTERRUPTED
    if run.pause_at is not None and run.step >= run.pause_at:
        return StopReason.STEPS
    deadline_s = run.config.deadline_s
    if deadline_s is not None and run.processes.any(time.monotonic() - run.began >= deadline_s):
        return StopReason.DEADLINE
    return None


def _is_due(run: Run, saved_at: float) -> bool:
    every_steps, every_s = run.config.checkpoint_every_steps, run.config.checkpoint_every_s
    by_steps = every_steps is not None and run.step % every_steps == 0
    return by_steps or (every_s is not None and run.processes.any(time.monotonic() - saved_at >= every_s))


def _validated(run: Run, validate: Validate[Any]) -> dict[str, float]:
    """The validation's numbers, under `validate/`; the run is left as it was, also after an error."""
    model = run.state.model
    with ExitStack() as stack:
        stack.enter_context(checkpoints.untouched())
        stack.enter_context(_modes_kept(model))
        if run.state.average is not None:
            stack.enter_context(run.state.average.in_place())
        model.eval()
        stack.enter_context(torch.no_grad())
        numbers = validate(model, run.step)
    return {f"validate/{name}": float(value) for name, value in numbers.items()}


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    """Every module's own train or eval mode is put back: a frozen part may be in another than the rest."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class StopSignals:
    """While entered, the first SIGINT or SIGTERM sets `wanted`. Outside the main thread signals are left alone."""

    def __init__(self) -> None:
        self.wanted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        name = signal.Signals(number).name
        # Past sys.stderr's buffer, which the signal may have interrupted in the middle of a write.
        with contextlib.suppress(OSError):
            os.write(2, f"\n{name}: finishing the step and saving; once more to stop without saving\n".encode())


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
        with autocast(run.config.precision, run.device):
            parts = run.loss_function(run.state.model, batch, context)
        torch.autograd.backward(parts.loss_sum)
        done.append(parts)
    own = [
        # Read only now, so that an accelerator need not wait between micro-batches.
        math.fsum(float(parts.loss_sum.detach()) for parts in done),
        sum(parts.target_tokens for parts in done),
        sum(parts.samples for parts in done),
    ]
    loss, target_tokens, samples = run.processes.summed(own)
    if target_tokens <= 0:
        raise InputError(f"update {run.step} (counted from 0) has no target token", hint="check the loss mask")
    return _Sums(
        loss=loss,
        target_tokens=int(target_tokens),
        samples=int(samples),
        data_wait_s=data_wait_s,
        scalars=_mean_scalars(done),
    )


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
