"""A run's folder says how the run stands, also where it was killed and could say nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lensmith.core.errors import InputError
from lensmith.train.status import RunState, read_status
from tests.support.toy_run import ToyBatches, toy_train

SCRIPT = Path(__file__).parents[1] / "support" / "toy_run.py"


def test_a_run_says_that_it_finished_or_stopped_and_why(tmp_path: Path) -> None:
    toy_train(tmp_path, steps=4, identity={"plan": "abc"})
    stopped = read_status(tmp_path)
    assert stopped is not None
    assert (stopped.state, stopped.why, stopped.step, stopped.total_steps) == (RunState.STOPPED, "steps", 4, 30)
    assert stopped.identity == {"plan": "abc"}
    assert stopped.ended_at is not None
    toy_train(tmp_path, identity={"plan": "abc"})
    finished = read_status(tmp_path)
    assert finished is not None
    assert (finished.state, finished.why, finished.step) == (RunState.FINISHED, None, 30)


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    class Broken(ToyBatches):
        def batch_at(self, step: int, micro: int):
            raise ValueError("a torn record")

    with pytest.raises(Exception, match="torn"):
        toy_train(tmp_path, batches=Broken())
    status = read_status(tmp_path)
    assert status is not None
    assert status.state is RunState.FAILED
    assert status.why is not None
    assert "a torn record" in status.why


def test_a_run_under_way_and_one_that_was_killed_are_told_apart(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path), "--pause-s", "0.2"], env=environment) as process:
        try:
            while read_status(tmp_path) is None:
                assert process.poll() is None
                time.sleep(0.01)
            assert read_status(tmp_path).state is RunState.RUNNING
            with pytest.raises(InputError, match="another run is writing here"):
                toy_train(tmp_path)
            assert read_status(tmp_path).state is RunState.RUNNING  # who may not write, says nothing
        finally:
            process.send_signal(signal.SIGKILL)
    lost = read_status(tmp_path)
    assert lost.state is RunState.LOST
    assert "killed" in lost.why


def test_a_folder_without_a_run_has_no_state(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
