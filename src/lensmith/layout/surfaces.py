"""The surfaces of a page: the rectangles that its text and pictures stand on, with their colours, borders and corners.

Pixels that hardly differ from their neighbours belong together (so does a gradient); of these areas, the ones that fill
the sides of their own rectangle are surfaces: bands, cards, buttons, fields, cells. A thin line around one is its
border. Lines that stand alone are rules.

Legend: H, W pixels; rgb_HW3 8-bit sRGB; boxes [left, right) x [top, bottom) in px.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lensmith.core.arrays import BoolArray
from lensmith.core.types import Rgb
from lensmith.layout.ocr import Rgb3Array, colour_of
from lensmith.layout.shadows import Shadow, fade_of, levels_outside, shadow_of

_FLAT_LEVELS = 3
"""Neighbours that differ by so little belong to one area: cards are often told from the page by #f8f9fa on white."""
_SMALLEST_SIDE_PX, _SMALLEST_PX2 = 10, 60
_FILLED_SIDE = 0.72
"""The share of each side of its rectangle that a surface fills at least: corners may be round, a tab may touch."""
_SAME_LEVELS = 5
_WIDEST_BORDER_PX = 5
_ONE_BORDER_LEVELS = 24
_LONGEST_CORNER_PX = 40
_ROUND_SLACK_PX = 0.6
_WIDEST_LETTER = 1.3
"""No letter holds an area so many times as wide as its line is high."""
_SHORTEST_RULE_PX = 40
_ONE_RULE_LEVELS = 8
_ONE_SHADOW_STRENGTH = 0.06
_THICKEST_RULE_PX = 3
_GRADIENT_LEVELS = 10
_EVEN_LEVELS = 8


_Value = TypeVar("_Value", bound=Hashable)


class Rect(NamedTuple):
    """A rectangle in px, [left, right) x [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def area(self) -> int:
        return self.width * self.height

    def grown(self, px: int) -> Self:
        return self._replace(left=self.left - px, top=self.top - px, right=self.right + px, bottom=self.bottom + px)

    def holds(self, other: "Rect", slack: int = 1) -> bool:
        """Whether `other` lies inside, but for `slack` px."""
        return (
            self.left - slack <= other.left
            and self.top - slack <= other.top
            and other.right <= self.right + slack
            and other.bottom <= self.bottom + slack
        )

    def shared(self, other: "Rect") -> int:
        """The area that both cover."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0, across) * max(0, down)


class Border(NamedTuple):
    """A border's widths in px and colours, each top, right, bottom, left; of width 0 where there is none."""

    widths: tuple[int, int, int, int]
    colours: tuple[Rgb, Rgb, Rgb, Rgb]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A surface: its box with its border, its colour (at the end of a gradient `until` in the direction `towards`)."""

    rect: Rect
    colour: Rgb
    border: Border | None = None
    radius_px: int = 0
    until: Rgb | None = None
    towards: str = ""
    shadow: Shadow | None = None

    @property
    def inside(self) -> Rect:
        """Its box without its border."""
        if self.border is None:
            return self.rect
        top, right, bottom, left = self.border.widths
        return Rect(self.rect.left + left, self.rect.top + top, self.rect.right - right, self.rect.bottom - bottom)

    @property
    def with_shadow(self) -> Rect:
        """Its box and as far around it as its shadow is seen."""
        return self.rect if self.shadow is None else self.rect.grown(self.shadow.down_px + self.shadow.blur_px)


@dataclass(frozen=True, kw_only=True)
class Separator:
    """A line that stands alone."""

    rect: Rect
    colour: Rgb


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a page is painted on: its own colour, its surfaces (the largest first), and its rules."""

    colour: Rgb
    surfaces: tuple[Surface, ...]
    rules: tuple[Separator, ...]


