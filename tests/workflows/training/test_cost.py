"""`lensmith train --dry-run`: by the plan or by full sequences, for people and machines, and errors for mistakes."""

import json
import sys

import pytest

from lensmith.cli.app import app, run
from lensmith.core.errors import ConfigError, InputError
from lensmith.recipes import recipe_named
from lensmith.workflows.training.cost import Basis, dry_run
from lensmith.workflows.training.pretraining import plan_pretraining
from tests.support.small_training import small_recipe, write_sources


@pytest.fixture
def lensmith(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lensmith", *arguments])
        with pytest.raises(SystemExit) as caught:
            run(app)
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


def test_a_recipe_is_costed_without_its_data(lensmith, tmp_path):
    status, out, err = lensmith("train", "mm1_test", "--dry-run", "--gpu", "h100")
    assert status == 0, err
    for words in ("mm1_test, stage 'pretraining'", "tower", "connector", "attention", "fits in 80 GB", "assumed: 40%"):
        assert words in out
    assert not list(tmp_path.iterdir())


def test_its_json_has_all_figures(lensmith):
    status, out, err = lensmith("train", "mm1_test", "--dry-run", "--gpu", "a100", "--gpus", "2", "--json")
    assert status == 0, err
    (stage,) = json.loads(out)["stages"]
    recipe = recipe_named("mm1_test")
    assert stage["cost"]["tokens_per_step"] == recipe.sequences_per_step * recipe.packing.max_tokens
    assert stage["cost"]["sequences_at_once"] == 2
    assert stage["total_bytes"] == sum(stage["cost"]["memory"].values())
    assert stage["fits"] is True
    assert stage["days"]["lowest"] < stage["days"]["assumed"] < stage["days"]["highest"]


def test_a_plan_is_used_where_there_is_one(tmp_path):
    write_sources(tmp_path)
    recipe = small_recipe(tmp_path)
    plan_pretraining(recipe, tmp_path / "run")
    full, planned = (dry_run("mm1_test", folder, device="h100") for folder in (tmp_path / "nothing", tmp_path / "run"))
    assert (full.basis, planned.basis) == (Basis.FULL, Basis.PLAN)
    (full_stage,), (planned_stage,) = full.stages, planned.stages
    assert planned_stage.cost.tokens_per_step <= full_stage.cost.tokens_per_step
    assert planned_stage.total_bytes < full_stage.total_bytes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "v100"}, "no such device"),
        ({"nodes": 0}, "nodes: nothing to train on"),
        ({"devices": 0}, "gpus: nothing to train on"),
        ({"devices": 2}, "this machine is one process"),
        ({"device": "h100", "devices": 3}, "shared out evenly"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, message, tmp_path):
    with pytest.raises(InputError, match=message):
        dry_run("mm1_test", tmp_path, **wrong)


def test_another_kind_of_recipe_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="sightseer_test"):
        dry_run("sightseer_test", tmp_path)


def test_options_of_a_dry_run_are_for_one(lensmith):
    status, _, err = lensmith("train", "mm1_test", "--gpu", "h100")
    assert status == 2
    assert "--gpu is for --dry-run" in err
