"""Loading each layout: every weight in its place, heads untied, little memory, and all that is wrong in one message."""

import io
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.core.images import DEFAULT_LIMITS
from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import (
    CheckpointLayout,
    Decoding,
    DeepseekVlProcessor,
    load,
    load_model,
    tiny_config,
)
from lensmith.models.families.deepseek_vl.checkpoint import is_published, open_checkpoint
from lensmith.models.families.deepseek_vl.config import exactness_of
from lensmith.models.families.deepseek_vl.convert import convert
from lensmith.models.families.deepseek_vl.loading import model_without_weights
from lensmith.models.families.deepseek_vl.options import Exactness
from tests.support.tiny_deepseek import FAMILIES, PUBLISHED_LAYOUTS, save_as, tiny_model

HEADS = {
    CheckpointLayout.ORIGINAL: ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),
    CheckpointLayout.TRANSFORMERS_4: ("lm_head.weight", "model.language_model.embed_tokens.weight"),
    CheckpointLayout.TRANSFORMERS: ("lm_head.weight", "model.language_model.embed_tokens.weight"),
    CheckpointLayout.LENSMITH: ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny checkpoint of each family and layout; not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        (family, layout): save_as(root / f"{family}-{layout.value}", tiny_model(family), layout)
        for family in FAMILIES
        for layout in CheckpointLayout
    }


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of one, to be changed."""

    def copy(family="mlp", layout=CheckpointLayout.ORIGINAL):
        return shutil.copytree(folders[family, layout], tmp_path / "copied")

    return copy


def assert_equal_models(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    for (name, buffer), (other_name, other_buffer) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        assert name == other_name
        assert torch.equal(buffer, other_buffer), name


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", CheckpointLayout)
def test_a_folder_of_any_layout_gives_the_same_model(folders, family, layout):
    expected = tiny_model(family)
    model, processor = load(folders[family, layout])
    assert_equal_models(model, expected)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert type(processor) is DeepseekVlProcessor
    inputs = processor(images=[[picture()]], text=["<image_placeholder> what?"])
    assert torch.equal(model(**inputs).logits, expected(**inputs).logits)
    assert (model.generation_config.eos_token_id, model.generation_config.suppress_tokens) == (2, [3])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_again_is_read_by_the_auto_classes(folders, tmp_path, family):
    model, processor = load(folders[family, CheckpointLayout.ORIGINAL], exact="transformers")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    expected = model.config
    for again in (AutoModelForImageTextToText.from_pretrained(tmp_path), load(tmp_path)[0]):
        assert type(again) is VisionLanguageModel
        assert_equal_models(again, model)
        assert again.config.to_diff_dict() == again.config.to_diff_dict() | {
            key: value for key, value in expected.to_diff_dict().items() if key != "architectures"
        }
    read = AutoProcessor.from_pretrained(tmp_path)
    assert type(read) is DeepseekVlProcessor
    assert read.exact is load(tmp_path)[1].exact is Exactness.TRANSFORMERS


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_differs_from_the_embeddings_stays_so(folders, tmp_path, family):
    for layout in CheckpointLayout:
        model = load_model(folders[family, layout])
        head, embeddings = model.language_model.lm_head.weight, model.get_input_embeddings().weight
        assert not torch.equal(head, embeddings)
        assert head.data_ptr() != embeddings.data_ptr()
        assert model.config.language.tie_word_embeddings is False
        model.save_pretrained(tmp_path / layout.value)
        for again in (
            load_model(tmp_path / layout.value),
            VisionLanguageModel.from_pretrained(tmp_path / layout.value),
        ):
            assert torch.equal(again.language_model.lm_head.weight, head)
            assert torch.equal(again.get_input_embeddings().weight, embeddings)


@pytest.mark.parametrize("layout", CheckpointLayout)
def test_a_file_that_says_tied_but_has_a_head_keeps_it(copied, layout):
    folder = copied(layout=layout)
    values = json.loads((folder / "config.json").read_text())
    for part in (values, *(values[key] for key in ("text_config", "language_config", "language") if key in values)):
        part["tie_word_embeddings"] = True
    if layout is CheckpointLayout.LENSMITH:
        del values["tie_word_embeddings"]  # it has no such key
    (folder / "config.json").write_text(json.dumps(values))
    assert_equal_models(load_model(folder), tiny_model("mlp"))


@pytest.mark.parametrize("layout", [CheckpointLayout.ORIGINAL, CheckpointLayout.TRANSFORMERS])
def test_a_checkpoint_without_a_head_is_tied_only_if_it_says_so(copied, tmp_path, layout):
    folder = copied(layout=layout)
    head, embeddings = HEADS[layout]
    weights = load_file(folder / "model.safetensors")
    del weights[head]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"1 missing[\\s\\S]*missing: {head}"):
        load_model(folder)
    values = json.loads((folder / "config.json").read_text())
    values["text_config" if layout is CheckpointLayout.TRANSFORMERS else "language_config"]["tie_word_embeddings"] = (
        True
    )
    (folder / "config.json").write_text(json.dumps(values))
    model = load_model(folder)
    assert model.language_model.lm_head.weight is model.get_input_embeddings().weight
    # Converted, it has a head of its own, and says so.
    out = convert(folder, tmp_path / "out", "transformers").folder
    assert torch.equal(load_file(out / "model.safetensors")["lm_head.weight"], weights[embeddings])
    assert load_model(out).config.language.tie_word_embeddings is False


def test_precision_is_the_files_or_the_one_asked_for(copied):
    folder = copied(layout=CheckpointLayout.TRANSFORMERS)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    weights["model.vision_model.post_layernorm.bias"] = weights["model.vision_model.post_layernorm.bias"].float()
    save_file(weights, folder / "model.safetensors")
    for asked, expected in ((None, torch.bfloat16), (torch.float32, torch.float32), (torch.float16, torch.float16)):
        model = load_model(folder, dtype=asked)
        assert {parameter.dtype for parameter in model.parameters()} == {expected}
        assert model.config.dtype == model.config.language.dtype == expected
        assert all(b.dtype == torch.float32 for n, b in model.named_buffers() if "inv_freq" in n)


def test_in_its_own_precision_nothing_is_copied_and_the_file_is_not_written_to(copied):
    folder = copied(layout=CheckpointLayout.ORIGINAL)
    before = (folder / "model.safetensors").read_bytes()
    model = load_model(folder)
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split()[0].split("-") for line in maps if str(folder / "model.safetensors") in line]
    bounds = [(int(start, 16), int(end, 16)) for start, end in mapped]
    for name, parameter in model.named_parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in bounds), name
        assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size(), name
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(input_ids=torch.tensor([[1, 5, 6]]), labels=torch.tensor([[1, 5, 6]])).loss.backward()
    optimizer.step()
    assert not torch.equal(model.language_model.lm_head.weight, tiny_model("mlp").language_model.lm_head.weight)
    del model
    assert (folder / "model.safetensors").read_bytes() == before


MEASURE = """
import sys, threading, time, torch
from lensmith.models.families.deepseek_vl import load_model
def anonymous():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("RssAnon"))
load_model(sys.argv[1])
for dtype in (torch.bfloat16, torch.float32):
    before, peak, done = anonymous(), 0, threading.Event()
    def watch():
        global peak
        while not done.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.001)
    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load_model(sys.argv[2], dtype=dtype)
    done.set()
    watcher.join()
    print((peak - before) / sum(p.numel() * p.element_size() for p in model.parameters()))
    del model
