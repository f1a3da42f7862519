"""Our tower against transformers' own CLIP, weights copied. Tolerance: float32 sums in another order."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from lensmith.models.towers import ClipTowerConfig
from lensmith.models.towers.base import patch_mask_for

TIGHT = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def pair(request):
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=40,
        patch_size=8,
        hidden_act=request.param,
    )
    reference = CLIPVisionModel(config).eval()
    for parameter in reference.parameters():  # so that norms and biases count too
        parameter.data += 0.1 * torch.randn_like(parameter)
    tower = ClipTowerConfig.from_transformers(config).build().eval()
    report = tower.clip.load_state_dict(reference.state_dict(), strict=False)
    assert not report.missing_keys
    assert set(report.unexpected_keys) == {"post_layernorm.weight", "post_layernorm.bias"}
    return tower, reference


@torch.no_grad()
def test_a_square_at_native_size_gives_clips_own_output_without_the_class_token(pair):
    tower, reference = pair
    pixels = torch.randn(2, 3, 40, 40)
    ours = tower(pixels, patch_mask_for(pixels, None, 8))
    torch.testing.assert_close(ours.tokens_NPV, reference(pixels).last_hidden_state[:, 1:], **TIGHT)


@torch.no_grad()
@pytest.mark.parametrize(("height_px", "width_px"), [(80, 80), (24, 64), (8, 16), (40, 48)])
def test_other_sizes_give_what_clip_gives_with_interpolated_positions(pair, height_px, width_px):
    tower, reference = pair
    pixels = torch.randn(2, 3, height_px, width_px)
    ours = tower(pixels, patch_mask_for(pixels, None, 8))
    theirs = reference(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    torch.testing.assert_close(ours.tokens_NPV, theirs, **TIGHT)


@torch.no_grad()
def test_a_smaller_picture_in_a_batch_gives_what_clip_gives_alone(pair):
    tower, reference = pair
    small, large = torch.randn(1, 3, 24, 16), torch.randn(1, 3, 40, 40)
    pixels = torch.zeros(2, 3, 40, 40)
    pixels[0, :, :24, :16], pixels[1] = small[0], large[0]
    mask = torch.ones(2, 5, 5, dtype=torch.bool)
    mask[0, 3:], mask[0, :, 2:] = False, False
    ours = tower(pixels, mask).tokens_NPV
    for index, picture in enumerate((small, large)):
        alone = reference(picture, interpolate_pos_encoding=True).last_hidden_state[0, 1:]
        torch.testing.assert_close(ours[index][mask[index].flatten()], alone, **TIGHT)
