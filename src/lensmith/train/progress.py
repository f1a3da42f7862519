"""How fast a run goes and how long it still takes, and the line on stderr that says so."""

import sys
import time
from collections.abc import Mapping

from lensmith.train.interfaces import Progress

_FIELDS = frozenset({"step", "loss", "lr", "samples_per_s"})


class Meter:
    """Counts steps; makes the report."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._began = self._reported = time.monotonic()
        self._session_steps = 0
        self._steps = 0
        self._samples = 0.0

    def add(self, record: Mapping[str, float]) -> None:
        """Counts one step by its log record."""
        self._session_steps += 1
        self._steps += 1
        self._samples += record["samples"]

    def report(self, record: Mapping[str, float]) -> Progress:
        """The progress at this step. Rates count from the report before."""
        now = time.monotonic()
        elapsed_s = max(now - self._reported, 1e-9)
        step = int(record["step"])
        progress = Progress(
            step=step,
            total_steps=self._total_steps,
            loss=record["loss"],
            lr=record["lr"],
            samples_per_s=self._samples / elapsed_s,
            steps_per_s=self._steps / elapsed_s,
            time_left_s=(self._total_steps - step) * (now - self._began) / self._session_steps,
            scalars={name: value for name, value in record.items() if name not in _FIELDS},
        )
        self._reported, self._steps, self._samples = now, 0, 0.0
        return progress


def to_stderr(progress: Progress) -> None:
    """The default report: one line, rewritten in place on a terminal."""
    text = (
        f"step {progress.step}/{progress.total_steps}  loss {progress.loss:.4f}  lr {progress.lr:.2e}  "
        f"{progress.samples_per_s:.1f} samples/s  {progress.steps_per_s:.2f} steps/s  "
        f"{duration(progress.time_left_s)} left"
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
