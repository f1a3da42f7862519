"""Pre-training from sources to a model that loads, stopped and taken up again on the way; on files made here."""

import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from lensmith.core.endpoint import Request
from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.core.types import Message, Picture
from lensmith.data.plan.reading import Plan
from lensmith.models.inference.endpoint import LocalEndpoint
from lensmith.models.inference.loading import load_vision_language
from lensmith.recipes.pretraining import LANGUAGE, TOWER, frozen
from lensmith.train import StopReason
from lensmith.train.log import read
from lensmith.train.objectives.documents import RouterLossConfig
from lensmith.workflows.training import plan_recipe, run_recipe
from lensmith.workflows.training.pretraining import plan_pretraining, train_pretraining
from lensmith.workflows.training.runs import Limits
from tests.support.documents import picture
from tests.support.small_training import small_recipe, with_experts, write_sources


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # Bits are promised only for the same thread count.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return small_recipe(folder)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    heard = []
    result = train_pretraining(recipe, out, on_data=lambda *counts: heard.append(counts), on_progress=heard.append)
    return out, result, heard


def losses(out):
    return [line["loss"] for line in read(out / "pretraining")]


def test_a_run_ends_with_a_plan_a_model_and_samples(finished):
    out, result, heard = finished
    assert sorted(path.name for path in out.iterdir()) == [
        "model",
        "plan.parquet",
        "pretraining",
        "run.json",
        "tokenizer",
    ]
    assert result.model == out / "model"
    assert result.last.stop is StopReason.FINISHED
    assert heard[15] == (16, 16)
    assert [progress.step for progress in heard[16:]] == [1, 2, 3, 4]
    samples = [json.loads(line) for line in (out / "pretraining" / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["caption"]) for sample in samples] == [(2, "red square")] * 3 + [
        (4, "red square")
    ] * 3


def test_held_out_captions_are_measured_with_their_own_and_with_other_pictures(finished):
    records = list(read(finished[0] / "pretraining"))
    assert [record["step"] for record in records if "validate/held_out_loss" in record] == [2, 4]
    assert all(record["validate/held_out_loss_other_picture"] > 0 for record in records[1::2])


def test_a_run_that_stops_twice_has_the_same_losses_and_weights(recipe, finished, tmp_path):
    out = tmp_path / "run"
    assert train_pretraining(recipe, out, Limits(steps=1)).last.stop is StopReason.STEPS
    assert train_pretraining(recipe, out, Limits(steps=2)).last.step == 3
    assert train_pretraining(recipe, out).last.stop is StopReason.FINISHED
    assert losses(out) == losses(finished[0])
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (finished[0] / weights).read_bytes()


def test_the_plan_may_be_written_before_and_is_then_read(recipe, finished, tmp_path):
    report = plan_pretraining(recipe, tmp_path / "run")
    written = (tmp_path / "run" / "plan.parquet").read_bytes()
    assert plan_pretraining(recipe, tmp_path / "run") == report
    assert (tmp_path / "run" / "plan.parquet").read_bytes() == written
    assert Plan(finished[0] / "plan.parquet").hash == report.hash


def test_the_model_loads_through_the_auto_classes_and_answers(finished):
    _, result, _ = finished
    assert AutoModelForImageTextToText.from_pretrained(result.model).config.connector.kind == "c_abstractor"
    assert type(AutoProcessor.from_pretrained(result.model)).__name__ == "Mm1Processor"
    model, processor = load_vision_language(result.model)
    assert model.language_model.config._attn_implementation == "sdpa"
    asked = Request(
        messages=(Message(role="user", parts=(Picture(data=picture("red")),)),), max_tokens=4, temperature=0.0
    )
    assert LocalEndpoint(model, processor).answer([asked])[0].choices[0].token_ids_T.size


def test_another_recipe_or_plan_is_refused(recipe, finished):
    out, _, _ = finished
    with pytest.raises(CheckpointError, match="weights_seed differ"):
        train_pretraining(replace(recipe, weights_seed=1), out)
    (stage,) = recipe.stages
    longer = replace(stage, train=replace(stage.train, schedule=replace(stage.train.schedule, total_steps=5)))
    with pytest.raises(CheckpointError, match="made from something else: configuration"):
        train_pretraining(replace(recipe, stages=(longer,)), out)


def test_a_frozen_part_stays_as_it_is(recipe, finished, tmp_path):
    (stage,) = recipe.stages
    optim = replace(stage.train.optim, parts=frozen(TOWER, LANGUAGE))
    still_parts = replace(recipe, stages=(replace(stage, train=replace(stage.train, optim=optim)),))
    result = train_pretraining(still_parts, tmp_path / "run")
    trained = AutoModelForImageTextToText.from_pretrained(result.model).state_dict()
    free = AutoModelForImageTextToText.from_pretrained(finished[1].model).state_dict()
    differ = {name.partition(".")[0] for name, weights in free.items() if not torch.equal(trained[name], weights)}
    assert differ == {"vision_tower", "connector", "language_model"}
    start = train_pretraining(
        replace(
            still_parts,
            stages=(replace(stage, train=replace(stage.train, optim=replace(optim, peak_lr=1e-12))),),
        ),
        tmp_path / "still",
    )
    still = AutoModelForImageTextToText.from_pretrained(start.model).state_dict()
    moved = {name.partition(".")[0] for name, weights in still.items() if not torch.equal(trained[name], weights)}
    assert moved == {"connector"}


def test_a_model_with_experts_trains_tells_its_balance_and_is_taken_up_bit_for_bit(recipe, tmp_path):
    mixed = with_experts(recipe)
    result = train_pretraining(mixed, tmp_path / "whole")
    lines = read(tmp_path / "whole" / "pretraining")
    assert len(lines) == 4
    for line in lines:
        # Weights that have hardly learnt spread tokens nearly evenly over four experts: 1 if quite, 4 if not at all.
        assert 0.9 < line["balance_loss"] < 2
        assert line["router_z_loss"] == pytest.approx(math.log(4) ** 2, rel=0.3)
        added = 0.01 * line["balance_loss"] + 0.001 * line["router_z_loss"]
        assert line["loss"] == pytest.approx(line["cross_entropy"] + added, rel=1e-5)
    assert train_pretraining(mixed, tmp_path / "run", Limits(steps=3)).last.stop is StopReason.STEPS
    train_pretraining(mixed, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    weights = "model/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    with pytest.raises(CheckpointError, match="router_losses differ"):
        train_pretraining(replace(mixed, router_losses=RouterLossConfig(balance=0.1)), tmp_path / "whole")
    model, processor = load_vision_language(result.model)
    assert model.config.language.experts_config.count == 4
    asked = Request(messages=(Message(role="user", parts=(Picture(data=picture()),)),), max_tokens=4, temperature=0.0)
    assert LocalEndpoint(model, processor).answer([asked])[0].choices[0].token_ids_T.size


def test_a_recipe_without_a_plan_says_so(tmp_path):
    with pytest.raises(ConfigError, match="'sightseer_test' has no plan"):
        plan_recipe("sightseer_test", tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)no such recipe.*mm1_toy"):
        run_recipe("mm1_toys", tmp_path)
