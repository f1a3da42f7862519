"""Checkpoints from layout to layout and back: bit by bit, whole or not at all, and readable by transformers."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridProcessor,
    DeepseekVLProcessor,
)

from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.core.types import Message
from lensmith.models.families.deepseek_vl import CheckpointLayout, load, load_model
from lensmith.models.families.deepseek_vl.checkpoint import open_checkpoint
from lensmith.models.families.deepseek_vl.convert import convert
from lensmith.models.families.deepseek_vl.prompt import chat_prompt
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from tests.support.tiny_deepseek import FAMILIES, PUBLISHED_LAYOUTS, save_as, save_own, tiny_model

THEIRS = {"mlp": DeepseekVLForConditionalGeneration, "hybrid": DeepseekVLHybridForConditionalGeneration}


def weights_in(folder):
    """All tensors of a folder, read by safetensors itself."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor.dtype, tensor.shape) == (other[name].dtype, other[name].shape), name
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layout_becomes_every_other_and_comes_back_bit_by_bit(tmp_path, family):
    model = tiny_model(family)
    folders = {layout: save_as(tmp_path / f"first-{layout.value}", model, layout) for layout in CheckpointLayout}
    for source, folder in folders.items():
        for target in CheckpointLayout:
            # What comes back is what was there first: `first-...` was written straight from the model.
            made = convert(folder, tmp_path / f"{source.value}-{target.value}", target, shard_bytes=300_000).folder
            assert_same(weights_in(made), weights_in(folders[target]))
            assert open_checkpoint(made).form.layout is target
        assert_same(dict(load_model(folder).state_dict()), dict(model.state_dict()))
    config = load_model(folders[CheckpointLayout.LENSMITH]).config
    for folder in folders.values():
        loaded = load_model(folder).config
        assert (loaded.vision, loaded.connector) == (config.vision, config.connector)
        assert loaded.language.to_diff_dict() == config.language.to_diff_dict()
        assert loaded.image_token_id == config.image_token_id


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision_and_odd_bits_are_kept(tmp_path, dtype):
    model = tiny_model("mlp").to(dtype)
    with torch.no_grad():
        weight = model.language_model.lm_head.weight
        weight[0, :4] = torch.tensor([torch.nan, torch.inf, -0.0, torch.finfo(dtype).smallest_normal])
    folder = save_as(tmp_path / "a", model, CheckpointLayout.ORIGINAL)
    back = convert(folder, tmp_path / "b", CheckpointLayout.TRANSFORMERS).folder
    head = weights_in(back)["lm_head.weight"]
    assert head.dtype is dtype
    assert torch.equal(head.view(torch.int16), weight.view(torch.int16))
    assert json.loads((back / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert load_model(back).dtype is dtype


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", [CheckpointLayout.TRANSFORMERS, CheckpointLayout.TRANSFORMERS_4])
def test_transformers_reads_the_result_and_ties_nothing(tmp_path, family, layout):
    model = tiny_model(family)
    folder = save_as(tmp_path / "a", model, layout)
    theirs, report = THEIRS[family].from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert torch.equal(theirs.lm_head.weight, model.language_model.lm_head.weight)
    assert not torch.equal(theirs.lm_head.weight, theirs.get_input_embeddings().weight)
    assert (theirs.generation_config.eos_token_id, theirs.config.tie_word_embeddings) == (2, False)
    theirs.save_pretrained(tmp_path / "theirs")
    assert_same(dict(load_model(tmp_path / "theirs").state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", [CheckpointLayout.TRANSFORMERS, CheckpointLayout.TRANSFORMERS_4])
def test_transformers_reads_the_processor(tmp_path, family, layout):
    folder = save_as(tmp_path / "a", tiny_model(family), layout)
    theirs = AutoProcessor.from_pretrained(folder)
    assert type(theirs) is (DeepseekVLProcessor if family == "mlp" else DeepseekVLHybridProcessor)
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    text = "what is <image_placeholder>?"
    batch = theirs(images=[[picture]], text=[text])
    _, ours = load(folder, exact="transformers")
    expected = ours(images=[[picture]], text=[text])
    assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
    assert batch["input_ids"][0, 0] == theirs.tokenizer.bos_token_id
    if family == "hybrid":
        assert batch["high_res_pixel_values"].shape == expected["pixel_values"].shape
        assert batch["pixel_values"].shape == expected["low_pixel_values"].shape
    else:
        torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"], atol=0.02, rtol=0)


def test_a_text_begins_with_its_token_although_the_published_tokenizer_does_not_say_so(tmp_path):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    tokenizer = tiny_tokenizer().backend_tokenizer
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(own / "tokenizer.json"))
    assert AutoTokenizer.from_pretrained(own)("hi").input_ids[0] != 1  # what transformers makes of it
    folder = convert(own, tmp_path / "a", "transformers").folder
    assert AutoTokenizer.from_pretrained(folder)("hi").input_ids[0] == 1


@pytest.mark.parametrize(
    "messages",
    [
        [("user", ["hello"])],
        [("system", ["Tell a joke."])],
        [("system", ["Be brief."]), ("user", ["  <image_placeholder>what is this? "])],
        [("user", ["a"]), ("assistant", ["b"]), ("user", ["c\n"])],
    ],
)
def test_the_chat_template_writes_the_original_prompts(tmp_path, messages):
    folder = save_as(tmp_path / "a", tiny_model("mlp"), CheckpointLayout.TRANSFORMERS)
    theirs = AutoProcessor.from_pretrained(folder)
    expected = chat_prompt([Message(role=role, parts=tuple(parts)) for role, parts in messages])
    parts = [{"role": r, "content": [{"type": "text", "text": text} for text in p]} for r, p in messages]
    strings = [{"role": role, "content": "".join(parts)} for role, parts in messages]
    for conversation in (parts, strings):
        assert theirs.apply_chat_template(conversation, add_generation_prompt=True) == expected
    pictured = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " x "}]}]
    assert theirs.apply_chat_template(pictured).endswith("\n\nUser: <image_placeholder> x")


