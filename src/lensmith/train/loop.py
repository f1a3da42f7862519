"""The training loop: one pass over a schedule, resumable bit for bit after any update.

An update is: fetch micro-batches, backward passes, one division by all target tokens, clip, AdamW, average the weights.
Ctrl-C and SIGTERM become a wish to stop that is read between updates; a second Ctrl-C stops at once.
Data position is arithmetic (`batch_at(step, micro)`), so a checkpoint needs only the number of updates made. The same
holds for the learning rate and for the average's decay.

With several processes (`processes`) each has its own share of the weights and its own micro-batches; a step's sums are
over all of them, the first one writes, and all end together.
"""

import contextlib
import errno
import logging
import math
import os
import re
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
from lensmith.core.manifest import utc_now
from lensmith.train import checkpoint as checkpoints
from lensmith.train import optim
from lensmith.train.config import TrainConfig, autocast, resolve
from lensmith.train.folder import Checkpoint, newest_usable
from lensmith.train.health import LossWatch, require_finite
from lensmith.train.interfaces import (
    Batches,
    BatchT,
    LossFunction,
    LossParts,
    LostProcessError,
    ModelT,
    Progress,
    StepContext,
    StepWork,
    StopReason,
    StorageError,
    TrainResult,
    Validate,
)
from lensmith.train.layers import prepare_layers
from lensmith.train.log import StepCounter, StepLog, losses_before, to_stderr
from lensmith.train.prefetch import Prefetcher
from lensmith.train.processes import ALONE, Processes
from lensmith.train.speed import Peak, peak_of
from lensmith.train.status import LOCK_FILE, RunState, RunStatus, write_status

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)

