"""What every tower promises, asked of each that reads pictures of any shape (the others read one square only)."""

import pytest
import torch

from lensmith.models.towers import TOWERS, ClipTowerConfig, ConvTowerConfig, EfficientNetTowerConfig
from lensmith.models.towers.base import patch_mask_for, picture_extents
from lensmith.models.towers.efficientnet import BlocksConfig
from tests.support.tiny_vlm import tiny_siglip

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
TINY = {
    "siglip": tiny_siglip(),
    "clip": ClipTowerConfig(width=24, hidden_width=48, layers=2, heads=2, patch_px=8, native_px=32),
    "conv": ConvTowerConfig(width=24, stem_width=16, stem_blocks=2, patch_px=8),
    "efficientnet": EfficientNetTowerConfig(
        width=24,
        stem_width=8,
        stages=(
            BlocksConfig(blocks=1, kernel=3, stride=1, expansion=1, width=8),
            BlocksConfig(blocks=2, kernel=5, stride=2, expansion=2, width=12),
            BlocksConfig(blocks=2, kernel=3, stride=2, expansion=2, width=16),
        ),
        native_px=32,
    ),
}
SQUARE = {"hybrid", "sam"}  # test_hybrid_tower.py, test_sam_tower.py


@pytest.fixture(params=sorted(TINY))
def tower(request):
    torch.manual_seed(0)
    tower = TINY[request.param].build().eval()
    for parameter in tower.parameters():  # some start at zero, and would hide what they do
        parameter.data += 0.02 * torch.randn_like(parameter)
    return tower


def test_every_tower_is_asked():
    assert TINY.keys() | SQUARE == TOWERS.keys()


def tokens(tower, pixels, mask=None):
    return tower(pixels, patch_mask_for(pixels, mask, 8))


@pytest.mark.parametrize("grids", [[(4, 4), (2, 6)], [(1, 1), (5, 3), (3, 5)]])
def test_a_picture_gives_the_same_tokens_alone_and_in_a_batch(tower, grids):
    torch.manual_seed(1)
    pictures = [torch.randn(3, rows * 8, columns * 8) for rows, columns in grids]
    rows, columns = (max(sides) for sides in zip(*grids, strict=True))
    pixels = torch.zeros(len(grids), 3, rows * 8, columns * 8)
    mask = torch.zeros(len(grids), rows, columns, dtype=torch.bool)
    for index, picture in enumerate(pictures):
        pixels[index, :, : picture.shape[1], : picture.shape[2]] = picture
        mask[index, : grids[index][0], : grids[index][1]] = True

    together = tokens(tower, pixels, mask)

    assert together.tokens_NPV.shape == (len(grids), rows * columns, 24)
    assert torch.equal(together.mask_NP, mask.flatten(1))
    assert together.columns == columns
    for index, picture in enumerate(pictures):
        alone = tokens(tower, picture.unsqueeze(0)).tokens_NPV[0]
        torch.testing.assert_close(together.tokens_NPV[index][mask[index].flatten()], alone, **TIGHT)


def test_where_a_patch_lies_matters(tower):
    pixels = torch.randn(1, 3, 8, 8).repeat(1, 1, 2, 3)
    assert torch.pdist(tokens(tower, pixels).tokens_NPV[0]).min() > 1e-3


def test_gradients_reach_every_weight_and_the_pixels(tower):
    pixels = torch.randn(2, 3, 16, 40, requires_grad=True)
    tokens(tower, pixels).tokens_NPV.square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    # The bias of keys moves all attention logits of a query alike, which softmax does not see.
    silent = [name for name, p in tower.named_parameters() if "k_proj.bias" not in name and not p.grad.abs().sum() > 0]
    assert not silent


def test_extents_reach_to_the_last_real_patch():
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    mask[0, 2, 3] = mask[1, 0, 0] = mask[1, 3, 1] = mask[2, 0, 4] = True
    extents = picture_extents(mask)
    assert extents.rows_N.tolist() == [3, 4, 1]
    assert extents.columns_N.tolist() == [4, 2, 5]