@pytest.mark.parametrize("family", FAMILIES)
def test_files_are_those_of_the_layout(tmp_path, family):
    common = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    theirs = {"processor_config.json", "chat_template.jinja"}
    expected = {
        CheckpointLayout.ORIGINAL: common | {"preprocessor_config.json", "processor_config.json"},
        CheckpointLayout.TRANSFORMERS_4: common | theirs | {"preprocessor_config.json"},
        CheckpointLayout.TRANSFORMERS: common | theirs,
        CheckpointLayout.LENSMITH: common | {"processor_config.json"},
    }
    model = tiny_model(family)
    for layout, files in expected.items():
        folder = save_as(tmp_path / layout.value, model, layout)
        assert {path.name for path in folder.iterdir()} == files, layout
    preprocessor = json.loads((tmp_path / "original" / "preprocessor_config.json").read_text())
    assert preprocessor["image_processor_type"] == "VLMImageProcessor"
    assert preprocessor["do_normalize"] is (family == "mlp")
    assert preprocessor["background_color"] == ([127] * 3 if family == "mlp" else [122, 116, 104])
    assert json.loads((tmp_path / "original" / "processor_config.json").read_text())["num_image_tokens"] == 16


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_folder_says_of_pictures_is_carried_through_every_layout(tmp_path, family):
    folder = save_as(tmp_path / "a", tiny_model(family), CheckpointLayout.ORIGINAL)
    path = folder / "preprocessor_config.json"
    told = json.loads(path.read_text()) | {
        "min_size": 20,
        "image_mean": [0.25, 0.5, 0.75],
        "image_std": [0.3, 0.3, 0.3],
    }
    told |= {"background_color": [63, 127, 191]}
    path.write_text(json.dumps(told))
    there = convert(folder, tmp_path / "b", "transformers").folder
    values = json.loads((there / "processor_config.json").read_text())["image_processor"]
    high = "high_res_" if family == "hybrid" else ""
    assert values["min_size"] == 20
    assert (values[f"{high}image_mean"], values[f"{high}background_color"]) == ([0.25, 0.5, 0.75], [63, 127, 191])
    if family == "hybrid":
        assert (values["image_mean"], values["image_std"]) == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    further = convert(there, tmp_path / "c", "transformers-4").folder
    assert json.loads((further / "preprocessor_config.json").read_text()).items() >= values.items()
    back = convert(further, tmp_path / "d", "original").folder
    assert json.loads((back / "preprocessor_config.json").read_text()) == told


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "between",
    [
        CheckpointLayout.ORIGINAL,
        CheckpointLayout.TRANSFORMERS,
        CheckpointLayout.TRANSFORMERS_4,
        CheckpointLayout.LENSMITH,
    ],
)
def test_what_a_folder_says_of_pictures_is_carried_through_our_own_layout(tmp_path, family, between):
    first = save_as(tmp_path / "a", tiny_model(family), CheckpointLayout.ORIGINAL)
    path = first / "preprocessor_config.json"
    own = {"min_size": 20, "image_mean": [0.25, 0.5, 0.75], "image_std": [0.3, 0.3, 0.3]}
    told = json.loads(path.read_text()) | own | {"background_color": [63, 127, 191]}
    path.write_text(json.dumps(told))
    folder = first if between is CheckpointLayout.ORIGINAL else convert(first, tmp_path / "b", between).folder
    ours = convert(folder, tmp_path / "c", "lensmith").folder
    pictures = load(ours)[1].pictures
    assert (pictures.min_px, pictures.mean, pictures.std) == (20, (0.25, 0.5, 0.75), (0.3, 0.3, 0.3))
    assert pictures == load(folder)[1].pictures
    back = convert(ours, tmp_path / "d", "original").folder
    assert json.loads((back / "preprocessor_config.json").read_text()) == told
    theirs = convert(ours, tmp_path / "e", "transformers").folder
    straight = convert(first, tmp_path / "f", "transformers").folder
    assert (theirs / "processor_config.json").read_text() == (straight / "processor_config.json").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_only_transformers_file_says_is_carried_through_our_own_layout(tmp_path, family):
    folder = save_as(tmp_path / "a", tiny_model(family), CheckpointLayout.TRANSFORMERS)
    path = folder / "processor_config.json"
    told = json.loads(path.read_text())
    changes = {"resample": 1, "image_mean": [0.1, 0.2, 0.3]} if family == "hybrid" else {"do_normalize": False}
    told["image_processor"] |= changes | ({"background_color": [25, 51, 76]} if family == "hybrid" else {})
    path.write_text(json.dumps(told))
    model, processor = load(folder, exact="transformers")
    model.save_pretrained(tmp_path / "b")
    processor.save_pretrained(tmp_path / "b")
    back = convert(tmp_path / "b", tmp_path / "c", "transformers").folder
    assert json.loads((back / "processor_config.json").read_text()) == told


