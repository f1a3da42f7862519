"""Where a rendering differs from its screenshot: a picture for the eye, and the worst places in words.

The picture shows the screenshot pale and grey, and over it what differs, the stronger the more. Places are found on
cells of 16 px: neighbouring cells that differ are one place, and it counts as much as its pixels differ in all.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lensmith.core.arrays import BoolArray, Float64Array

CELL_PX = 16
MOST_PLACES = 6
_DIFFERS_LEVELS = 24
"""Of 255: below it are smoothed edges of letters that nobody tells apart."""
_CELL_SHARE = 0.06
"""A cell counts where so much of its pixels differ: a hair line of a moved edge alone does not make a place."""
_FAINTEST_SHARE = 0.01
"""A place with less of the whole difference is not worth a look."""
_AROUND_PX, _DRAWN_SHARE = 4, 0.002
_MARK = np.array([205.0, 0.0, 92.0])
_PALE = 0.22
_WHITE = 255


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A rectangle where the two differ, in pixels of the rendering; `share` of all difference, in [0, 1].

    `what` is one of "missing", "extra" and "different": on the screenshot alone, in the rendering alone, or both.
    """

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    share: float
    what: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The picture (PNG) and the places, the worst first; no place where nothing differs."""

    png: bytes
    places: tuple[Spot, ...]


def compare(target: Image.Image, rendering_png: bytes) -> Difference:
    """A screenshot at the rendering's scale beside a rendering. Where one is shorter, the other counts as extra."""
    rendering = Image.open(io.BytesIO(rendering_png)).convert("RGB")
    width, height = max(target.width, rendering.width), max(target.height, rendering.height)
    first, second = _on_canvas(target, width, height), _on_canvas(rendering, width, height)
    levels = np.abs(first.astype(np.int16) - second.astype(np.int16)).max(axis=2)
    return Difference(png=encoded(_drawn(first, levels)), places=_places(first, second, levels))


def encoded(picture: Image.Image) -> bytes:
    """A PNG that is made in a moment, though it could be a little smaller: somebody waits for it."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=4)
    return stream.getvalue()


def _on_canvas(picture: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(picture, (0, 0))
    return np.asarray(canvas)


def _drawn(target: NDArray[np.uint8], levels: NDArray[np.int16]) -> Image.Image:
    grey = _WHITE - _PALE * (_WHITE - target.astype(np.float32).mean(axis=2, keepdims=True))
    # Small differences are to be seen too: the root lifts them.
    strength = np.sqrt(np.clip(levels - _DIFFERS_LEVELS / 2, 0, _WHITE) / _WHITE)[..., None].astype(np.float32)
    mixed = grey * (1 - strength) + _MARK.astype(np.float32) * strength
    return Image.fromarray(mixed.round().astype(np.uint8))


def _places(target: NDArray[np.uint8], rendering: NDArray[np.uint8], levels: NDArray[np.int16]) -> tuple[Spot, ...]:
    weights = np.where(levels >= _DIFFERS_LEVELS, levels, 0).astype(np.float64)
    total = weights.sum()
    cells = _cell_sums((weights > 0).astype(np.float64)) / CELL_PX**2 >= _CELL_SHARE
    labels, _ = ndimage.label(ndimage.binary_dilation(cells), structure=np.ones((3, 3)))
    sums = _cell_sums(weights)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        share = float(sums[rows, columns][labels[rows, columns] == number].sum() / total)
        if share >= _FAINTEST_SHARE:
            found.append(_place((rows, columns), share, (target, rendering), weights))
    found.sort(key=lambda place: -place.share)
    return tuple(found[:MOST_PLACES])


def _cell_sums(values: Float64Array) -> Float64Array:
    height, width = (-(-side // CELL_PX) * CELL_PX for side in values.shape)
    padded = np.pad(values, ((0, height - values.shape[0]), (0, width - values.shape[1])))
    sums: Float64Array = padded.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX).sum(axis=(1, 3))
    return sums


def _place(
    cells: tuple[slice, slice],
    share: float,
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    weights: Float64Array,
) -> Spot:
    """The box around what differs in these cells."""
    rows, columns = cells
    top, left = rows.start * CELL_PX, columns.start * CELL_PX
    inside = weights[top : rows.stop * CELL_PX, left : columns.stop * CELL_PX] > 0
    down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, bottom = top + int(down[0]), top + int(down[-1]) + 1
    left, right = left + int(across[0]), left + int(across[-1]) + 1
    # With what is around it, for a plain area differs from that alone.
    box = slice(max(0, top - _AROUND_PX), bottom + _AROUND_PX), slice(max(0, left - _AROUND_PX), right + _AROUND_PX)
    drawn, rendered = (_is_drawn_on(picture[box]) for picture in pictures)
    what = "missing" if drawn and not rendered else "extra" if rendered and not drawn else "different"
    return Spot(
        left_px=left, top_px=top, width_px=right - left, height_px=bottom - top, share=round(share, 4), what=what
    )


def _is_drawn_on(patch: NDArray[np.uint8]) -> bool:
    """Whether a patch shows more than one colour."""
    pixels = patch.reshape(-1, 3).astype(np.int16)
    differs: BoolArray = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1) >= _DIFFERS_LEVELS
    return bool(differs.mean() > _DRAWN_SHARE)
