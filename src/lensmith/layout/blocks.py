"""Lines of text joined into blocks: paragraphs, headings that wrap, labels of one line.

Two lines belong together if they are set alike, stand at an even pitch, share an edge or a middle, and the first had to
end where it does: had the next word fitted, the break would be meant, and the lines are two texts.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from lensmith.layout.surfaces import Rect, alike
from lensmith.layout.typography import SetLine, Style, extent, ink_at_100, line_height

_SAME_SIZE = 0.1
_SAME_COLOUR_LEVELS = 48
_LEAST_PITCH, _MOST_PITCH = 0.95, 2.1
_SAME_PITCH_PX = 1.6
_LOOSE_PITCH, _SHORT_WORDS = 1.45, 3
"""Lines so far apart and of so few words are entries of a list."""
_SPACE = 0.28
"""An average space between words, in sizes of the letters."""


class Align(Enum):
    """Which edge the lines of a block share."""

    LEFT = "left"
    CENTRE = "center"
    RIGHT = "right"


class StyledText(NamedTuple):
    """Neighbouring words that are set alike, with the spaces between them."""

    text: str
    style: Style


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Lines that are one text. `pitch_px` is from line to line; of a single line the height of its font."""

    lines: tuple[SetLine, ...]
    style: Style
    pitch_px: float
    align: Align

    @property
    def is_marked(self) -> bool:
        """Whether a bullet stands before it."""
        return self.lines[0].marker is not None

    @property
    def text(self) -> str:
        """Its words as one line. Scripts without spaces are joined without."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def pieces(self) -> list[StyledText]:
        """Its words as one line, in pieces of one style each; a piece may be a space alone."""
        joined = pieces_of(self.lines[0])
        for line in self.lines[1:]:
            following = pieces_of(line)
            tight = is_wide(joined[-1].text[-1]) and is_wide(following[0].text[0])
            first = following[0]
            if first.style == joined[-1].style:
                joined[-1] = StyledText(f"{joined[-1].text}{'' if tight else ' '}{first.text}", first.style)
                joined += following[1:]
            else:
                joined += [*([] if tight else [StyledText(" ", self.style)]), *following]
        return _merged(joined)

    def text_nodes(self, *, is_broken: bool) -> int:
        """Of how many nodes of text its element consists. `is_broken`: its lines are parted by hand."""
        lines = [pieces_of(line) for line in self.lines] if is_broken else [self.pieces]
        return sum(bool(piece.text.strip()) for line in lines for piece in line)

    @property
    def ink(self) -> Rect:
        """What it covers on the screenshot."""
        lines = [set_line.line for set_line in self.lines]
        return Rect(
            min(line.left for line in lines),
            min(line.top for line in lines),
            max(line.right for line in lines),
            max(line.bottom for line in lines),
        )

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of its lines as the browser lays them out, with their leading."""
        up, down = extent(self.style)
        leading = (self.pitch_px - up - down) / 2
        first, last = self.lines[0], self.lines[-1]
        return (
            min(line.origin for line in self.lines),
            first.baseline - up - leading,
            max(line.origin + line.advance for line in self.lines),
            last.baseline + down + leading,
        )

    @property
    def widths(self) -> tuple[float, float]:
        """The narrowest and the widest column in which its lines break where they do."""
        narrowest = max(line.advance for line in self.lines)
        widest = min(
            (
                line.advance + (_SPACE + _first_word(following)) * following.style.size_px
                for line, following in zip(self.lines, self.lines[1:], strict=False)
            ),
            default=float("inf"),
        )
        return narrowest, max(narrowest, widest)


def pieces_of(line: SetLine) -> list[StyledText]:
    """The words of a line in pieces of one style each."""
    text, end, pieces = line.line.text, 0, list[StyledText]()
    for run in line.runs:
        pieces += [StyledText(text[end : run.start], line.style), StyledText(text[run.start : run.stop], run.style)]
        end = run.stop
    pieces.append(StyledText(text[end:], line.style))
    return [piece for piece in pieces if piece.text]


def _merged(pieces: Sequence[StyledText]) -> list[StyledText]:
    merged = [pieces[0]]
    for piece in pieces[1:]:
        if piece.style == merged[-1].style:
            merged[-1] = StyledText(merged[-1].text + piece.text, piece.style)
        else:
            merged.append(piece)
    return merged


