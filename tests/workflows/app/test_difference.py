"""The worst places are where a page was changed, and nowhere else."""

import io

import numpy as np
from PIL import Image, ImageDraw

from lensmith.workflows.app.difference import Difference, compare

WIDTH, HEIGHT = 400, 300


def page(
    *boxes: tuple[int, int, int, int], ground: str = "white", size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Image.Image:
    picture = Image.new("RGB", size, ground)
    for box in boxes:
        ImageDraw.Draw(picture).rectangle(box, fill="navy")
    return picture


def compared(target: Image.Image, rendering: Image.Image) -> Difference:
    stream = io.BytesIO()
    rendering.save(stream, "PNG")
    return compare(target, stream.getvalue())


def test_equal_pages_have_no_worst_place():
    same = page((20, 20, 120, 60))
    found = compared(same, same)
    assert found.places == ()
    drawn = np.asarray(Image.open(io.BytesIO(found.png)))
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert (drawn == drawn[..., :1]).all(), "nothing is marked: all is grey"


def test_what_is_missing_extra_and_different_is_told_apart_the_worst_first():
    target = page((20, 20, 119, 59), (300, 200, 319, 219))
    rendering = page((20, 150, 59, 169), (300, 200, 319, 209))
    found = compared(target, rendering)
    boxes = [(p.left_px, p.top_px, p.width_px, p.height_px, p.what) for p in found.places]
    assert boxes == [
        (20, 20, 100, 40, "missing"),
        (20, 150, 40, 20, "extra"),
        (300, 210, 20, 10, "different"),
    ]
    assert abs(sum(place.share for place in found.places) - 1) < 1e-3
    drawn = np.asarray(Image.open(io.BytesIO(found.png))).astype(int)
    assert drawn[40, 60, 0] - drawn[40, 60, 1] > 100
    assert abs(drawn[100, 200] - drawn[100, 200, 0]).max() == 0


def test_a_page_that_is_too_short_or_too_long_is_a_place():
    low, high = page(), page((0, 320, 399, 399), size=(WIDTH, 400))
    assert [place.what for place in compared(high, low).places] == ["missing"]
    assert [place.what for place in compared(low, high).places] == ["extra"]


def test_smoothed_edges_are_no_place():
    target = page((20, 20, 119, 59))
    shaken = np.asarray(target).astype(int) + np.random.default_rng(0).integers(-12, 13, (HEIGHT, WIDTH, 3))
    rendering = Image.fromarray(shaken.clip(0, 255).astype(np.uint8))
    assert compared(target, rendering).places == ()
