"""What only the CLIP tower does; what every tower promises is asked in `test_towers.py`."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lensmith.core.errors import ConfigError
from lensmith.models.towers import ClipTowerConfig
from lensmith.models.towers.base import patch_mask_for

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
TINY = ClipTowerConfig(width=24, hidden_width=48, layers=2, heads=2, patch_px=8, native_px=32)


def build(config=TINY):
    torch.manual_seed(0)
    return config.build().eval()


def test_the_defaults_are_vit_l_at_336_px():
    with torch.device("meta"):
        tower = ClipTowerConfig().build()
    # CLIPVisionModel of openai/clip-vit-large-patch14-336 has 303,507,456 weights; the class token's norm is left out.
    assert sum(parameter.numel() for parameter in tower.parameters()) == 303_507_456 - 2 * 1024
    assert ClipTowerConfig().grid_side == 24


def test_patches_left_out_have_no_influence_and_move_nobody():
    tower, pixels = build(), torch.randn(1, 3, 32, 32)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 0] = False
    expected = tower(pixels, mask).tokens_NPV[0][mask.flatten()]
    changed = pixels.clone()
    changed[..., 8:16, 16:24] = 7.0
    changed[..., :8, :] = -3.0
    torch.testing.assert_close(tower(changed, mask).tokens_NPV[0][mask.flatten()], expected, **TIGHT)
    assert (tower(pixels, torch.ones_like(mask)).tokens_NPV[0][mask.flatten()] - expected).abs().max() > 1e-3


def test_patches_go_through_the_last_norm_only_where_asked():
    pixels = torch.randn(1, 3, 32, 24)
    mask = patch_mask_for(pixels, None, 8)
    bare, normed = build(), build(replace(TINY, final_norm=True))
    normed.load_state_dict(bare.state_dict(), strict=False)
    expected = nn.functional.layer_norm(bare(pixels, mask).tokens_NPV, (24,), eps=TINY.norm_eps)
    torch.testing.assert_close(normed(pixels, mask).tokens_NPV, expected, **TIGHT)
    added = normed.state_dict().keys() - bare.state_dict().keys()
    assert added == {"clip.post_layernorm.weight", "clip.post_layernorm.bias"}


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="multiple of heads"):
        ClipTowerConfig(width=25, heads=2)
    with pytest.raises(ConfigError, match="less than a patch"):
        ClipTowerConfig(native_px=8)


def test_a_configuration_comes_from_transformers_and_goes_back():
    config = replace(TINY, activation="gelu")
    assert ClipTowerConfig.from_transformers(config.to_transformers()) == config