def test_settings_of_generation_are_carried_over(tmp_path):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    values = {"max_new_tokens": 7, "repetition_penalty": 1.1, "eos_token_id": 5, "_from_model_config": True}
    (own / "generation_config.json").write_text(json.dumps(values))
    folder = convert(own, tmp_path / "a", "original").folder
    written = json.loads((folder / "generation_config.json").read_text())
    assert written == {"max_new_tokens": 7, "repetition_penalty": 1.1} | {
        "bos_token_id": 1,
        "eos_token_id": 2,  # the tokenizer's
        "pad_token_id": 2,
    }
    loaded = load_model(folder).generation_config
    assert (loaded.max_new_tokens, loaded.eos_token_id, loaded.suppress_tokens) == (7, 2, [3])


def test_unused_tensors_are_left_out_and_named(tmp_path):
    source = save_as(tmp_path / "a", tiny_model("hybrid"), CheckpointLayout.ORIGINAL)
    weights = load_file(source / "model.safetensors")
    unused = ["vision_model.high_layer_norm.bias", "vision_model.vision_tower_low.vision_tower.attn_pool.q.weight"]
    save_file(weights | {name: torch.ones(3) for name in unused}, source / "model.safetensors")
    result = convert(source, tmp_path / "b", "transformers")
    assert list(result.unused) == unused
    assert all(name in str(result) for name in unused)
    assert_same(weights_in(convert(result.folder, tmp_path / "c", "original").folder), weights)


