"""What two pages paint besides text: backgrounds, cards, buttons, borders, rules and pictures, matched and compared.

Design2Code locates texts alone; a page may lose all its cards and pictures and keep its four terms. Here both DOMs are
at hand, and the browser says what each element paints (`Page.styles`). What can be seen of it, a colour that differs
from what is behind, is a *surface*:

- an area: a background, or a picture or icon, whose colour is the mean of its pixels on the screenshot;
- a frame: a border on all four sides, with or without a background;
- a rule: each side of a border that has fewer than four, which is a line wherever its element ends. So it is the same
  surface whether a list's entry has a border below, the next one has one above, or an `hr` lies between them.

Surfaces are laid over each other as two screenshots of one width would be, not stretched to one height. What is not
seen: shadows, round corners, and what `::before` and `::after` paint beside other content.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from lensmith.core.arrays import Float64Array
from lensmith.core.types import Box, ElementStyle, Page
from lensmith.evaluate.visual.colour import ciede2000, colour_similarity, lab_from_rgb
from lensmith.evaluate.visual.pixels import RgbArray, rgb_array

Colour = tuple[float, float, float]

_JUST_NOTICEABLE = 1.0
"""CIEDE2000: a colour nearer than this to what is behind it cannot be told from it."""
_THINNEST_PX = 8.0
"""Thinner surfaces, rules above all, are matched as if they were so thick: one that is 2 px off still overlaps."""
_SMALLEST_OVERLAP = 0.5
"""Intersection over union from which two boxes are the same thing, as object detection has it (PASCAL VOC)."""
_BESIDE_PX, _SAME_LEVELS = 2, 2
_MOST_SURFACES = 1000


class PaintedSurface(NamedTuple):
    """What is painted: its box in pixels, the colour inside and that of its edge."""

    left: float
    top: float
    right: float
    bottom: float
    inside: Colour
    edge: Colour

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True, kw_only=True)
class SurfaceScores:
    """All in [0, 1], higher is better; all 1 where neither page paints a surface, all 0 where nothing matches.

    match: twice the summed overlap (intersection over union) of matched surfaces, over the number of both pages'.
    recall: the same sum over the number of the target's. colour: how alike matched surfaces are, mean of inside and
    edge, by 1 - CIEDE2000 / 100. Each surface counts once, whatever its area.
    """

    match: float
    recall: float
    colour: float


def score_surfaces(target: Page, prediction: Page) -> SurfaceScores:
    """The scores of two pages with their `styles`. Pictures have their colours from the screenshots, where there are
    any."""
    wanted, made = _of_both(target, prediction)
    return compare_surfaces(wanted, made)


def compare_surfaces(target: Sequence[PaintedSurface], prediction: Sequence[PaintedSurface]) -> SurfaceScores:
    """The scores of two pages' surfaces, which are paired so that the sum of overlap times likeness is greatest."""
    if not target and not prediction:
        return SurfaceScores(match=1.0, recall=1.0, colour=1.0)
    pairs = _match(target, prediction)
    if not pairs:
        return SurfaceScores(match=0.0, recall=0.0, colour=0.0)
    total = sum(pair.overlap for pair in pairs)
    return SurfaceScores(
        match=min(1.0, 2 * total / (len(target) + len(prediction))),
        recall=min(1.0, total / len(target)),
        colour=min(1.0, sum(pair.likeness for pair in pairs) / len(pairs)),
    )


def unmatched_surfaces(target: Page, prediction: Page) -> tuple[tuple[PaintedSurface, ...], tuple[PaintedSurface, ...]]:
    """The target's surfaces that the prediction lacks, and the prediction's that the target lacks.

    Both in pixels of the target's width.
    """
    wanted, made = _of_both(target, prediction)
    pairs = _match(wanted, made)
    found, known = {pair.target for pair in pairs}, {pair.prediction for pair in pairs}
    lacking = tuple(surface for index, surface in enumerate(wanted) if index not in found)
    return lacking, tuple(surface for index, surface in enumerate(made) if index not in known)


def surfaces_of(page: Page, width_px: float) -> tuple[PaintedSurface, ...]:
    """The surfaces of a page with its `styles`, in document order; of more than 1,000 the largest.

    In pixels of a page so wide: the whole page is scaled to it.
    """
    styles = [style for style in page.styles if style.box.width_px > 0 and style.box.height_px > 0]
    if not styles:
        return ()
    pixels = rgb_array(page.png) if page.png and any(style.is_picture for style in styles) else None
    has_fill, has_side = _seen(styles)
    found: list[PaintedSurface] = []
    for style, filled, sides in zip(styles, has_fill, has_side, strict=True):
        found += _painted(style, filled, sides, pixels)
    if len(found) > _MOST_SURFACES:
        largest = sorted(range(len(found)), key=lambda index: -found[index].area)[:_MOST_SURFACES]
        found = [found[index] for index in sorted(largest)]
    scale = width_px / page.width_px
    return tuple(
        PaintedSurface(scale * left, scale * top, scale * right, scale * bottom, inside, edge)
        for left, top, right, bottom, inside, edge in found
    )


def _of_both(target: Page, prediction: Page) -> tuple[tuple[PaintedSurface, ...], tuple[PaintedSurface, ...]]:
    return surfaces_of(target, target.width_px), surfaces_of(prediction, target.width_px)


class _Pair(NamedTuple):
    target: int
    prediction: int
    overlap: float
    likeness: float


