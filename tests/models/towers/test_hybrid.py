from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lensmith.core.config import from_json, to_dict, to_json
from lensmith.core.errors import ConfigError, InputError, ShapeError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.connectors import HybridMlpConnectorConfig
from lensmith.models.towers import HybridTowerConfig, SamTowerConfig
from lensmith.models.towers.base import patch_mask_for
from lensmith.models.towers.hybrid import HybridTower, normalised
from lensmith.models.vlm import VisionLanguageModel
from tests.support.tiny_vlm import IMAGE_TOKEN_ID, tiny_llama, tiny_siglip

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
SAM = SamTowerConfig(
    image_px=64,
    patch_px=8,
    trunk_width=24,
    hidden_width=40,
    layers=2,
    heads=3,
    window=3,
    global_layers=(1,),
    neck_width=4,
    tokens_side=4,
)
ORIGINAL = HybridTowerConfig(high=SAM, low=tiny_siglip(activation="gelu"))
TRANSFORMERS = HybridTowerConfig(
    high=replace(SAM, resizes_in_float32=False), low=tiny_siglip(activation="gelu"), makes_low=False
)


def build(config):
    torch.manual_seed(0)
    tower = config.build().eval()
    for parameter in tower.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return tower


def look(tower, pixels, *low):
    return tower(pixels, patch_mask_for(pixels, None, 8), *low)


def model_of(config):
    torch.manual_seed(0)
    configuration = VisionLanguageConfig(
        vision=config,
        connector=HybridMlpConnectorConfig(high_width=16),
        language=tiny_llama(),
        image_token_id=IMAGE_TOKEN_ID,
    )
    return VisionLanguageModel(configuration).eval()


@torch.no_grad()
def test_the_original_makes_and_normalises_both_pictures_itself():
    """What it does is what both towers give for pictures that were prepared outside."""
    pixels = torch.rand(2, 3, 64, 64)
    features = look(build(ORIGINAL), pixels)
    small = F.interpolate(pixels, size=(32, 32), mode="bilinear", antialias=True)
    clip_mean, clip_std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    large = torch.stack([(pixels[:, i] - clip_mean[i]) / clip_std[i] for i in range(3)], dim=1)
    wanted = look(build(TRANSFORMERS), large, 2 * small - 1)
    assert features.tokens_NPV.shape == (2, 16, 16 + 24)
    assert features.mask_NP.shape == (2, 16)
    assert features.mask_NP.all()
    torch.testing.assert_close(features.tokens_NPV, wanted.tokens_NPV, **TIGHT)


@torch.no_grad()
def test_the_small_picture_is_antialiased():
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1.0
    small = build(ORIGINAL).small(stripes)
    assert small.shape == (1, 3, 32, 32)
    torch.testing.assert_close(small[..., 2:-2], torch.full((1, 3, 32, 28), 0.5), atol=0.01, rtol=0)


@torch.no_grad()
def test_in_bfloat16_the_small_picture_is_made_in_float32_of_rounded_values():
    pixels = torch.rand(1, 3, 64, 64).bfloat16()
    small = build(ORIGINAL).bfloat16().small(pixels)
    wanted = F.interpolate(pixels.float(), size=(32, 32), mode="bilinear", antialias=True).bfloat16()
    assert torch.equal(small, wanted)
    low = normalised(small, (0.5,) * 3, (0.5,) * 3)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, (small - 0.5) / 0.5)


@torch.no_grad()
def test_the_high_resolution_comes_first():
    tower, pixels, low = build(TRANSFORMERS), torch.randn(1, 3, 64, 64), torch.randn(1, 3, 32, 32)
    before = look(tower, pixels, low).tokens_NPV
    after = look(tower, pixels + 1, low).tokens_NPV
    assert (after != before)[..., :16].any()
    assert torch.equal(after[..., 16:], before[..., 16:])
    assert torch.equal(look(tower, pixels, low + 1).tokens_NPV[..., :16], before[..., :16])


@torch.no_grad()
def test_tokens_of_both_streams_stand_for_the_same_place():
    """A change in one corner of the picture changes most what both streams say of this corner."""
    tower = build(ORIGINAL)
    pixels = torch.full((1, 3, 64, 64), 0.5)
    changed = pixels.clone()
    changed[..., 48:, :16] = torch.rand(3, 16, 16)
    moved = (look(tower, changed).tokens_NPV - look(tower, pixels).tokens_NPV)[0]
    for stream in (moved[:, :16], moved[:, 16:]):
        assert stream.norm(dim=1).argmax() == 12  # the first token of the last row


def test_gradients_reach_every_weight_and_the_pixels():
    tower = build(ORIGINAL)
    pixels = torch.rand(2, 3, 64, 64, requires_grad=True)
    look(tower, pixels).tokens_NPV.square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    # The bias of keys moves all attention logits of a query alike, which softmax does not see.
    silent = [name for name, p in tower.named_parameters() if "k_proj.bias" not in name and not p.grad.abs().sum() > 0]
    assert not silent


