import functools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lensmith.core.errors import ConfigError, ShapeError
from lensmith.models.towers import SamTowerConfig
from lensmith.models.towers import sam as sam_parts
from lensmith.models.towers.base import patch_mask_for
from lensmith.models.towers.sam import SamTower, attend_folded, attend_in_chunks, position_terms
from tests.support.tiny_vlm import attend_by

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
TINY = SamTowerConfig(
    image_px=36,
    patch_px=4,
    trunk_width=24,
    hidden_width=40,
    layers=4,
    heads=3,
    window=4,
    global_layers=(1, 3),
    neck_width=6,
    tokens_side=3,
)


@pytest.fixture
def tower():
    return perturbed(SamTower(TINY))


def perturbed(tower):
    torch.manual_seed(0)
    for parameter in tower.parameters():  # position tables and alpha start at zero, and would hide what they do
        parameter.data += 0.1 * torch.randn_like(parameter)
    return tower.eval()


def tokens(tower, pixels):
    return tower(pixels, patch_mask_for(pixels, None, TINY.patch_px)).tokens_NPV


def attention_inputs(*, grids, heads, side, width):
    torch.manual_seed(0)
    query, key, value = (torch.randn(grids, heads, side * side, width) for _ in range(3))
    tables = (0.3 * torch.randn(2 * side - 1, width) for _ in range(2))
    return query, key, value, position_terms(query, *tables)


def dense(query, key, value, terms):
    """The bias of every query and key, written out by its definition."""
    side = terms.rows_GhSs.shape[-1]
    cells = [(row, column) for row in range(side) for column in range(side)]
    bias = torch.stack([terms.rows_GhSs[..., row] + terms.columns_GhSs[..., column] for row, column in cells], dim=-1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)


def test_the_published_tower_has_the_published_size():
    with torch.device("meta"):
        weights = SamTowerConfig().build().state_dict()
    assert len(weights) == 186
    # SAM-B's encoder as segment-anything counts it, then the second neck, the two convolutions and alpha.
    neck = 768 * 256 + 9 * 256 * 256 + 4 * 256
    assert sum(value.numel() for value in weights.values()) == 89_670_912 + neck + 9 * (256 * 512 + 512 * 1024) + 1
    assert (SamTowerConfig().width, SamTowerConfig().tokens_per_picture) == (1024, 576)


def test_a_position_term_is_the_query_times_the_row_of_its_distance():
    query = torch.randn(2, 3, 16, 5)
    rows, columns = torch.randn(7, 5), torch.randn(7, 5)
    terms = position_terms(query, rows, columns)
    for grid, head, cell, key in [(0, 0, 0, 0), (1, 2, 15, 0), (0, 1, 6, 3), (1, 0, 9, 1)]:
        row, column = divmod(cell, 4)
        wanted = query[grid, head, cell] @ rows[row - key + 3]
        torch.testing.assert_close(terms.rows_GhSs[grid, head, cell, key], wanted, **TIGHT)
        wanted = query[grid, head, cell] @ columns[column - key + 3]
        torch.testing.assert_close(terms.columns_GhSs[grid, head, cell, key], wanted, **TIGHT)


@pytest.mark.parametrize(("grids", "side", "width"), [(1, 48, 64), (1, 32, 64), (3, 16, 64), (2, 8, 8), (5, 14, 64)])
@pytest.mark.parametrize("at_once", [1, 3 * 14**4, 2**20, 2**22])
def test_chunks_give_the_bits_of_the_dense_bias(grids, side, width, at_once):
    inputs = attention_inputs(grids=grids, heads=2, side=side, width=width)
    assert torch.equal(attend_in_chunks(*inputs, bias_values=at_once), dense(*inputs))


