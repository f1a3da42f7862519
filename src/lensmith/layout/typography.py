"""In which letters a line is set: family, size, weight, spacing, colour, and where its baseline lies.

The line's text is known and its ink has been measured, so candidates can be tried: each family is laid out by FreeType
from the font file that the browser would take, and the one whose widths, heights and blackness fit a page best is its
family. What a line's own width says of its size is exact to a percent, whatever its height in whole pixels says.

Legend: H, W pixels; sizes in px.
"""

import functools
import math
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lensmith.core.arrays import Float64Array
from lensmith.core.types import Rgb
from lensmith.layout.ocr import Line, Rgb3Array, behind_of
from lensmith.layout.surfaces import Rect

_AT_PX = 100
_SNAP = 0.025
"""A size that is a whole number of px within this share is that number."""
_LONGEST_FIT = 120
_LONGEST_LOOK, _LOOK_PX = 40, 40
"""How black a text is, is seen from its first letters at a size that has whole strokes."""
_DARKEST_SHARE = 0.04
"""The pixels of a line that differ most from what is behind: of the letters' own colour, or nearly."""
_ONE_COLOUR_LEVELS = 26
_SAME_SIGN = 0.75
"""So much the ink of one sign correlates with that of the same sign in another family at least."""
_OTHER_OWN, _ANOTHER_FAMILY = 0.1, 0.25
"""How much better another family must fit a line than the page's commonest one: one that the page has elsewhere, and
any. A logarithm of a size, or a correlation."""
_A_MATCH, _A_SHORT_MATCH = 0.75, 0.3
"""What fits no better is no sign of another family: of a line, and of one of a few letters."""
_OWN_SHARE = 0.1
"""A family in which so much of a page's text is set is the page's own."""
_FEWEST_LETTERS = 6
_LEAST_SPACED, _OF_SPACING = 0.04, 0.05
"""From how much wider (a logarithm) than its height says a line may have room between its letters, and how much better
their shapes must then agree."""
_NO_MATCH = 0.35
"""Letters that are so far off need no look at their shapes."""
_SHAPE_WORDS = 2
"""How letters are shaped is seen from so many of a line's words, the longest."""
_INKED = 0.2
"""Of the darkest ink of a line: what is lighter is no letter's."""


class Typeface(NamedTuple):
    """A family: how CSS asks for it, and the fonts that the browser finds for it."""

    css: str
    regular: str
    bold: str


class Ink(NamedTuple):
    """A text at 100 px: its advance, the box of its ink from its origin on the baseline, how black that is (0..1)."""

    advance: float
    left: float
    top: float
    right: float
    bottom: float
    coverage: float


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a text is set. `spacing_px` is what is added between letters; `plate` the colour of a box of its own that
    words within a line stand on."""

    family: Typeface
    size_px: float
    is_bold: bool
    colour: Rgb
    spacing_px: float = 0.0
    is_underlined: bool = False
    plate: Rgb | None = None


@dataclass(frozen=True, kw_only=True)
class StyledRun:
    """Words of a line, [start, stop) of its text, that are set otherwise than most of it."""

    start: int
    stop: int
    style: Style


@dataclass(frozen=True, kw_only=True)
class SetLine:
    """A line with its style; `baseline` in px from the top of the page, `origin` where its first letter begins.

    `runs`: the words that are set otherwise, in their order. `marker`: the bullet before it, where there is one.
    """

    line: Line
    style: Style
    baseline: float
    origin: float
    advance: float
    behind: Rgb
    runs: tuple[StyledRun, ...] = ()
    marker: Rect | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom as the browser lays the line out: as wide as its advance, as high as its font."""
        up, down = extent(self.style)
        return self.origin, self.baseline - up, self.origin + self.advance, self.baseline + down


_ASKED = (
    ("Arial, Helvetica, sans-serif", "Arial"),
    ('"DejaVu Sans", Verdana, sans-serif', "DejaVu Sans"),
    ('"Times New Roman", Times, serif', "Times New Roman"),
    ('"DejaVu Serif", Georgia, serif', "DejaVu Serif"),
    ('"Courier New", Courier, monospace', "Courier New"),
    ('"DejaVu Sans Mono", Menlo, Consolas, monospace', "DejaVu Sans Mono"),
)


