"""Equality with the original repository's own code, and with transformers' image processors and chat template.

What the original made of fixed inputs is in tests/golden; scripts/deepseek_processor_goldens.py made it.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    DeepseekVLHybridImageProcessorPil,
    DeepseekVLHybridProcessor,
    DeepseekVLImageProcessorPil,
    DeepseekVLProcessor,
    PreTrainedTokenizerFast,
)
from transformers.image_utils import PILImageResampling, load_image

from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.pictures import (
    HALF,
    Decoding,
    DeepseekPictureConfig,
    open_as,
    prepare_squares,
    scaled_size,
)
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.prompt import Turn, chat_prompt, original_prompt, read_conversations
from lensmith.models.families.deepseek_vl.tokenizer import END, IMAGE, tiny_tokenizer
from lensmith.models.towers.hybrid import HIGH_MEAN, HIGH_STD

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = {"1.3b": DeepseekPictureConfig(), "7b": DeepseekPictureConfig.hybrid()}
THEIRS = Exactness.TRANSFORMERS


@pytest.fixture(scope="module")
def goldens():
    return json.loads((GOLDEN / "deepseek_vl_processor.json").read_text())


def noise(width_px, height_px, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# --- pixels -------------------------------------------------------------------------------------------------------


def test_200_sizes_are_scaled_as_the_original_scales_them(goldens):
    assert len(goldens["sizes"]) == 200
    for width_px, height_px, *expected in goldens["sizes"]:
        ours = [side for config in MODELS.values() for side in scaled_size(width_px, height_px, config)]
        assert ours == expected, (width_px, height_px)


def test_pixels_are_bit_equal_to_the_originals_at_full_size(goldens):
    assert len(goldens["pixels"]) == 14
    for row in goldens["pixels"]:
        pixels, low = prepare_squares([noise(*row["picture"])], MODELS[row["model"]])
        assert low is None
        assert hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() == row["sha256"], row


@pytest.mark.parametrize("model", MODELS)
def test_small_pixels_are_bit_equal_to_the_originals(goldens, model):
    expected = np.load(GOLDEN / "deepseek_vl_pixels.npz")[model]
    sizes = [row["picture"] for row in goldens["pixels"] if row["model"] == model]
    config = {"1.3b": DeepseekPictureConfig(image_px=32), "7b": DeepseekPictureConfig.hybrid(image_px=32)}[model]
    pixels, _ = prepare_squares([noise(*size) for size in sizes], config)
    np.testing.assert_array_equal(pixels, expected)


def transformers_hybrid(image_px=1024, low_px=384):
    """As the converter of the published checkpoints sets it up."""
    return DeepseekVLHybridImageProcessorPil(
        size={"height": low_px, "width": low_px},
        high_res_size={"height": image_px, "width": image_px},
        image_mean=HALF,
        image_std=HALF,
        high_res_image_mean=HIGH_MEAN,
        high_res_image_std=HIGH_STD,
        resample=PILImageResampling.BILINEAR,
    )


def transformers_plain(image_px=384):
    size = {"height": image_px, "width": image_px}
    return DeepseekVLImageProcessorPil(size=size, image_mean=HALF, image_std=HALF)


@pytest.mark.parametrize("size", [(640, 426), (500, 333), (384, 384), (1, 1), (3, 900), (77, 76)])
def test_pixels_are_bit_equal_to_transformers(size):
    picture = noise(*size, 1)
    plain, _ = prepare_squares([picture], DeepseekPictureConfig(exact=THEIRS))
    np.testing.assert_array_equal(plain, transformers_plain()([picture], return_tensors="np")["pixel_values"])
    high, low = prepare_squares([picture], DeepseekPictureConfig.hybrid(exact=THEIRS))
    theirs = transformers_hybrid()([picture], return_tensors="np")
    np.testing.assert_array_equal(high, theirs["high_res_pixel_values"])
    np.testing.assert_array_equal(low, theirs["pixel_values"])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_files_are_read_as_transformers_reads_them(mode, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    file = tmp_path / "a.png"
    picture = noise(9, 5, 0).convert(mode)
    if mode == "RGBA":
        picture.putalpha(noise(9, 5, 1).convert("L"))
    picture.save(file, exif=exif)
    theirs = load_image(str(file))
    assert theirs.size == (5, 9)
    np.testing.assert_array_equal(open_as(file, Decoding.UPRIGHT), theirs)
    np.testing.assert_array_equal(open_as(file, Decoding.STORED), Image.open(file).convert("RGB"))  # the original's


def test_200_sizes_are_scaled_as_transformers_scales_them(goldens, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "transformers.models.deepseek_vl.image_processing_pil_deepseek_vl.np_resize",
        lambda image, size, **_: asked.append(size) or image,
    )
    for image_px in (384, 1024):
        config = DeepseekPictureConfig(image_px=image_px, exact=THEIRS)
        processor = transformers_plain(image_px)
        # For the last two the order of operations within the formula decides.
        for width_px, height_px, *_ in [*goldens["sizes"], (2816, 55), (99, 2816)]:
            empty = np.broadcast_to(np.uint8(0), (3, height_px, width_px))
            processor.resize(empty, processor.size, processor.min_size)
            height, width = asked.pop()
            assert scaled_size(width_px, height_px, config) == (width, height), (width_px, height_px)


def test_the_two_differ_for_about_half_of_all_sizes(goldens):
    for image_px in (384, 1024):
        ours, theirs = (DeepseekPictureConfig(image_px=image_px, exact=exact) for exact in Exactness)
        sizes = [row[:2] for row in goldens["sizes"] if min(row[:2]) / max(row[:2]) > 14 / image_px]
        differing = sum(scaled_size(*size, ours) != scaled_size(*size, theirs) for size in sizes)
        assert 0.35 < differing / len(sizes) < 0.65


# --- prompts ------------------------------------------------------------------------------------------------------


def test_prompts_are_those_of_the_original(goldens):
    assert len(goldens["conversations"]) == 7
    for row in goldens["conversations"]:
        turns = [Turn(message["role"], message["content"]) for message in row["messages"]]
        assert original_prompt(turns, row.get("system")) == row["prompt"]


@pytest.fixture(scope="module")
def processor(goldens):
    config = DeepseekPictureConfig(image_px=32)
    return DeepseekVlProcessor(tiny_tokenizer(), config, goldens["tokens_per_picture"])


def with_pictures(conversation):
    return [
        {**message, "images": [noise(32, 32, 0)] * message["images"]} if "images" in message else message
        for message in conversation
    ]


def test_conversations_give_the_originals_token_ids(processor, goldens):
    for row in goldens["conversations"]:
        if "input_ids" in row:
            inputs = processor.chat(with_pictures(row["messages"]), answers=row["messages"][-1]["content"] == "")
            assert inputs["input_ids"].tolist() == [row["input_ids"]]


def test_a_batch_is_padded_as_the_original_pads_it(processor, goldens):
    conversations = [with_pictures(row["messages"]) for row in goldens["conversations"][:3]]
    inputs = processor.chat(conversations)
    assert inputs["input_ids"].tolist() == goldens["batch"]["input_ids"]
    assert inputs["attention_mask"].tolist() == goldens["batch"]["attention_mask"]
    assert inputs["pixel_values"].shape == (4, 3, 32, 32)  # the original adds blank ones: 3 x 3


def test_prompts_are_those_of_the_chat_template(goldens):
    assert len(goldens["templated"]) == 10
    for row in goldens["templated"]:
        [read] = read_conversations(row["messages"], IMAGE, text_only=True)
        ends_with_answer = row["messages"][-1]["role"] == "assistant"
        if row["add_generation_prompt"] and ends_with_answer:
            continue  # the template would begin a second answer; ours goes on with the first
        assert chat_prompt(read.messages, THEIRS, answers=row["add_generation_prompt"]) == row["prompt"]


@pytest.mark.parametrize("family", ["plain", "hybrid"])
def test_token_ids_and_pixels_are_those_of_transformers_processors(family, goldens):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer().backend_tokenizer,
        pad_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
    )
    kind = {"plain": DeepseekVLProcessor, "hybrid": DeepseekVLHybridProcessor}[family]
    pictures = {"plain": transformers_plain(32), "hybrid": transformers_hybrid(64, 32)}[family]
    theirs = kind(pictures, tokenizer, num_image_tokens=5)
    config = {
        "plain": DeepseekPictureConfig(image_px=32, exact=THEIRS),
        "hybrid": DeepseekPictureConfig.hybrid(image_px=64, low_px=32, exact=THEIRS),
    }[family]
    ours = DeepseekVlProcessor(tiny_tokenizer(), config, 5)
    conversations = [[{"role": "user", "content": [noise(40, 30, seed), "What?"][: seed + 1]}] for seed in range(2)]
    prompts = ours.apply_chat_template(conversations, add_generation_prompt=True)
    inputs = ours.chat(conversations)
    expected = theirs(images=[[noise(40, 30, 0)], [noise(40, 30, 1)]], text=prompts, padding=True, return_tensors="pt")
    names = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    low = {"pixel_values": "low_pixel_values", "high_res_pixel_values": "pixel_values"}
    names |= low if family == "hybrid" else {"pixel_values": "pixel_values"}
    for their_name, name in names.items():
        assert torch.equal(expected[their_name], inputs[name]), name
