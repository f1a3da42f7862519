"""A screenshot measured, and the page of what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from lensmith.layout.blocks import Passage, join_lines
from lensmith.layout.markup import Markup, MarkupWriter
from lensmith.layout.ocr import Line, Rgb3Array, ink_of, read_lines
from lensmith.layout.pictures import Cutout, data_url, find_pictures, without_letters
from lensmith.layout.surfaces import Ground, Rect, Surface, find_ground
from lensmith.layout.tree import Nudges, PageParts, build_tree
from lensmith.layout.typography import harmonised, set_lines

_SMALL_SHARE, _LEAST_PX = 0.15, 10.5
"""Pages hardly have so many of their lines in letters smaller than so many px at scale 1."""
_USUAL_WIDTHS_PX = frozenset({1024, 1280, 1366, 1440, 1600, 1680, 1920})
_LARGEST_SCALE = 3
_NARROWEST_PX = 320


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a screenshot shows, at scale 1: `rgb_HW3` is the picture at that scale, `scale` what it was taken at."""

    rgb_HW3: Rgb3Array
    ground: Ground
    blocks: tuple[Passage, ...]
    pictures: tuple[Cutout, ...]
    scale: int

    @property
    def width(self) -> int:
        return int(self.rgb_HW3.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb_HW3.shape[0])


def measure(picture: Image.Image) -> Measured:
    """What stands where on a screenshot."""
    rgb = np.asarray(picture.convert("RGB"))
    lines = read_lines(rgb)
    scale = _scale(rgb, lines)
    if scale > 1:
        size = (max(1, round(picture.width / scale)), max(1, round(picture.height / scale)))
        rgb = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))
        lines = [_shrunk(line, scale) for line in lines]
    texts = [Rect(line.left, line.top, line.right, line.bottom) for line in lines]
    ground = find_ground(rgb, texts)
    lines = [_on_its_surface(rgb, line, ground.surfaces) for line in lines]
    texts = [Rect(line.left, line.top, line.right, line.bottom) for line in lines]
    pictures = find_pictures(rgb, ground, texts)
    ground = _without_lines_of_pictures(ground, pictures)
    logos = [cutout.rect for cutout in pictures if not cutout.has_text]
    shown = [line for line, rect in zip(lines, texts, strict=True) if not _is_within(rect, logos)]
    set_in = set_lines(rgb, shown)
    set_in = harmonised(set_in)
    stands_on = [_surface_of(line, ground.surfaces) for line in shown]
    return Measured(
        rgb_HW3=rgb, ground=ground, blocks=tuple(join_lines(set_in, stands_on)), pictures=tuple(pictures), scale=scale
    )


def _scale(rgb_HW3: Rgb3Array, lines: Sequence[Line]) -> int:
    """How many pixels of the picture are one of the page, told from the size of its smallest text.

    A picture as wide as common windows are at scale 1 is taken to be of one: a page whose scale is taken too small is
    large, one whose scale is taken too large is another page.
    """
    width = int(rgb_HW3.shape[1])
    if not lines or width in _USUAL_WIDTHS_PX:
        return 1
    small = float(np.quantile([_size_of(line) for line in lines], _SMALL_SHARE))
    return max(1, min(_LARGEST_SCALE, int(small / _LEAST_PX), width // _NARROWEST_PX))


def _size_of(line: Line) -> float:
    """The size of a line's letters in px, from how high letters of these kinds are in most fonts."""
    rises = any(char.isupper() or char.isdigit() or char in "bdfhklt" for char in line.text)
    falls = any(char in "gjpqy,;" for char in line.text)
    return line.height / ((0.72 if rises else 0.53) + (0.21 if falls else 0.0))


def _shrunk(line: Line, scale: int) -> Line:
    left, top = round(line.left / scale), round(line.top / scale)
    return Line(
        text=line.text,
        left=left,
        top=top,
        right=max(left + 1, round(line.right / scale)),
        bottom=max(top + 1, round(line.bottom / scale)),
        confidence=line.confidence,
    )


def _on_its_surface(rgb_HW3: Rgb3Array, line: Line, surfaces: Sequence[Surface]) -> Line:
    """The line without what the detector's box took in of the sides of surfaces, its ink measured anew inside."""
    number = _surface_of(line, surfaces)
    left, top, right, bottom = line.left, line.top, line.right, line.bottom
    if number >= 0:
        surface = surfaces[number]
        inner = surface.rect.grown(-1 - (max(surface.border.widths) if surface.border else 0))
        left, top = max(left, inner.left), max(top, inner.top)
        right, bottom = min(right, inner.right), min(bottom, inner.bottom)
    box, middle = Rect(line.left, line.top, line.right, line.bottom), (line.top + line.bottom) / 2
    for surface in surfaces[number + 1 :]:
        if not surface.rect.shared(box):
            continue
        if surface.rect.bottom < middle:
            top = max(top, surface.rect.bottom)
        elif surface.rect.top > middle:
            bottom = min(bottom, surface.rect.top)
    if (left, top, right, bottom) == box or right - left < 2 or bottom - top < 2:
        return line
    ink = ink_of(rgb_HW3[top:bottom, left:right])
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return line
    return replace(
        line,
        left=left + int(columns[0]),
        top=top + int(rows[0]),
        right=left + int(columns[-1]) + 1,
        bottom=top + int(rows[-1]) + 1,
    )


def _without_lines_of_pictures(ground: Ground, pictures: Sequence[Cutout]) -> Ground:
    """Rules and small surfaces that lie in a picture are its own."""
    rects = [cutout.rect for cutout in pictures if not cutout.has_text]
    return replace(
        ground,
        rules=tuple(rule for rule in ground.rules if not _is_within(rule.rect, rects)),
        surfaces=tuple(surface for surface in ground.surfaces if not any(r.holds(surface.rect) for r in rects)),
    )


def _is_within(rect: Rect, others: Sequence[Rect]) -> bool:
    return any(other.shared(rect) > 0.5 * rect.area for other in others)


def _surface_of(line: Line, surfaces: Sequence[Surface]) -> int:
    """The number of the smallest surface below the middle of a line, -1 for the page."""
    x, y = (line.left + line.right) // 2, (line.top + line.bottom) // 2
    under = [
        number
        for number, surface in enumerate(surfaces)
        if surface.rect.left <= x < surface.rect.right and surface.rect.top <= y < surface.rect.bottom
    ]
    return under[-1] if under else -1


def write(measured: Measured, nudges: Nudges | None = None) -> Markup:
    """The page of what was measured."""
    root = build_tree(parts_of(measured), nudges)
    return MarkupWriter(root, measured.ground.colour, lambda cutout: _embedded(measured, cutout)).write()


def parts_of(measured: Measured) -> PageParts:
    """What the page's structure is made of."""
    return PageParts(
        width=measured.width,
        height=measured.height,
        surfaces=measured.ground.surfaces,
        rules=measured.ground.rules,
        blocks=measured.blocks,
        pictures=measured.pictures,
    )


def _embedded(measured: Measured, cutout: Cutout) -> str:
    letters = [block.ink for block in measured.blocks] if cutout.has_text else []
    return data_url(without_letters(measured.rgb_HW3, cutout.rect, letters))
