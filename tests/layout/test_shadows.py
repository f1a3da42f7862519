"""Shadows are measured as a browser paints them."""

import numpy as np
import pytest
from PIL import Image

from lensmith.layout.fit import rebuild
from lensmith.layout.shadows import fade_of
from lensmith.layout.surfaces import find_ground
from tests.support.screenshots import renderer_of, screenshot

CARD = """<!doctype html><body style='margin:0;background:#f4f5f7'>
<div style='margin:60px;width:400px;height:200px;background:#fff;{}'></div>"""


@pytest.mark.parametrize(("down", "blur", "strength"), [(0, 12, 0.3), (4, 12, 0.2), (8, 24, 0.25), (2, 6, 0.4)])
@pytest.mark.parametrize("radius", [0, 8])
def test_a_shadow_is_found(down, blur, strength, radius):
    css = f"box-shadow:0 {down}px {blur}px rgba(0,0,0,{strength});border-radius:{radius}px"
    pixels, _ = screenshot(CARD.format(css), width_px=640)
    [surface] = find_ground(pixels, []).surfaces
    assert surface.border is None
    assert surface.rect[:2] == (60, 60)
    assert surface.shadow is not None
    assert abs(surface.shadow.down_px - down) <= 2
    assert abs(surface.shadow.blur_px - blur) <= 0.35 * blur
    assert abs(surface.shadow.strength - strength) <= 0.35 * strength


def test_what_is_written_looks_like_it():
    css = "box-shadow:0 6px 18px rgba(0,0,0,0.25);border-radius:8px"
    pixels, _ = screenshot(CARD.format(css), width_px=640)
    again, _ = screenshot(rebuild(Image.fromarray(pixels), renderer_of).html, width_px=640)
    apart = np.abs(again.astype(int) - pixels.astype(int)).max(axis=2)
    assert np.quantile(apart, 0.999) <= 4
    assert apart.max() < 60  # the smoothed pixels of a corner


@pytest.mark.parametrize("css", ["", "border:1px solid #999", "border:3px solid #333", "outline:2px solid #ddd"])
def test_a_border_is_no_shadow(css):
    pixels, _ = screenshot(CARD.format(css), width_px=640)
    assert all(surface.shadow is None for surface in find_ground(pixels, []).surfaces)


def test_a_gradient_that_does_not_end_is_no_shadow():
    assert fade_of(np.linspace(200, 240, 40)) is None
    assert fade_of(np.full(40, 250.0)) is None
    assert fade_of(np.concatenate([[90.0], np.full(39, 250.0)])) is None