"""


def test_the_weights_are_in_memory_once_at_most(folders, tmp_path):
    small = folders["mlp", CheckpointLayout.ORIGINAL]
    large = tmp_path / "large"
    config = tiny_config("mlp", vocabulary_size=60_000)
    config.language.hidden_size, config.language.intermediate_size = 256, 3000
    config.language.head_dim = 64
    save_as(large, VisionLanguageModel(config).to(torch.bfloat16), CheckpointLayout.ORIGINAL)
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    as_stored, wider = map(float, result.stdout.split())
    assert as_stored < 0.1
    assert 0.8 < wider < 1.1


@pytest.mark.parametrize("layout", PUBLISHED_LAYOUTS)
@pytest.mark.parametrize("sharded", [False, True])
def test_pytorchs_own_format_is_read_too(copied, layout, sharded):
    folder = copied(layout=layout)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = [names[::2], names[1::2]] if sharded else [names]
    files = [f"pytorch_model-{n + 1}-of-2.bin" for n in range(2)] if sharded else ["pytorch_model.bin"]
    for file, part in zip(files, parts, strict=True):
        torch.save({name: weights[name] for name in part}, folder / file)
    if sharded:
        index = {"weight_map": {name: file for file, part in zip(files, parts, strict=True) for name in part}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_equal_models(load_model(folder), tiny_model("mlp"))


@pytest.mark.parametrize("layout", PUBLISHED_LAYOUTS)
def test_all_wrong_keys_are_told_at_once(copied, layout):
    folder = copied("hybrid", layout)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    missing, wrong = [names[2], names[40], names[-1]], [names[7], names[50]]
    for name in missing:
        del weights[name]
    for name in wrong:
        weights[name] = torch.zeros(3, 2)
    weights["model.gen_head.weight"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "3 missing, 1 unexpected, 2 wrong shape" in message
    lines = [line.strip() for line in message.splitlines()]
    assert all(f"missing: {name}" in lines for name in missing)
    assert all(any(line.startswith(f"wrong shape: {name}: [3, 2] instead of [") for line in lines) for name in wrong)
    assert "unexpected: model.gen_head.weight" in lines


def test_integers_are_no_weights_here(copied):
    folder = copied()
    weights = load_file(folder / "model.safetensors")
    weights["aligner.layers.0.weight"] = weights["aligner.layers.0.weight"].to(torch.int8)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of them are others[\s\S]*aligner.layers.0.weight: torch.int8"):
        load_model(folder)


@pytest.fixture
def sharded(folders, tmp_path):
    return convert(
        folders["mlp", CheckpointLayout.ORIGINAL], tmp_path / "sharded", "original", shard_bytes=100_000
    ).folder


def shards_of(folder):
    return sorted(folder.glob("model-*.safetensors"))


def test_shards_are_read(sharded):
    assert len(shards_of(sharded)) > 2
    assert_equal_models(load_model(sharded), tiny_model("mlp"))


def test_every_damaged_shard_is_told(sharded):
    one, two, three, *_ = shards_of(sharded)
    one.write_bytes(one.read_bytes()[:-100])  # cut short
    two.write_bytes(b"\xff" * 64 + two.read_bytes()[64:])  # a header that is none
    three.write_bytes(three.read_bytes()[:5])  # less than a header
    with pytest.raises(CheckpointError) as caught:
        load_model(sharded)
    message = str(caught.value)
    assert "3 problems" in message
    for path in (one, two, three):
        assert f"{path.name}: cut short or damaged" in message


def test_every_shard_that_is_not_there_is_told(sharded):
    one, two, *_ = shards_of(sharded)
    one.unlink()
    two.unlink()
    with pytest.raises(CheckpointError) as caught:
        load_model(sharded)
    assert all(
        f"{path.name}: named by model.safetensors.index.json, but not there" in str(caught.value) for path in (one, two)
    )


def test_shards_without_an_index_and_an_index_that_lies(sharded):
    index_path = sharded / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    index_path.unlink()
    with pytest.raises(CheckpointError, match=r"no weights in this folder[\s\S]*-of-[\s\S]*but no index"):
        load_model(sharded)
    name, file = next(iter(index["weight_map"].items()))
    other = next(shard.name for shard in shards_of(sharded) if shard.name != file)
    lies = index["weight_map"] | {name: other, "no.such.tensor": file}
    index_path.write_text(json.dumps({"weight_map": lies}))
    with pytest.raises(CheckpointError) as caught:
        load_model(sharded)
    message = str(caught.value)
    assert f"{file}: has {name}, which the index places in {other}" in message
    assert f"{file}: lacks no.such.tensor, which the index places there" in message


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"weight_map": []}', b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}', b"\xff"]
)
def test_an_index_that_is_none(sharded, content):
    (sharded / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot read the index"):
        load_model(sharded)


def test_an_index_cannot_reach_outside_its_folder(sharded, tmp_path):
    outside = tmp_path / "outside.safetensors"
    save_file({"a": torch.zeros(1)}, outside)
    for name in ("../outside.safetensors", str(outside)):
        (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="but not there"):
            load_model(sharded)


def test_a_tensor_in_two_shards_is_told(sharded):
    one, two, *_ = shards_of(sharded)
    name = next(iter(load_file(one)))
    save_file(load_file(two) | {name: torch.zeros(1)}, two)
    with pytest.raises(CheckpointError, match=f"{two.name}: {name} is also in {one.name}"):
        load_model(sharded)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x04]\x94.", b"text"])
def test_a_damaged_pickle_is_told(copied, content):
    folder = copied()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_model(folder)


def test_a_pickle_that_runs_code_is_not_run(copied, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = copied()
    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not tensors only"):
        load_model(folder)
    torch.save({"a": 1}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="other things than tensors"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"{", CheckpointError, "JSON"),
        (b"[]", CheckpointError, "an object"),
        (b"{}", ConfigError, "model_type multi_modality, deepseek_vl, deepseek_vl_hybrid, lensmith_vlm"),
        (b'{"model_type": "llava"}', ConfigError, "model_type llava"),
        (b'{"model_type": "multi_modality", "gen_vision_config": {}}', ConfigError, "Janus"),
        (b'{"model_type": "multi_modality"}', ConfigError, "language_config: required"),
        (b'{"model_type": "deepseek_vl", "text_config": 3}', ConfigError, "transformers refuses"),
        (b'{"model_type": "lensmith_vlm"}', ConfigError, "vision: required"),
        (b'{"model_type": "deepseek_vl_hybrid", "vision_config": {"patch_size": 0}}', ConfigError, "built"),
    ],
)
def test_a_configuration_that_is_none(copied, content, error, said):
    folder = copied()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(error, match=said):
        load_model(folder)


def test_configuration_and_weights_of_two_models(copied, folders):
    folder = copied("mlp")
    shutil.copy(folders["hybrid", CheckpointLayout.ORIGINAL] / "config.json", folder)
    with pytest.raises(CheckpointError, match="belong to different models"):
        load_model(folder)


def test_folders_without_a_model(tmp_path, copied):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):
        load(copied() / "config.json")
    folder = tmp_path / "copied"
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="generation_config"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights in this folder"):
        load(folder)


def test_a_name_is_fetched_from_the_hub_and_pickles_only_if_there_is_nothing_else(copied, monkeypatch):
    asked = []
    folder = copied()

    def fetched(name, allow_patterns):
        asked.append((name, any("pytorch_model" in pattern for pattern in allow_patterns)))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    assert_equal_models(load_model("deepseek-ai/deepseek-vl-tiny"), tiny_model("mlp"))
    assert asked == [("deepseek-ai/deepseek-vl-tiny", False)]
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_equal_models(load_model("deepseek-ai/deepseek-vl-tiny"), tiny_model("mlp"))
    assert [pickled for _, pickled in asked] == [False, False, True]


def test_without_network_a_name_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"no such folder[\s\S]*without network, give a folder"):
        load("deepseek-ai/deepseek-vl-no-such-size")


def test_our_own_layout_needs_no_saved_processor(copied):
    folder = copied("hybrid", CheckpointLayout.LENSMITH)
    (folder / "processor_config.json").unlink()
    model, processor = load(folder)
    assert processor.exact is exactness_of(model.config.vision) is Exactness.ORIGINAL


def test_exactness_reaches_tower_and_processor(folders):
    for family in FAMILIES:
        for asked, expected in ((None, Exactness.ORIGINAL), ("transformers", Exactness.TRANSFORMERS)):
            model, processor = load(folders[family, CheckpointLayout.TRANSFORMERS], exact=asked)
            assert processor.exact is expected
            if family == "hybrid":
                assert exactness_of(model.config.vision) is expected
    own = load_model(folders["hybrid", CheckpointLayout.LENSMITH], exact=Exactness.TRANSFORMERS)
    assert exactness_of(own.config.vision) is Exactness.TRANSFORMERS
    assert not own.vision_tower.high.config.resizes_in_float32


def test_how_pictures_are_read_can_be_chosen_and_is_saved(folders, tmp_path):
    for exact, default in (("original", Decoding.STORED), ("transformers", Decoding.UPRIGHT)):
        _, processor = load(folders["mlp", CheckpointLayout.ORIGINAL], exact=exact)
        assert processor.pictures.reads is default
    model, processor = load(folders["mlp", CheckpointLayout.ORIGINAL], picture_decoding="as-seen")
    assert processor.exact is Exactness.ORIGINAL
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
    assert processor.open_picture(clear.getvalue(), DEFAULT_LIMITS).getpixel((0, 0)) == (255, 255, 255)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert load(tmp_path)[1].pictures.reads is Decoding.AS_SEEN
    assert load(tmp_path, picture_decoding=Decoding.STORED)[1].pictures.reads is Decoding.STORED
    for exact in ("original", "transformers"):
        again = load(tmp_path, exact=exact)[1]
        assert (again.exact.value, again.pictures.reads) == (exact, Decoding.AS_SEEN), "what was chosen stays"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_saved_of_pictures_stays_where_other_numbers_are_followed(folders, tmp_path, family):
    path = folders[family, CheckpointLayout.ORIGINAL]
    model, processor = load(path)
    own = {"min_px": 20, "mean": (0.25, 0.5, 0.75), "std": (0.3, 0.3, 0.3)}
    processor.pictures = replace(processor.pictures, **own)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert load(tmp_path)[1].pictures == load(tmp_path, exact="original")[1].pictures == processor.pictures
    for exact, reads in (("transformers", Decoding.UPRIGHT), ("original", Decoding.STORED)):
        model, processor = load(tmp_path, exact=exact)
        published = load(path, exact=exact)[1].pictures
        assert processor.pictures.reads is reads
        assert processor.pictures.normalises is published.normalises
        assert {name: getattr(processor.pictures, name) for name in own} == own
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)


def test_published_layouts_are_told_from_others(folders, tmp_path):
    for (_, layout), folder in folders.items():
        assert is_published(folder) is (layout is not CheckpointLayout.LENSMITH)
    assert not is_published(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "multi_modality", "gen_vision_config": {}}')
    assert not is_published(tmp_path)


def test_models_built_elsewhere_at_the_same_time_keep_their_weights():
    start, built = threading.Barrier(2), []

    def build_others():
        start.wait()
        built.extend(torch.nn.Linear(2, 2).weight.device.type for _ in range(2000))

    other = threading.Thread(target=build_others)
    other.start()
    start.wait()
    model = model_without_weights(tiny_config("mlp"))
    other.join()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {buffer.device.type for buffer in model.buffers()} == {"cpu"}
    assert set(built) == {"cpu"}
    assert torch.nn.Linear(2, 2).weight.device.type == "cpu"


def test_every_part_of_a_checkpoint_is_a_view_until_it_is_used(folders):
    checkpoint = open_checkpoint(folders["hybrid", CheckpointLayout.ORIGINAL])
    expected = tiny_model("hybrid").state_dict()
    assert checkpoint.shapes.keys() == expected.keys()
    for name in checkpoint.shapes:
        assert torch.equal(checkpoint.read(name), expected[name]), name