@functools.cache
def families() -> tuple[Typeface, ...]:
    """The families that can be told apart on this machine: those with a font file of their own."""
    found: dict[str, Typeface] = {}
    for css, name in _ASKED:
        regular, bold = _file_of(name, bold=False), _file_of(name, bold=True)
        if regular and regular not in found:
            found[regular] = Typeface(css, regular, bold or regular)
    return tuple(found.values())


def _file_of(name: str, *, bold: bool) -> str | None:
    tool = shutil.which("fc-match")
    if tool is not None:
        pattern = f"{name}:weight={'bold' if bold else 'regular'}"
        asked = subprocess.run(  # noqa: S603 - a fixed command, no shell
            [tool, "--format", "%{file}", pattern], capture_output=True, text=True, timeout=30, check=False
        )
        return asked.stdout.strip() or None
    for file in (f"{name} Bold.ttf" if bold else f"{name}.ttf", f"{name.lower()}{'bd' if bold else ''}.ttf"):
        try:
            return str(ImageFont.truetype(file, _AT_PX).path)
        except OSError:
            continue
    return None


@functools.lru_cache(maxsize=512)
def _font(path: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=8192)
def ink_at_100(path: str, text: str) -> Ink:
    """How a text looks at 100 px in the font of a file."""
    font = _font(path, _AT_PX)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    drawn = _drawn(path, text[:_LONGEST_LOOK], _LOOK_PX)
    return Ink(font.getlength(text), left, top, right, bottom, float(drawn.mean()) if drawn.size else 0.0)


def _drawn(path: str, text: str, size_px: float, spacing_px: float = 0.0) -> Float64Array:
    """How black each pixel of a text is, in [0, 1], within the box of its ink."""
    font = _font(path, size_px)
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    canvas = Image.new("L", (max(1, round(right - left + spacing_px * (len(text) - 1))), max(1, bottom - top)))
    draw, pieces, at = ImageDraw.Draw(canvas), list(text) if spacing_px else [text], float(-left)
    for piece in pieces:
        draw.text((at, -top), piece, fill=255, font=font)
        at += font.getlength(piece) + spacing_px
    return np.asarray(canvas, dtype=np.float64) / 255


def is_letter(rgb_HW3: Rgb3Array, line: Line) -> bool:
    """Whether a line of one sign looks like that sign in any family: what a reader takes for a sign may be an icon."""
    ink_HW = look_at(rgb_HW3, line).ink_HW
    seen = _squared(ink_HW / max(1.0, float(ink_HW.max())))
    paths = {path for family in families() for path in (family.regular, family.bold)}
    return any(_correlation(seen, _squared(_drawn(path, line.text, _LOOK_PX))) >= _SAME_SIGN for path in paths)


def _squared(ink_HW: Float64Array) -> Float64Array:
    """Ink scaled to a small square."""
    picture = Image.fromarray((255 * ink_HW).astype(np.uint8)).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float64)


def _correlation(first: Float64Array, second: Float64Array) -> float:
    if not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def extent(style: Style) -> tuple[float, float]:
    """How far a line of this style reaches above and below its baseline in px, rounded as the browser does."""
    path = path_of(style)
    up, down = _font(path, _AT_PX).getmetrics()
    return float(round(up * style.size_px / _AT_PX)), float(round(down * style.size_px / _AT_PX))


def path_of(style: Style) -> str:
    """The font file of a style."""
    return style.family.bold if style.is_bold else style.family.regular


def line_height(family: Typeface) -> float:
    """The height of a line of a family that leaves no room and takes none, in sizes of its letters."""
    up, down = _font(family.regular, _AT_PX).getmetrics()
    return round((up + down) / _AT_PX, 2)


class _Fit(NamedTuple):
    """How a line looks in a font: the sizes that its width and its height ask for, how far off these are from each
    other, and how far off its blackness."""

    by_width: float
    by_height: float
    size_error: float
    blackness_error: float

    @property
    def error(self) -> float:
        return self.size_error + self.blackness_error


