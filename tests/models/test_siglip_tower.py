import pytest
import torch
from tiny_vlm import tiny_siglip

from lensmith.core.errors import ConfigError
from lensmith.models.towers import SiglipTowerConfig
from lensmith.models.towers.base import patch_mask_for, picture_extents

TIGHT = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return tiny_siglip().build().eval()


def tokens(tower, pixels, mask=None):
    return tower(pixels, patch_mask_for(pixels, mask, 8))


@pytest.mark.parametrize("grids", [[(4, 4), (2, 6)], [(1, 1), (5, 3), (3, 5)]])
def test_a_picture_gives_the_same_tokens_alone_and_in_a_batch(tower, grids):
    torch.manual_seed(1)
    pictures = [torch.randn(3, rows * 8, columns * 8) for rows, columns in grids]
    rows, columns = (max(sides) for sides in zip(*grids, strict=True))
    pixels = torch.randn(len(grids), 3, rows * 8, columns * 8)  # noise where padding is
    mask = torch.zeros(len(grids), rows, columns, dtype=torch.bool)
    for index, picture in enumerate(pictures):
        pixels[index, :, : picture.shape[1], : picture.shape[2]] = picture
        mask[index, : grids[index][0], : grids[index][1]] = True

    together = tokens(tower, pixels, mask)

    assert together.tokens_NPV.shape == (len(grids), rows * columns, 24)
    assert torch.equal(together.mask_NP, mask.flatten(1))
    for index, picture in enumerate(pictures):
        alone = tokens(tower, picture.unsqueeze(0)).tokens_NPV[0]
        torch.testing.assert_close(together.tokens_NPV[index][mask[index].flatten()], alone, **TIGHT)


def test_patches_left_out_have_no_influence_and_move_nobody(tower):
    torch.manual_seed(2)
    pixels = torch.randn(1, 3, 32, 32)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 0] = False
    expected = tokens(tower, pixels, mask).tokens_NPV[0][mask.flatten()]
    changed = pixels.clone()
    changed[..., 8:16, 16:24] = 7.0
    changed[..., :8, :] = -3.0
    torch.testing.assert_close(tokens(tower, changed, mask).tokens_NPV[0][mask.flatten()], expected, **TIGHT)
    assert (tokens(tower, pixels).tokens_NPV[0][mask.flatten()] - expected).abs().max() > 1e-3


def test_where_a_patch_lies_matters(tower):
    pixels = torch.randn(1, 3, 8, 8).repeat(1, 1, 2, 3)
    found = tokens(tower, pixels).tokens_NPV[0]
    assert torch.pdist(found).min() > 1e-3


def test_extents_reach_to_the_last_real_patch():
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    mask[0, 2, 3] = mask[1, 0, 0] = mask[1, 3, 1] = mask[2, 0, 4] = True
    extents = picture_extents(mask)
    assert extents.rows_N.tolist() == [3, 4, 1]
    assert extents.columns_N.tolist() == [4, 2, 5]


def test_gradients_reach_positions_and_pixels(tower):
    pixels = torch.randn(2, 3, 16, 40, requires_grad=True)
    tokens(tower, pixels).tokens_NPV.sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert tower.siglip.embeddings.position_embedding.weight.grad.abs().sum() > 0


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="multiple of heads"):
        SiglipTowerConfig(width=25, heads=2)
    with pytest.raises(ConfigError, match="less than a patch"):
        SiglipTowerConfig(native_px=8)


def test_a_configuration_comes_from_transformers_and_goes_back():
    config = tiny_siglip()
    assert SiglipTowerConfig.from_transformers(config.to_transformers()) == config