def find_ground(rgb_HW3: Rgb3Array, texts: Sequence[Rect]) -> Ground:
    """The surfaces and rules of a page. Areas inside letters (of `texts`) are none."""
    flat = _flat(rgb_HW3)
    labels_HW, count = ndimage.label(flat)
    sizes = np.bincount(labels_HW.ravel(), minlength=count + 1)
    boxes = ndimage.find_objects(labels_HW)
    ground = _ground_colour(rgb_HW3, labels_HW, sizes)
    letters = _letters_mask(rgb_HW3.shape[:2], texts)
    found = []
    for index, box in enumerate(boxes, start=1):
        if box is None or sizes[index] < _SMALLEST_PX2:
            continue
        surface = _surface(rgb_HW3, labels_HW, index, box)
        if surface is not None and not _is_in_letters(surface.rect, letters, texts):
            found.append(surface)
    found.sort(key=lambda surface: -surface.rect.area)
    surfaces = _told_apart(found, ground)
    rules = _rules(rgb_HW3, surfaces, texts)
    return Ground(colour=ground, surfaces=_of_few_looks(surfaces), rules=_of_few_colours(rules))


def _flat(rgb_HW3: Rgb3Array) -> BoolArray:
    """Pixels that hardly differ from those to the right and below. The last row and column count as flat."""
    flat = np.ones(rgb_HW3.shape[:2], dtype=np.bool_)
    for channel in range(3):
        levels = rgb_HW3[:, :, channel].astype(np.int16)
        flat[:, :-1] &= np.abs(np.diff(levels, axis=1)) < _FLAT_LEVELS
        flat[:-1] &= np.abs(np.diff(levels, axis=0)) < _FLAT_LEVELS
    return flat


def _ground_colour(rgb_HW3: Rgb3Array, labels_HW: NDArray[np.int32], sizes: NDArray[np.int64]) -> Rgb:
    """The colour of the largest area that reaches a side of the page."""
    sides = np.concatenate([labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]])
    at_sides = np.unique(sides[sides > 0])
    if not len(at_sides):
        return colour_of(rgb_HW3.reshape(-1, 3))
    largest = at_sides[sizes[at_sides].argmax()]
    return colour_of(rgb_HW3[labels_HW == largest])


def _letters_mask(shape: tuple[int, int], texts: Sequence[Rect]) -> NDArray[np.int32]:
    """For each pixel the number of the line of text that it lies in, from 1 on, 0 where there is none."""
    mask = np.zeros(shape, dtype=np.int32)
    for number, rect in enumerate(texts, start=1):
        mask[rect.top : rect.bottom, rect.left : rect.right] = number
    return mask