class _Setting(NamedTuple):
    """A line in a family: the weight, size and room between letters in which it fits best, and how far off that and the
    shapes of its letters are."""

    is_bold: bool
    size_px: float
    spacing_px: float
    error: float


def set_lines(rgb_HW3: Rgb3Array, lines: Sequence[Line]) -> list[SetLine]:
    """The lines of a page, each with its style, in the order given."""
    looks = [look_at(rgb_HW3, line) for line in lines]
    settings = [_settings(line, look) for line, look in zip(lines, looks, strict=True)]
    first = _commonest(lines, settings)
    letters: Counter[Typeface] = Counter()
    for line, of_line in zip(lines, settings, strict=True):
        letters[_family(line, of_line, [first])] += len(line.text)
    own = [family for family, count in letters.items() if family == first or count >= _OWN_SHARE * letters.total()]
    own.sort(key=lambda family: family != first)
    return [
        _set(line, look, _family(line, of_line, own), of_line)
        for line, look, of_line in zip(lines, looks, settings, strict=True)
    ]


class Look(NamedTuple):
    """How the ink of a text looks: the colour behind it (where that changes, its mean), that of its darkest pixels, how
    black its box is (0..1), and how far each pixel (H x W) is from what is behind."""

    behind: Float64Array
    strongest: Float64Array
    coverage: float
    ink_HW: Float64Array

    def letters_colour(self, path: str, text: str, size_px: float) -> Rgb:
        """Strokes thinner than a pixel never show their colour whole: how much they do, the font tells."""
        strength = _strength(path, text[:_LONGEST_FIT], round(size_px))
        return _rgb(self.behind + (self.strongest - self.behind) / strength)


def look_at(rgb_HW3: Rgb3Array, line: Line, behind: Rgb | None = None) -> Look:
    """How a line looks. `behind`: the colour behind it, where that is known."""
    patch_HW3 = rgb_HW3[line.top : line.bottom, line.left : line.right].astype(np.float64)
    if behind is None:
        top, left = max(0, line.top - 2), max(0, line.left - 2)
        ground = behind_of(rgb_HW3[top : line.bottom + 2, left : line.right + 2])
        if ground.shape[:2] != (1, 1):
            ground = ground[line.top - top :, line.left - left :][: len(patch_HW3), : patch_HW3.shape[1]]
    else:
        ground = np.array(behind, dtype=np.float64).reshape(1, 1, 3)
    distance_HW = np.abs(patch_HW3 - ground).sum(axis=2)
    most = max(1, round(_DARKEST_SHARE * distance_HW.size))
    darkest = np.argpartition(distance_HW, -most, axis=None)[-most:]
    strongest = patch_HW3.reshape(-1, 3)[darkest].mean(axis=0)
    mean = ground.mean(axis=(0, 1))
    span = np.abs(strongest - mean).sum()
    coverage = float(np.minimum(1.0, distance_HW / span).mean()) if span > 0 else 0.0
    return Look(mean, strongest, coverage, distance_HW)


def _fit(path: str, line: Line, coverage: float) -> _Fit:
    ink = ink_at_100(path, line.text[:_LONGEST_FIT])
    share = len(line.text[:_LONGEST_FIT]) / len(line.text)
    width, height = max(1.0, ink.right - ink.left), max(1.0, ink.bottom - ink.top)
    by_width, by_height = _AT_PX * line.width * share / width, _AT_PX * line.height / height
    blackness = abs(math.log(max(coverage, 0.01) / max(ink.coverage, 0.01)))
    # A height is known to a pixel, so of small letters it says less.
    off = max(0.0, abs(math.log(by_width / by_height)) - 0.5 / line.height)
    return _Fit(by_width, by_height, off, 0.5 * blackness)


def _settings(line: Line, look: Look) -> dict[Typeface, _Setting]:
    """The line in each family."""
    words = _seen_words(look.ink_HW, line.text)
    return {family: _setting(words, line, look, family) for family in families()}


