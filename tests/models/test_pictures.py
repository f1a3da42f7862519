import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import ConfigError, ImageError
from lensmith.models.pictures import PictureConfig, TooTall, informative_patches, prepare_pictures

SMALL = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96)
SIDES = st.integers(1, 300)


def noise(width_px, height_px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


@given(width_px=SIDES, height_px=SIDES, policy=st.sampled_from([TooTall.SHRINK, TooTall.CROP]))
def test_a_picture_becomes_whole_patches_within_the_limits_in_its_shape(width_px, height_px, policy):
    config = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96, too_tall=policy)
    pixels, mask = prepare_pictures([noise(width_px, height_px)], config)
    assert pixels.shape[2:] == (mask.shape[1] * 8, mask.shape[2] * 8)
    assert pixels.shape[3] <= 64
    assert pixels.shape[2] <= 96
    assert mask.all()
    scale = min(1, 64 / width_px)
    if policy is TooTall.SHRINK:
        scale = min(scale, 96 / height_px)
    assert pixels.shape[3] - 8 < width_px * scale + 0.5
    assert pixels.shape[3] >= width_px * scale - 0.5
    assert pixels.shape[2] >= min(96, height_px * scale - 0.5)


def test_a_picture_within_the_limits_keeps_its_pixels():
    picture = noise(21, 30)
    pixels, mask = prepare_pictures([picture], SMALL)
    assert mask.shape == (1, 4, 3)
    np.testing.assert_allclose((pixels[0, :, :30, :21].transpose(1, 2, 0) + 1) / 2 * 255, picture, atol=1e-3)
    # The rest of its last patches repeats its edge.
    np.testing.assert_array_equal(pixels[0, :, :30, 21:], np.repeat(pixels[0, :, :30, 20:21], 3, axis=2))


def test_a_batch_is_padded_with_zeros_that_the_mask_leaves_out():
    wide, tall = noise(40, 16, 1), noise(16, 40, 2)
    pixels, mask = prepare_pictures([wide, tall], SMALL)
    assert pixels.shape == (2, 3, 40, 40)
    assert mask.sum(axis=(1, 2)).tolist() == [10, 10]
    assert not pixels[0, :, 16:].any()
    assert not pixels[1, :, :, 16:].any()
    for index, picture in enumerate([wide, tall]):
        alone, _ = prepare_pictures([picture], SMALL)
        np.testing.assert_array_equal(pixels[index, :, : alone.shape[2], : alone.shape[3]], alone[0])


def test_mean_and_std_are_applied_for_each_channel():
    config = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    pixels, _ = prepare_pictures([np.full((8, 8, 3), 255, dtype=np.uint8)], config)
    np.testing.assert_allclose(pixels[0, :, 0, 0], [1, 1, 0], atol=1e-6)


@pytest.mark.parametrize(("policy", "height_px"), [(TooTall.SHRINK, 96), (TooTall.CROP, 96)])
def test_a_tall_page_shrinks_or_is_cut(policy, height_px):
    page = np.zeros((400, 64, 3), dtype=np.uint8)
    page[:96] = 255
    config = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96, too_tall=policy)
    pixels, mask = prepare_pictures([page], config)
    assert pixels.shape[2] == height_px
    assert (pixels > 0).all() == (policy is TooTall.CROP)
    assert mask.shape == ((1, 12, 8) if policy is TooTall.CROP else (1, 12, 2))


def test_a_tall_page_can_be_refused():
    config = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96, too_tall=TooTall.REFUSE)
    assert prepare_pictures([noise(128, 192)], config).pixels_N3HW.shape == (1, 3, 96, 64)
    with pytest.raises(ImageError, match="too tall") as caught:
        prepare_pictures([noise(128, 194)], config)
    assert "192 px at a width of 128" in str(caught.value)


def test_patches_that_repeat_the_one_above_or_to_the_left_are_left_out():
    page = np.full((32, 40, 3), 255, dtype=np.uint8)
    page[8:16, 16:32] = (0, 0, 255)  # a box of 1 x 2 patches, on the grid
    page[16:32, 2] = 0  # an upright line
    page[26:28, 10:12] = 0  # a letter
    kept = informative_patches(page, 8)
    assert kept.tolist() == [
        [True, False, False, False, False],
        [False, False, True, False, False],
        [True, False, False, False, False],
        [False, True, False, False, True],
    ]


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), data=st.data())
def test_a_patch_is_left_out_only_where_a_neighbour_shows_the_same(rows, columns, data):
    kinds = data.draw(st.lists(st.integers(0, 3), min_size=rows * columns, max_size=rows * columns))
    grid = np.array(kinds).reshape(rows, columns)
    patches = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)
    page = patches[grid].transpose(0, 2, 1, 3, 4).reshape(rows * 4, columns * 4, 3)
    expected = np.ones((rows, columns), dtype=bool)
    for row in range(rows):
        for column in range(columns):
            above = row > 0 and grid[row - 1, column] == grid[row, column]
            left = column > 0 and grid[row, column - 1] == grid[row, column]
            expected[row, column] = not (above or left)
    expected[-1, -1] = True
    assert informative_patches(page, 4).tolist() == expected.tolist()


