"""A screenshot measured, and the page of what was measured."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from PIL import Image

from lensmith.core.arrays import BoolArray
from lensmith.core.types import OnStep, untold
from lensmith.layout.blocks import Passage, is_wide, join_lines
from lensmith.layout.inline import (
    between_plates,
    marker_of,
    parted_by_plates,
    plates_of,
    with_a_usual_size,
    with_runs,
    without_bullet,
    without_caret,
    without_underline,
    without_underlines,
)
from lensmith.layout.markup import Markup, MarkupWriter
from lensmith.layout.ocr import Line, Rgb3Array, ink_of, read_lines
from lensmith.layout.pictures import Cutout, data_url, find_pictures, without_letters
from lensmith.layout.surfaces import Ground, Rect, Surface, find_ground
from lensmith.layout.tree import Nudges, PageParts, build_tree
from lensmith.layout.typography import SetLine, harmonised, is_letter, set_lines

_SMALL_SHARE, _LEAST_PX = 0.15, 10.5
"""Pages hardly have so many of their lines in letters smaller than so many px at scale 1."""
_USUAL_WIDTHS_PX = frozenset({1024, 1280, 1366, 1440, 1600, 1680, 1920})
_LARGEST_SCALE = 3
_BELOW_SHARE = 0.8
"""A line stands on a surface that is below so much of its width."""
_NARROWEST_PX = 320
_FEWEST_OF_SCRIPT = 3


class LayoutStep(StrEnum):
    """The steps from a screenshot to its page, in this order, as an `OnStep` is told of them."""

    READING = "reading the text"
    SURFACES = "finding the surfaces"
    PICTURES = "finding the pictures"
    TYPOGRAPHY = "finding the letters' styles"
    STRUCTURE = "building the page"
    FITTING = "fitting the page by rendering"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a screenshot shows, at scale 1: `rgb_HW3` is the picture at that scale, `scale` what it was taken at."""

    rgb_HW3: Rgb3Array
    ground: Ground
    blocks: tuple[Passage, ...]
    pictures: tuple[Cutout, ...]
    scale: int

    @functools.cached_property
    def picture_urls(self) -> dict[Cutout, str]:
        """The pictures as a page holds them, without the letters that it sets on them."""
        letters = [block.ink for block in self.blocks]
        return {
            cutout: data_url(without_letters(self.rgb_HW3, cutout.rect, letters if cutout.has_text else []))
            for cutout in self.pictures
        }

    @property
    def width(self) -> int:
        return int(self.rgb_HW3.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb_HW3.shape[0])


def measure(picture: Image.Image, on_step: OnStep = untold) -> Measured:
    """What stands where on a screenshot."""
    on_step(LayoutStep.READING)
    rgb = np.asarray(picture.convert("RGB"))
    lines = read_lines(rgb)
    scale = _scale(rgb, lines)
    if scale > 1:
        size = (max(1, round(picture.width / scale)), max(1, round(picture.height / scale)))
        rgb = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))
        lines = [_shrunk(line, scale) for line in lines]
    lines = [without_underline(rgb, without_caret(rgb, without_bullet(rgb, line))) for line in lines]
    lines = _without_icons(rgb, lines)
    on_step(LayoutStep.SURFACES)
    texts = [Rect(line.left, line.top, line.right, line.bottom) for line in lines]
    ground = find_ground(rgb, texts)
    lines = [part for line in lines for part in parted_by_plates(line, plates_of(line, ground.surfaces), rgb)]
    lines = [_on_its_surface(rgb, line, ground.surfaces) for line in lines]
    texts = [Rect(line.left, line.top, line.right, line.bottom) for line in lines]
    on_step(LayoutStep.PICTURES)
    pictures = find_pictures(rgb, ground, texts)
    ground = _without_lines_of_pictures(ground, pictures)
    logos = [cutout.rect for cutout in pictures if not cutout.has_text]
    shown = [line for line, rect in zip(lines, texts, strict=True) if not _is_within(rect, logos)]
    on_step(LayoutStep.TYPOGRAPHY)
    pictures = [_with_words(cutout, lines) for cutout in pictures]
    plates = [plates_of(line, ground.surfaces) for line in shown]
    shown = [between_plates(rgb, line, own) for line, own in zip(shown, plates, strict=True)]
    set_in = set_lines(without_underlines(rgb, shown), shown)
    with_words = [with_runs(rgb, line, own) for line, own in zip(set_in, plates, strict=True)]
    ground = _without_plates(ground, with_words, plates)
    plain = [line for line, own in zip(with_words, plates, strict=True) if not own]
    with_words = [with_a_usual_size(line, plain) if own else line for line, own in zip(with_words, plates, strict=True)]
    set_in = [replace(line, marker=marker_of(rgb, line)) for line in harmonised(with_words)]
    bullets = [line.marker for line in set_in if line.marker is not None]
    pictures = [cutout for cutout in pictures if not any(bullet.holds(cutout.rect, 2) for bullet in bullets)]
    stands_on = [_surface_of(line, ground.surfaces) for line in shown]
    return Measured(
        rgb_HW3=rgb, ground=ground, blocks=tuple(join_lines(set_in, stands_on)), pictures=tuple(pictures), scale=scale
    )


