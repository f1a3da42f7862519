"""Words within a line that are set otherwise than the others of it: links, and words that are marked.

A reader tells a line's text, not where its words stand. That follows from the font, up to a few px, and from the gaps
in the ink, to which those places are moved. Then each word is looked at by itself: its colour, how black it is, and
whether a line runs below it.

Legend: H, W pixels; sizes in px.
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import ImageFont

from lensmith.core.arrays import BoolArray, Float64Array
from lensmith.core.types import Rgb
from lensmith.layout.blocks import is_wide
from lensmith.layout.ocr import Line, Rgb3Array, behind_of, ink_of
from lensmith.layout.surfaces import Rect, Surface
from lensmith.layout.typography import SetLine, Style, StyledRun, ink_at_100, look_at, path_of

_ANOTHER_HUE_LEVELS = 40
"""Words whose differences between channels differ by so much are of two colours, however thin their strokes are."""
_ANOTHER_LEVELS = 80
"""Words of one hue are of two colours where their levels differ by so much."""
_FEWEST_LETTERS = 2
"""Of fewer letters the colour cannot be told."""
_BOLD_SHARE, _BOLD_GAP = 0.6, 0.4
"""Words are bold that are on average blacker than the regular ones by so much of what bold letters are, and of which
each is blacker by so much."""
_FEWEST_BOLD = 4
"""Of fewer letters the weight cannot be told for sure."""
_UNDERLINED_SHARE, _UNDERLINE_DEEP = 0.7, 0.24
"""A line below words leaves room for what falls below the baseline, and lies within so many sizes of its letters."""
_LEAST_UNDERLINE = 1.5
"""A piece of it is so many heights of its line long."""
_WHOLE_UNDERLINE, _UNDERLINE_THICK, _ABOVE_UNDERLINE = 0.8, 0.2, 0.5
"""A line below a whole line of text, broken where letters fall below it, is so long, no thicker than so much of its
height, and has no more ink than so much right above it."""
_SHORTEST_UNDERLINE, _WIDEST_SPACE = 1.0, 0.62
"""A line below words is so many heights of their line long; the gap of a "_" is wider than so much of their height."""
_FALLING = frozenset("gjpqyQ,;()[]{}|@$_/\\")
_BULLET_FAR, _BULLET_NEAR = 1.9, 0.3
"""Between so many sizes of the letters before a line its bullet stands."""
_BULLET_SIDES, _BULLET_RISE = (0.2, 0.56), 0.33
_NARROWEST_ICON_GAP_PX = 4
_ICON_GAP, _WORD_ICON_GAP = 0.4, 0.3
"""Between an icon and a text, or a single word, there is room for so much of the line's height."""
_NARROWEST_ICON = 0.6
"""An icon before a word is so much of the line's height wide."""
_CARET_GAP, _CARET_HIGH, _CARET_WIDE = 0.2, 0.5, 1.0
"""Of a line's height: the room before an arrow at its end, and what this is at most high and wide."""
_BULLETS = frozenset("\u2022\u00b7\u25cf\u25cb\u25e6\u25aa\u25a0\u2219\u30fb")
_WORD = re.compile(r"\S+")


class _Word(NamedTuple):
    """A word of a line, [start, stop) of its text: its colour, how much blacker than regular letters it is, as a share
    of what bold ones are, whether it is underlined, and the colour of its plate. None where there is none, or it cannot
    be told."""

    start: int
    stop: int
    colour: Rgb | None
    boldness: float | None
    is_underlined: bool
    plate: Rgb | None = None

    @property
    def letters(self) -> int:
        return self.stop - self.start


