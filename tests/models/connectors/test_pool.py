"""The pooling connector against a loop over its cells, and what all connectors that need a grid promise."""

import math

import pytest
import torch

from lensmith.core.errors import ConfigError, ShapeError
from lensmith.models.connectors import CAbstractorConfig, PoolConnectorConfig
from lensmith.models.towers import VisionFeatures

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
WIDTH = 6
ON_GRIDS = {
    "pool": PoolConnectorConfig(side=2),
    "c_abstractor": CAbstractorConfig(side=2, depth=1, hidden_width=8, grid_side=3),
}


@pytest.fixture(params=ON_GRIDS)
def connector(request):
    return build(ON_GRIDS[request.param])


def build(config):
    torch.manual_seed(0)
    return config.build(tower_width=WIDTH, language_width=5)


def batch(*grids, seed=1):
    """Pictures of these rows and columns as features of a padded batch; what is in the padding is not zero."""
    rows, columns = (max(sides) for sides in zip(*grids, strict=True))
    tokens = torch.randn(len(grids), rows * columns, WIDTH, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(len(grids), rows, columns, dtype=torch.bool)
    for index, (own_rows, own_columns) in enumerate(grids):
        mask[index, :own_rows, :own_columns] = True
    return VisionFeatures(tokens, mask.flatten(1), columns)


def pooled(map_hwV, side):
    """Each cell is the mean of the patches from the floor of its beginning to the ceiling of its end."""
    rows, columns, _ = map_hwV.shape
    cells = []
    for row in range(side):
        for column in range(side):
            down = slice(row * rows // side, math.ceil((row + 1) * rows / side))
            right = slice(column * columns // side, math.ceil((column + 1) * columns / side))
            cells.append(map_hwV[down, right].flatten(0, 1).mean(dim=0))
    return torch.stack(cells)


@pytest.mark.parametrize(("rows", "columns", "side"), [(27, 27, 12), (24, 24, 12), (5, 3, 2), (1, 2, 3)])
def test_each_token_is_the_mean_of_its_cell_projected(rows, columns, side):
    connector = build(PoolConnectorConfig(side=side))
    seen = batch((rows, columns))
    result = connector(seen)
    means = pooled(seen.tokens_NPV[0].unflatten(0, (rows, columns)), side)
    torch.testing.assert_close(result.features_FL, means @ connector.proj.weight.T + connector.proj.bias, **TIGHT)
    assert result.counts_N.tolist() == [side**2]


@pytest.mark.parametrize("grids", [[(4, 4), (4, 4)], [(4, 2), (2, 5), (4, 2), (1, 1)]])
def test_a_picture_gives_the_same_tokens_alone_and_in_a_batch(connector, grids):
    seen = batch(*grids)
    together = connector(seen)
    assert together.counts_N.tolist() == [4] * len(grids)
    for index, (rows, columns) in enumerate(grids):
        own = seen.tokens_NPV[index].unflatten(0, (-1, seen.columns))[:rows, :columns].reshape(1, -1, WIDTH)
        alone = connector(VisionFeatures(own, torch.ones(1, rows * columns, dtype=torch.bool), columns))
        torch.testing.assert_close(together.features_FL[4 * index : 4 * index + 4], alone.features_FL, **TIGHT)


@pytest.mark.parametrize("pictures", [1, 2])
def test_what_lies_beside_a_picture_has_no_influence(connector, pictures):
    tokens, mask, columns = batch((2, 3), (3, 2))
    seen = VisionFeatures(tokens[:pictures], mask[:pictures], columns)
    expected = connector(seen).features_FL
    changed = torch.where(seen.mask_NP.unsqueeze(2), seen.tokens_NPV, torch.nan)
    again = connector(VisionFeatures(changed, seen.mask_NP, seen.columns)).features_FL
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


def test_gradients_reach_every_weight_and_each_real_patch(connector):
    seen = batch((3, 3), (2, 4))
    tokens = seen.tokens_NPV.requires_grad_()
    connector(VisionFeatures(tokens, seen.mask_NP, seen.columns)).features_FL.square().sum().backward()
    assert torch.equal(tokens.grad.abs().sum(dim=2) > 0, seen.mask_NP)
    assert not [name for name, parameter in connector.named_parameters() if not parameter.grad.abs().sum() > 0]


def test_half_precision_is_kept(connector):
    seen = batch((3, 3), (2, 4))
    half = connector.to(torch.bfloat16)(VisionFeatures(seen.tokens_NPV.bfloat16(), seen.mask_NP, seen.columns))
    assert half.features_FL.dtype == torch.bfloat16
    assert half.features_FL.isfinite().all()


def test_pictures_with_holes_are_refused(connector):
    seen = batch((3, 3), (3, 4))
    for hole in (0, 5):
        mask = seen.mask_NP.clone()
        mask[1, hole] = False
        with pytest.raises(ShapeError, match=r"(?s)picture 1: .*drop_repeated_patches") as caught:
            connector(VisionFeatures(seen.tokens_NPV, mask, seen.columns))
        assert caught.value.expected == "3 x 4 patches, at least one"
    mask[1] = False
    with pytest.raises(ShapeError, match="at least one"):
        connector(VisionFeatures(seen.tokens_NPV, mask, seen.columns))


@pytest.mark.parametrize("columns", [None, 5])
def test_tokens_without_a_grid_are_refused(connector, columns):
    seen = batch((3, 4))
    with pytest.raises(ShapeError, match=f"12 tokens, columns {columns}"):
        connector(VisionFeatures(seen.tokens_NPV, seen.mask_NP, columns))


def test_the_number_of_tokens_is_known_beforehand(connector):
    assert connector.config.tokens_per_picture == 4
    assert PoolConnectorConfig().tokens_per_picture == 144
    with pytest.raises(ConfigError, match="side"):
        PoolConnectorConfig(side=0)
