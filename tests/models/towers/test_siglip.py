import pytest
import torch

from lensmith.core.errors import ConfigError
from lensmith.models.towers import SiglipTowerConfig
from tests.support.tiny_vlm import tiny_siglip

TIGHT = {"atol": 1e-5, "rtol": 1e-5}


def test_patches_left_out_have_no_influence_and_move_nobody():
    torch.manual_seed(2)
    tower = tiny_siglip().build().eval()
    pixels = torch.randn(1, 3, 32, 32)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 0] = False
    expected = tower(pixels, mask).tokens_NPV[0][mask.flatten()]
    changed = pixels.clone()
    changed[..., 8:16, 16:24] = 7.0
    changed[..., :8, :] = -3.0
    torch.testing.assert_close(tower(changed, mask).tokens_NPV[0][mask.flatten()], expected, **TIGHT)
    assert (tower(pixels, torch.ones_like(mask)).tokens_NPV[0][mask.flatten()] - expected).abs().max() > 1e-3


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="multiple of heads"):
        SiglipTowerConfig(width=25, heads=2)
    with pytest.raises(ConfigError, match="less than a patch"):
        SiglipTowerConfig(native_px=8)


def test_a_configuration_comes_from_transformers_and_goes_back():
    config = tiny_siglip()
    assert SiglipTowerConfig.from_transformers(config.to_transformers()) == config
