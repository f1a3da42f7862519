"""The training loop: one pass over a schedule, resumable bit for bit after any update.

An update is: fetch micro-batches, sum their gradients, divide by all target tokens, clip, AdamW, average the weights.
Data position is arithmetic (`batch_at(step, micro)`), so a checkpoint needs only the number of updates made. The same
holds for the learning rate and for the average's decay.

One process today. Where more join: `Batches` is built for its rank, `step` adds its sums up over ranks,
`checkpoint.save` and `restore` turn into a distributed checkpoint, and `randomness` seeds each rank apart. The loop
itself does not know how many processes there are.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lensmith.train import folder as folders
from lensmith.train import randomness
from lensmith.train.config import TrainConfig
from lensmith.train.interfaces import (
    Batches,
    BatchT,
    LossFunction,
    ModelT,
    Progress,
    StopReason,
    TrainResult,
    Validate,
)
from lensmith.train.log import StepLog
from lensmith.train.prefetch import Prefetcher
from lensmith.train.progress import Meter, to_stderr
from lensmith.train.run import Run
from lensmith.train.step import update
from lensmith.train.stop import StopSignals


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
    (the data function failed), InputError (the model cannot be trained, or another process trains into `out_dir`).
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(folders.alone_in(folder))
        run = Run.begin(model, loss_function, config, folder, identity=identity or {}, allow_changes=allow_changes)
        run.pause_at = None if steps is None else run.step + steps
        log = StepLog(folder, step=run.step, curves=config.curves)
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
    log: StepLog,
    signals: StopSignals,
    *,
    validate: Validate[Any] | None,
    on_progress: Callable[[Progress], None],
) -> TrainResult:
    config = run.config
    meter = Meter(config.schedule.total_steps)
    saved_at = time.monotonic()
    stop = _why_stop(run, signals)
    while stop is None:
        record = update(run, prefetcher)
        if validate is not None and config.validate_every_steps and run.step % config.validate_every_steps == 0:
            record |= _validated(run, validate)
        log.write(record)
        meter.add(record)
        stop = _why_stop(run, signals)
        if run.step % config.log_every_steps == 0 or stop is not None:
            log.draw(record)
            on_progress(meter.report(record))
        if stop is not None or _is_due(run, saved_at):
            # The log first: a checkpoint on disk is a promise that the curve up to it is there as well.
            log.sync()
            run.save()
            saved_at = time.monotonic()
    return TrainResult(step=run.step, stop=stop, loss=run.loss, checkpoint=run.save().path)


def _why_stop(run: Run, signals: StopSignals) -> StopReason | None:
    if run.step >= run.config.schedule.total_steps:
        return StopReason.FINISHED
    if signals.wanted:
        return StopReason.INTERRUPTED
    if run.pause_at is not None and run.step >= run.pause_at:
        return StopReason.STEPS
    if run.config.deadline_s is not None and time.monotonic() - run.began >= run.config.deadline_s:
        return StopReason.DEADLINE
    return None


def _is_due(run: Run, saved_at: float) -> bool:
    every_steps, every_s = run.config.checkpoint_every_steps, run.config.checkpoint_every_s
    by_steps = every_steps is not None and run.step % every_steps == 0
    return by_steps or (every_s is not None and time.monotonic() - saved_at >= every_s)


def _validated(run: Run, validate: Validate[Any]) -> dict[str, float]:
    """The validation's numbers, under `validate/`; the run is left as it was, also after an error."""
    model = run.state.model
    with ExitStack() as stack:
        stack.enter_context(randomness.untouched())
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
