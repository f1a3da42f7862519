"""Pages as a real browser shows them, for tests that look at pixels."""

import functools
import io

import numpy as np
from PIL import Image

from lensmith.core.types import Page
from lensmith.render import Capture, RenderConfig, Renderer


@functools.cache
def renderer_of(width_px: int) -> Renderer:
    """A renderer whose window has that width, kept until the process ends."""
    return Renderer(RenderConfig(viewport_width_px=width_px, viewport_height_px=64))


def screenshot(html: str, *, width_px: int) -> tuple[np.ndarray, Page]:
    """The pixels (height, width, 3) of a page in a window so wide, and the page with its texts."""
    page = renderer_of(width_px).render(html, Capture.PICTURE | Capture.TEXTS)
    return np.asarray(Image.open(io.BytesIO(page.png)).convert("RGB")), page
