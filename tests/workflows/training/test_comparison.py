"""Runs side by side: what is read of them, what differs, and a page that stands alone."""

import json
import math
import re
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from lensmith.cli.app import app, run
from lensmith.core.errors import InputError
from lensmith.train import DivergedError
from lensmith.train.log import LOG_FILE, read
from lensmith.train.status import RunState
from lensmith.workflows.training.comparison import compare_runs, speed_of
from lensmith.workflows.training.comparison_page import comparison_page
from lensmith.workflows.training.held_out import read_samples
from lensmith.workflows.training.pretraining import train_pretraining
from lensmith.workflows.training.runs import Limits
from tests.support.small_training import small_recipe, write_sources
from tests.support.toy_run import toy_config, toy_loss, toy_train


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def at_rate(recipe, peak_lr):
    (stage,) = recipe.stages
    optim = replace(stage.train.optim, peak_lr=peak_lr)
    return replace(recipe, stages=(replace(stage, train=replace(stage.train, optim=optim)),))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of recipes that differ in one number: one that is done, one that was stopped."""
    folder = tmp_path_factory.mktemp("runs")
    sources = tmp_path_factory.mktemp("sources")
    write_sources(sources)
    recipe = small_recipe(sources)
    train_pretraining(recipe, folder / "done")
    train_pretraining(at_rate(recipe, 1e-4), folder / "cut", Limits(steps=3))
    return folder


def test_a_run_in_a_line_is_what_its_log_says(runs):
    cut, done = compare_runs([runs]).summary.runs
    lines = read(runs / "done" / "pretraining")
    assert (done.name, done.recipe, done.stage, done.state) == ("done", "mm1_test", "pretraining", RunState.FINISHED)
    assert (done.step, done.total_steps) == (4, 4)
    assert done.loss == lines[-1]["loss"]
    assert done.held_out_loss == lines[3]["validate/held_out_loss"]
    speeds = sorted(line["tokens_per_s"] for line in lines)
    assert done.tokens_per_s == speed_of(done) == pytest.approx((speeds[1] + speeds[2]) / 2)
    waited, took = (sum(line[name] for line in lines) for name in ("data_wait_s", "step_s"))
    assert done.data_wait_share == pytest.approx(waited / took)
    assert done.padding_share == 0
    assert 0 < done.mfu < 1.5  # of a measured peak, which other processes can have lowered
    assert (cut.state, cut.why, cut.step) == (RunState.STOPPED, "steps", 3)
    assert cut.held_out_loss == read(runs / "cut" / "pretraining")[1]["validate/held_out_loss"]
    assert cut.plan == done.plan
    assert len(done.plan) == 12


def test_only_what_differs_in_the_recipes_is_listed(runs):
    summary = compare_runs([runs / "done", runs / "cut"]).summary
    assert list(summary.differences) == ["stages.pretraining.train.optim.peak_lr"]
    assert summary.differences["stages.pretraining.train.optim.peak_lr"][1] == 1e-4
    assert compare_runs([runs / "done", runs / "done"]).summary.differences == {}
    text = str(summary)
    assert "finished" in text
    assert "stopped: steps" in text
    assert "differs: stages.pretraining.train.optim.peak_lr: " in text


def test_a_run_that_failed_says_why_and_one_without_a_recipe_is_a_run_too(tmp_path):
    def loss(model, batch, context):
        parts = toy_loss(model, batch, context)
        return replace(parts, loss_sum=parts.loss_sum * (math.nan if context.step == 5 else 1.0))

    with pytest.raises(DivergedError):
        toy_train(tmp_path / "failed", loss=loss)
    toy_train(tmp_path / "library", toy_config(log_every_steps=5))
    failed, library = compare_runs([tmp_path]).summary.runs
    assert failed.state is RunState.FAILED
    assert "diverged in step 6" in failed.why
    assert (library.recipe, library.plan, library.step) == (None, None, 30)
    assert library.tokens_per_s is None
    assert speed_of(library) == library.target_tokens_per_s > 0


def test_a_line_that_is_just_being_written_is_left_out(runs, tmp_path):
    shutil.copytree(runs / "done", tmp_path / "run")
    with (tmp_path / "run" / "pretraining" / LOG_FILE).open("a") as file:
        file.write('{"step": 5, "lo')
    assert compare_runs([tmp_path / "run"]).summary.runs[0].step == 4


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no run"):
        compare_runs([tmp_path])
    with pytest.raises(InputError, match="there is no run"):
        compare_runs([tmp_path / "nowhere"])


def test_samples_stand_once_with_their_pictures_also_after_a_resume(runs, tmp_path):
    shutil.copytree(runs / "done", tmp_path / "run")
    stage = tmp_path / "run" / "pretraining"
    before = read_samples(stage)
    assert {line["picture"] for line in before} == {"samples/0.png", "samples/1.png", "samples/2.png"}
    (record,) = compare_runs([tmp_path / "run"]).records
    assert [sample.step for sample in record.samples] == [2, 2, 2, 4, 4, 4]
    assert all(sample.picture.startswith(b"\x89PNG") for sample in record.samples)
    # What the file says is not believed: a picture lies below the run, or there is none.
    outside = [line | {"picture": "../../secret.png"} for line in before]
    (tmp_path / "secret.png").write_bytes(b"\x89PNG secret")
    (stage / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in outside))
    (record,) = compare_runs([tmp_path / "run"]).records
    assert all(sample.picture is None for sample in record.samples)


def test_the_page_stands_alone_and_shows_each_run(runs):
    page = comparison_page(compare_runs([runs]))
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for title in ("loss", "held-out loss", "gradient norm", "learning rate", "tokens a second"):
        assert f"<figcaption>{title}" in page
    assert page.count('<polyline class="r0 s0"') == page.count('<polyline class="r1 s0"') >= 3
    assert page.count('<div class="sample">') == 3
    assert page.count("data:image/png") == 3
    assert "stages.pretraining.train.optim.peak_lr" in page


def test_names_that_are_markup_stay_text(tmp_path):
    toy_train(tmp_path / "<b>bold", steps=3)
    page = comparison_page(compare_runs([tmp_path / "<b>bold"]))
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page


def test_curves_that_are_long_keep_their_spikes(tmp_path):
    with (tmp_path / LOG_FILE).open("w") as file:
        for step in range(1, 5001):
            loss = 9.0 if step == 2501 else 2.0 + 0.1 * math.sin(step)
            line = {"step": step, "loss": loss, "grad_norm": 1.0, "lr": 1e-3, "tokens": 8, "samples": 1}
            file.write(json.dumps(line) + "\n")
    page = comparison_page(compare_runs([tmp_path]))
    (raw,) = re.findall(r'<polyline class="r0 s0" points="([^"]*)"', page.partition("gradient norm")[0])
    points = [tuple(map(float, point.split(","))) for point in raw.split()]
    assert 300 < len(points) <= 500
    top = [x for x, y in points if y == 0]
    assert top == [pytest.approx(500, abs=1)]


@pytest.fixture
def lensmith(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lensmith", *arguments])
        with pytest.raises(SystemExit) as caught:
            run(app)
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


def test_the_command_prints_a_table_or_json_and_writes_the_page(lensmith, runs, tmp_path):
    status, out, err = lensmith("runs", str(runs), "--html", str(tmp_path / "runs.html"))
    assert (status, err) == (0, "")
    assert out.splitlines()[0].split() == "run recipe plan steps loss held out tokens/s mfu state".split()
    assert (tmp_path / "runs.html").read_text().startswith("<!doctype html>")
    status, out, _ = lensmith("runs", str(runs / "done"), "--json")
    assert status == 0
    (one,) = json.loads(out)["runs"]
    assert (one["state"], one["step"]) == ("finished", 4)
    assert lensmith("runs", str(tmp_path / "nowhere"))[0] == 2


def test_steps_to_pass_over_are_read_or_refused(lensmith, tmp_path):
    status, _, err = lensmith("train", "mm1_test", "--skip-steps", "3-x", "--out", str(tmp_path / "run"))
    assert status == 2
    assert "such as 113-117,240" in err
