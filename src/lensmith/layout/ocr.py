"""The text of a screenshot: what stands where, a line at a time.

Reading is done by RapidOCR (PP-OCR's detector and recogniser, whose weights come in its wheel). What is ours is what it
needs around it for web pages:

- A page is read in strips, cut where no ink is: as a whole, a high page would be shrunk until nothing is legible.
- The detector joins neighbours of a menu and cells of a table ("OperationsAnalyticsSales"). A found line is cut at its
  wide gaps, and where its background changes, before it is read: so cells stay apart, and boxes are those of the ink.
- Strips are looked at, and lines read, on all cores (`lensmith.layout.reader`).

Legend: H, W pixels of the page; rgb_HW3 8-bit sRGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lensmith.core.arrays import BoolArray, Float64Array
from lensmith.core.types import Rgb
from lensmith.layout.reader import own_reader, readers

Rgb3Array = NDArray[np.uint8]

STRIP_PX = 1200
_SHORTEST_STRIP_PX = 800
TILE_PX, _TILE_OVERLAP_PX = 1600, 200
_NARROWEST_PX = 64
"""What the detector is shown is no narrower or lower: it is filled up."""
_EMPTY_PX, _AROUND_PX = 160, 32
"""More rows than so many in which nothing is are not looked at, but for so many beside what there is."""
_OVERLAP_PX = 60
"""Where no row without ink is found: so many rows are read twice."""
_EDGE_LEVELS = 20
_INK_LEVELS = 40
"""Of 765, the sum over the channels: what differs less from the colour behind is no ink."""
_FLAT_SHARE, _FLAT_RIM_SHARE = 0.3, 0.15
"""The shares of a line's box, and of its rim, that are of one colour, exactly, where it stands on a flat area."""
_PLANE_ROUNDS, _RIM_SHARE, _BEHIND_SHARE, _UNEVEN_LEVELS = 4, 0.8, 0.5, 24
"""Where it does not, an even change of colour is fitted to so much of its rim, or else of all its pixels, which may be
so far off."""
_GAP_OF_HEIGHT = 0.85
"""A gap wider than this many heights of the ink is no space between words (these are 0.3 to 0.5)."""
_SMALLEST_GAP_PX = 9
_NEIGHBOURS_REACH = 0.35
"""Letters of other lines reach less of a line's height into its box."""
_LEAST_CONFIDENCE = 0.55
_WIDEST_SIGN_PX = 24
_HIGHEST_LETTER_PX = 80
_SIDE_PX = _HIGHEST_LETTER_PX + 1
_MAX_TILT = 0.12
"""Height that a line of text may gain over its length: what is steeper is part of a picture."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of text, or a cell of one: the box of its ink in px, and how sure the reader is.

    The box is [left, right) x [top, bottom).
    """

    text: str
    left: int
    top: int
    right: int
    bottom: int
    confidence: float

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


class _Piece(tuple[int, int, int, int]):
    """left, top, right, bottom of what is read as one line."""

    __slots__ = ()


def read_lines(rgb_HW3: Rgb3Array) -> list[Line]:
    """All lines of a page, from top to bottom, then from left to right. Empty where there is no text."""
    own = readers()
    found = own.map(lambda strip: _pieces(rgb_HW3[slice(*strip)], strip[0]), _strips(rgb_HW3))
    pieces = _without_repeats([piece for of_strip in found for piece in of_strip])
    texts = own.map(lambda piece: _recognised(_crop(rgb_HW3, piece)), pieces)
    lines = [
        Line(text=text, left=piece[0], top=piece[1], right=piece[2], bottom=piece[3], confidence=confidence)
        for piece, (text, confidence) in zip(pieces, texts, strict=True)
        if confidence >= _LEAST_CONFIDENCE and _is_text(text, piece[2] - piece[0], piece[3] - piece[1])
    ]
    return sorted(lines, key=lambda line: (line.top, line.left))


def _is_text(text: str, width: int, height: int) -> bool:
    """Whether what was read is text: one sign alone is an icon, and one huge letter a drawing. Of a script that the
    reader does not know it often makes a few signs, much too few for the line's width."""
    if len(text) <= 1:
        return text.isalnum() and height <= _HIGHEST_LETTER_PX
    signs = len(text.replace(" ", ""))
    return any(map(str.isalnum, text)) or width <= signs * max(_WIDEST_SIGN_PX, 1.5 * height)


def _strips(rgb_HW3: Rgb3Array) -> list[tuple[int, int]]:
    """Tops and bottoms of the strips, without the parts of the page where nothing is."""
    grey = rgb_HW3.sum(axis=2, dtype=np.int16)
    edges = np.abs(np.diff(grey, axis=1)) > _EDGE_LEVELS
    if edges.shape[1] and edges.shape[0] > _SIDE_PX:
        # The sides of boxes are in every row of them, and no letter is as high.
        stays = ndimage.minimum_filter1d(edges.view(np.uint8), _SIDE_PX, axis=0)
        edges &= ndimage.maximum_filter1d(stays, _SIDE_PX, axis=0) == 0
    inked = edges.sum(axis=1)
    strips = []
    for start, stop in _runs(inked > 0, widest_gap=_EMPTY_PX):
        top, bottom = max(0, start - _AROUND_PX), min(len(inked), stop + _AROUND_PX)
        strips += [(top + first, top + last) for first, last in _cut_to_strips(inked[top:bottom])]
    return strips