def without_bullet(rgb_HW3: Rgb3Array, line: Line) -> Line:
    """The line without a bullet or an icon that was read as its first letter, or not read."""
    if len(line.text) < 3:
        return line
    is_sign = line.text[0] in _BULLETS or (is_wide(line.text[0]) and line.text[1:].isascii())
    gaps = _gaps(np.asarray(ink_of(rgb_HW3[line.top : line.bottom, line.left : line.right]).any(axis=0)))
    least = 3 if is_sign else max(_NARROWEST_ICON_GAP_PX, _ICON_GAP * line.height)
    first = next((gap for gap in gaps if gap[1] - gap[0] >= least and gap[0] <= 1.5 * line.height), None)
    if first is None or not (is_sign or _is_unread(line, gaps, first)):
        first = _gap_before_a_word(line, gaps)
    if first is None:
        return line
    left = line.left + first[1]
    rows = np.flatnonzero(ink_of(rgb_HW3[line.top : line.bottom, left : line.right]).any(axis=1))
    if not len(rows):  # what follows is one flat area
        return line
    return replace(
        line,
        text=line.text[1:].lstrip() if is_sign else line.text,
        left=left,
        top=line.top + int(rows[0]),
        bottom=line.top + int(rows[-1]) + 1,
    )


def without_caret(rgb_HW3: Rgb3Array, line: Line) -> Line:
    """The line without an arrow at its end that was not read: a small piece of ink apart from the last letter or digit,
    and lower than any of these."""
    if not line.text[-1].isalnum():
        return line
    ink = ink_of(rgb_HW3[line.top : line.bottom, line.left : line.right])
    gaps = [gap for gap in _gaps(np.asarray(ink.any(axis=0))) if gap[1] - gap[0] >= _CARET_GAP * len(ink)]
    if not gaps or gaps[-1][0] == 0:
        return line
    start, stop = gaps[-1]
    rows = np.flatnonzero(ink[:, stop:].any(axis=1))
    height, width = len(rows), ink.shape[1] - stop
    is_caret = 2 <= height <= _CARET_HIGH * len(ink) and height < width <= _CARET_WIDE * len(ink)
    return replace(line, right=line.left + start) if is_caret else line


def without_underline(rgb_HW3: Rgb3Array, line: Line) -> Line:
    """The line as high as its letters are, where it is underlined and none of them falls as low; and with spaces where
    the line below them was read as "_"."""
    ink = ink_of(rgb_HW3[line.top : line.bottom, line.left : line.right])
    if "_" in line.text:
        line = replace(line, text=_with_spaces(line.text, ink))
    rows = _underline_rows(ink)
    if not rows:
        return line
    letters = ink[: rows.start]
    high, wide = np.flatnonzero(letters.any(axis=1)), np.flatnonzero(letters.any(axis=0))
    if not len(high):
        return line
    bottom = line.bottom if _FALLING & set(line.text) else line.top + int(high[-1]) + 1
    return replace(line, left=line.left + int(wide[0]), right=line.left + int(wide[-1]) + 1, bottom=bottom)


def without_underlines(rgb_HW3: Rgb3Array, lines: Sequence[Line]) -> Rgb3Array:
    """The page with underlines that run through the boxes of whole lines painted over: they are no part of letters."""
    painted = rgb_HW3
    for line in lines:
        box = np.s_[line.top : line.bottom, line.left : line.right]
        rows = _underline_rows(ink_of(rgb_HW3[box]))
        if rows:
            painted = rgb_HW3.copy() if painted is rgb_HW3 else painted
            behind = np.broadcast_to(behind_of(rgb_HW3[box]), rgb_HW3[box].shape)
            painted[box][rows.start : rows.stop] = behind[rows.start : rows.stop].round()
    return painted


def _underline_rows(ink: BoolArray) -> range:
    """The rows of a line's ink in which it is underlined from end to end; none where it is not. Bold letters may be as
    dense in their lowest row, but are so in the row above it too; the feet of figures are short."""
    shares = ink.mean(axis=1)
    rows = np.flatnonzero(shares >= _WHOLE_UNDERLINE)
    rows = rows[rows >= 0.6 * len(ink)]
    is_thin = 0 < len(rows) <= max(1, _UNDERLINE_THICK * len(ink))
    if not is_thin or shares[rows[0] - 1] > _ABOVE_UNDERLINE:
        return range(0)
    longest = max(right - left for left, right in _gaps(~ink[rows[0]]))
    if longest < _LEAST_UNDERLINE * len(ink):
        return range(0)
    return range(int(rows[0]), int(rows[-1]) + 1)


