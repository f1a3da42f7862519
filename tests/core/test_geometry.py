"""Layouts of pictures: computed by hand, and what must hold for every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import ConfigError, ImageError
from lensmith.core.geometry import NativeAspect, Resize


@pytest.mark.parametrize(
    ("size", "resize", "picture", "canvas", "cells"),
    [
        ((32, 32), Resize.SHRINK, (32, 32), (32, 32), (2, 2)),  # whole patches: no padding
        ((33, 31), Resize.SHRINK, (33, 31), (48, 32), (3, 2)),  # rounded up by padding
        ((1, 1), Resize.SHRINK, (1, 1), (16, 16), (1, 1)),
        ((384, 512), Resize.SHRINK, (384, 512), (384, 512), (24, 32)),  # exactly the limits
        ((768, 512), Resize.SHRINK, (384, 256), (384, 256), (24, 16)),  # too wide: halved
        ((384, 1024), Resize.SHRINK, (192, 512), (192, 512), (12, 32)),  # too high: halved
        ((1000, 999), Resize.SHRINK, (384, 384), (384, 384), (24, 24)),  # 383.6 rounds up
        ((385, 5), Resize.SHRINK, (384, 5), (384, 16), (24, 1)),
        ((100_000, 1), Resize.SHRINK, (384, 1), (384, 16), (24, 1)),  # never less than a pixel
        ((192, 100), Resize.FILL, (384, 200), (384, 208), (24, 13)),  # scaled up
        ((10, 20), Resize.FILL, (256, 512), (256, 512), (16, 32)),
        ((384, 500), Resize.NEVER, (384, 500), (384, 512), (24, 32)),
    ],
)
def test_native_aspect_layouts(size, resize, picture, canvas, cells):
    layout = NativeAspect(patch_px=16, max_width_px=384, max_height_px=512, resize=resize).layout(*size)
    assert (layout.picture_width_px, layout.picture_height_px) == picture
    assert (layout.canvas_width_px, layout.canvas_height_px) == canvas
    assert (layout.columns, layout.rows) == cells


def test_merged_cells():
    merged = NativeAspect(patch_px=14, max_width_px=980, max_height_px=980, merge=2)
    layout = merged.layout(100, 50)
    assert (layout.columns, layout.rows) == (4, 2)  # cells of 28 px


def test_a_picture_over_the_limits_is_an_error_where_resizing_is_not_allowed():
    strict = NativeAspect(patch_px=16, max_width_px=384, max_height_px=512, resize=Resize.NEVER)
    with pytest.raises(ImageError, match="385 x 10 px"):
        strict.layout(385, 10)


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.integers(1, 20),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([Resize.SHRINK, Resize.FILL]),
)
def test_every_layout_holds_the_picture_and_keeps_the_limits(width, height, patch, merge, columns, rows, resize):
    cell = patch * merge
    geometry = NativeAspect(
        patch_px=patch, max_width_px=columns * cell, max_height_px=rows * cell, merge=merge, resize=resize
    )
    layout = geometry.layout(width, height)
    assert 1 <= layout.picture_width_px <= layout.canvas_width_px <= geometry.max_width_px
    assert 1 <= layout.picture_height_px <= layout.canvas_height_px <= geometry.max_height_px
    assert layout.canvas_width_px - layout.picture_width_px < cell
    assert layout.canvas_height_px - layout.picture_height_px < cell
    assert layout.columns <= columns and layout.rows <= rows
    # The aspect ratio is kept to the rounding of one side to a whole pixel, and never less than one.
    scale = min(geometry.max_width_px / width, geometry.max_height_px / height)
    scale = min(scale, 1) if resize is Resize.SHRINK else scale
    assert layout.picture_width_px == pytest.approx(max(1, width * scale), abs=0.5001)
    assert layout.picture_height_px == pytest.approx(max(1, height * scale), abs=0.5001)
    assert geometry.layout(layout.picture_width_px, layout.picture_height_px) == layout or resize is Resize.FILL


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_size_without_area_is_an_image_error(size):
    with pytest.raises(ImageError, match="no pixels"):
        NativeAspect(patch_px=16, max_width_px=32, max_height_px=32).layout(*size)


@pytest.mark.parametrize(
    "build",
    [
        lambda: NativeAspect(patch_px=0, max_width_px=384, max_height_px=512),
        lambda: NativeAspect(patch_px=16, max_width_px=390, max_height_px=512),
        lambda: NativeAspect(patch_px=16, max_width_px=384, max_height_px=512, merge=3),
    ],
)
def test_impossible_geometries_are_config_errors(build):
    with pytest.raises(ConfigError):
        build()


def test_a_geometry_is_a_configuration():
    geometry = NativeAspect(patch_px=16, max_width_px=384, max_height_px=512, resize=Resize.FILL)
    assert from_dict(NativeAspect, to_dict(geometry)) == geometry