def _match(target: Sequence[PaintedSurface], prediction: Sequence[PaintedSurface]) -> list[_Pair]:
    if not target or not prediction:
        return []
    overlaps, likeness = _overlaps(target, prediction), _likeness(target, prediction)
    rows, columns = linear_sum_assignment(-np.where(overlaps >= _SMALLEST_OVERLAP, overlaps * likeness, 0.0))
    pairs = (
        _Pair(int(i), int(j), float(overlaps[i, j]), float(likeness[i, j])) for i, j in zip(rows, columns, strict=True)
    )
    return [pair for pair in pairs if pair.overlap >= _SMALLEST_OVERLAP]


def _seen(styles: Sequence[ElementStyle]) -> tuple[list[bool], list[list[bool]]]:
    """For each element whether its background, and each side of its border, can be told from what is around them."""
    behind = lab_from_rgb([style.behind for style in styles])
    fills = lab_from_rgb([style.fill or style.behind for style in styles])
    sides = lab_from_rgb([[side.colour if side else style.behind for side in style.borders] for style in styles])
    has_fill = ciede2000(fills, behind) >= _JUST_NOTICEABLE
    around = ciede2000(sides, behind[:, None]) >= _JUST_NOTICEABLE
    within = ciede2000(sides, fills[:, None]) >= _JUST_NOTICEABLE
    # A side that has the colour of what is behind it shows where the inside is of another.
    there = np.array([[side is not None for side in style.borders] for style in styles])
    return has_fill.tolist(), (there & (around | within)).tolist()


def _painted(
    style: ElementStyle, has_fill: bool, has_side: list[bool], pixels: RgbArray | None
) -> Iterator[PaintedSurface]:
    box = style.box
    inside: Colour = style.fill or style.behind
    has_picture = style.is_picture
    if has_picture and pixels is not None:
        inside = _mean_colour(pixels, box) or inside
        has_picture = not _is_plain(pixels, box)
    is_frame = all(has_side)
    if has_fill or has_picture or is_frame:
        edge: Colour = inside
        if is_frame:
            red, green, blue = np.mean([side.colour for side in style.borders if side], axis=0).tolist()
            edge = (red, green, blue)
        yield PaintedSurface(box.left_px, box.top_px, box.right_px, box.bottom_px, inside, edge)
    if is_frame:
        return
    for place, (side, seen) in enumerate(zip(style.borders, has_side, strict=True)):
        if side is not None and seen:
            yield PaintedSurface(*_side_box(box, place, side.width_px), side.colour, side.colour)


def _side_box(box: Box, place: int, width_px: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.left_px, box.top_px, box.right_px, box.bottom_px
    return (
        (left, top, right, top + width_px),
        (right - width_px, top, right, bottom),
        (left, bottom - width_px, right, bottom),
        (left, top, left + width_px, bottom),
    )[place]


def _mean_colour(pixels: RgbArray, box: Box) -> Colour | None:
    """The mean colour of a box on a screenshot; None where none of its pixels is there."""
    patch = _patch(pixels, box, 0)
    if patch.size == 0:
        return None
    red, green, blue = patch.reshape(-1, 3).mean(axis=0).tolist()
    return red, green, blue


def _is_plain(pixels: RgbArray, box: Box) -> bool:
    """Whether a box, and what is next to it, has one colour: a picture that nobody can see."""
    patch = _patch(pixels, box, _BESIDE_PX).reshape(-1, 3)
    return len(patch) > 0 and int((patch.max(axis=0) - patch.min(axis=0)).max()) <= _SAME_LEVELS


def _patch(pixels: RgbArray, box: Box, beside_px: int) -> RgbArray:
    rows = slice(max(0, int(box.top_px) - beside_px), max(0, round(box.bottom_px) + beside_px))
    columns = slice(max(0, int(box.left_px) - beside_px), max(0, round(box.right_px) + beside_px))
    return pixels[rows, columns]


def _overlaps(first: Sequence[PaintedSurface], second: Sequence[PaintedSurface]) -> Float64Array:
    """Intersection over union of all pairs, (first, second)."""
    boxes, others = _thickened(first)[:, None], _thickened(second)[None]
    shared = np.maximum(0.0, np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2]))
    areas, other_areas = ((each[..., 2:] - each[..., :2]).prod(axis=2) for each in (boxes, others))
    both = shared.prod(axis=2)
    overlaps: Float64Array = both / (areas + other_areas - both)
    return overlaps


def _thickened(surfaces: Sequence[PaintedSurface]) -> Float64Array:
    """Left, top, right, bottom (N, 4), none thinner than the thinnest that is told apart."""
    boxes = np.array([surface[:4] for surface in surfaces], dtype=np.float64)
    lacking = np.maximum(0.0, _THINNEST_PX - (boxes[:, 2:] - boxes[:, :2]))
    return np.concatenate([boxes[:, :2] - lacking / 2, boxes[:, 2:] + lacking / 2], axis=1)


def _likeness(first: Sequence[PaintedSurface], second: Sequence[PaintedSurface]) -> Float64Array:
    """How alike the colours of all pairs are, (first, second)."""
    total = np.zeros((len(first), len(second)))
    for part in ("inside", "edge"):
        colours = np.array([getattr(surface, part) for surface in first], dtype=np.float64)
        others = np.array([getattr(surface, part) for surface in second], dtype=np.float64)
        total += colour_similarity(colours[:, None], others[None])
    return total / 2
