"""Stages one after the other: what each lets learn, its losses, and that a run in pieces is the run in one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.data.plan.reading import Plan
from lensmith.models.inference.loading import load_vision_language
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import build_model
from lensmith.train import StopReason
from lensmith.train.folder import newest
from lensmith.train.log import read
from lensmith.train.objectives.documents import DocumentBatches, Ranks
from lensmith.workflows.training.pretraining import PreparedData, plan_pretraining, train_pretraining
from lensmith.workflows.training.runs import Limits
from tests.support.small_training import on_files, write_sources

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "training_losses.json").read_text(encoding="utf-8"))
RECIPES = ("deepseek_vl_hybrid_test", "deepseek_vl_test", "mm1_test")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # Bits are promised only for the same thread count.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.fixture(scope="module", params=RECIPES)
def finished(request, sources, tmp_path_factory):
    """A recipe's whole run, with the weights that each stage begins with and ends with."""
    recipe = on_files(recipe_named(request.param), sources)
    out = tmp_path_factory.mktemp(request.param) / "run"
    result = train_pretraining(recipe, out, on_progress=lambda progress: None)
    assert result.last.stop is StopReason.FINISHED
    return recipe, out


def stage_losses(recipe, out):
    return {stage.name: [line["loss"] for line in read(out / stage.name)] for stage in recipe.stages}


def final_weights(out, stage):
    checkpoint = newest(out / stage.name).checkpoint
    assert checkpoint is not None
    return load_file(checkpoint.path / "model.safetensors")


def test_each_stage_has_the_losses_that_are_kept(finished):
    recipe, out = finished
    losses = stage_losses(recipe, out)
    assert losses.keys() == GOLDEN[recipe.name].keys()
    for stage, kept in GOLDEN[recipe.name].items():
        # float32. Kernels of other machines sum in another order: 1e-6 of a loss at once, and more after some updates;
        # a wrong label, rate, mask or order of data moves it by a hundredth and more.
        assert losses[stage] == pytest.approx(kept, rel=1e-4), stage


def test_a_stage_changes_what_it_lets_learn_and_no_bit_of_the_rest(finished):
    recipe, out = finished
    before = build_model(recipe, PreparedData.of(recipe, out).processor).state_dict()
    for stage in recipe.stages:
        after = final_weights(out, stage)
        frozen = {name for name in after if stage.train.optim.lr_factor(name) == 0}
        same = {name for name, value in after.items() if torch.equal(value, before[name])}
        assert frozen <= same, f"{stage.name}: a frozen weight moved"
        # A key's bias moves all of a query's scores alike, which softmax does not see: it need not move.
        assert {name for name in same - frozen if not name.endswith("k_proj.bias")} == set(), stage.name
        before = after


def test_what_learns_in_each_stage_is_what_the_paper_says():
    for name in ("deepseek_vl_1_3b", "deepseek_vl_7b", "deepseek_vl_test", "deepseek_vl_hybrid_test"):
        recipe = recipe_named(name)
        hybrid = recipe.parts.sam is not None
        siglip = "vision_tower.low.siglip.x" if hybrid else "vision_tower.siglip.x"
        names = {
            "siglip": siglip,
            "connector": "connector.layers.0.weight",
            "language": "language_model.lm_head.weight",
        }
        if hybrid:
            names |= {"sam": "vision_tower.high.layers.0.x", "behind sam": "vision_tower.high.neck_hd.conv1.weight"}
        learning = {
            stage.name: {part for part, each in names.items() if stage.train.optim.lr_factor(each) > 0}
            for stage in recipe.stages
        }
        adaptor = {"connector", "behind sam"} if hybrid else {"connector"}
        assert learning["adaptor"] == adaptor
        assert learning["joint"] == adaptor | {"language"}
        assert learning["tuning"] == adaptor | {"language", "siglip"}


def test_a_run_that_stops_in_every_stage_has_the_same_losses_and_weights(finished, tmp_path):
    recipe, whole = finished
    out = tmp_path / "run"
    calls = 0
    # Each stage has four steps: a call stops after three of the stage it is in, and the next ends that stage first.
    while train_pretraining(recipe, out, Limits(steps=3), on_progress=lambda progress: None).model is None:
        calls += 1
    assert calls == len(recipe.stages)
    assert stage_losses(recipe, out) == stage_losses(recipe, whole)
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()
    assert Plan(out / "plan.parquet").hash == Plan(whole / "plan.parquet").hash


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_of_a_step_together_see_the_plan_and_one_modality_where_steps_are_pure(finished, ranks):
    recipe, out = finished
    prepared = PreparedData.of(recipe, out)
    plan, first = Plan(out / "plan.parquet"), 0
    for stage in recipe.plan.stages:
        batches = [
            DocumentBatches(
                plan,
                prepared.sources,
                prepared.tokens,
                prepared.processor,
                sequences_per_step=stage.sequences_per_step,
                ranks=Ranks(rank=rank, ranks=ranks),
                first=first,
            )
            for rank in range(ranks)
        ]
        for step in range(stage.steps):
            begin = first + step * stage.sequences_per_step
            wanted = [plan.sequence(number).source for number in range(begin, begin + stage.sequences_per_step)]
            seen = [source for rank in batches for source in rank.batch_at(step, 0).sources]
            assert seen == wanted
            if stage.language is not None:
                assert len({source in stage.language_sources for source in seen}) == 1
        first += stage.sequences


def test_a_recipe_may_start_from_a_model_that_was_trained_before(finished, sources, tmp_path):
    recipe, out = finished
    (stage, *_) = recipe.stages
    # Nothing but the rate's first update: what it starts from is still there to a rate's width.
    short = replace(stage.train, schedule=replace(stage.train.schedule, total_steps=1, warmup_steps=1))
    still = replace(short, optim=replace(short.optim, peak_lr=1e-9, parts=()))
    tuned = replace(
        recipe, name="tuned", starts_from=str(out / "model"), weights_seed=9, stages=(replace(stage, train=still),)
    )
    result = train_pretraining(tuned, tmp_path / "run", on_progress=lambda progress: None)
    for (name, one), other in zip(
        load_file(result.model / "model.safetensors").items(),
        load_file(out / "model" / "model.safetensors").values(),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-8, msg=name)  # a last bit of bfloat16
    loaded = load_vision_language(result.model)
    made = PreparedData.of(recipe, out).processor.tokenizer
    assert loaded is not None and loaded.processor.tokenizer.get_vocab() == made.get_vocab()
    other = replace(tuned, parts=on_files(recipe_named("mm1_test"), sources).parts)
    if type(recipe.parts) is not type(other.parts):
        with pytest.raises((CheckpointError, ConfigError)):
            train_pretraining(other, tmp_path / "other", on_progress=lambda progress: None)


def test_a_plan_of_stages_is_shown_with_its_language(sources, tmp_path):
    recipe = on_files(recipe_named("deepseek_vl_test"), sources)
    report = plan_pretraining(recipe, tmp_path)
    assert [stage.steps for stage in report.stages] == [4, 4, 4, 4]
    assert report.stages[2].language[0].wanted == 1.0
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert "Language alone, stage 3" in page