def _with_spaces(text: str, ink: BoolArray) -> str:
    """A text whose "_" are spaces, where a line runs below words and the gap between these is no wider than a space."""
    height, width = ink.shape
    shortest = _SHORTEST_UNDERLINE * height  # it is broken where letters fall below it
    rows = (
        row
        for row in range(round(0.55 * height), height)
        if any(right - left >= shortest for left, right in _gaps(~ink[row]))
    )
    row = next(rows, 0)
    gaps = _gaps(np.asarray(ink[:row].any(axis=0))) if row else []
    signs = list(text)
    for number in [number for number, sign in enumerate(signs) if sign == "_"]:
        place = (number + 0.5) / len(text) * width
        near = [right - left for left, right in gaps if abs((left + right) / 2 - place) <= 1.5 * height]
        if near and max(near) <= _WIDEST_SPACE * row:
            signs[number] = " "
    return " ".join("".join(signs).split())


def plates_of(line: Line, surfaces: Sequence[Surface]) -> tuple[Surface, ...]:
    """The surfaces that some words of a line stand on: about as high as it, and not as wide."""
    slack = 0.7 * line.height + 2
    return tuple(
        surface
        for surface in surfaces
        if surface.rect.width < 0.8 * line.width
        and surface.rect.left >= line.left - slack
        and surface.rect.right <= line.right + slack
        and line.top - slack <= surface.rect.top <= line.bottom
        and line.top <= surface.rect.bottom <= line.bottom + slack
    )


