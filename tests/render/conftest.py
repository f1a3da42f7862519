"""A warm renderer for the tests of one module, and a reader of pictures."""

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from lensmith.core.types import Page
from lensmith.render import RenderConfig, Renderer

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer(RenderConfig(viewport_width_px=400, viewport_height_px=300, timeout_s=30.0)) as warm:
        yield warm


@pytest.fixture(scope="session")
def pixels_of() -> Callable[[Page], Pixels]:
    """The decoded picture of a page: height, width, RGB."""

    def decode(page: Page) -> Pixels:
        with Image.open(io.BytesIO(page.png)) as picture:
            return np.asarray(picture.convert("RGB"))

    return decode