def test_a_blank_page_keeps_its_corners():
    config = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96, drop_repeated_patches=True)
    batch = prepare_pictures([np.full((24, 32, 3), 255, dtype=np.uint8), noise(8, 8)], config)
    assert np.argwhere(batch.patch_mask_NHpWp[0]).tolist() == [[0, 0], [2, 3]]
    assert batch.patches_per_picture == [2, 1]
    assert (batch.pixels_N3HW[0] == 1).all()  # only the mask changes


def test_pictures_come_as_files_bytes_arrays_and_pillow_images(tmp_path):
    array = noise(16, 16)
    image = Image.fromarray(array)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    (tmp_path / "page.png").write_bytes(encoded.getvalue())
    sources = [array, image, encoded.getvalue(), tmp_path / "page.png", str(tmp_path / "page.png")]
    pixels, _ = prepare_pictures(sources, SMALL)
    assert all(np.array_equal(pixels[0], other) for other in pixels)


def test_transparent_parts_are_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (prepare_pictures([clear], SMALL).pixels_N3HW == 1).all()
    grey = Image.new("L", (8, 8), 255)
    assert (prepare_pictures([grey], SMALL).pixels_N3HW == 1).all()


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ([], "no pictures"),
        ([np.zeros((8, 8), dtype=np.uint8)], "not a picture"),
        ([np.zeros((8, 8, 3), dtype=np.float32)], "not a picture"),
        ([np.zeros((0, 8, 3), dtype=np.uint8)], "not a picture"),
        ([b"not a png"], "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(pictures, said):
    with pytest.raises(ImageError, match=said):
        prepare_pictures(pictures, SMALL)


@pytest.mark.parametrize("values", [{"patch_px": 0}, {"max_width_px": 60}, {"max_height_px": 4}, {"std": (1, 0, 1)}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        PictureConfig(**({"patch_px": 8, "max_width_px": 64, "max_height_px": 96} | values))


def test_settings_are_saved_and_read():
    config = PictureConfig(too_tall=TooTall.CROP, drop_repeated_patches=True)
    assert from_dict(PictureConfig, to_dict(config)) == config
    assert config.layout(1000, 500).columns == 24


@pytest.mark.parametrize(
    ("size", "picture", "cells"),
    [
        ((32, 32), (32, 32), (2, 2)),  # whole patches: no padding
        ((33, 31), (33, 31), (3, 2)),  # rounded up by padding
        ((1, 1), (1, 1), (1, 1)),
        ((384, 512), (384, 512), (24, 32)),  # exactly the limits
        ((768, 512), (384, 256), (24, 16)),  # too wide: halved
        ((384, 1024), (192, 512), (12, 32)),  # too high: halved
        ((1000, 999), (384, 384), (24, 24)),  # 383.6 rounds up
        ((385, 5), (384, 5), (24, 1)),
        ((100_000, 1), (384, 1), (24, 1)),  # never less than a pixel
    ],
)
def test_layouts_of_pictures(size, picture, cells):
    layout = PictureConfig(patch_px=16, max_width_px=384, max_height_px=512).layout(*size)
    assert (layout.picture_width_px, layout.picture_height_px) == picture
    assert (layout.columns, layout.rows) == cells


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 20), st.integers(1, 40), st.integers(1, 40))
def test_every_layout_holds_the_picture_and_keeps_the_limits(width, height, patch, columns, rows):
    config = PictureConfig(patch_px=patch, max_width_px=columns * patch, max_height_px=rows * patch)
    layout = config.layout(width, height)
    assert 1 <= layout.columns <= columns and 1 <= layout.rows <= rows
    assert layout.picture_width_px >= 1 and layout.columns * patch - layout.picture_width_px in range(patch)
    assert layout.picture_height_px >= 1 and layout.rows * patch - layout.picture_height_px in range(patch)
    # The aspect ratio is kept to the rounding of one side to a whole pixel, and never less than one.
    scale = min(config.max_width_px / width, config.max_height_px / height, 1)
    assert layout.picture_width_px == pytest.approx(max(1, width * scale), abs=0.5001)
    assert layout.picture_height_px == pytest.approx(max(1, height * scale), abs=0.5001)
    assert config.layout(layout.picture_width_px, layout.picture_height_px) == layout


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_size_without_area_is_an_image_error(size):
    with pytest.raises(ImageError, match="no pixels"):
        PictureConfig(patch_px=16, max_width_px=32, max_height_px=32).layout(*size)
