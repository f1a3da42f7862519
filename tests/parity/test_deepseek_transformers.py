"""Whole models against transformers' own DeepSeek-VL classes: tiny random weights, through files and our converter.

Tolerance 1e-5 in float32: the same operations, in another order where ours merges two passes (SAM's downsampling) or
adds relative positions query by query.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
)

from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import CheckpointLayout, DeepseekVlProcessor, Variant, load, tiny_config
from lensmith.models.families.deepseek_vl.convert import convert
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.published_config import write_transformers
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
STEPS = 64
TEXTS = [
    "<image_placeholder>what is this?",
    "no picture at all, but a longer text than the others have",
    "<image_placeholder> and <image_placeholder>: which?",
]


class Pair(NamedTuple):
    family: Variant
    theirs: nn.Module
    ours: VisionLanguageModel
    processor: DeepseekVlProcessor


def reference(family: Variant) -> nn.Module:
    kind, config = DeepseekVLForConditionalGeneration, DeepseekVLConfig
    if family is Variant.HYBRID:
        kind, config = DeepseekVLHybridForConditionalGeneration, DeepseekVLHybridConfig
    values = write_transformers(
        tiny_config(family, exact=Exactness.TRANSFORMERS), "float32", CheckpointLayout.TRANSFORMERS
    )
    for part in ("text_config", "vision_config"):
        values[part]["initializer_range"] = 0.02
    torch.manual_seed(0)
    model = kind(config.from_dict(values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that biases, norms, positions and the scalar count too
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture(scope="module", params=Variant)
def pair(request, tmp_path_factory) -> Pair:
    """Theirs, saved by transformers; ours, read from what our converter made of it by way of the original layout."""
    folder = tmp_path_factory.mktemp(request.param.value)
    theirs = reference(request.param)
    theirs.save_pretrained(folder / "theirs")
    tiny_tokenizer().save_pretrained(folder / "theirs")
    original = convert(folder / "theirs", folder / "original", CheckpointLayout.ORIGINAL).folder
    ours, processor = load(original, exact="transformers")
    return Pair(request.param, theirs, ours, processor)


@pytest.fixture(scope="module")
def batch(pair):
    """Three samples with one, no and two pictures, padded on the left; for us and for them."""
    noise = np.random.default_rng(0)
    pictures = [
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in ((70, 50), (40, 90), (64, 64))
    ]
    ours = dict(pair.processor(images=[[pictures[0]], [], pictures[1:]], text=TEXTS))
    assert ours["attention_mask"].sum(dim=1).unique().numel() == 3
    assert (ours["attention_mask"][:, -1] == 1).all()
    theirs = dict(ours)
    if pair.family is Variant.HYBRID:
        theirs["high_res_pixel_values"], theirs["pixel_values"] = ours["pixel_values"], theirs.pop("low_pixel_values")
    return ours, theirs


def outputs_of(module: nn.Module, run) -> list:
    """What a module gives while `run` runs."""
    seen = []
    handle = module.register_forward_hook(lambda *call: seen.append(call[2]))
    try:
        run()
    finally:
        handle.remove()
    return seen


@torch.no_grad()
def test_towers_and_connector(pair, batch):
    ours, theirs = batch
    run_ours = lambda: pair.ours(**ours)  # noqa: E731
    run_theirs = lambda: pair.theirs(**theirs)  # noqa: E731
    model, tower = pair.theirs.model, pair.ours.vision_tower
    low = tower.low if pair.family is Variant.HYBRID else tower
    [expected] = outputs_of(model.vision_model, run_theirs)
    [features] = outputs_of(low, run_ours)
    torch.testing.assert_close(features.tokens_NPV, expected.last_hidden_state, **TIGHT)
    if pair.family is Variant.HYBRID:
        features_hi = model.get_high_res_image_features(theirs["high_res_pixel_values"])
        [features] = outputs_of(tower.high, run_ours)
        torch.testing.assert_close(features.tokens_NPV, features_hi.last_hidden_state, **TIGHT)
        assert model.high_res_vision_alpha.abs() > 0.01, "the second branch counts"
    [expected] = outputs_of(model.aligner, run_theirs)
    [connected] = outputs_of(pair.ours.connector, run_ours)
    torch.testing.assert_close(connected.features_FL, expected.flatten(0, 1), **TIGHT)
    assert expected.std() > 0.1


@torch.no_grad()
def test_every_layer_of_the_towers(pair, batch):
    ours, theirs = batch
    tower = pair.ours.vision_tower
    low = tower.low if pair.family is Variant.HYBRID else tower
    pairs = list(zip(pair.theirs.model.vision_model.encoder.layers, low.siglip.encoder.layers, strict=True))
    if pair.family is Variant.HYBRID:
        encoder = pair.theirs.model.high_res_vision_model.vision_encoder
        pairs += [*zip(encoder.layers, tower.high.layers, strict=True), (encoder.neck, tower.high.neck)]
        pairs += [(pair.theirs.model.high_res_vision_neck, tower.high.neck_hd)]
    for their_layer, our_layer in pairs:
        [expected] = outputs_of(their_layer, lambda: pair.theirs(**theirs))
        [actual] = outputs_of(our_layer, lambda: pair.ours(**ours))
        torch.testing.assert_close(actual, expected, **TIGHT)


@torch.no_grad()
def test_hidden_states_and_logits(pair, batch):
    ours, theirs = batch
    real = ours["attention_mask"].bool()
    expected = pair.theirs(**theirs, output_hidden_states=True)
    actual = pair.ours(**ours, output_hidden_states=True)
    assert len(actual.hidden_states) == len(expected.hidden_states) == 4
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one[real], other[real], **TIGHT)
    torch.testing.assert_close(actual.logits[real], expected.logits[real], **TIGHT)


@torch.no_grad()
def test_greedy_tokens_over_many_steps(pair, batch):
    ours, theirs = batch
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}
    placeholder = pair.ours.config.image_token_id
    expected = pair.theirs.generate(**theirs, **options, suppress_tokens=[placeholder])
    actual = pair.ours.generate(**ours, **options)
    length = ours["input_ids"].shape[1]
    assert actual.shape == (3, length + STEPS)
    assert torch.equal(actual, expected)
    assert actual[:, length:].unique().numel() > 5, "it says more than one thing"
    # Each sample alone, without padding, says the same.
    alone = pair.processor(text=[TEXTS[1]])
    assert torch.equal(pair.ours.generate(**alone, **options)[0, -STEPS:], actual[1, -STEPS:])


@torch.no_grad()
def test_pictures_count(pair, batch):
    """A negative control: other pixels, other logits."""
    ours, _ = batch
    expected = pair.ours(**ours).logits
    for name in ("pixel_values", "low_pixel_values"):
        if name in ours:
            others = {**ours, name: ours[name].flip(-1)}
            assert (pair.ours(**others).logits - expected)[0].abs().max() > 1e-3, name