# What gloo and NCCL say has no type of its own.
_OF_CONNECTIONS = re.compile(r"gloo|nccl|connection (closed|reset|refused)|socket", re.IGNORECASE)

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Run:
    """A run under way: what it trains, how many updates it has made, where it resumes and saves.

    `pause_at`: the number of updates at which this session ends, None for no such limit. `skip`: numbers of steps that
    are passed over. `log` is the first process's alone. `peak`: of all processes' devices together, once it is needed.
    """

    config: TrainConfig
    folder: Path
    state: checkpoints.TrainingState
    loss_function: LossFunction[Any, Any]
    device: torch.device
    notes: Mapping[str, Any]
    identity: Mapping[str, str | int | float]
    began: float
    started_at: str
    watch: LossWatch
    processes: Processes = ALONE
    skip: Set[int] = frozenset()
    step: int = 0
    pause_at: int | None = None
    checkpoint: Checkpoint | None = None
    loss: float | None = None
    log: StepLog | None = None
    peak: Peak | None = None

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
        began, started_at = time.monotonic(), utc_now()
        prepare_layers(model, config)
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
            identity=identity,
            began=began,
            started_at=started_at,
            watch=LossWatch(config.spike),
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
        if config.spike is not None:
            run.watch = LossWatch(config.spike, losses_before(folder, run.step, config.spike.window))
        return run

    def save(self, random_states: Mapping[str, Any] | None = None, *, more: int = 0) -> Checkpoint:
        """Writes a checkpoint of this moment, unless the newest one is of this step already.

        `random_states`: those from before a step that is not made. `more`: so many older ones are kept as well.
        """
        if self.checkpoint is None or self.checkpoint.step != self.step:
            # The log first: a checkpoint on disk is a promise that the curve up to it is there as well.
            if self.log is not None:
                self.log.sync()
            self.checkpoint = checkpoints.save(
                self.folder,
                self.state,
                step=self.step,
                notes=self.notes,
                keep=self.config.keep_checkpoints + more,
                processes=self.processes,
                random_states=random_states,
            )
        return self.checkpoint

    def tell(self, state: RunState, why: str | None = None) -> None:
        """Writes how the run stands into its folder. Where it cannot be written, a warning: it is no reason to end."""
        if not self.processes.is_first:
            return
        status = RunStatus(
            state=state,
            why=why,
            step=self.step,
            total_steps=self.config.schedule.total_steps,
            precision=resolve(self.config.precision, self.device).value,
            device=self.notes["machine"]["device"],
            processes=self.processes.count,
            identity=dict(self.identity),
            peak_flops_per_s=None if self.peak is None else self.peak.flops_per_s,
            peak_source=None if self.peak is None else self.peak.source,
            started_at=self.started_at,
            ended_at=None if state is RunState.RUNNING else utc_now(),
        )
        try:
            write_status(status, self.folder)
        except OSError as error:
            logger.warning("%s: how the run stands could not be written: %s", error.filename, error.strerror)


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
    skip: Set[int] = frozenset(),
    processes: Processes = ALONE,
) -> TrainResult:
    """Trains `model` in place, on the device it is on, from the newest checkpoint in `out_dir` or from the start.

    `validate(model, step)` runs every `validate_every_steps` updates, on the averaged weights where the run keeps an
    average; its numbers join the log. It cannot disturb the run: weights, random states and train/eval modes are put
    back. `identity` names what else must be equal on resume (hashes of the data and of the model's configuration);
    `allow_changes` names settings that may differ, such as `"schedule.total_steps"`.

    The first Ctrl-C or SIGTERM ends the run after the update under way, with a checkpoint; a second stops at once.
    `steps` ends it in the same way after so many updates of this call; the schedule stays that of the whole run. The
    steps numbered in `skip` (from 1, as in the log) are passed over: their batches are not made, nor are their updates.
    At the end the model holds the last weights; the averaged ones are in the checkpoint's `average.safetensors`.

    Raises CheckpointError (nothing usable to resume from), DivergedError (before the bad update is made, and behind a
    checkpoint from before it), BatchError (the data function failed), StorageError (a file cannot be written; older
    checkpoints are whole), LostProcessError, InputError (the model cannot be trained, or another run writes into
    `out_dir`).
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
        run.pause_at, run.skip = None if steps is None else run.step + steps, skip
        stack.enter_context(_told(run))
        if processes.is_first:
            run.log = StepLog(folder, step=run.step, curves=config.curves)
            stack.callback(run.log.close)
        signals = stack.enter_context(StopSignals())
        prefetcher = stack.enter_context(
            Prefetcher(
                batches,
                first_step=run.step,
                total_steps=config.schedule.total_steps,
                accumulate=config.accumulate,
                ahead=config.prefetch_batches,
                threads=config.prefetch_threads,
                skip=skip,
            )
        )
        result = _run_to_the_end(run, prefetcher, signals, validate=validate, on_progress=on_progress)
        finished = result.stop is StopReason.FINISHED
        run.tell(RunState.FINISHED if finished else RunState.STOPPED, None if finished else result.stop.value)
        return result


@contextmanager
def _told(run: Run) -> Iterator[None]:
    """The run's folder says that it runs, and, where it ends by an error, why."""
    run.tell(RunState.RUNNING)
    try:
        yield
    except KeyboardInterrupt:
        run.tell(RunState.STOPPED, "interrupted twice: without a checkpoint of the last steps")
        raise
    except Exception as error:
        problem = _problem(run, error)
        run.tell(RunState.FAILED, str(problem).partition("\n")[0] or type(problem).__name__)
        if problem is error:
            raise
        raise problem from error


def _problem(run: Run, error: Exception) -> Exception:
    """What a person can do something about, of a full disk and of a process that is gone; else the error itself."""
    standing = f"the newest checkpoint is {run.checkpoint.path}" if run.checkpoint else "no checkpoint was written yet"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StorageError(
            f"{error.filename or run.folder} could not be written after step {run.step}: {error.strerror}; {standing}",
            hint="make room, and type the same command again: it goes on from the newest checkpoint",
        )
    if run.processes.count > 1 and isinstance(error, RuntimeError) and _OF_CONNECTIONS.search(str(error)):
        return LostProcessError(
            f"another process of this run was lost after step {run.step}; {standing}",
            actual=str(error).strip().partition("\n")[0],
            hint="the same command goes on from there, with as many processes or another number of them; what the "
            "lost one said last tells why",
        )
    return error


