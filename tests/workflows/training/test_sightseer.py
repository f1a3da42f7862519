"""A recipe from nothing to a model that loads, stopped and taken up again on the way."""

import io
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from lensmith.core import config
from lensmith.core.endpoint import Request
from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.core.manifest import Manifest, record_files
from lensmith.core.types import Message, Picture
from lensmith.data.webpages.export import VIEWPORT_WIDTH_PX
from lensmith.models.families.sightseer import load
from lensmith.models.inference.endpoint import LocalEndpoint
from lensmith.recipes import recipe_named
from lensmith.recipes.sightseer import Lesson, SightseerRecipe, build_model, build_tokenizer
from lensmith.train import StopReason, load_weights
from lensmith.train.log import read
from lensmith.train.objectives.reading import ReadingModel
from lensmith.workflows.training import run_recipe
from lensmith.workflows.training.sightseer import set_lesson

NAME = "sightseer_test"
STAGES = ["letters", "pages"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # Bits are promised only for the same thread count.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The recipe, run through without a stop: its folder and its result."""
    out = tmp_path_factory.mktemp("recipe") / "run"
    heard = []
    result = run_recipe(NAME, out, on_data=lambda *counts: heard.append(counts), on_progress=heard.append)
    return out, result, heard


@pytest.fixture
def with_pages(finished, tmp_path):
    """A new run's folder that has the pages already."""
    shutil.copytree(finished[0] / "shards", tmp_path / "run" / "shards")
    return tmp_path / "run"


def fresh_reader():
    recipe = recipe_named(NAME)
    return ReadingModel(build_model(recipe, build_tokenizer(recipe)), recipe.reading)


def losses(out, stage):
    return [line["loss"] for line in read(out / stage)]


# --- from end to end ----------------------------------------------------------------------------------------------


def test_a_run_ends_with_a_model_and_says_so(finished):
    out, result, heard = finished
    assert sorted(path.name for path in out.iterdir()) == sorted([*STAGES, "model", "run.json", "shards"])
    assert result.model == out / "model"
    assert result.stage == "pages"
    assert not result.interrupted
    assert result.last.stop is StopReason.FINISHED
    assert str(result) == f"{out / 'model'}: trained in 3 steps of stage 'pages', loss {result.last.loss:.4f}"
    assert heard[0] == (8, 8)
    assert [progress.step for progress in heard[1:]] == [1, 2, 3, 1, 2, 3]
    for stage in STAGES:
        assert len(losses(out, stage)) == 3
        assert np.isfinite(losses(out, stage)).all()


def test_the_manifest_says_what_was_run_and_made(finished):
    out, _, _ = finished
    manifest = config.load(Manifest, out / "run.json")
    assert config.from_dict(SightseerRecipe, manifest.config) == recipe_named(NAME)
    assert manifest.ended_at is not None
    assert "model/model.safetensors" in [record.path for record in manifest.outputs]
    assert manifest.outputs == record_files([out / file.path for file in manifest.outputs], root=out)


def test_the_model_loads_through_the_auto_classes_and_writes(finished):
    _, result, _ = finished
    model = AutoModelForImageTextToText.from_pretrained(result.model)
    processor = AutoProcessor.from_pretrained(result.model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any("character_head" in name for name in load_file(result.model / "model.safetensors"))
    model, processor = load(result.model)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    picture = Image.new("RGB", (VIEWPORT_WIDTH_PX, 200), (240, 240, 240))
    picture.paste((20, 20, 90), (10, 10, 200, 60))
    prompt = f"{processor.image_token}{processor.tokenizer.bos_token}"
    file = io.BytesIO()
    picture.save(file, "PNG")
    asked = Request(
        messages=(Message(role="user", parts=(Picture(data=file.getvalue()),)),), max_tokens=6, temperature=0.0
    )
    written = LocalEndpoint(model, processor).answer([asked])[0].choices[0].token_ids_T.tolist()
    assert 0 < len(written) <= 6
    inputs = processor(images=[[picture]], text=[prompt])
    tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert tokens[0, inputs["input_ids"].shape[1] :].tolist()[: len(written)] == written


def test_the_model_holds_what_the_last_stage_averaged(finished):
    out, result, _ = finished
    reader = fresh_reader()
    load_weights(reader, out / "pages" / "step-000003" / "average.safetensors")
    averaged = reader.model.state_dict()
    for name, weights in load_file(result.model / "model.safetensors").items():
        assert torch.equal(weights, averaged[name].to(torch.bfloat16)), name


def test_the_first_lesson_moves_the_stem_alone(finished):
    out, _, _ = finished
    reader = fresh_reader()
    set_lesson(reader, Lesson.CHARACTERS)
    taught = {name for name, parameter in reader.named_parameters() if parameter.requires_grad}
    before, after = reader.state_dict(), load_file(out / "letters" / "step-000003" / "model.safetensors")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == taught
    assert all(name.startswith(("model.vision_tower.", "character_head.")) for name in moved)
    set_lesson(reader, Lesson.PAGES)
    assert all(parameter.requires_grad for parameter in reader.parameters())


# --- stopped and taken up again -----------------------------------------------------------------------------------


def test_a_run_interrupted_in_each_stage_equals_an_uninterrupted_one(finished, with_pages):
    out, expected, _ = finished

    def interrupt(progress):
        if progress.step == 1:  # heard after the first update: the run ends after the second
            signal.raise_signal(signal.SIGTERM)

    for stage in STAGES:
        result = run_recipe(NAME, with_pages, on_progress=interrupt)
        assert (result.stage, result.last.step) == (stage, 2)
        assert result.interrupted
        assert result.model is None
        assert str(result).startswith(f"interrupted after step 2 of stage '{stage}', loss ")
        assert str(result.last.checkpoint) in str(result)
        assert config.load(Manifest, with_pages / "run.json").ended_at is None
    result = run_recipe(NAME, with_pages, on_progress=lambda progress: None)
    assert result.model == with_pages / "model"
    for stage in STAGES:
        assert losses(with_pages, stage) == losses(out, stage)
    assert (result.model / "model.safetensors").read_bytes() == (expected.model / "model.safetensors").read_bytes()


def test_a_deadline_stops_the_stage_that_is_under_way(with_pages):
    result = run_recipe(NAME, with_pages, deadline_s=1e-9, on_progress=lambda progress: None)
    assert (result.stage, result.last.step, result.last.stop) == ("letters", 0, StopReason.DEADLINE)
    assert not result.interrupted
    assert result.model is None
    assert str(result).splitlines()[0] == "deadline after step 0 of stage 'letters'"


def test_so_many_steps_of_the_stage_under_way(finished, with_pages):
    _, expected, _ = finished
    ends = []
    for _ in range(3):
        result = run_recipe(NAME, with_pages, steps=2, on_progress=lambda progress: None)
        ends.append((result.stage, result.last.step, result.last.stop))
    assert ends == [("letters", 2, StopReason.STEPS), ("pages", 2, StopReason.STEPS), ("pages", 3, StopReason.FINISHED)]
    assert (result.model / "model.safetensors").read_bytes() == (expected.model / "model.safetensors").read_bytes()


def test_a_finished_run_is_not_trained_again(finished):
    out, expected, _ = finished
    before = (expected.model / "model.safetensors").read_bytes()
    command = [sys.executable, "-m", "lensmith.cli", "train", NAME, "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert (told["model"], told["stage"]) == (str(out / "model"), "pages")
    assert (told["last"]["step"], told["last"]["stop"], told["last"]["loss"]) == (3, "finished", None)
    assert (expected.model / "model.safetensors").read_bytes() == before


def test_a_folder_with_another_recipes_run_is_refused_and_left_as_it_was(finished):
    out, _, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(CheckpointError, match=r"belongs to another configuration; .*name, pages.* differ"):
        run_recipe("sightseer_nano", out, on_progress=lambda progress: None)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_unknown_recipe_makes_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="no such recipe"):
        run_recipe("nothing", tmp_path / "run")
    assert not (tmp_path / "run").exists()
