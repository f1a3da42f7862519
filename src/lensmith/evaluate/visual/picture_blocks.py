"""What stands on a screenshot, found from its pixels alone: lines of text (or other fine detail), and plain areas.

A pixel that differs from its right or lower neighbour is an *edge*. Pieces of strong edge that are long and thin or
hollow belong to rules and frames and are left out; what remains is letters and pictures, and pieces on one line with
gaps up to 10 px belong together. The other pixels, cut apart by edges however faint, are plain areas: sections, cards,
buttons, rectangles. The page's own background (areas of its colour that reach a side of the page) is no block.

Made for browser screenshots: it needs sharp edges and plain areas, and bears the noise of a JPEG, but not of a camera.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lensmith.core.arrays import BoolArray, Float64Array
from lensmith.evaluate.visual.pixels import RgbArray, background_colour

_TEXT_EDGE_LEVELS = 24  # of 255: above the ringing of a JPEG, below the faintest text that a person reads
_AREA_EDGE_LEVELS = 5  # sections are often told apart by as little as #f8f9fa on white
_JOIN_GAP_PX = 10  # word spaces are 4 to 10 px wide, gaps between columns and menu entries 12 and more
_THIN_PX, _LONG_PX = 5, 24
_HOLLOW_SIDE_PX, _HOLLOW_FILL = 14, 0.18
_SMALLEST_TEXT_PX2, _SMALLEST_AREA_PX2 = 20, 250
_SAME_COLOUR_LEVELS = 10.0
_MOST_BLOCKS = 600


class PictureBlock(NamedTuple):
    """A block on a picture: its box in pixels, [left, right) x [top, bottom), its colour, and the colour behind it."""

    left: int
    top: int
    right: int
    bottom: int
    colour: tuple[float, float, float]
    behind: tuple[float, float, float]

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


class PictureBlocks(NamedTuple):
    """Lines of text, and plain areas, each from top to bottom; of more than 600 of a kind the largest."""

    texts: tuple[PictureBlock, ...]
    areas: tuple[PictureBlock, ...]


def find_blocks(rgb: RgbArray) -> PictureBlocks:
    """The blocks of a screenshot, shape (height, width, 3)."""
    steps = _steps(rgb)
    texts = _find_texts(rgb, steps >= _TEXT_EDGE_LEVELS)
    areas = _find_areas(rgb, steps < _AREA_EDGE_LEVELS, background_colour(rgb))
    return PictureBlocks(_largest(texts), _largest(areas))


def _largest(blocks: list[PictureBlock]) -> tuple[PictureBlock, ...]:
    """The blocks that matching can afford, still from top to bottom: photographs can fall into tens of thousands."""
    if len(blocks) <= _MOST_BLOCKS:
        return tuple(blocks)
    least = sorted((block.area for block in blocks), reverse=True)[_MOST_BLOCKS - 1]
    return tuple([block for block in blocks if block.area >= least][:_MOST_BLOCKS])


def _steps(rgb: RgbArray) -> NDArray[np.int16]:
    """The largest difference, over the channels, of each pixel to its right and lower neighbours; (height, width)."""
    steps = np.zeros(rgb.shape[:2], dtype=np.int16)
    for channel in range(3):
        levels = rgb[:, :, channel].astype(np.int16)
        np.maximum(steps[:, :-1], np.abs(np.diff(levels, axis=1)), out=steps[:, :-1])
        np.maximum(steps[:-1], np.abs(np.diff(levels, axis=0)), out=steps[:-1])
    return steps


def _find_texts(rgb: RgbArray, edges: BoolArray) -> list[PictureBlock]:
    letters = _without_frames(edges)
    # Closing along the line, on a canvas wide enough that the page's sides do not count as text.
    padded = np.pad(letters, ((0, 0), (_JOIN_GAP_PX, _JOIN_GAP_PX)))
    labels, _ = ndimage.label(
        _closed(padded, _JOIN_GAP_PX + 1)[:, _JOIN_GAP_PX:-_JOIN_GAP_PX], structure=np.ones((3, 3))
    )
    blocks = []
    for box in ndimage.find_objects(labels):
        rows, columns = box
        # The edge of a letter's left and upper side lies on the pixel before it.
        left, top = min(columns.start + 1, columns.stop - 1), min(rows.start + 1, rows.stop - 1)
        right, bottom = columns.stop, rows.stop
        if (right - left) * (bottom - top) >= _SMALLEST_TEXT_PX2:
            ink, behind = _ink_and_behind(rgb[top:bottom, left:right])
            blocks.append(PictureBlock(left, top, right, bottom, ink, behind))
    return blocks


def _closed(marks: BoolArray, length: int) -> BoolArray:
    """Binary closing by a lying line of so many px, an odd number; what is outside is empty.

    By filters of one dimension, which take a third of the time of `ndimage.binary_closing`."""
    wide = ndimage.maximum_filter1d(marks.view(np.uint8), length, axis=1, mode="constant")
    closed: BoolArray = ndimage.minimum_filter1d(wide, length, axis=1, mode="constant").view(np.bool_)
    return closed


def _without_frames(edges: BoolArray) -> BoolArray:
    """Edges without the pieces that are long and thin (rules, sides of areas) or large and hollow (frames)."""
    labels, count = ndimage.label(edges, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = np.zeros(count + 1, dtype=np.bool_)
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        short, long = min(height, width), max(height, width)
        thin = short <= _THIN_PX and long > _LONG_PX
        hollow = short > _HOLLOW_SIDE_PX and sizes[index] < _HOLLOW_FILL * height * width
        keep[index] = not (thin or hollow)
    kept: BoolArray = keep[labels]
    return kept


def _ink_and_behind(patch: RgbArray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The colour of what is drawn on a patch, and the one it is drawn on.

    Behind is the commonest colour. Ink is the mean of the quarter of the differing pixels that differ most: smoothed
    edges of letters are mixtures of both.
    """
    behind = background_colour(patch)
    pixels = patch.reshape(-1, 3).astype(np.float64)
    distance = np.abs(pixels - behind).sum(axis=1)
    differing = distance > _SAME_COLOUR_LEVELS
    if not differing.any():
        return _rgb(behind), _rgb(behind)
    strong = distance >= np.quantile(distance[differing], 0.75)
    return _rgb(pixels[strong].mean(axis=0)), _rgb(behind)


def _find_areas(rgb: RgbArray, flat: BoolArray, background: Float64Array) -> list[PictureBlock]:
    labels, count = ndimage.label(flat)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    page_width = rgb.shape[1]
    blocks = []
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if sizes[index] < _SMALLEST_AREA_PX2:
            continue
        colour = background_colour(rgb[box][labels[box] == index][:, None])
        rows, columns = box
        at_side = columns.start == 0 or columns.stop == page_width
        if at_side and np.abs(colour - background).max() < _SAME_COLOUR_LEVELS:
            continue
        block = PictureBlock(columns.start, rows.start, columns.stop, rows.stop, _rgb(colour), _rgb(background))
        blocks.append(block)
    return blocks


def _rgb(colour: Float64Array) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])