def _run_to_the_end(
    run: Run,
    prefetcher: Prefetcher,
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
        record = update(run, prefetcher) if run.step + 1 not in run.skip else _passed_over(run)
        if validate is not None and config.validate_every_steps and run.step % config.validate_every_steps == 0:
            record |= _validated(run, validate)
        if run.log is not None:
            run.log.write(record)
        meter.add(record)
        stop = _why_stop(run, signals)
        if run.log is not None and (run.step % config.log_every_steps == 0 or stop is not None):
            run.log.draw(record)
            on_progress(meter.report(record))
        # While the loss looks like a spike, the newest checkpoint stays the one from before it.
        if stop is not None or (not run.watch.suspects and _is_due(run, saved_at)):
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
        # What is compiled was compiled for training; kernels for a few validations would cost more than they save.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
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
    work: StepWork
    data_wait_s: float
    scalars: dict[str, float]


def update(run: Run, prefetcher: Prefetcher) -> dict[str, float]:
    """One update of the weights; its numbers for the log.

    Raises DivergedError before a bad update is made; the newest checkpoint is then from before it.
    """
    started, before = time.monotonic(), checkpoints.capture()
    optimizer, optim_config = run.state.optimizer, run.config.optim
    optimizer.zero_grad(set_to_none=True)
    sums = _accumulate(run, prefetcher)
    loss = sums.loss / sums.target_tokens
    norm = float(
        optim.scale_and_clip(run.state.model, target_tokens=sums.target_tokens, clip_norm=optim_config.clip_norm)
    )
    _require_healthy(run, loss, norm, before)
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
    } | _speed(run, sums, time.monotonic() - started)
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
        sum(parts.work.tokens for parts in done),
        sum(parts.work.padding_tokens for parts in done),
        sum(parts.work.blank_tokens for parts in done),
        sum(parts.work.flops for parts in done),
    ]
    loss, target_tokens, samples, tokens, padding, blank, flops = run.processes.summed(own)
    if target_tokens <= 0:
        raise InputError(f"update {run.step} (counted from 0) has no target token", hint="check the loss mask")
    return _Sums(
        loss=loss,
        target_tokens=int(target_tokens),
        samples=int(samples),
        work=StepWork(tokens=int(tokens), padding_tokens=int(padding), blank_tokens=int(blank), flops=flops),
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


def _speed(run: Run, sums: _Sums, step_s: float) -> dict[str, float]:
    """How fast a step was. What the loss function does not say is not in it."""
    work = sums.work
    record = {
        "step_s": step_s,
        "samples_per_s": sums.samples / step_s,
        "target_tokens_per_s": sums.target_tokens / step_s,
    }
    if work.tokens:
        record |= {
            "tokens_per_s": work.tokens / step_s,
            "padding_share": work.padding_tokens / work.tokens,
            "blank_share": work.blank_tokens / work.tokens,
        }
    if work.flops and run.processes.is_first:
        if run.peak is None:
            one = peak_of(run.device, resolve(run.config.precision, run.device))
            run.peak = Peak(flops_per_s=one.flops_per_s * run.processes.count, source=one.source)
            run.tell(RunState.RUNNING)
        record |= {"flops_per_s": work.flops / step_s, "mfu": work.flops / step_s / run.peak.flops_per_s}
    return record


def _passed_over(run: Run) -> dict[str, float]:
    """A step that is not made, and its line in the log, which has no loss."""
    run.step += 1
    lr = optim.lr_at(run.step - 1, peak_lr=run.config.optim.peak_lr, schedule=run.config.schedule)
    return {"step": run.step, "loss": math.nan, "lr": lr, "tokens": 0, "samples": 0, "passed_over": 1}


def _require_healthy(run: Run, loss: float, norm: float, before: Mapping[str, Any]) -> None:
    """Raises DivergedError where the step must not be made. `before`: the random states as the step began.

    A checkpoint is written first, also at the first loss that looks like a spike: the weights are as they were before
    this step. Older ones stay, as what is wrong may have begun earlier.
    """
    is_finite = math.isfinite(loss) and math.isfinite(norm)
    if is_finite:
        run.watch.see(loss)
    if not is_finite or run.watch.suspects == 1:
        run.save(before, more=1)
    require_finite(run.step + 1, loss, norm, run.checkpoint)
    run.watch.require_no_spike(run.step + 1, run.checkpoint)
