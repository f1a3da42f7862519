"""The convolutional tower: cells, patches, pages of different heights, and patches that were left out."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from lensmith.core.errors import ConfigError, ShapeError
from lensmith.models import PictureConfig, VisionLanguageProcessor
from lensmith.models.towers import ConvTowerConfig
from tests.support.tiny_vlm import tiny_llama

TINY = ConvTowerConfig(width=24, stem_width=12, stem_blocks=2, patch_px=16, max_rows=8, max_columns=6)
TIGHT = {"atol": 1e-5, "rtol": 1e-5}


def stirred(module, seed=0):
    """Some weights start at zero, and would hide what they do."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return stirred(TINY.build())


def batch_of(pictures, patch_px=16):
    """Pictures (3, H, W) of one width in one batch, zero below, and its mask."""
    width, height = pictures[0].shape[2], max(picture.shape[1] for picture in pictures)
    pixels = torch.zeros(len(pictures), 3, height, width)
    mask = torch.zeros(len(pictures), height // patch_px, width // patch_px, dtype=torch.bool)
    for index, picture in enumerate(pictures):
        pixels[index, :, : picture.shape[1]] = picture
        mask[index, : picture.shape[1] // patch_px] = True
    return pixels, mask


def test_pages_of_different_heights_give_what_each_gives_alone(tower):
    torch.manual_seed(1)
    pages = [torch.randn(3, height, 64) for height in (16, 80, 48)]
    pixels, mask = batch_of(pages)
    together = tower(pixels, mask).tokens_NPV
    cells = tower.read_cells(pixels, mask)
    for index, page in enumerate(pages):
        rows = page.shape[1] // 16
        alone = tower(page[None], torch.ones(1, rows, 4, dtype=torch.bool))
        torch.testing.assert_close(together[index, : rows * 4], alone.tokens_NPV[0], **TIGHT)
        torch.testing.assert_close(cells[index, :, : rows * 2], tower.read_cells(page[None])[0], **TIGHT)


def test_the_page_below_would_leak_without_the_mask(tower):
    # The negative control of the test above.
    torch.manual_seed(1)
    pages = [torch.randn(3, height, 64) for height in (48, 80)]
    pixels, mask = batch_of(pages)
    unmasked = tower.read_cells(pixels)
    masked = tower.read_cells(pixels, mask)
    assert (unmasked[0, :, :6] - masked[0, :, :6]).abs().max() > 1e-3


def test_patches_left_out_change_no_other_patch_as_long_as_the_last_stays(tower):
    torch.manual_seed(2)
    pixels = torch.randn(1, 3, 64, 96)
    full = torch.ones(1, 4, 6, dtype=torch.bool)
    holed = full.clone()
    holed[0, 1:3, 2:5] = holed[0, 3, :5] = False
    one, other = tower(pixels, full), tower(pixels, holed)
    assert torch.equal(one.tokens_NPV, other.tokens_NPV)
    assert torch.equal(other.mask_NP, holed.flatten(1))
    # Without its last row the picture is taken for a lower one.
    lower = holed.clone()
    lower[0, 3] = False
    assert not torch.equal(tower(pixels, lower).tokens_NPV[0, :18], one.tokens_NPV[0, :18])


def test_cells_are_4_by_8_px_and_patches_hold_theirs_side_by_side(tower):
    pixels = torch.randn(2, 3, 32, 64)
    cells = tower.read_cells(pixels)
    assert cells.shape == (2, TINY.stem_width, 4, 16)
    assert TINY.cells_per_patch == 8
    # A patch's token is a function of its own cells and pixels: change one cell, one token moves.
    before = tower.to_patches(cells, pixels)
    assert before.shape == (2, 8, TINY.width)
    cells[1, :, 3, 9] += 1  # the second row of patches, the third column
    moved = (tower.to_patches(cells, pixels) - before).abs().amax(dim=2) > 1e-6
    assert moved.nonzero().tolist() == [[1, 6]]


def test_a_flat_patch_still_tells_its_colour(tower):
    colours = torch.tensor([[-1.0, -1.0, -1.0], [1.0, -1.0, 0.2], [0.9, -1.0, 0.2]])
    pixels = colours[:, :, None, None].expand(-1, -1, 16, 16)
    tokens = tower(pixels, torch.ones(3, 1, 1, dtype=torch.bool)).tokens_NPV[:, 0]
    assert torch.pdist(tokens).min() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(9 * 16, 16), (16, 7 * 16)])
def test_a_picture_beyond_the_table_of_places_is_refused(tower, height, width):
    mask = torch.ones(1, height // 16, width // 16, dtype=torch.bool)
    with pytest.raises(ShapeError, match="larger than the tower's table") as caught:
        tower(torch.zeros(1, 3, height, width), mask)
    assert "at most 8 rows and 6 columns" in str(caught.value)
    assert f"{height // 16} rows and {width // 16} columns" in str(caught.value)
    tower(torch.zeros(1, 3, 8 * 16, 6 * 16), torch.ones(1, 8, 6, dtype=torch.bool))


@pytest.mark.parametrize("patch_px", [0, 4, 12, 20])
def test_patches_are_whole_cells(patch_px):
    with pytest.raises(ConfigError, match="patch_px"):
        ConvTowerConfig(patch_px=patch_px)


def test_a_model_with_this_tower_is_saved_and_loaded(make_model, tokenizer, picture, tmp_path):
    model = stirred(make_model(vision=TINY, language=tiny_llama()))
    pictures = PictureConfig(patch_px=16, max_width_px=96, max_height_px=128, drop_repeated_patches=True)
    processor = VisionLanguageProcessor.for_model(model.config, tokenizer, pictures)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.config.vision == TINY
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    plain = picture(96, 80)
    plain.paste((200, 30, 30), (0, 16, 96, 64))
    inputs = processor(images=[[plain], [picture(40, 120, 1)]], text=["<image>go", "<image>on"])
    assert not inputs["patch_mask"][0].all()
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, **TIGHT)
