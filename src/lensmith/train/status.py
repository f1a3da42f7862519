"""How a run stands, for whoever looks at its folder: `state.json`, written as a session begins and as it ends.

A run that was killed has no last word. It is known by its lock, which the system drops with the process.
"""

import enum
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lensmith.core.config import load, save
from lensmith.core.files import is_locked

STATE_FILE, LOCK_FILE = "state.json", ".lock"


class RunState(enum.Enum):
    """LOST is told of a run that says it is running and that no process holds."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How a run stands. `why` it stopped or failed; times are UTC in ISO 8601, `ended_at` None while it runs.

    `identity`: hashes of what it is trained on, and of the model. `peak_flops_per_s` is what all its processes' devices
    together could do at most, `peak_source` how that is known; None before the first step that counts FLOPs.
    """

    state: RunState
    why: str | None = None
    step: int
    total_steps: int
    precision: str
    device: str
    processes: int
    identity: dict[str, Any] = field(default_factory=dict)
    peak_flops_per_s: float | None = None
    peak_source: str | None = None
    started_at: str
    ended_at: str | None = None


def write_status(status: RunStatus, folder: Path) -> None:
    """Writes `state.json`. Raises OSError."""
    save(status, folder / STATE_FILE)


def read_status(folder: Path) -> RunStatus | None:
    """The run's state, None where none was written. Raises ConfigError where the file cannot be read."""
    if not (folder / STATE_FILE).exists():
        return None
    status = load(RunStatus, folder / STATE_FILE)
    if status.state is RunState.RUNNING and not is_locked(folder / LOCK_FILE):
        return replace(status, state=RunState.LOST, why="ended without a word: killed, or its machine went down")
    return status