def _gap_before_a_word(line: Line, gaps: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The gap between an icon and the one word after it: much wider than those between its letters. What stands before
    it is as wide as an icon, not as a thin letter."""
    if " " in line.text or not gaps:
        return None
    widths = sorted(stop - start for start, stop in gaps)
    start, stop = gaps[0]
    is_far = stop - start >= max(_NARROWEST_ICON_GAP_PX, _WORD_ICON_GAP * line.height)
    is_widest = stop - start == widths[-1] and (len(widths) < 2 or widths[-1] >= 2 * widths[-2])
    is_icon = _NARROWEST_ICON * line.height <= start <= 1.5 * line.height
    return gaps[0] if is_far and is_widest and is_icon else None


def _is_unread(line: Line, gaps: Sequence[tuple[int, int]], first: tuple[int, int]) -> bool:
    """Whether what stands before a gap is not among what was read: there are more gaps than spaces."""
    spaces = line.text.count(" ")
    wide = [gap for gap in gaps if gap[1] - gap[0] >= 0.25 * line.height]
    return len(wide) == spaces + 1 and all(first[1] - first[0] >= gap[1] - gap[0] for gap in wide)


def parted_by_plates(line: Line, plates: Sequence[Surface], rgb_HW3: Rgb3Array) -> list[Line]:
    """The line; or its words one by one, where each stands on a plate of its own: neighbouring buttons are no line."""
    words = line.text.split()
    ordered = sorted((plate.inside for plate in plates), key=lambda rect: rect.left)
    if len(ordered) < 2 or len(words) != len(ordered):
        return [line]
    behind = line.width - sum(rect.width for rect in ordered)
    if behind > 0.3 * line.width:
        return [line]
    parts = []
    for word, rect in zip(words, ordered, strict=True):
        ink = ink_of(rgb_HW3[rect.top : rect.bottom, rect.left : rect.right])
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        if not len(rows):
            return [line]
        parts.append(
            replace(
                line,
                text=word,
                left=rect.left + int(columns[0]),
                top=rect.top + int(rows[0]),
                right=rect.left + int(columns[-1]) + 1,
                bottom=rect.top + int(rows[-1]) + 1,
            )
        )
    return parts


def between_plates(rgb_HW3: Rgb3Array, line: Line, plates: Sequence[Surface]) -> Line:
    """The line as high as its letters are: a plate is higher."""
    patch = rgb_HW3[line.top : line.bottom, line.left : line.right]
    is_free = np.ones(line.width, dtype=np.bool_)
    for plate in plates:
        is_free[max(0, plate.rect.left - line.left - 1) : max(0, plate.rect.right - line.left + 1)] = False
    if is_free.all() or not is_free.any():
        return line
    rows = np.flatnonzero(ink_of(patch[:, is_free]).any(axis=1))
    return line if not len(rows) else replace(line, top=line.top + int(rows[0]), bottom=line.top + int(rows[-1]) + 1)


def with_runs(rgb_HW3: Rgb3Array, line: SetLine, plates: Sequence[Surface] = ()) -> SetLine:
    """The line, of whose words those that differ from most are runs of their own. `plates`: `plates_of` the line."""
    if plates:
        line = _of_its_height(line)
    words = _looked_at(rgb_HW3, line, plates)
    usual = _usual_colour(words)
    if len(words) < 2 or usual is None:
        is_underlined = bool(words) and all(word.is_underlined for word in words)
        return replace(line, style=replace(line.style, is_underlined=is_underlined)) if is_underlined else line
    of_all = replace(line.style, colour=usual)
    if plates:  # words were cut off by less certain places: no weight is told from them
        of_all = replace(of_all, is_bold=False)
        words = [word._replace(boldness=None) for word in words]
    styles = _styles_of(words, of_all)
    letters: Counter[Style] = Counter()
    for word, style in zip(words, styles, strict=True):
        letters[style] += word.letters
    most = letters.most_common(1)[0][0]
    runs = []
    for style, group in itertools.groupby(range(len(words)), key=styles.__getitem__):
        numbers = list(group)
        if style != most:
            runs.append(StyledRun(start=words[numbers[0]].start, stop=words[numbers[-1]].stop, style=style))
    return replace(line, style=most, runs=tuple(runs))


def with_a_usual_size(line: SetLine, others: Sequence[SetLine]) -> SetLine:
    """A line with plates, whose size is known by its height alone, in the size of most letters that is near."""
    letters: Counter[float] = Counter()
    for other in others:
        if other.style.family == line.style.family and abs(other.style.size_px / line.style.size_px - 1) <= 0.13:
            letters[other.style.size_px] += len(other.line.text)
    if not letters:
        return line
    size = letters.most_common(1)[0][0]
    runs = tuple(replace(run, style=replace(run.style, size_px=size)) for run in line.runs)
    return replace(line, style=replace(line.style, size_px=size), runs=runs)


def _of_its_height(line: SetLine) -> SetLine:
    """The line with the size that its height asks for: the room around plates makes it wider than its letters are."""
    ink = ink_at_100(path_of(line.style), line.line.text)
    size = float(max(1, round(100 * line.line.height / max(1.0, ink.bottom - ink.top))))
    origin, baseline = line.line.left - ink.left * size / 100, line.line.bottom - ink.bottom * size / 100
    return replace(line, style=replace(line.style, size_px=size, spacing_px=0.0), origin=origin, baseline=baseline)


def _styles_of(words: Sequence[_Word], of_all: Style) -> list[Style]:
    """How each word is set. What cannot be told of a short one is as on both sides of it, or as usual."""
    bold = _which_are_bold(words)
    known: list[Style | None] = []
    before = of_all
    for number, word in enumerate(words):
        if word.colour is None:
            known.append(None)
            continue
        # One colour a run: it was measured a little otherwise of each word.
        alike = [colour for colour in (before.colour, of_all.colour) if not are_two_colours(word.colour, colour)]
        before = replace(of_all, colour=alike[0] if alike else word.colour)
        if bold is not None:
            before = replace(before, is_bold=bold[number])
        known.append(before)
    styles = []
    for number, word in enumerate(words):
        style = known[number]
        if style is None:
            left = next((other for other in reversed(known[:number]) if other is not None), of_all)
            right = next((other for other in known[number + 1 :] if other is not None), of_all)
            style = left if left == right else of_all
        styles.append(replace(style, is_underlined=word.is_underlined, plate=word.plate))
    return styles


def marker_of(rgb_HW3: Rgb3Array, line: SetLine) -> Rect | None:
    """The bullet before a line: one small spot, as high as the middle of its small letters, alone in its place."""
    size, box = line.style.size_px, line.line
    first, last = max(0, round(box.left - _BULLET_FAR * size)), round(box.left - _BULLET_NEAR * size)
    top, bottom = max(0, round(line.baseline - 1.1 * size)), round(line.baseline + 0.3 * size)
    if last - first < 3:
        return None
    ink = ink_of(rgb_HW3[top:bottom, first:last])
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return None
    spot = Rect(first + int(columns[0]), top + int(rows[0]), first + int(columns[-1]) + 1, top + int(rows[-1]) + 1)
    least, most = max(2.0, _BULLET_SIDES[0] * size), _BULLET_SIDES[1] * size
    is_round = least <= spot.width <= most and least <= spot.height <= most and abs(spot.width - spot.height) <= 2
    is_filled = float(ink.sum()) >= 0.6 * spot.area
    is_level = abs((spot.top + spot.bottom) / 2 - (line.baseline - _BULLET_RISE * size)) <= 0.16 * size
    return spot if is_round and is_filled and is_level else None


def are_two_colours(first: Rgb, second: Rgb) -> bool:
    """Whether words of these colours, as they were measured, are meant to differ."""
    a, b = np.array(first), np.array(second)
    hue = np.abs(np.diff(a) - np.diff(b)).max()
    return bool(hue > _ANOTHER_HUE_LEVELS or np.abs(a - b).max() > _ANOTHER_LEVELS)


def _letters(words: Sequence[_Word]) -> int:
    return sum(word.letters for word in words)


def _usual_colour(words: Sequence[_Word]) -> Rgb | None:
    """The colour of a word that is nearest to those of all letters."""
    known = [(word.colour, word.letters) for word in words if word.colour is not None]
    if not known:
        return None
    colours_N3 = np.array([colour for colour, _ in known], dtype=np.float64)
    letters_N = np.array([letters for _, letters in known], dtype=np.float64)
    apart_NN = np.abs(colours_N3[:, None] - colours_N3[None]).max(axis=2)
    return known[int((np.minimum(apart_NN, _ANOTHER_LEVELS) @ letters_N).argmin())][0]


def _which_are_bold(words: Sequence[_Word]) -> list[bool] | None:
    """Which words of a line are bold, None where they are all alike."""
    known = sorted(word.boldness for word in words if word.boldness is not None and word.letters >= _FEWEST_BOLD)
    widest, least = max(((b - a, b) for a, b in itertools.pairwise(known)), default=(0.0, 0.0))
    if widest < _BOLD_GAP:
        return None
    sure = [word for word in words if word.letters >= _FEWEST_BOLD]
    bold = _mean_boldness([word for word in sure if word.boldness is not None and word.boldness >= least])
    regular = _mean_boldness([word for word in sure if word.boldness is not None and word.boldness < least])
    if bold - regular < _BOLD_SHARE:
        return None
    # Of short words it is less sure: they are what they are nearer to, and the shortest as those on both sides.
    told = [None if word.boldness is None else word.boldness > (bold + regular) / 2 for word in words]
    found: list[bool] = []
    for number, own in enumerate(told):
        following = next((other for other in told[number + 1 :] if other is not None), True)
        found.append(own if own is not None else following and (found[-1] if found else True))
    return found


def _mean_boldness(words: Sequence[_Word]) -> float:
    return sum((word.boldness or 0.0) * word.letters for word in words) / _letters(words)


def _looked_at(rgb_HW3: Rgb3Array, line: SetLine, plates: Sequence[Surface]) -> list[_Word]:
    places = [match.span() for match in _WORD.finditer(line.line.text)]
    box = line.line
    deep = round(line.baseline) + 2 + round(_UNDERLINE_DEEP * line.style.size_px)
    top, left = max(0, box.top - 2), max(0, box.left - 2)
    ink = ink_of(rgb_HW3[top : max(box.bottom, deep), left : box.right + 2])[box.top - top :, box.left - left :]
    ink = ink[:, : box.width]
    above = max(2, min(len(ink), round(line.baseline) - box.top))
    inked = np.asarray(ink[:above].any(axis=0))
    for plate in plates:  # at its sides words part
        for side in (plate.inside.left - box.left, plate.inside.right - box.left):
            inked[max(0, side - 2) : max(0, side + 2)] = False
    cuts = [0, *_cuts(line, places, inked), box.width]
    is_flat = behind_of(rgb_HW3[box.top : box.bottom, box.left : box.right]).shape[:2] == (1, 1)
    behind = line.behind if is_flat else None
    words = []
    for (start, stop), left, right in zip(places, cuts, cuts[1:], strict=False):
        columns = np.flatnonzero(ink[:above, left:right].any(axis=0))
        if not len(columns):
            words.append(_Word(start, stop, None, None, False))
            continue
        first, last = left + int(columns[0]), left + int(columns[-1]) + 1
        middle = box.left + (left + right) // 2
        below = next((plate.colour for plate in plates if plate.inside.left <= middle < plate.inside.right), None)
        if below is None:
            words.append(_look_at_word(rgb_HW3, line, (start, stop), (first, last), ink, behind=behind))
        else:
            own = replace(box, text=box.text[start:stop], left=box.left + first, right=box.left + last)
            look = look_at(rgb_HW3, own, below)
            colour = look.letters_colour(path_of(line.style), own.text, line.style.size_px)
            words.append(_Word(start, stop, colour, None, False, below))
    return words


def _look_at_word(
    rgb_HW3: Rgb3Array,
    line: SetLine,
    place: tuple[int, int],
    columns: tuple[int, int],
    ink: BoolArray,
    *,
    behind: Rgb | None,
) -> _Word:
    box, text = line.line, line.line.text[slice(*place)]
    first, last = columns
    below = max(1, round(line.baseline) + 1 - box.top)
    shares = ink[: below + 1 + round(_UNDERLINE_DEEP * line.style.size_px), first:last].mean(axis=1)
    lined = below + np.flatnonzero(shares[below:] >= _UNDERLINED_SHARE)
    is_underlined = bool(len(lined)) and float(shares[lined[0] - 1]) <= _ABOVE_UNDERLINE
    rows = ink[: below if is_underlined else box.height, first:last].any(axis=1)
    inked = np.flatnonzero(rows)
    if sum(char.isalnum() for char in text) < _FEWEST_LETTERS or not len(inked):
        return _Word(*place, None, None, is_underlined)
    own = replace(
        box,
        text=text,
        left=box.left + first,
        right=box.left + last,
        top=box.top + int(inked[0]),
        bottom=box.top + int(inked[-1]) + 1,
    )
    looks = look_at(rgb_HW3, own, behind)
    family = line.style.family
    # A font may draw nothing for a sign that it has.
    regular, bold = (max(ink_at_100(path, text).coverage, 0.01) for path in (family.regular, family.bold))
    boldness = math.log(max(looks.coverage, 0.01) / regular) / max(math.log(bold / regular), 0.05)
    colour = looks.letters_colour(path_of(line.style), text, line.style.size_px)
    return _Word(*place, colour, boldness if bold > regular else None, is_underlined)


def _cuts(line: SetLine, places: Sequence[tuple[int, int]], inked: BoolArray) -> list[int]:
    """Where words part, in px from the line's left: where the font says, moved to the gap in the ink nearby."""
    text, box = line.line.text, line.line
    ends_N = _lengths(path_of(line.style), text)
    left, right = ink_at_100(path_of(line.style), text)[1], ink_at_100(path_of(line.style), text)[3]
    gaps = _gaps(inked)
    reach = 0.5 * line.style.size_px
    cuts = list[int]()
    for (_, stop), (start, _) in itertools.pairwise(places):
        middle = ((ends_N[stop] + ends_N[start]) / 2 - left) / max(1.0, right - left) * box.width
        near = [(a, b) for a, b in gaps if abs((a + b) / 2 - middle) <= reach]
        best = max(near, key=lambda gap: gap[1] - gap[0] - 0.3 * abs((gap[0] + gap[1]) / 2 - middle), default=None)
        cut = middle if best is None else (best[0] + best[1]) / 2
        cuts.append(min(box.width - 1, max(cuts[-1] + 1 if cuts else 1, round(cut))))
    return cuts


@functools.lru_cache(maxsize=2048)
def _lengths(path: str, text: str) -> Float64Array:
    """How long each beginning of a text is at 100 px: (N + 1,) for N letters."""
    font = ImageFont.truetype(path, 100)
    return np.concatenate([[0.0], np.cumsum([font.getlength(char) for char in text])])


def _gaps(inked: BoolArray) -> list[tuple[int, int]]:
    """The runs of columns without ink."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], inked, [True]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
