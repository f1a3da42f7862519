"""Where the texts of a page stand and what colour they have, from its screenshot and those of two coloured copies.

A pixel is text where the second copy shows the first's colour plus 50 levels, within 8. It belongs to every string
whose colour is within 4 of what the first copy shows there. A string's box holds all its pixels; its colour is their
mean in the screenshot of the page itself, rounded down. Strings of one element have one colour, so one box: they become
one block.

As in Design2Code's code, a page has no blocks at all where its copies differ in size, or where a text lies beyond the
screenshot.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensmith.core.arrays import BoolArray
from lensmith.core.types import Rgb
from lensmith.evaluate.visual.design2code.colouring import GRID_FIRST, GRID_SIDE, GRID_STEP, SHIFT, ColouredText
from lensmith.evaluate.visual.matching import Block
from lensmith.evaluate.visual.pixels import RgbArray

_SHIFT_TOLERANCE = 8
_COLOUR_TOLERANCE = 4
_ROWS_AT_ONCE = 1024
_NOT_ON_GRID = -1


class _Area(NamedTuple):
    """The pixels of one colour: their extent, ends included, and their mean colour on the page."""

    top: int
    left: int
    bottom: int
    right: int
    mean: tuple[float, float, float]


class _TextPixels(NamedTuple):
    """Where the copies differ as text does, and what the first copy shows there: (N,), (N,), (N, 3)."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    shown: RgbArray


class _NotOnPageError(Exception):
    """A text lies beyond the screenshot of the page."""


def find_blocks(
    page: RgbArray, first: RgbArray, second: RgbArray, texts: Sequence[ColouredText]
) -> list[tuple[int, Block]]:
    """The strings that show, with their places among all strings; boxes are fractions of the first copy.

    Pictures have the shape (height, width, 3). Strings with the same box are still apart.
    """
    if first.shape != second.shape:
        return []
    pixels = _text_pixels(first, second)
    height, width = first.shape[:2]
    try:
        areas = dict(_areas(page, pixels, {text.colour for text in texts}))
    except _NotOnPageError:
        return []
    found = []
    for text, colour, order in texts:
        if colour in areas:
            area = areas[colour]
            block = Block(
                text=text.lower(),
                left=area.left / width,
                top=area.top / height,
                width=(area.right - area.left + 1) / width,
                height=(area.bottom - area.top + 1) / height,
                colour=area.mean,
            )
            found.append((order, block))
    return found


def _text_pixels(first: RgbArray, second: RgbArray) -> _TextPixels:
    rows, columns = [], []
    for begin in range(0, len(first), _ROWS_AT_ONCE):
        some_rows, some_columns = np.nonzero(
            _is_shifted(first[begin : begin + _ROWS_AT_ONCE], second[begin : begin + _ROWS_AT_ONCE])
        )
        rows.append(some_rows + begin)
        columns.append(some_columns)
    all_rows, all_columns = np.concatenate(rows), np.concatenate(columns)
    return _TextPixels(all_rows, all_columns, first[all_rows, all_columns])


def _is_shifted(first: RgbArray, second: RgbArray) -> BoolArray:
    """(height, width): whether all three channels differ by the shift. Whole levels count, not their circle."""
    shifted = first + np.uint8(SHIFT)  # wraps round at 256, as there
    apart = np.maximum(shifted, second)
    apart -= np.minimum(shifted, second)
    near = apart <= _SHIFT_TOLERANCE
    both: BoolArray = near[..., 0] & near[..., 1] & near[..., 2]
    return both


def _areas(page: RgbArray, pixels: _TextPixels, colours: Iterable[Rgb]) -> Iterator[tuple[Rgb, _Area]]:
    cells = _cells(pixels.shown)
    order = np.argsort(cells, kind="stable")
    in_order = cells[order]
    for colour in colours:
        (cell,) = _cells(np.array([colour], dtype=np.uint8))
        if cell != _NOT_ON_GRID and all(level % GRID_STEP == GRID_FIRST for level in colour):
            chosen = order[np.searchsorted(in_order, cell) : np.searchsorted(in_order, cell, side="right")]
        else:
            chosen = np.flatnonzero(_is_near(pixels.shown, colour))
        if len(chosen):
            yield colour, _area(page, pixels.rows[chosen], pixels.columns[chosen])


def _cells(shown: RgbArray) -> NDArray[np.int16]:
    """(N, 3) to (N,): a number for the colour of the grid that each pixel is near to, or that there is none."""
    steps, beyond = np.divmod(shown.astype(np.int16) - (GRID_FIRST - _COLOUR_TOLERANCE), GRID_STEP)
    is_near = ((beyond <= 2 * _COLOUR_TOLERANCE) & (steps >= 0) & (steps < GRID_SIDE)).all(axis=1)
    red, green, blue = steps.T
    return np.where(is_near, (red * GRID_SIDE + green) * GRID_SIDE + blue, _NOT_ON_GRID).astype(np.int16)


def _is_near(shown: RgbArray, colour: Rgb) -> BoolArray:
    """(N,): whether a pixel is near to a colour that is not the grid's.

    The bounds wrap round at 256, as there: nothing is near to a colour with a level under 4 or over 251.
    """
    level = np.array(colour, dtype=np.uint8)
    low, high = level - np.uint8(_COLOUR_TOLERANCE), level + np.uint8(_COLOUR_TOLERANCE)
    near = (shown >= low) & (shown <= high)
    every: BoolArray = near[:, 0] & near[:, 1] & near[:, 2]
    return every


def _area(page: RgbArray, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> _Area:
    top, bottom = int(rows.min()), int(rows.max())
    left, right = int(columns.min()), int(columns.max())
    if bottom >= page.shape[0] or right >= page.shape[1]:
        raise _NotOnPageError
    red, green, blue = np.floor(page[rows, columns].mean(axis=0)).tolist()
    return _Area(top, left, bottom, right, (red, green, blue))