def test_a_folder_without_tokenizer_is_converted_without_it(tmp_path):
    model = tiny_model("mlp")
    model.save_pretrained(tmp_path / "own")
    result = convert(tmp_path / "own", tmp_path / "a", "original")
    assert not result.has_tokenizer
    assert "without tokenizer" in str(result)
    assert_same(dict(load_model(result.folder).state_dict()), dict(model.state_dict()))
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load(result.folder)


def test_progress_ends_with_all(tmp_path):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    told = []
    result = convert(
        own,
        tmp_path / "a",
        "original",
        on_progress=lambda done, total: told.append((done, total)),
        progress_bytes=10_000,
    )
    total = -(-result.weight_bytes // 10_000)
    assert told[-1] == (total, total)
    assert len(told) > 10
    assert all(one[0] < other[0] for one, other in pairwise(told))


def test_what_is_there_already_is_not_touched_unless_asked(tmp_path):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    out = tmp_path / "out"
    out.mkdir()
    convert(own, out, "original")  # an empty folder may be there
    (out / "mine.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match="not empty"):
        convert(own, out, "transformers")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    convert(own, out, "transformers", overwrite=True)
    assert open_checkpoint(out).form.layout is CheckpointLayout.TRANSFORMERS
    assert not (out / "mine.txt").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        convert(own, tmp_path / "file", "original", overwrite=True)
    for inside in (own, own / "deeper", tmp_path):
        with pytest.raises(InputError, match="lie in each other"):
            convert(own, inside, "original", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out", "own"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interruption_leaves_what_was_there(tmp_path, overwrite):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    out = tmp_path / "out"
    if overwrite:
        convert(own, out, "original")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(own, out, "transformers", overwrite=overwrite, on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert out.exists() is overwrite
    if overwrite:
        assert open_checkpoint(out).form.layout is CheckpointLayout.ORIGINAL


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, alive = tmp_path / f".out.{dead.pid}.converting", tmp_path / f".out.{os.getppid()}.converting"
    for folder in (left, alive):
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
    convert(own, tmp_path / "out", "original")
    assert (left.exists(), alive.exists()) == (False, True)


def test_no_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(InputError, match="not enough room"):
        convert(own, tmp_path / "out", "original")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_a_full_disk_is_an_error_of_ours(tmp_path, monkeypatch):
    own = save_own(tmp_path / "own", tiny_model("mlp"))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        convert(own, tmp_path / "out", "original")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_a_broken_source_writes_nothing(tmp_path):
    own = save_own(tmp_path / "own", tiny_model("mlp"))
    weights = load_file(own / "model.safetensors")
    del weights["connector.layers.0.bias"], weights["connector.layers.2.weight"]
    save_file(weights, own / "model.safetensors")
    with pytest.raises(CheckpointError, match="2 missing"):
        convert(own, tmp_path / "out", "original")
    with pytest.raises(ConfigError, match="no such layout"):
        convert(own, tmp_path / "out", "pickle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_the_published_layouts_are_what_is_offered():
    assert {layout.value for layout in PUBLISHED_LAYOUTS} == {"original", "transformers", "transformers-4"}