def _seen_words(ink_HW: Float64Array, text: str) -> list[tuple[str, Float64Array]]:
    """The longest words of a line, each with the box of its ink; none where the gaps between words cannot be told."""
    words = text.split()
    inked_HW = ink_HW > _INKED * ink_HW.max(initial=0.0)
    at = np.flatnonzero(inked_HW.any(axis=0))
    gaps = np.diff(at)
    order = np.argsort(gaps)[::-1]
    count = len(words) - 1
    if not len(at) or count > len(gaps) or (0 < count < len(gaps) and gaps[order[count - 1]] == gaps[order[count]]):
        return []
    cuts = [-1, *sorted(order[:count].tolist()), len(at) - 1]
    longest = sorted(range(len(words)), key=lambda number: -len(words[number]))[:_SHAPE_WORDS]
    seen = []
    for number in longest:
        left, right = at[cuts[number] + 1], at[cuts[number + 1]] + 1
        rows = np.flatnonzero(inked_HW[:, left:right].any(axis=1))
        seen.append((words[number], ink_HW[rows[0] : rows[-1] + 1, left:right]))
    return seen


def _setting(words: Sequence[tuple[str, Float64Array]], line: Line, look: Look, family: Typeface) -> _Setting:
    fits = [(is_bold, _fit(path, line, look.coverage)) for is_bold, path in enumerate((family.regular, family.bold))]
    is_bold, fit = min(fits, key=lambda entry: entry[1].error)
    path = family.bold if is_bold else family.regular
    ways = [(_snapped(fit.by_height if len(line.text) == 1 else fit.by_width), 0.0, fit.error)]
    # Letters too near each other are more likely read or measured wrongly than set so: their width counts.
    if len(line.text) > 1 and math.log(fit.by_width / fit.by_height) > _LEAST_SPACED:
        # A height is known to half a pixel above and below.
        sizes = {_snapped(fit.by_height), float(math.floor(fit.by_height)), float(math.ceil(fit.by_height))}
        ways += [
            (size, _spacing(path, line, size), fit.blackness_error + _OF_SPACING) for size in sorted(sizes) if size
        ]
    errors = [
        (error + 1 - (_same_shapes(words, path, round(spacing / size, 2)) if error < _NO_MATCH else 0.0), size, spacing)
        for size, spacing, error in ways
    ]
    error, size, spacing = min(errors)
    return _Setting(bool(is_bold), size, spacing, error)


def _spacing(path: str, line: Line, size_px: float) -> float:
    """The room between letters of a size that make up a line's width, in px."""
    ink = ink_at_100(path, line.text)
    spacing = (line.width - (ink.right - ink.left) * size_px / _AT_PX) / (len(line.text) - 1)
    return round(min(0.5 * size_px, spacing), 2)


def _same_shapes(words: Sequence[tuple[str, Float64Array]], path: str, spacing: float) -> float:
    """How the ink of words correlates with that of the same words in a font. `spacing` is in sizes of the letters."""
    letters = sum(len(word) for word, _ in words)
    return sum(
        len(word) / letters * _correlation(ink_HW, _drawn_to(path, word, spacing, ink_HW.shape))
        for word, ink_HW in words
    )


@functools.lru_cache(maxsize=8192)
def _drawn_to(path: str, text: str, spacing: float, shape: tuple[int, int]) -> Float64Array:
    """A text drawn large, where a font's hints do little, and brought to a box of its ink, H x W. `spacing` is in sizes
    of the letters."""
    drawn_HW = _drawn(path, text, _LOOK_PX, spacing * _LOOK_PX)  # has room beside its ink: its last letter's advance
    inked_HW = drawn_HW > _INKED
    rows, columns = np.flatnonzero(inked_HW.any(axis=1)), np.flatnonzero(inked_HW.any(axis=0))
    if not len(rows):
        return np.zeros(shape)
    ink = (255 * drawn_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).astype(np.uint8)
    return np.asarray(Image.fromarray(ink).resize(shape[::-1], Image.Resampling.BOX), dtype=np.float64)


def _commonest(lines: Sequence[Line], settings: Sequence[Mapping[Typeface, _Setting]]) -> Typeface:
    """The family that fits the whole page best."""
    total: dict[Typeface, float] = defaultdict(float)
    for line, own in zip(lines, settings, strict=True):
        for family, setting in own.items():
            total[family] += math.sqrt(len(line.text)) * min(1.0, setting.error)
    return min(families(), key=lambda family: total[family])


