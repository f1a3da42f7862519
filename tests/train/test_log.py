"""The log is one consistent curve; TensorBoard shows the same; progress says how long it still takes."""

import json
import logging
import math
import shutil
from pathlib import Path

import pytest

from lensmith.train import Curves, Progress
from lensmith.train.log import BOARD_FOLDER, LOG_FILE, StepCounter, StepLog, duration, read, to_stderr
from tests.support.toy_run import curve, toy_config, toy_train


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 1.0}) + "\n"


@pytest.mark.parametrize(
    "tail",
    [
        line(4) + line(5),
        line(4) + '{"step": 5, "lo',
        '{"step": 4, "loss": 1.0}',  # whole, but its newline is missing
        "\0" * 100,
        "",
    ],
)
def test_lines_after_the_checkpoint_are_cut(tmp_path: Path, tail: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LOG_FILE).write_text(line(1) + line(2) + line(3) + tail)
    log = StepLog(tmp_path, step=3, curves=Curves.JSONL)
    log.write({"step": 4, "loss": 0.5})
    log.close()
    assert [record["step"] for record in read(tmp_path)] == [1, 2, 3, 4]
    assert read(tmp_path)[3]["loss"] == 0.5
    assert not caplog.records


def test_a_gap_in_the_curve_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LOG_FILE).write_text(line(1) + line(2))
    with caplog.at_level(logging.WARNING):
        StepLog(tmp_path, step=4, curves=Curves.JSONL).close()
    assert "ends at step 2, the checkpoint at step 4" in caplog.text


def test_a_fresh_run_in_a_folder_with_an_old_log_begins_it_anew(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_text(line(1) + line(2))
    toy_train(tmp_path)
    assert [record["step"] for record in read(tmp_path)] == list(range(1, 31))


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    log = StepLog(tmp_path, step=0, curves=Curves.JSONL)
    log.write({"step": 1, "validate/score": math.nan, "loss": 2.0})
    log.close()
    assert (tmp_path / LOG_FILE).read_text() == '{"step": 1, "validate/score": null, "loss": 2.0}\n'


def test_every_line_says_how_the_step_went(tmp_path: Path) -> None:
    toy_train(tmp_path)
    first = read(tmp_path)[0]
    own = {"step", "loss", "lr", "grad_norm", "tokens", "samples", "data_wait_s", "step_s", "samples_per_s"}
    own |= {"target_tokens_per_s"}
    assert first.keys() == own | {"accuracy", "python", "numpy"}
    assert first["lr"] == pytest.approx(2e-3)
    assert first["samples"] == 8
    assert first["data_wait_s"] >= 0
    assert first["samples_per_s"] > 0


def test_tensorboard_shows_the_same_curve_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - slow

    config = toy_config(curves=Curves.TENSORBOARD, log_every_steps=1)
    toy_train(tmp_path, config)
    shutil.rmtree(tmp_path / "step-000030")
    toy_train(tmp_path, config)  # from step 28 again
    board = EventAccumulator(str(tmp_path / BOARD_FOLDER), size_guidance={"scalars": 0}).Reload()
    losses = {event.step: event.value for event in board.Scalars("loss")}
    assert [event.step for event in board.Scalars("loss")] == list(range(1, 31))
    assert losses == pytest.approx({record["step"]: record["loss"] for record in curve(tmp_path)}, rel=1e-6)
    assert "accuracy" in board.Tags()["scalars"]


def test_progress_is_reported_every_few_steps_and_at_the_end(tmp_path: Path) -> None:
    reports: list[Progress] = []
    toy_train(tmp_path, toy_config(log_every_steps=8), on_progress=reports.append)
    assert [report.step for report in reports] == [8, 16, 24, 30]
    assert reports[-1].time_left_s == 0
    assert reports[0].time_left_s > 0
    assert all(report.samples_per_s == pytest.approx(8 * report.steps_per_s) for report in reports)
    own = {"grad_norm", "tokens", "samples", "data_wait_s", "step_s"}
    assert reports[0].scalars.keys() == own | {"accuracy", "python", "numpy"}


def test_the_time_left_counts_this_session_only() -> None:
    meter = StepCounter(total_steps=1000)
    record = {"step": 998, "loss": 1.0, "lr": 0.1, "tokens": 9, "samples": 4.0, "step_s": 0.5}
    meter.add(record)
    report = meter.report(record)
    assert report.time_left_s == pytest.approx(2 / report.steps_per_s, rel=1e-6)


def test_the_default_report_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(
        step=20,
        total_steps=100,
        loss=2.5,
        lr=1e-3,
        samples_per_s=4.25,
        steps_per_s=0.5,
        target_tokens_per_s=1234.4,
        tokens_per_s=2345.6,
        mfu=0.3126,
        time_left_s=3725.0,
        scalars={},
    )
    to_stderr(progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err == "step 20/100  loss 2.5000  lr 1.00e-03  2,346 tokens/s  mfu 31.3%  0.50 steps/s  1h02m left\n"
    )


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0, 12.4, 59.6, 250, 3599.7, 11100)] == [
        "0s",
        "12s",
        "1m00s",
        "4m10s",
        "1h00m",
        "3h05m",
    ]