def _is_in_letters(rect: Rect, letters: NDArray[np.int32], texts: Sequence[Rect]) -> bool:
    """Whether an area is the inside of a letter: within a line that is larger than it."""
    number = int(letters[(rect.top + rect.bottom) // 2, (rect.left + rect.right) // 2])
    if not number or rect.holds(texts[number - 1]):
        return False
    inside = letters[rect.top : rect.bottom, rect.left : rect.right]
    height = texts[number - 1].height
    is_small = rect.height <= height + 2 and rect.width <= _WIDEST_LETTER * height
    return is_small and float((inside > 0).mean()) > 0.9


def _surface(rgb_HW3: Rgb3Array, labels_HW: NDArray[np.int32], index: int, box: tuple[slice, slice]) -> Surface | None:
    height, width = labels_HW.shape
    # The mask lacks the last row and column of an area: they differ from what comes after.
    rows, columns = box
    rect = Rect(columns.start, rows.start, min(width, columns.stop + 1), min(height, rows.stop + 1))
    if min(rect.width, rect.height) < _SMALLEST_SIDE_PX:
        return None
    mask = labels_HW[box] == index
    sides = (mask[0], mask[:, -1], mask[-1], mask[:, 0])
    radius = _corner(mask)
    free = [max(1, len(side) - 2 * radius) for side in sides]
    filled = [min(1.0, float(side.sum()) / px) for side, px in zip(sides, free, strict=True)]
    if min(filled) < _FILLED_SIDE:
        return None
    if _is_ring(mask):
        return None
    inside = rgb_HW3[box][mask]
    surface = Surface(rect=rect, colour=colour_of(inside), radius_px=radius)
    return _with_shadow(rgb_HW3, _with_border(rgb_HW3, _with_gradient(rgb_HW3, surface, mask, box)))


def _is_ring(mask: BoolArray) -> bool:
    """Whether an area is a border: nothing of it lies further in."""
    deep = _WIDEST_BORDER_PX + 1
    inner = mask[deep:-deep, deep:-deep]
    return inner.size > 0 and not inner.any()


def _corner(mask: BoolArray) -> int:
    """The radius of an area's corners, from how far from its ends the first row begins, as most corners have it."""
    starts = []
    for corner in (mask, mask[:, ::-1], mask[::-1], mask[::-1, ::-1]):
        row, column = np.flatnonzero(corner[0]), np.flatnonzero(corner[:, 0])
        if len(row) and len(column):
            starts.append(min(int(row[0]), int(column[0])))
    if not starts:
        return 0
    begins = float(np.median(starts))
    half = (min(mask.shape) + 1) / 2
    if begins < 1 or begins > half:
        return 0
    # The first row of a whole circle begins a pixel below its top.
    is_round = begins >= half - math.sqrt(2 * half) - _ROUND_SLACK_PX
    return round(half if is_round else min(begins, _LONGEST_CORNER_PX))


def _with_gradient(rgb_HW3: Rgb3Array, surface: Surface, mask: BoolArray, box: tuple[slice, slice]) -> Surface:
    patch = rgb_HW3[box]
    ends = {}
    for towards, axis in (("bottom", 0), ("right", 1)):
        first, last = (np.take(mask, side, axis) for side in ([0, 1, 2], [-3, -2, -1]))
        if first.any() and last.any():
            from_side, to_side = (np.take(patch, side, axis) for side in ([0, 1, 2], [-3, -2, -1]))
            ends[towards] = colour_of(from_side[first]), colour_of(to_side[last])
    spans = {towards: max(abs(a - b) for a, b in zip(*pair, strict=True)) for towards, pair in ends.items()}
    towards = max(spans, key=lambda key: spans[key], default="")
    if not towards or spans[towards] < _GRADIENT_LEVELS:
        return surface
    first_colour, last_colour = ends[towards]
    if not _is_even(patch, mask, towards, first_colour, last_colour):
        return surface
    return replace(surface, colour=first_colour, until=last_colour, towards=towards)


def _is_even(patch_HW3: Rgb3Array, mask: BoolArray, towards: str, first: Rgb, last: Rgb) -> bool:
    """Whether the colours change evenly from side to side: a shadow on one side is no gradient."""
    length = mask.shape[0 if towards == "bottom" else 1]
    for share in (0.25, 0.5, 0.75):
        place = int(share * (length - 1))
        line, inside = (patch_HW3[place], mask[place]) if towards == "bottom" else (patch_HW3[:, place], mask[:, place])
        if not inside.any():
            return False
        expected = tuple(round(a + (b - a) * share) for a, b in zip(first, last, strict=True))
        if not alike(colour_of(line[inside]), (expected[0], expected[1], expected[2]), _EVEN_LEVELS):
            return False
    return True


def _with_border(rgb_HW3: Rgb3Array, surface: Surface) -> Surface:
    """The surface grown by the thin line around it, if there is one of one colour."""
    inner = surface.rect
    lines = {side: _edge_line(rgb_HW3, inner, surface.radius_px, side, surface) for side in range(4)}
    known = {side: line for side, line in lines.items() if line is not None}
    if not known:
        return surface
    top, right, bottom, left = (known[side][0] if side in known else 0 for side in range(4))
    usual = max((colour for _, colour in known.values()), key=[colour for _, colour in known.values()].count)
    # Sides are of one colour where they differ by no more than what stands behind them shines through.
    colours = [
        known[side][1] if side in known and not alike(known[side][1], usual, _ONE_BORDER_LEVELS) else usual
        for side in range(4)
    ]
    rect = Rect(inner.left - left, inner.top - top, inner.right + right, inner.bottom + bottom)
    grown = surface.radius_px + max(top, right, bottom, left) if surface.radius_px else 0
    border = Border((top, right, bottom, left), (colours[0], colours[1], colours[2], colours[3]))
    return replace(surface, rect=rect, border=border, radius_px=grown)


def _with_shadow(rgb_HW3: Rgb3Array, surface: Surface) -> Surface:
    rect = surface.rect
    margin = min(surface.radius_px + 1, (min(rect.width, rect.height) - 1) // 2)
    levels = {side: levels_outside(rgb_HW3, rect, side, margin) for side in range(4)}
    fades = {side: fade for side, of_side in levels.items() if (fade := fade_of(of_side)) is not None}
    return replace(surface, shadow=shadow_of(fades))


def _edge_line(rgb_HW3: Rgb3Array, rect: Rect, radius: int, side: int, surface: Surface) -> tuple[int, Rgb] | None:
    """Width and colour of the line outside one side (0 top, 1 right, 2 bottom, 3 left), None where there is none."""
    height, width = rgb_HW3.shape[:2]
    across = rect.width if side in (0, 2) else rect.height
    margin = min(radius + 1, (across - 1) // 2)
    if side in (0, 2):
        along = np.s_[rect.left + margin : rect.right - margin]
        places = [rect.top - 1 - k if side == 0 else rect.bottom + k for k in range(_WIDEST_BORDER_PX + 1)]
        rows = [rgb_HW3[place, along] for place in places if 0 <= place < height]
    else:
        along = np.s_[rect.top + margin : rect.bottom - margin]
        places = [rect.right + k if side == 1 else rect.left - 1 - k for k in range(_WIDEST_BORDER_PX + 1)]
        rows = [rgb_HW3[along, place] for place in places if 0 <= place < width]
    if not rows or not len(rows[0]) or fade_of(levels_outside(rgb_HW3, rect, side, margin)) is not None:
        return None
    colour = colour_of(rows[0])
    inside = surface.until if surface.until is not None and side in (1, 2) else surface.colour
    if alike(colour, inside, _SAME_LEVELS):
        return None
    for px, row in enumerate(rows):
        same = np.abs(row.astype(np.int16) - np.array(colour)).max(axis=1) <= _SAME_LEVELS
        if same.mean() < 0.85:
            return (px, colour) if px > 0 else None
    return None  # it goes on: no line, but what lies around


def alike(first: Rgb, second: Rgb, levels: int = _SAME_LEVELS) -> bool:
    """Whether two colours differ by at most so many levels in each channel."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) <= levels


def _told_apart(found: Sequence[Surface], ground: Rgb) -> tuple[Surface, ...]:
    """Surfaces that show: of another colour than what they lie on, or with a border all around.

    Of two that cross each other the larger is kept, and of two with nearly one box the one with a border.
    """
    kept: list[Surface] = []
    for surface in found:
        parent = next((other for other in reversed(kept) if other.rect.holds(surface.rect)), None)
        behind = ground if parent is None else parent.until or parent.colour
        sides = sum(width > 0 for width in surface.border.widths) if surface.border else 0
        shows = surface.until is not None or surface.shadow is not None or not alike(surface.colour, behind, 1)
        if not shows and sides < 4:
            continue
        is_meant = sides == 4 or surface.border is None or _is_accent(surface.border)
        shown = surface if is_meant else _without_border(surface)
        # Neighbours may share the line between them.
        deep = shown.rect.grown(-2)
        if not any(other.rect.shared(deep) and not other.rect.holds(shown.rect, 2) for other in kept):
            kept.append(shown)
    return tuple(kept)


def _is_accent(border: Border) -> bool:
    """A border on some sides only that is meant: thick on one, or a line above or below."""
    return max(border.widths) >= 2 or sum(width > 0 for width in border.widths) == 1


def _without_border(surface: Surface) -> Surface:
    return replace(surface, rect=surface.inside, border=None)


def _rules(rgb_HW3: Rgb3Array, surfaces: Sequence[Surface], texts: Sequence[Rect]) -> tuple[Separator, ...]:
    """Lines of 1 to 3 px that no surface accounts for."""
    taken = np.zeros(rgb_HW3.shape[:2], dtype=np.bool_)
    for surface in surfaces:
        rect, deep = surface.rect, 2 + (max(surface.border.widths) if surface.border else 0)
        top, left = max(0, rect.top - 1), max(0, rect.left - 1)
        taken[top : rect.top + deep, left : rect.right + 1] = True
        taken[rect.bottom - deep : rect.bottom + 1, left : rect.right + 1] = True
        taken[top : rect.bottom + 1, left : rect.left + deep] = True
        taken[top : rect.bottom + 1, rect.right - deep : rect.right + 1] = True
        if surface.shadow is not None:
            around = surface.with_shadow
            outside = np.s_[max(0, around.top) : around.bottom, max(0, around.left) : around.right]
            inside = taken[rect.top : rect.bottom, rect.left : rect.right].copy()
            taken[outside] = True
            taken[rect.top : rect.bottom, rect.left : rect.right] = inside
    for rect in texts:
        taken[max(0, rect.top - 1) : rect.bottom + 2, rect.left : rect.right] = True
    lying = _lying_rules(rgb_HW3, taken)
    standing = [
        Separator(rect=Rect(r.rect.top, r.rect.left, r.rect.bottom, r.rect.right), colour=r.colour)
        for r in _lying_rules(rgb_HW3.swapaxes(0, 1), taken.T)
    ]
    return tuple(lying + standing)


def _of_few_looks(surfaces: Sequence[Surface]) -> tuple[Surface, ...]:
    """Surfaces whose corners, shadows and borders differ by no more than they can be measured have those of most."""
    radii = _chiefs([s.radius_px for s in surfaces if s.radius_px], lambda a, b: abs(a - b) <= 2)
    shadows = _chiefs([s.shadow for s in surfaces if s.shadow is not None], _is_one_shadow)
    borders = _chiefs([s.border for s in surfaces if s.border is not None], _is_one_border)
    return tuple(
        replace(
            surface,
            radius_px=radii.get(surface.radius_px, 0),
            shadow=None if surface.shadow is None else shadows[surface.shadow],
            border=None if surface.border is None else borders[surface.border],
        )
        for surface in surfaces
    )


def _chiefs(values: Sequence[_Value], are_one: Callable[[_Value, _Value], bool]) -> dict[_Value, _Value]:
    """For each value the commonest that is one with it."""
    ordered = [value for value, _ in Counter(values).most_common()]
    return {value: next(other for other in ordered if are_one(other, value)) for value in ordered}


def _is_one_shadow(first: Shadow, second: Shadow) -> bool:
    return (
        abs(first.down_px - second.down_px) <= 2
        and abs(first.blur_px - second.blur_px) <= max(3, 0.3 * first.blur_px)
        and abs(first.strength - second.strength) <= _ONE_SHADOW_STRENGTH
    )


def _is_one_border(first: Border, second: Border) -> bool:
    return first.widths == second.widths and all(
        alike(a, b, _ONE_RULE_LEVELS) for a, b in zip(first.colours, second.colours, strict=True)
    )


def _of_few_colours(rules: Sequence[Separator]) -> tuple[Separator, ...]:
    """Lines of nearly one colour have that of the most: one that is a part of a pixel thick shows another."""
    kept = [colour for colour, _ in Counter(rule.colour for rule in rules).most_common()]
    chief = {colour: next(other for other in kept if alike(colour, other, _ONE_RULE_LEVELS)) for colour in kept}
    return tuple(replace(rule, colour=chief[rule.colour]) for rule in rules)


def largest_step(steps_HW3: NDArray[np.int16]) -> NDArray[np.int16]:
    """The largest of three channels' steps, H x W. One by one: a maximum over an axis of 3 takes 8 times as long."""
    red, green, blue = (np.abs(steps_HW3[..., channel]) for channel in range(3))
    return np.maximum(np.maximum(red, green), blue)


def _lying_rules(rgb_HW3: Rgb3Array, taken: BoolArray) -> list[Separator]:
    levels = rgb_HW3.astype(np.int16)
    even = np.zeros(rgb_HW3.shape[:2], dtype=np.bool_)
    even[:, :-1] = largest_step(np.diff(levels, axis=1)) <= 2
    starts = np.zeros_like(even)
    starts[1:] = largest_step(np.diff(levels, axis=0)) >= _FLAT_LEVELS
    labels, _ = ndimage.label(even & starts & ~taken, structure=np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]]))
    rules: list[Separator] = []
    height = rgb_HW3.shape[0]
    ended: set[tuple[int, int]] = set()
    for rows, columns in ndimage.find_objects(labels):
        top, left, right = rows.start, columns.start, columns.stop + 1
        if right - left < _SHORTEST_RULE_PX or (top, left) in ended:
            continue
        line = levels[top, left:right]
        for thick in range(1, _THICKEST_RULE_PX + 1):
            below = top + thick
            if below >= height:
                break
            changed = np.abs(levels[below, left:right] - line).max(axis=1) >= _FLAT_LEVELS
            if changed.mean() > 0.9:
                rect = Rect(left, top, min(right, rgb_HW3.shape[1]), below)
                rules.append(Separator(rect=rect, colour=colour_of(rgb_HW3[top, left:right])))
                ended.add((below, left))  # the row after a line starts an edge too
                break
    return rules