def _cut_to_strips(inked: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Tops and bottoms of strips, cut in rows without edges where there are any. `inked`: how many each row has."""
    height = len(inked)
    strips, top = [], 0
    while height - top > STRIP_PX:
        window = inked[top + _SHORTEST_STRIP_PX : top + STRIP_PX]
        least = int(window.min())
        # Of the emptiest rows the last: fewer strips.
        cut = top + _SHORTEST_STRIP_PX + int(np.flatnonzero(window == least)[-1])
        clean = least == 0
        strips.append((top, cut if clean else min(height, cut + _OVERLAP_PX)))
        top = cut if clean else cut - _OVERLAP_PX
    strips.append((top, height))
    return strips


def _pieces(strip_HW3: Rgb3Array, offset: int) -> list[_Piece]:
    width = strip_HW3.shape[1]
    boxes: list[tuple[int, int, int, int]] = []
    for left in range(0, max(1, width - _TILE_OVERLAP_PX), TILE_PX - _TILE_OVERLAP_PX):
        tile_HW3 = strip_HW3[:, left : left + TILE_PX]
        boxes += [(a + left, b, c + left, d) for a, b, c, d in _found(tile_HW3)]
    return [_Piece((a, b + offset, c, d + offset)) for box in _mended(boxes) for a, b, c, d in _cells(strip_HW3, box)]


def _found(tile_HW3: Rgb3Array) -> list[tuple[int, int, int, int]]:
    """The boxes that the detector finds, without those of tilted text."""
    height, width = tile_HW3.shape[:2]
    room = ((0, max(0, _NARROWEST_PX - height)), (0, max(0, _NARROWEST_PX - width)), (0, 0))
    seen_HW3 = np.pad(tile_HW3[:, :, ::-1], room, mode="edge")
    found = own_reader()(np.ascontiguousarray(seen_HW3), use_det=True, use_cls=False, use_rec=False)
    quads = getattr(found, "boxes", None)
    boxes = []
    for quad in [] if quads is None else quads:
        quad_42 = np.asarray(quad, dtype=np.float64)
        (left, top), (right, bottom) = quad_42.min(axis=0), quad_42.max(axis=0)
        tilt = abs(quad_42[1, 1] - quad_42[0, 1]) / max(1.0, right - left)
        box = (max(0, int(left)), max(0, int(top)), min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom))))
        if tilt <= _MAX_TILT and box[3] - box[1] >= 4 and box[2] - box[0] >= 3:
            boxes.append(box)
    return boxes


def _mended(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Boxes of which tiles saw a part each, as one: they overlap, and are about as high."""
    mended: list[tuple[int, int, int, int]] = []
    for box in sorted(boxes):
        for index, other in enumerate(mended):
            down = min(box[3], other[3]) - max(box[1], other[1])
            if box[0] < other[2] and down > 0.7 * max(box[3] - box[1], other[3] - other[1]):
                mended[index] = (
                    min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])
                )  # fmt: skip
                break
        else:
            mended.append(box)
    return mended