def join_lines(lines: Sequence[SetLine], surface_of: Sequence[int]) -> list[Passage]:
    """Lines (from top to bottom) as blocks. `surface_of`: the surface that each stands on, by its number."""
    runs: list[list[int]] = []
    for index in range(len(lines)):
        fitting = [run for run in runs if surface_of[run[-1]] == surface_of[index] and _continues(run, index, lines)]
        if fitting:
            max(fitting, key=lambda run: lines[run[-1]].baseline).append(index)
        else:
            runs.append([index])
    blocks = []
    for run in runs:
        blocks += [_block([lines[index] for index in part]) for part in _texts_of(run, lines)]
    return sorted(blocks, key=lambda block: (block.ink.top, block.ink.left))


def _continues(run: Sequence[int], index: int, lines: Sequence[SetLine]) -> bool:
    above, line = lines[run[-1]], lines[index]
    if line.marker is not None:
        return False
    size = above.style.size_px
    pitch = line.baseline - above.baseline
    if not (_LEAST_PITCH * size <= pitch <= _MOST_PITCH * size):
        return False
    if abs(line.style.size_px / size - 1) > _SAME_SIZE or not alike(line.behind, above.behind, 8):
        return False
    if not _are_set_alike(above, line):
        return False
    words = max(len(lines[i].line.text.split()) for i in (*run, index))
    if pitch > _LOOSE_PITCH * size and words <= _SHORT_WORDS:
        return False
    if len(run) > 1 and abs(pitch - (above.baseline - lines[run[-2]].baseline)) > _SAME_PITCH_PX:
        return False
    return _alignment([lines[i] for i in (*run, index)]) is not None


def _are_set_alike(above: SetLine, line: SetLine) -> bool:
    """Whether the lines are of one style, or some words of one are of the other's: a link may fill a line."""

    def matches(first: Style, second: Style) -> bool:
        return first.is_bold == second.is_bold and alike(first.colour, second.colour, _SAME_COLOUR_LEVELS)

    if matches(above.style, line.style):
        return True
    runs = [(run.style, line.style) for run in above.runs] + [(run.style, above.style) for run in line.runs]
    return any(matches(*styles) for styles in runs)


def _alignment(lines: Sequence[SetLine]) -> Align | None:
    slack = 0.35 * lines[0].style.size_px
    lefts = [line.origin for line in lines]
    rights = [line.origin + line.advance for line in lines]
    middles = [(a + b) / 2 for a, b in zip(lefts, rights, strict=True)]
    for align, places in ((Align.LEFT, lefts), (Align.CENTRE, middles), (Align.RIGHT, rights)):
        if max(places) - min(places) <= slack:
            return align
    return None


def _texts_of(run: Sequence[int], lines: Sequence[SetLine]) -> list[list[int]]:
    """A run cut where a line ends although the next word would have fitted."""
    widest = max(lines[index].advance for index in run)
    parts = [[run[0]]]
    for before, after in itertools.pairwise(run):
        size = lines[after].style.size_px
        needed = lines[before].advance + (_SPACE + _first_word(lines[after])) * size
        if needed < widest - 0.1 * size:
            parts.append([])
        parts[-1].append(after)
    return parts


def _first_word(line: SetLine) -> float:
    """Its width in sizes of the letters."""
    text = line.line.text
    word = text[0] if is_wide(text[0]) else text.split()[0]
    path = line.style.family.bold if line.style.is_bold else line.style.family.regular
    return ink_at_100(path, word).advance / 100


def _block(lines: Sequence[SetLine]) -> Passage:
    letters: Counter[Style] = Counter()
    for line in lines:
        for piece in pieces_of(line):
            letters[piece.style] += len(piece.text)
    style = letters.most_common(1)[0][0]
    pitch = line_height(style.family) * style.size_px
    if len(lines) > 1:
        pitch = (lines[-1].baseline - lines[0].baseline) / (len(lines) - 1)
    align = _alignment(lines) or Align.LEFT
    return Passage(lines=tuple(lines), style=style, pitch_px=pitch, align=align if len(lines) > 1 else Align.LEFT)


def is_wide(char: str) -> bool:
    """Whether it is of a script that sets no spaces between words: Chinese, Japanese."""
    return "\u3000" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\uff00" <= char <= "\uffef"
