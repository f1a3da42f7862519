"""What a run reports: its curves (one JSON line a step, and TensorBoard if wanted), its speed and the time left.

A resumed run cuts the lines after its checkpoint, so that the file is one consistent curve, whatever happened.
"""

import collections
import importlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensmith.core.errors import MissingExtraError
from lensmith.core.files import naming
from lensmith.train.config import Curves
from lensmith.train.interfaces import Progress

LOG_FILE = "log.jsonl"
BOARD_FOLDER = "tensorboard"

logger = logging.getLogger(__name__)


class StepLog:
    """Writes `log.jsonl` (every step) and TensorBoard curves (when asked to) in a run's folder."""

    def __init__(self, folder: Path, *, step: int, curves: Curves) -> None:
        """Continues after `step` updates: later lines, and a last line that a crash cut short, are removed."""
        self._path, self._board_folder = folder / LOG_FILE, folder / BOARD_FOLDER
        _cut_after(self._path, step)
        self._board = _open_board(self._board_folder, step) if curves is Curves.TENSORBOARD else None
        # Without a buffer: what a full disk did not take must not come up again as the file is closed.
        self._file = self._path.open("ab", buffering=0)

    def write(self, record: Mapping[str, float]) -> None:
        """Appends one step; a number that JSON does not have becomes null.

        The line reaches the operating system at once, so a killed process loses nothing. Raises OSError that names the
        file.
        """
        valid = {name: value if math.isfinite(value) else None for name, value in record.items()}
        line = memoryview((json.dumps(valid, allow_nan=False) + "\n").encode())
        with naming(self._path):
            while line:
                line = line[self._file.write(line) :]

    def draw(self, record: Mapping[str, float]) -> None:
        """Adds a step's numbers to the TensorBoard curves."""
        if self._board is None:
            return
        with naming(self._board_folder):
            for name, value in record.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(record["step"]))

    def sync(self) -> None:
        """Waits until all lines are on disk."""
        with naming(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes all files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log, in order; the last one may just be being written."""
    whole, newline, _ = (folder / LOG_FILE).read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in (whole + newline).splitlines()]


def losses_before(folder: Path, step: int, count: int) -> list[float]:
    """The losses of up to `count` steps before and including `step`, in order; [] where there is no log."""
    path = folder / LOG_FILE
    losses: collections.deque[float] = collections.deque(maxlen=count)
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                line_step = _step_of(line)
                if line_step is None or line_step > step:
                    break
                loss = json.loads(line).get("loss")
                if loss is not None:
                    losses.append(loss)
    return list(losses)


def _cut_after(path: Path, step: int) -> None:
    kept_bytes = last_step = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                line_step = _step_of(line)
                if line_step is None or line_step > step:
                    break
                kept_bytes += len(line)
                last_step = line_step
        os.truncate(path, kept_bytes)
    if last_step != step:
        logger.warning("%s ends at step %d, the checkpoint at step %d: the curve has a gap", path, last_step, step)


def _step_of(line: bytes) -> int | None:
    """The step of a line; None for one that a crash left incomplete."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) and line.endswith(b"\n") else None


def _open_board(folder: Path, step: int) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise MissingExtraError(
            "TensorBoard is not installed", hint="pip install 'lensmith[train]', or set curves to jsonl"
        ) from error
    # purge_step: TensorBoard then hides what an interrupted run drew after the checkpoint.
    return module.SummaryWriter(str(folder), purge_step=step + 1)


_FIELDS = frozenset({"step", "loss", "lr", "samples_per_s", "target_tokens_per_s", "tokens_per_s", "mfu"})


class StepCounter:
    """Counts steps and samples, and makes the report of how fast a run goes and how long it still takes."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._began = self._reported = time.monotonic()
        self._session_steps = 0
        self._steps = 0
        self._sums: collections.defaultdict[str, float] = collections.defaultdict(float)

    def add(self, record: Mapping[str, float]) -> None:
        """Counts one step by its log record."""
        self._session_steps += 1
        self._steps += 1
        step_s = record.get("step_s", 0.0)
        self._sums["samples"] += record["samples"]
        self._sums["target_tokens"] += record["tokens"]
        self._sums["step_s"] += step_s
        for name in ("tokens_per_s", "mfu"):
            self._sums[name] += record.get(name, 0.0) * step_s

    def report(self, record: Mapping[str, float]) -> Progress:
        """The progress at this step. Rates count from the report before."""
        now = time.monotonic()
        elapsed_s = max(now - self._reported, 1e-9)
        step = int(record["step"])
        in_steps_s = max(self._sums["step_s"], 1e-9)
        progress = Progress(
            step=step,
            total_steps=self._total_steps,
            loss=record["loss"],
            lr=record["lr"],
            samples_per_s=self._sums["samples"] / elapsed_s,
            steps_per_s=self._steps / elapsed_s,
            target_tokens_per_s=self._sums["target_tokens"] / in_steps_s,
            tokens_per_s=self._sums["tokens_per_s"] / in_steps_s if "tokens_per_s" in record else None,
            mfu=self._sums["mfu"] / in_steps_s if "mfu" in record else None,
            time_left_s=(self._total_steps - step) * (now - self._began) / self._session_steps,
            scalars={name: value for name, value in record.items() if name not in _FIELDS},
        )
        self._reported, self._steps = now, 0
        self._sums.clear()
        return progress


def to_stderr(progress: Progress) -> None:
    """The default report: one line, rewritten in place on a terminal."""
    tokens = progress.target_tokens_per_s if progress.tokens_per_s is None else progress.tokens_per_s
    mfu = "" if progress.mfu is None else f"  mfu {progress.mfu:.1%}"
    text = (
        f"step {progress.step}/{progress.total_steps}  loss {progress.loss:.4f}  lr {progress.lr:.2e}  "
        f"{tokens:,.0f} tokens/s{mfu}  {progress.steps_per_s:.2f} steps/s  {duration(progress.time_left_s)} left"
    )
    terminal = sys.stderr.isatty()
    sys.stderr.write(f"\r\x1b[K{text}" if terminal else f"{text}\n")
    if terminal and progress.step == progress.total_steps:
        sys.stderr.write("\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """`3h05m`, `4m10s` or `12s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