def _cells(strip_HW3: Rgb3Array, box: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """The parts of a found line that stand far apart, each the box of its ink."""
    left, top = box[:2]
    ink = _ink_of_line(strip_HW3, box)
    columns: BoolArray = np.asarray(ink.any(axis=0))
    rows = np.flatnonzero(ink.any(axis=1))
    if not len(rows):
        return []
    height = int(rows[-1] - rows[0] + 1)
    cells = []
    for start, stop in _runs(columns, widest_gap=max(_SMALLEST_GAP_PX, round(_GAP_OF_HEIGHT * height))):
        inked = np.flatnonzero(ink[:, start:stop].any(axis=1))
        if len(inked) and (stop - start) >= 2:
            cells.append((left + start, top + int(inked[0]), left + stop, top + int(inked[-1]) + 1))
    return cells


def _ink_of_line(strip_HW3: Rgb3Array, box: tuple[int, int, int, int]) -> BoolArray:
    """The ink in a box, without the ends of letters of the lines above and below it: these come from outside and do not
    reach far in."""
    left, top, right, bottom = box
    first = max(0, top - 1)
    ink = ink_of(strip_HW3[first : bottom + 1, left:right])
    inner = slice(top - first, top - first + bottom - top)
    labels, count = ndimage.label(ink, structure=np.ones((3, 3)))
    most = _NEIGHBOURS_REACH * (bottom - top)
    for label, where in enumerate(ndimage.find_objects(labels, count), 1):
        rows = where[0]
        is_from_above = rows.start < inner.start and rows.stop - inner.start <= most
        is_from_below = rows.stop > inner.stop and inner.stop - rows.start <= most
        if is_from_above or is_from_below:
            ink[where][labels[where] == label] = False
    return ink[inner]


def ink_of(patch_HW3: Rgb3Array) -> BoolArray:
    """Which pixels of a patch are not of the colour behind its letters."""
    ink: BoolArray = np.abs(patch_HW3 - behind_of(patch_HW3)).sum(axis=2) > _INK_LEVELS
    return ink


def behind_of(patch_HW3: Rgb3Array) -> Float64Array:
    """The colour behind the letters of a patch, 1 x 1 x 3: the commonest; or H x W x 3, where it changes evenly."""
    pixels_P3 = patch_HW3.reshape(-1, 3)
    flat = np.array(colour_of(pixels_P3), dtype=np.float64).reshape(1, 1, 3)
    height, width = patch_HW3.shape[:2]
    rim_HW = np.ones((height, width), dtype=np.bool_)
    rim_HW[1:-1, 1:-1] = False
    is_commonest_HW = (patch_HW3 == flat).all(axis=2)
    if is_commonest_HW.mean() >= _FLAT_SHARE and is_commonest_HW[rim_HW].mean() >= _FLAT_RIM_SHARE:
        return flat
    down, across = np.mgrid[0:height, 0:width]
    plane_P3 = np.stack([np.ones((height, width)), down / height, across / width], axis=2).reshape(-1, 3)
    fitted_33 = _evenly(plane_P3[rim_HW.ravel()], pixels_P3[rim_HW.ravel()], share=_RIM_SHARE)
    if fitted_33 is None:  # the rim of a box that is as small as its letters is not free of them
        fitted_33 = _evenly(plane_P3, pixels_P3, share=_BEHIND_SHARE)
    return flat if fitted_33 is None else (plane_P3 @ fitted_33).reshape(height, width, 3)


def _evenly(plane_P3: Float64Array, pixels_P3: Rgb3Array, *, share: float) -> Float64Array | None:
    """The even change of colour that fits such a share of the pixels; None where none does. Letters are far off."""
    kept = np.ones(len(pixels_P3), dtype=np.bool_)
    for _ in range(_PLANE_ROUNDS):
        fitted_33 = np.linalg.lstsq(plane_P3[kept], pixels_P3[kept].astype(np.float64), rcond=None)[0]
        off_P = np.abs(pixels_P3 - plane_P3 @ fitted_33).sum(axis=1)
        kept = off_P <= np.quantile(off_P, share)
    return np.asarray(fitted_33) if float(off_P[kept].max()) <= _UNEVEN_LEVELS else None


def colour_of(pixels_P3: Rgb3Array) -> Rgb:
    """The commonest colour of some pixels."""
    packed = pixels_P3.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    values, counts = np.unique(packed, return_counts=True)
    value = int(values[counts.argmax()])
    return value >> 16, value >> 8 & 255, value & 255


def _runs(columns: BoolArray, *, widest_gap: int) -> list[tuple[int, int]]:
    """Starts and stops of the runs of True that gaps wider than `widest_gap` part."""
    at = np.flatnonzero(columns)
    if not len(at):
        return []
    breaks = np.flatnonzero(np.diff(at) > widest_gap)
    starts = [int(at[0]), *(int(at[i + 1]) for i in breaks)]
    stops = [*(int(at[i]) + 1 for i in breaks), int(at[-1]) + 1]
    return list(zip(starts, stops, strict=True))


def _without_repeats(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Each piece once: the detector's boxes may overlap, and so do strips."""
    kept: list[_Piece] = []
    for piece in sorted(pieces, key=lambda p: (p[0] - p[2]) * (p[3] - p[1])):  # the largest first
        if not any(_overlap(piece, other) > 0.6 for other in kept):
            kept.append(piece)
    return sorted(kept, key=lambda p: (p[1], p[0]))


def _overlap(piece: _Piece, other: _Piece) -> float:
    """The share of `piece` that lies in `other`."""
    across = min(piece[2], other[2]) - max(piece[0], other[0])
    down = min(piece[3], other[3]) - max(piece[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    return across * down / ((piece[2] - piece[0]) * (piece[3] - piece[1]))


def _crop(rgb_HW3: Rgb3Array, piece: _Piece) -> Rgb3Array:
    """What the recogniser sees: the ink and as much around it as the detector would leave. BGR."""
    left, top, right, bottom = piece
    margin = max(2, round(0.22 * (bottom - top)))
    crop = rgb_HW3[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin, ::-1]
    return np.ascontiguousarray(crop)


def _recognised(crop_HW3: Rgb3Array) -> tuple[str, float]:
    """What stands on a line, and how sure the reader is of it."""
    result = own_reader().recognize_txt([crop_HW3])
    return result.txts[0].strip(), float(result.scores[0])
