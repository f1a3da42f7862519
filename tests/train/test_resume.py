"""Resumed = uninterrupted, bit for bit: after kill -9 at several points, Ctrl-C, SIGTERM, a deadline."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from lensmith.train import LossParts, Precision, ScheduleConfig, StepContext, StopReason, load_weights, newest
from lensmith.train.config import TrainConfig
from lensmith.train.log import LOG_FILE
from tests.support.toy_run import ToyBatch, ToyModel, ToyRun, curve, same_bits, toy_config, toy_loss, toy_train

SCRIPT = Path(__file__).parents[1] / "support" / "toy_run.py"


@contextlib.contextmanager
def in_a_process(out: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, str(SCRIPT), str(out), *options], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def steps_logged(out: Path) -> int:
    log = out / LOG_FILE
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait_for_steps(out: Path, steps: int, process: "subprocess.Popen[bytes]") -> None:
    while steps_logged(out) < steps:
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.005)


def in_pieces(out: Path, config: TrainConfig) -> ToyRun:
    """Trains with a new model, from the folder alone, after every third update."""

    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        if context.step % 3 == 2 and context.micro == 0:
            signal.raise_signal(signal.SIGTERM)
        return toy_loss(model, batch, context)

    for piece in range(1, 10):
        result = toy_train(out, config, loss=loss).result
        assert (result.step, result.stop) == (3 * piece, StopReason.INTERRUPTED)
    return toy_train(out, config, loss=loss)


def assert_equal_runs(out: Path, model: nn.Module, reference_out: Path, reference: nn.Module) -> None:
    assert curve(out) == curve(reference_out)
    assert len(curve(out)) == 30
    assert same_bits(model, reference)
    average, reference_average = ToyModel(seed=1), ToyModel(seed=2)
    load_weights(average, out / "step-000030" / "average.safetensors")
    load_weights(reference_average, reference_out / "step-000030" / "average.safetensors")
    assert same_bits(average, reference_average)
    assert not same_bits(average, model)


def test_a_run_killed_again_and_again_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    reference = toy_train(tmp_path / "reference")
    out = tmp_path / "killed"
    kills = [
        ("--kill-at", "3.2"),  # between micro-batches, before there is any checkpoint
        ("--kill-at", "9.0"),  # after the checkpoint of step 7
        ("--kill-on-open", f"14{os.sep}random.json"),  # in the middle of writing step 14
        ("--kill-on-rename", "step-000021"),  # all of step 21 written, not yet in its place
    ]
    checkpoints = []
    for options in kills:
        with in_a_process(out, *options) as process:
            assert process.wait() == -signal.SIGKILL
        found = newest(out)
        assert not found.damaged
        checkpoints.append(found.checkpoint.step if found.checkpoint else None)
    assert checkpoints == [None, 7, 7, 14]

    with in_a_process(out, "--pause-s", "0.1") as process:
        wait_for_steps(out, 24, process)
        process.kill()  # wherever it happens to be
    assert newest(out).checkpoint.step in (21, 28)

    run = toy_train(out)
    assert run.result.step == 30
    assert_equal_runs(out, run.model, tmp_path / "reference", reference.model)
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        LOG_FILE,
        "state.json",
        "step-000028",
        "step-000030",
    ]


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16])
def test_a_run_in_pieces_equals_an_uninterrupted_one(tmp_path: Path, precision: Precision) -> None:
    reference = toy_train(tmp_path / "reference", toy_config(precision=precision))
    run = in_pieces(tmp_path / "pieces", toy_config(precision=precision))
    assert_equal_runs(tmp_path / "pieces", run.model, tmp_path / "reference", reference.model)


def test_a_deadline_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    def slow_loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        time.sleep(0.02)
        return toy_loss(model, batch, context)

    at_once = toy_train(tmp_path, toy_config(deadline_s=1e-9)).result
    assert (at_once.step, at_once.stop, at_once.loss) == (0, StopReason.DEADLINE, None)
    assert at_once.checkpoint == tmp_path / "step-000000"
    later = toy_train(tmp_path, toy_config(deadline_s=1.0), loss=slow_loss).result
    assert later.stop is StopReason.DEADLINE
    assert not later.interrupted
    assert 0 < later.step < 30
    assert newest(tmp_path).checkpoint.step == later.step == len(curve(tmp_path))


def test_so_many_steps_at_a_time_equal_an_uninterrupted_run(tmp_path: Path) -> None:
    reference = toy_train(tmp_path / "reference")
    steps = []
    while True:
        run = toy_train(tmp_path / "pieces", steps=8)
        steps.append(run.result.step)
        if run.result.stop is StopReason.FINISHED:
            break
        assert run.result.stop is StopReason.STEPS
        assert not run.result.interrupted
    assert steps == [8, 16, 24, 30]
    assert_equal_runs(tmp_path / "pieces", run.model, tmp_path / "reference", reference.model)


def test_dropout_and_the_data_matter_to_the_curve(tmp_path: Path) -> None:
    # The negative control of the tests above: another seed gives other dropout, hence another curve.
    toy_train(tmp_path / "a")
    toy_train(tmp_path / "b", toy_config(seed=1))
    assert [line["loss"] for line in curve(tmp_path / "a")] != [line["loss"] for line in curve(tmp_path / "b")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    reference = toy_train(tmp_path / "reference")

    def interrupted_loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        if (context.step, context.micro) == (4, 1):
            signal.raise_signal(number)
        return toy_loss(model, batch, context)

    out = tmp_path / "out"
    handlers = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    run = toy_train(out, loss=interrupted_loss)
    assert run.result.interrupted
    assert run.result.step == 5
    assert run.result.checkpoint.name == "step-000005"
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == handlers
    run = toy_train(out)
    assert not run.result.interrupted
    assert_equal_runs(out, run.model, tmp_path / "reference", reference.model)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        if context.step == 9:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return toy_loss(model, batch, context)

    # Where a shell started this in the background, Ctrl-C is ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path, loss=loss)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert newest(tmp_path).checkpoint.step == 7


def test_ctrl_c_from_outside_exits_with_130(tmp_path: Path) -> None:
    with in_a_process(tmp_path, "--pause-s", "0.05") as process:
        wait_for_steps(tmp_path, 2, process)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    found = newest(tmp_path).checkpoint
    assert found is not None
    assert found.step == steps_logged(tmp_path) < 30


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = toy_train(tmp_path)
    second = toy_train(tmp_path, model=ToyModel(seed=3))
    assert (second.result.step, second.result.stop, second.result.loss) == (30, StopReason.FINISHED, None)
    assert second.result.checkpoint == first.result.checkpoint
    assert same_bits(first.model, second.model)


def test_a_run_can_be_extended(tmp_path: Path) -> None:
    toy_train(tmp_path)
    longer = toy_config(schedule=ScheduleConfig(total_steps=36, warmup_steps=5))
    run = toy_train(tmp_path, longer, allow_changes={"schedule.total_steps"})
    assert run.result.step == 36
    lines = curve(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 37))
    assert lines[29]["lr"] == pytest.approx(5e-4)
    assert lines[30]["lr"] > lines[29]["lr"]  # the cosine is the longer one's now
    assert lines[35]["lr"] == pytest.approx(5e-4)
    assert toy_train(tmp_path, longer).result.step == 36  # its own checkpoints need no permission


def test_time_decides_on_checkpoints_too(tmp_path: Path) -> None:
    saved: set[str] = set()

    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        saved.update(path.name for path in tmp_path.glob("step-*"))
        return toy_loss(model, batch, context)

    toy_train(tmp_path, toy_config(checkpoint_every_steps=None, checkpoint_every_s=1e-9), loss=loss)
    assert len(saved) == 29


def test_the_random_states_before_a_fresh_run_do_not_matter(tmp_path: Path) -> None:
    toy_train(tmp_path / "a")
    torch.manual_seed(12345)
    toy_train(tmp_path / "b")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