def test_small_pictures_too_many_or_too_few_are_refused():
    pixels = torch.rand(2, 3, 64, 64)
    with pytest.raises(InputError, match="low_pixel_values are given"):
        look(build(ORIGINAL), pixels, torch.rand(2, 3, 32, 32))
    tower = build(TRANSFORMERS)
    with pytest.raises(InputError, match="small pictures are missing"):
        look(tower, pixels)
    for shape in [(1, 3, 32, 32), (2, 3, 32, 40), (2, 3, 64, 64)]:
        with pytest.raises(ShapeError, match="low_pixel_values"):
            look(tower, pixels, torch.rand(shape))


def test_towers_with_other_grids_of_tokens_are_refused():
    with pytest.raises(ConfigError, match="another number of tokens"):
        HybridTowerConfig(high=SAM, low=tiny_siglip(native_px=40))


def test_the_default_is_the_published_tower():
    config = HybridTowerConfig()
    assert (config.width, config.tokens_per_picture, config.patch_px) == (2048, 576, 16)
    assert config.low.activation == "gelu"
    with torch.device("meta"):
        tower = HybridTower(config)
    counts = [sum(value.numel() for value in part.parameters()) for part in (tower.high, tower.low)]
    # SigLIP-L/16 at 384 as timm counts it (316,283,904) without its pooling head (12,595,200).
    assert counts == [96_356_609, 316_283_904 - 12_595_200]


def test_a_configuration_is_saved_whole():
    assert from_json(HybridTowerConfig, to_json(TRANSFORMERS)) == TRANSFORMERS
    model = model_of(TRANSFORMERS)
    again = VisionLanguageConfig(**model.config.to_dict())
    assert again.vision == TRANSFORMERS
    assert again == model.config


def prompt(*pictures):
    """A sample a number: that many pictures, padded on the left."""
    rows = [[5, *[IMAGE_TOKEN_ID] * 16 * count, 7, 8 + count] for count in pictures]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def test_a_model_hands_small_pictures_to_the_tower():
    model = model_of(TRANSFORMERS)
    large, small = torch.randn(3, 3, 64, 64), torch.randn(3, 3, 32, 32)
    features, counts = model.get_image_features(large, low_pixel_values=small)
    assert features.shape == (48, 32)
    assert counts.tolist() == [16] * 3
    inputs = prompt(1, 2)
    logits = model(**inputs, pixel_values=large, low_pixel_values=small).logits
    torch.testing.assert_close(logits, model(**inputs, image_features=features).logits, **TIGHT)
    assert (logits - model(**inputs, pixel_values=large, low_pixel_values=-small).logits).abs().max() > 1e-3
    with pytest.raises(InputError, match="small pictures are missing"):
        model(**inputs, pixel_values=large)
    with pytest.raises(InputError, match="low_pixel_values without pixel_values"):
        model(**inputs, low_pixel_values=small)


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [{}, {"use_cache": False}, {"num_beams": 3}, {"do_sample": True, "top_k": 1, "num_return_sequences": 2}],
)
def test_generation_hands_small_pictures_over_with_the_large(settings):
    model = model_of(TRANSFORMERS)
    large, small = torch.randn(3, 3, 64, 64), torch.randn(3, 3, 32, 32)
    features, _ = model.get_image_features(large, low_pixel_values=small)
    inputs, settings = prompt(1, 2), {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5} | settings
    wanted = model.generate(**inputs, image_features=features, **settings)
    calls = []
    model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(model.generate(**inputs, pixel_values=large, low_pixel_values=small, **settings), wanted)
    assert len(calls) == (5 if settings.get("use_cache") is False else 1)


def test_a_tower_of_one_size_refuses_small_pictures():
    torch.manual_seed(0)
    config = VisionLanguageConfig(
        vision=tiny_siglip(),
        connector={"kind": "mlp"},
        language=tiny_llama(),
        image_token_id=IMAGE_TOKEN_ID,
    )
    with pytest.raises(InputError, match="low_pixel_values are given, but the tower 'siglip'"):
        VisionLanguageModel(config).get_image_features(
            torch.randn(1, 3, 32, 32), low_pixel_values=torch.randn(1, 3, 32, 32)
        )


@pytest.mark.parametrize("saved", ["original", "transformers"])
def test_a_configuration_of_an_older_version_is_read(saved):
    values = {"kind": "hybrid", "exact": saved, "high": to_dict(SAM), "low": to_dict(tiny_siglip(activation="gelu"))}
    del values["high"]["resizes_in_float32"]  # a key that it did not have
    config = VisionLanguageConfig(
        vision=values,
        connector={"kind": "hybrid_mlp", "high_width": SAM.width},
        language=tiny_llama(),
        image_token_id=IMAGE_TOKEN_ID,
    )
    expected = replace(
        TRANSFORMERS, makes_low=saved == "original", high=replace(SAM, resizes_in_float32=saved == "original")
    )
    assert config.vision == expected
    assert VisionLanguageConfig.from_dict(config.to_dict()).vision == expected