def _without_icons(rgb_HW3: Rgb3Array, lines: Sequence[Line]) -> list[Line]:
    """The lines but those of one sign that do not look like it. Of scripts without spaces a sign may be a word."""
    is_wide_script = sum(is_wide(line.text[0]) for line in lines if len(line.text) > 1) >= _FEWEST_OF_SCRIPT
    return [
        line
        for line in lines
        if len(line.text) > 1 or (is_wide_script and is_wide(line.text)) or is_letter(rgb_HW3, line)
    ]


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


def _within_corners(surface: Surface, box: Rect) -> BoolArray:
    """Which pixels of a box lie inside of a surface's round corners and their border."""
    border = max(surface.border.widths) if surface.border else 0
    inner, radius = surface.rect.grown(-1 - border), max(0, surface.radius_px - 1 - border)
    down, across = np.mgrid[box.top : box.bottom, box.left : box.right]
    y = np.maximum(np.maximum(inner.top + radius - down, down - (inner.bottom - 1 - radius)), 0)
    x = np.maximum(np.maximum(inner.left + radius - across, across - (inner.right - 1 - radius)), 0)
    return np.asarray(x * x + y * y <= radius * radius, dtype=np.bool_)


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
    if number >= 0:
        ink &= _within_corners(surfaces[number], Rect(left, top, right, bottom))
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


def _with_words(cutout: Cutout, lines: Sequence[Line]) -> Cutout:
    if cutout.has_text:
        return cutout
    inside = [line for line in lines if _is_within(Rect(line.left, line.top, line.right, line.bottom), [cutout.rect])]
    return replace(cutout, words=" ".join(line.text for line in inside))


def _is_within(rect: Rect, others: Sequence[Rect]) -> bool:
    return any(other.shared(rect) > 0.5 * rect.area for other in others)


def _surface_of(line: Line, surfaces: Sequence[Surface]) -> int:
    """The number of the smallest surface below a line, -1 for the page. What is below some of its words is none."""
    y, width = (line.top + line.bottom) // 2, line.right - line.left
    under = [
        number
        for number, surface in enumerate(surfaces)
        if surface.rect.top <= y < surface.rect.bottom
        and min(surface.rect.right, line.right) - max(surface.rect.left, line.left) > _BELOW_SHARE * width
    ]
    return under[-1] if under else -1


def _without_plates(ground: Ground, lines: Sequence[SetLine], plates: Sequence[tuple[Surface, ...]]) -> Ground:
    """Surfaces that words within a line stand on belong to these words."""
    taken = {
        plate
        for line, of_line in zip(lines, plates, strict=True)
        for plate in of_line
        if any(run.style.plate == plate.colour for run in line.runs)
    }
    return replace(ground, surfaces=tuple(surface for surface in ground.surfaces if surface not in taken))


def write(measured: Measured, nudges: Nudges | None = None) -> Markup:
    """The page of what was measured."""
    root = build_tree(parts_of(measured), nudges)
    return MarkupWriter(root, measured.ground.colour, measured.picture_urls.__getitem__).write()


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