@pytest.mark.parametrize(
    ("grids", "heads", "side", "at_once", "threads", "chunks", "values"),
    [
        (2, 3, 16, 2**22, 1, 1, 2 * 3 * 256 * 256),  # all at once
        (2, 3, 16, 3 * 2**16, 4, 2, 3 * 256 * 256),  # grid by grid
        (2, 3, 16, 2**16, 2, 6, 256 * 256),  # head by head
        (2, 3, 16, 2**16, 8, 4, 2 * 256 * 256),  # more for more threads
        (2, 3, 16, 2**14, 2, 24, 64 * 256),  # block by block
        (1, 1, 48, 2**30, 2, 3, 1024 * 2304),  # no more than 1024 queries
    ],
)
def test_no_more_of_the_bias_exists_than_said(monkeypatch, grids, heads, side, at_once, threads, chunks, values):
    inputs = attention_inputs(grids=grids, heads=heads, side=side, width=8)
    sizes = []
    attention = F.scaled_dot_product_attention

    def counted(query, key, value, attn_mask):
        sizes.append(attn_mask.numel())
        return attention(query, key, value, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    attend_in_chunks(*inputs, bias_values=at_once)
    assert (len(sizes), max(sizes)) == (chunks, values)


@pytest.mark.parametrize(("side", "width"), [(32, 64), (14, 64), (9, 8), (1, 8), (7, 20)])
def test_the_bias_folded_into_queries_and_keys_gives_the_same(side, width):
    inputs = attention_inputs(grids=2, heads=2, side=side, width=width)
    torch.testing.assert_close(attend_folded(*inputs), dense(*inputs), atol=3e-6, rtol=3e-6)


def test_flash_kernels_can_take_what_is_folded(monkeypatch):
    """No mask, one width for all three, a multiple of 8 up to 256: what torch asks before it runs them."""
    seen = {}
    original = F.scaled_dot_product_attention

    def spy(query, key, value, **settings):
        seen.update(widths={query.shape[-1], key.shape[-1], value.shape[-1]}, settings=settings)
        return original(query, key, value, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    for side, wanted in [(64, 192), (14, 96)]:
        query, key, value = (torch.zeros(1, 1, side * side, 64) for _ in range(3))
        attend_folded(query, key, value, position_terms(query, *torch.zeros(2, 2 * side - 1, 64)))
        assert seen == {"widths": {wanted}, "settings": {"scale": 1.0}}


def test_the_device_decides():
    assert sam_parts.attention_for(torch.device("cuda")) is attend_folded
    assert sam_parts.attention_for(torch.device("cpu")) is attend_in_chunks


@torch.no_grad()
def test_the_whole_tower_gives_the_same_with_the_bias_folded(tower):
    pixels = torch.randn(2, 3, 36, 36)
    wanted = tokens(tower, pixels)
    attend_by(tower, attend_folded)
    torch.testing.assert_close(tokens(tower, pixels), wanted, **TIGHT)


@torch.no_grad()
def test_padded_cells_of_a_window_are_keys(tower):
    """The original does not mask them: their queries, keys and values are the projection of zeros."""
    attention = tower.layers[0].attn
    hidden = torch.randn(1, 9, 9, 24)
    corner = F.pad(hidden[:, 8:, 8:], (0, 0, 0, 3, 0, 3))  # the last window: one real cell, 15 of padding
    query, key, value = attention.qkv(corner).view(16, 3, 3, 8).permute(1, 2, 0, 3)
    bias = [
        query[:, 0] @ attention.rel_pos_h[3 - row] + query[:, 0] @ attention.rel_pos_w[3 - column]
        for row in range(4)
        for column in range(4)
    ]
    weights = (query[:, :1] @ key.transpose(1, 2) / 8**0.5 + torch.stack(bias, dim=-1).unsqueeze(1)).softmax(dim=-1)
    wanted = attention.proj((weights @ value).flatten())
    torch.testing.assert_close(attention(hidden)[0, 8, 8], wanted, **TIGHT)


@torch.no_grad()
def test_one_downsampling_of_the_sum_is_the_sum_of_two(tower):
    """5e-7 of the largest value: rounding of another order. The original takes both ways apart."""
    late, early = torch.randn(2, 2, 6, 9, 9)

    def down(values):
        return tower.proj(F.interpolate(values, size=(12, 12), mode="bilinear", align_corners=False))

    tower.alpha.fill_(0.7)
    wanted = down(late) + down(early) * tower.alpha
    merged = tower.proj(tower.merged(late, early))
    assert (merged - wanted).abs().max() <= 5e-7 * wanted.abs().max()


@torch.no_grad()
def test_the_second_branch_reads_the_first_global_layer(tower):
    pixels = torch.randn(1, 3, 36, 36)
    seen = []
    tower.layers[1].register_forward_hook(lambda _module, _arguments, output: seen.append(output))
    tower.neck_hd.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    wanted = tokens(tower, pixels)
    assert torch.equal(*seen)
    tower.alpha.zero_()
    assert (tokens(tower, pixels) - wanted).abs().max() > 1e-3


@torch.no_grad()
def test_the_configuration_says_in_which_precision_the_map_is_resized():
    late, early = torch.randn(2, 1, 6, 64, 64).bfloat16()
    configs = {exact: replace(TINY, tokens_side=24, resizes_in_float32=exact) for exact in (True, False)}
    towers = {exact: perturbed(SamTower(config)).bfloat16() for exact, config in configs.items()}
    for tower in towers.values():
        tower.alpha.zero_()
    size = {"size": (96, 96), "mode": "bilinear", "align_corners": False}
    original = towers[True].merged(late, early)
    theirs = towers[False].merged(late, early)
    assert original.dtype == theirs.dtype == torch.bfloat16
    assert torch.equal(original, F.interpolate(late.float(), **size).bfloat16())
    assert torch.equal(theirs, F.interpolate(late, **size))
    # This large for maps in rows; channels last, as a neck leaves them, torch's own kernel rounds almost alike.
    assert (original != theirs).float().mean() > 0.3


@torch.no_grad()
def test_a_picture_gives_the_same_tokens_alone_and_in_a_batch(tower):
    pixels = torch.randn(5, 3, 36, 36)
    together = tower(pixels, patch_mask_for(pixels, None, 4))
    assert together.tokens_NPV.shape == (5, 9, 24)
    assert together.mask_NP.shape == (5, 9)
    assert together.mask_NP.all()
    for index in range(5):
        torch.testing.assert_close(together.tokens_NPV[index], tokens(tower, pixels[index : index + 1])[0], **TIGHT)


@pytest.mark.parametrize("attend", [attend_in_chunks, attend_folded])
def test_gradients_reach_every_weight_and_the_pixels(tower, attend):
    attend_by(tower, attend)
    pixels = torch.randn(2, 3, 36, 36, requires_grad=True)
    tokens(tower, pixels).square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert not [name for name, parameter in tower.named_parameters() if not parameter.grad.abs().sum() > 0]


def test_gradients_of_chunks_are_those_of_the_dense_bias():
    inputs = attention_inputs(grids=2, heads=2, side=16, width=8)
    gradients = []
    for attend in (functools.partial(attend_in_chunks, bias_values=256 * 64), attend_folded, dense):
        leaves = [value.clone().requires_grad_() for value in (*inputs[:3], *inputs[3])]
        attend(*leaves[:3], sam_parts.PositionTerms(*leaves[3:])).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for wanted, *mine in zip(gradients[2], gradients[0], gradients[1], strict=True):
        for gradient in mine:
            torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-4)


def test_other_sizes_and_partial_masks_are_refused(tower):
    with pytest.raises(ShapeError, match="wrong size") as error:
        tokens(tower, torch.zeros(1, 3, 36, 40))
    assert "36 x 36 px" in str(error.value)
    assert "40 x 36 px" in str(error.value)
    mask = torch.ones(1, 9, 9, dtype=torch.bool)
    mask[0, 8] = False
    with pytest.raises(ShapeError, match="whole squares"):
        tower(torch.zeros(1, 3, 36, 36), mask)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"heads": 5}, "multiple of heads"),
        ({"image_px": 1000}, "whole patches"),
        ({"image_px": 8}, "whole patches"),
        ({"window": 0}, "window: at least one"),
        ({"tokens_side": 0}, "tokens_side: at least one"),
        ({"global_layers": ()}, "at least one of the layers"),
        ({"global_layers": (2, 12)}, "at least one of the layers"),
    ],
)
def test_impossible_settings_are_refused(changes, problem):
    with pytest.raises(ConfigError, match=problem):
        SamTowerConfig(**changes)
