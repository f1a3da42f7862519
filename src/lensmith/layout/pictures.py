"""The pictures of a page: what stands on its surfaces and is no text. They are cut out of the screenshot.

The page is painted as far as it is known (ground, surfaces, borders); where the screenshot looks otherwise and no
text was read, there is a picture: a photograph, a logo, an icon, a chart.

Legend: H, W pixels; rgb_HW3 8-bit sRGB.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lensmith.core.arrays import BoolArray, Float64Array
from lensmith.layout.ocr import Rgb3Array
from lensmith.layout.surfaces import Ground, Rect, Surface, largest_step

_UNLIKE_LEVELS = 26
_JOIN_PX = 6
_SMALLEST_SIDE_PX, _SMALLEST_PX2 = 5, 48
_TEXT_MARGIN_PX = 2
_BACKDROP_SIDE_PX, _BACKDROP_TIMES = 60, 5
"""A picture with text on it is a backdrop if its sides are so long and it is so many times as large as the text."""
_PHOTO_COLOURS = 4096
_JPEG_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """A part of the screenshot that is kept as a picture. `has_text`: letters stand on it, which the page sets.

    `words`: what was read of one that is kept as it is (a logo).
    """

    rect: Rect
    has_text: bool = False
    words: str = ""


def find_pictures(rgb_HW3: Rgb3Array, ground: Ground, texts: Sequence[Rect]) -> list[Cutout]:
    """The pictures of a page, the largest first. Texts inside a small one are part of it (a logo)."""
    unlike = largest_step(rgb_HW3.astype(np.int16) - painted(ground, rgb_HW3.shape[:2])) > _UNLIKE_LEVELS
    _forget_edges(unlike, ground.surfaces)
    for rect in texts:
        box = rect.grown(_TEXT_MARGIN_PX)
        unlike[max(0, box.top) : box.bottom, max(0, box.left) : box.right] = False
    joined = ndimage.binary_closing(np.pad(unlike, _JOIN_PX), structure=np.ones((_JOIN_PX, _JOIN_PX)))
    labels, _ = ndimage.label(joined[_JOIN_PX:-_JOIN_PX, _JOIN_PX:-_JOIN_PX], structure=np.ones((3, 3)))
    rects = []
    for rows, columns in ndimage.find_objects(labels):
        rect = Rect(columns.start, rows.start, columns.stop, rows.stop)
        if min(rect.width, rect.height) >= _SMALLEST_SIDE_PX and rect.area >= _SMALLEST_PX2:
            rects.append(rect)
    cutouts = []
    for rect in _joined(rects):
        inside = [text for text in texts if rect.shared(text) > 0.5 * text.area]
        covered = sum(text.area for text in inside)
        is_backdrop = min(rect.width, rect.height) >= _BACKDROP_SIDE_PX and rect.area > _BACKDROP_TIMES * covered
        cutouts.append(Cutout(rect=rect, has_text=bool(inside) and is_backdrop))
    return sorted(cutouts, key=lambda cutout: -cutout.rect.area)


def painted(ground: Ground, shape: tuple[int, int]) -> NDArray[np.int16]:
    """The page as far as ground and surfaces go: (H, W, 3), signed, as levels are subtracted from it."""
    canvas = np.empty((*shape, 3), dtype=np.int16)
    canvas[:] = ground.colour
    for surface in ground.surfaces:
        rect = surface.rect
        if surface.border is not None:
            top, right, bottom, left = surface.border.widths
            of_top, of_right, of_bottom, of_left = surface.border.colours
            canvas[rect.top : rect.top + top, rect.left : rect.right] = of_top
            canvas[rect.bottom - bottom : rect.bottom, rect.left : rect.right] = of_bottom
            canvas[rect.top : rect.bottom, rect.left : rect.left + left] = of_left
            canvas[rect.top : rect.bottom, rect.right - right : rect.right] = of_right
            rect = Rect(rect.left + left, rect.top + top, rect.right - right, rect.bottom - bottom)
        canvas[rect.top : rect.bottom, rect.left : rect.right] = _fill(surface, rect)
    return canvas


def _fill(surface: Surface, rect: Rect) -> Float64Array:
    first = np.array(surface.colour, dtype=np.float64)
    if surface.until is None:
        return first
    last = np.array(surface.until, dtype=np.float64)
    if surface.towards == "bottom":
        return first + (last - first) * np.linspace(0, 1, max(1, rect.height))[:, None, None]
    return first + (last - first) * np.linspace(0, 1, max(1, rect.width))[None, :, None]


def _forget_edges(unlike: BoolArray, surfaces: Sequence[Surface]) -> None:
    """Round corners, smoothed sides and shadows of surfaces are no pictures."""
    for surface in surfaces:
        rect, corner = surface.rect, surface.radius_px + 1
        if surface.shadow is not None:
            around = surface.with_shadow
            inside = unlike[rect.top : rect.bottom, rect.left : rect.right].copy()
            unlike[max(0, around.top) : around.bottom, max(0, around.left) : around.right] = False
            unlike[rect.top : rect.bottom, rect.left : rect.right] = inside
        for top in (rect.top, rect.bottom - corner):
            for left in (rect.left, rect.right - corner):
                unlike[max(0, top) : max(0, top + corner), max(0, left) : max(0, left + corner)] = False
        for line in (
            np.s_[rect.top : rect.bottom, max(0, rect.left - 1) : rect.left + 1],
            np.s_[rect.top : rect.bottom, max(0, rect.right - 1) : rect.right + 1],
            np.s_[max(0, rect.top - 1) : rect.top + 1, rect.left : rect.right],
            np.s_[max(0, rect.bottom - 1) : rect.bottom + 1, rect.left : rect.right],
        ):
            unlike[line] = False


def _joined(rects: Sequence[Rect]) -> list[Rect]:
    """Rectangles that overlap become one, until none do."""
    left = list(rects)
    while True:
        merged: list[Rect] = []
        for rect in left:
            for index, other in enumerate(merged):
                if other.grown(1).shared(rect):
                    merged[index] = Rect(
                        min(other.left, rect.left),
                        min(other.top, rect.top),
                        max(other.right, rect.right),
                        max(other.bottom, rect.bottom),
                    )
                    break
            else:
                merged.append(rect)
        if len(merged) == len(left):
            return merged
        left = merged


def without_letters(rgb_HW3: Rgb3Array, rect: Rect, texts: Sequence[Rect]) -> Image.Image:
    """A part of the screenshot in which the letters are filled with what stands beside them."""
    patch = rgb_HW3[rect.top : rect.bottom, rect.left : rect.right].copy()
    covered = np.zeros(patch.shape[:2], dtype=np.bool_)
    for text in texts:
        box = text.grown(3)
        covered[
            max(0, box.top - rect.top) : max(0, box.bottom - rect.top),
            max(0, box.left - rect.left) : max(0, box.right - rect.left),
        ] = True
    if covered.any() and not covered.all():
        rows, columns = ndimage.distance_transform_edt(covered, return_distances=False, return_indices=True)
        patch = patch[rows, columns]
    return Image.fromarray(patch)


def data_url(picture: Image.Image) -> str:
    """The picture inside a page: PNG, or JPEG for a photograph."""
    colours = picture.getcolors(_PHOTO_COLOURS)
    file = io.BytesIO()
    if colours is None:
        picture.save(file, "JPEG", quality=_JPEG_QUALITY)
        kind = "jpeg"
    else:
        picture.save(file, "PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