def _family(line: Line, settings: Mapping[Typeface, _Setting], own: Sequence[Typeface]) -> Typeface:
    """In which family a line is set. `own`: those of the page, the commonest first."""

    def error(family: Typeface) -> float:
        return settings[family].error

    usual = min(own, key=lambda family: error(family) + (_OTHER_OWN if family != own[0] else 0.0))
    other = min(settings, key=error)
    most = _A_MATCH if len(line.text) >= _FEWEST_LETTERS else _A_SHORT_MATCH
    is_other = error(other) < most and error(other) + _ANOTHER_FAMILY < error(usual)
    return other if is_other else usual


def _set(line: Line, look: Look, family: Typeface, settings: Mapping[Typeface, _Setting]) -> SetLine:
    is_bold, size, spacing, _ = settings[family]
    path = family.bold if is_bold else family.regular
    ink = ink_at_100(path, line.text)
    scale = size / _AT_PX
    baseline = (line.top - ink.top * scale + line.bottom - ink.bottom * scale) / 2
    style = Style(
        family=family,
        size_px=size,
        is_bold=is_bold,
        colour=look.letters_colour(path, line.text, size),
        spacing_px=spacing,
    )
    return SetLine(
        line=line,
        style=style,
        baseline=baseline,
        origin=line.left - ink.left * scale,
        advance=ink.advance * scale + spacing * len(line.text),
        behind=_rgb(look.behind),
    )


def harmonised(lines: Sequence[SetLine]) -> list[SetLine]:
    """The lines with styles that differ by no more than they can be measured made one: the style of most letters."""
    letters: Counter[Style] = Counter()
    for line in lines:
        letters[line.style] += len(line.line.text)
        for run in line.runs:
            letters[run.style] += run.stop - run.start
    kept: list[Style] = []
    to: dict[Style, Style] = {}
    for style, _ in letters.most_common():
        to[style] = next((other for other in kept if _is_one_style(style, other)), style)
        if to[style] is style:
            kept.append(style)
    return [_restyled(line, to) for line in lines]


def _is_one_style(style: Style, other: Style) -> bool:
    return (
        style.family == other.family
        and style.is_bold == other.is_bold
        and style.is_underlined == other.is_underlined
        and style.plate == other.plate
        and abs(style.size_px - other.size_px) <= max(0.7, 0.05 * other.size_px)
        and abs(style.spacing_px - other.spacing_px) <= 0.02 * other.size_px
        and max(abs(a - b) for a, b in zip(style.colour, other.colour, strict=True)) <= _ONE_COLOUR_LEVELS
    )


def _restyled(line: SetLine, to: Mapping[Style, Style]) -> SetLine:
    style = to[line.style]
    # A run is of its line's size, though it may have been made one with another.
    runs = tuple(replace(run, style=replace(to[run.style], size_px=style.size_px)) for run in line.runs)
    if style == line.style:
        return replace(line, runs=runs)
    ink = ink_at_100(path_of(style), line.line.text)
    scale = style.size_px / _AT_PX
    advance = ink.advance * scale + style.spacing_px * len(line.line.text)
    middle = (line.line.left + line.line.right) / 2
    origin = middle - (ink.left + ink.right) / 2 * scale - style.spacing_px / 2
    return replace(line, style=style, advance=advance, origin=origin, runs=runs)


def _snapped(size: float) -> float:
    whole = max(1, round(size))
    return float(whole) if abs(size / whole - 1) < _SNAP else max(1.0, round(size, 1))


@functools.lru_cache(maxsize=8192)
def _strength(path: str, text: str, size_px: int) -> float:
    """How much of their colour the darkest pixels of a text show, in (0, 1]."""
    mask = _drawn(path, text, max(4, size_px))
    most = max(1, round(_DARKEST_SHARE * mask.size))
    return float(min(1.0, max(0.5, np.partition(mask.ravel(), -most)[-most:].mean())))


def _rgb(colour: Float64Array) -> Rgb:
    red, green, blue = (int(min(255, max(0, round(float(level))))) for level in colour)
    return red, green, blue
