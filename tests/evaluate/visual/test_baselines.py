"""The baselines: a blank page, and the nearest training page."""

import numpy as np
import pytest
from PIL import Image

from lensmith.core.errors import InputError, ShapeError
from lensmith.evaluate.visual.baselines import blank_page, nearest_pages, thumbnail
from lensmith.evaluate.visual.pixels import rgb_array


def test_a_blank_page_is_white_and_wordless() -> None:
    page = blank_page(30, 50)
    assert (page.width_px, page.height_px, page.texts) == (30, 50, ())
    assert rgb_array(page.png).shape == (50, 30, 3)
    assert rgb_array(page.png).min() == 255


@pytest.mark.parametrize("at_once", [1, 7, 512])
def test_nearest_equals_a_search_through_all(at_once: int) -> None:
    random = np.random.default_rng(0)
    pages = random.integers(0, 256, (40, 5, 4, 3), dtype=np.uint8)
    queries = random.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    found = nearest_pages(list(queries), ((page, f"page {i}") for i, page in enumerate(pages)), at_once=at_once)
    squared = ((queries[:, None].astype(float) - pages) ** 2).mean(axis=(2, 3, 4))
    assert [each.index for each in found] == squared.argmin(axis=1).tolist()
    assert [each.page for each in found] == [f"page {i}" for i in squared.argmin(axis=1)]
    assert np.allclose([each.distance for each in found], np.sqrt(squared.min(axis=1)))


def test_a_page_of_the_training_set_finds_itself_first() -> None:
    small = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    [found] = nearest_pages([small], [(255 - small, 0), (small, 1), (small.copy(), 2)], at_once=2)
    assert (found.page, found.index, found.distance) == (1, 1, 0.0)


def test_thumbnails_stay_in_register_from_the_top() -> None:
    short, tall = Image.new("RGB", (320, 100), "black"), Image.new("RGB", (320, 3000), "black")
    assert thumbnail(short).shape == thumbnail(tall).shape == (80, 32, 3)
    assert (thumbnail(short)[:10] == 0).all()
    assert (thumbnail(short)[10:] == 255).all()
    assert (thumbnail(tall) == 0).all()


def test_what_cannot_be_searched_is_refused() -> None:
    small = np.zeros((5, 4, 3), dtype=np.uint8)
    assert nearest_pages([], [(small, 0)]) == []
    with pytest.raises(InputError, match="no training pages"):
        nearest_pages([small], [])
    with pytest.raises(ShapeError, match="one shape"):
        nearest_pages([small], [(np.zeros((2, 2, 3), dtype=np.uint8), 0)])
