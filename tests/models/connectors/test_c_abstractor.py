"""The C-Abstractor against plain loops; `test_pool.py` asks what it promises together with pooling."""

import pytest
import torch
from torch.nn import functional as F

from lensmith.core.errors import ConfigError
from lensmith.models.connectors import CAbstractorConfig
from lensmith.models.towers import VisionFeatures

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
WIDTH = 6


def build(**changes):
    torch.manual_seed(0)
    settings = {"side": 2, "depth": 2, "hidden_width": 8, "grid_side": 4}
    connector = CAbstractorConfig(**(settings | changes)).build(tower_width=WIDTH, language_width=5)
    for parameter in connector.parameters():  # so that norms count too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return connector


def features(rows, columns, pictures=1):
    tokens = torch.randn(pictures, rows * columns, WIDTH, generator=torch.Generator().manual_seed(2))
    return VisionFeatures(tokens, torch.ones(pictures, rows * columns, dtype=torch.bool), columns)


def normed(cells_hwC, norm):
    return F.layer_norm(cells_hwC, cells_hwC.shape[-1:], norm.weight, norm.bias, eps=1e-6)


def by_cell(cells_hwC, layers):
    convolution, norm = layers
    return normed(cells_hwC @ convolution.weight[:, :, 0, 0].T, norm)


def by_neighbours(cells_hwC, layers):
    convolution, norm = layers
    rows, columns, _ = cells_hwC.shape
    summed = torch.zeros_like(cells_hwC)
    for row in range(rows):
        for column in range(columns):
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if 0 <= row + down < rows and 0 <= column + right < columns:
                        weights = convolution.weight[:, 0, down + 1, right + 1]
                        summed[row, column] += weights * cells_hwC[row + down, column + right]
    return normed(summed, norm)


def silu(values):
    return values * torch.sigmoid(values)


def block_by_hand(cells_hwC, block):
    hidden = silu(by_neighbours(silu(by_cell(cells_hwC, block.conv_in)), block.conv_near))
    squeezed = silu(block.excitation.squeeze(hidden.flatten(0, 1).mean(dim=0)))
    hidden = by_cell(hidden * torch.sigmoid(block.excitation.excite(squeezed)), block.conv_out)
    is_wider = isinstance(block.shortcut, torch.nn.Sequential)
    return silu(hidden + (by_cell(cells_hwC, block.shortcut) if is_wider else cells_hwC))


def connector_by_hand(connector, map_hwV):
    """A map of 4 x 4 patches to 2 x 2 tokens."""
    cells = map_hwV + connector.positions.reshape(4, 4, WIDTH)
    for block in connector.stage_in:
        cells = block_by_hand(cells, block)
    cells = torch.stack([cells[row : row + 2, column : column + 2].mean(dim=(0, 1)) for row, column in CORNERS])
    cells = cells.reshape(2, 2, -1)
    for block in connector.stage_out:
        cells = block_by_hand(cells, block)
    tokens = cells.flatten(0, 1)
    for index, linear in enumerate(connector.mlp[::2]):
        tokens = (silu(tokens) if index else tokens) @ linear.weight.T + linear.bias
    return tokens


CORNERS = [(0, 0), (0, 2), (2, 0), (2, 2)]


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"depth": 3, "hidden_width": WIDTH}, {"depth": 0}, {"mlp_depth": 3}])
def test_it_is_what_loops_compute(changes):
    connector, seen = build(**changes), features(4, 4, pictures=2)
    result = connector(seen)
    expected = [connector_by_hand(connector, tokens.unflatten(0, (4, 4))) for tokens in seen.tokens_NPV]
    torch.testing.assert_close(result.features_FL, torch.cat(expected), **TIGHT)
    assert result.counts_N.tolist() == [4, 4]


@torch.no_grad()
def test_positions_are_interpolated_to_another_grid():
    connector = build(depth=0, mlp_depth=1)
    connector.positions.data = torch.arange(4.0).repeat_interleave(4).unsqueeze(1).repeat(1, WIDTH)  # the row
    nothing = features(8, 2)._replace(tokens_NPV=torch.zeros(1, 16, WIDTH))
    weights = connector.mlp[0].weight.sum(dim=1)
    lower_minus_upper = connector(nothing).features_FL[2] - connector(nothing).features_FL[0]
    # Rows 4 to 7 of 8 are, at half the distance, rows 2 and 3 of 4: two rows below the upper half.
    torch.testing.assert_close(lower_minus_upper, 2 * weights, atol=0.1, rtol=0.1)


def test_the_shortcut_is_a_convolution_only_where_the_width_changes():
    connector = build()
    kinds = [type(block.shortcut).__name__ for stage in (connector.stage_in, connector.stage_out) for block in stage]
    assert kinds == ["Sequential", "Identity", "Identity", "Identity"]


def test_it_has_the_size_of_honeybees():
    """9.6 million weights before the pooling, 7.9 behind it, an MLP of 21 million, 0.9 million of positions."""
    with torch.device("meta"):
        connector = CAbstractorConfig(grid_side=27).build(tower_width=1280, language_width=4096)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in connector.named_children()}
    millions = {name: round(count / 1e6, 1) for name, count in parts.items()}
    assert millions == {"stage_in": 9.6, "stage_out": 7.9, "mlp": 21.0}
    assert connector.positions.numel() == 27 * 27 * 1280
    assert connector.config.tokens_per_picture == 144


def test_positions_start_small_and_not_alike():
    positions = CAbstractorConfig().build(tower_width=64, language_width=8).positions
    assert 0.018 < positions.std() < 0.022
    assert positions.abs().max() < 2


@pytest.mark.parametrize(
    ("name", "value"), [("side", 0), ("depth", -1), ("hidden_width", 0), ("mlp_depth", 0), ("grid_side", 0)]
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        CAbstractorConfig(**{name: value})
