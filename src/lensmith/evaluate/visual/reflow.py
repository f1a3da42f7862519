"""Does a page that was made for one window still work in narrower ones? Texts apart, nothing sticking out sideways.

A screenshot shows one width only, and a page that is right there may fall apart at any other. Each page is laid out in
the windows of a small laptop, a tablet and a phone; it passes one where

- no two texts overlap. A line's box is as high as its font, which is higher than its letters: above them is room for
  accents, below for descenders. So boxes are cut to where capitals stand, which leaves lines with tight leading apart
  and still sees any text that is written over another's letters. Side by side they may overlap by 2 px, as slanted and
  kerned letters do.
- nothing can be scrolled to sideways: the document is no wider than its window. (A page that hides what sticks out
  passes this, as it does before a reader.)

Text in frames is not looked at, and text that lies behind a picture or a box counts as if it showed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lensmith.core.errors import RenderError
from lensmith.core.types import CutOff, Page
from lensmith.render import Capture, HtmlFile, RenderConfig, Renderer

REFLOW_WINDOWS = ((1024, 768), (768, 1024), (390, 844))
"""Width and height in px."""
_ABOVE_CAPITALS, _BELOW_BASELINE = 0.17, 0.19
"""Shares of a line's height. Arial and its kin: ascent 0.905, capitals 0.716, descent 0.212 of the size."""
_MOST_BESIDE_PX = 2.0
_MOST_LINES = 4000
_ROWS_AT_ONCE = 256
_MOST_EXAMPLES = 3
_EXAMPLE_CHARS = 40


@dataclass(frozen=True, kw_only=True)
class Reflow:
    """One page in one window. `overlaps`: pairs of texts, the first of which are `examples`; `sticks_out_px`: how much
    wider than the window it is. None where it was not rendered, and so failed."""

    width_px: int
    passed: bool
    overlaps: int | None
    sticks_out_px: int | None
    examples: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.overlaps is None:
            return f"{self.width_px} px: not rendered"
        if self.passed:
            return f"{self.width_px} px: passed"
        faults = [f"{self.overlaps} overlap{'s' * (self.overlaps > 1)}"] if self.overlaps else []
        faults += [f"sticks out by {self.sticks_out_px} px"] if self.sticks_out_px else []
        return f"{self.width_px} px: {', '.join(faults)}"

    @classmethod
    def of_failure(cls, width_px: int) -> "Reflow":
        """A page that was not rendered in this window."""
        return cls(width_px=width_px, passed=False, overlaps=None, sticks_out_px=None)


def reflow(documents: Sequence[str | HtmlFile]) -> list[tuple[Reflow, ...]]:
    """How each document does in each of `REFLOW_WINDOWS`. Raises BrowserNotFoundError."""
    columns = []
    for width_px, height_px in REFLOW_WINDOWS:
        config = RenderConfig(viewport_width_px=width_px, viewport_height_px=height_px)
        with Renderer(config) as renderer:
            pages = renderer.render_many(documents, Capture.TEXTS | Capture.LINES)
            columns.append([_judged(page, width_px) for page in pages])
    return list(zip(*columns, strict=True))


def _judged(page: Page | RenderError, width_px: int) -> Reflow:
    if isinstance(page, RenderError):
        return Reflow.of_failure(width_px)
    pairs = list(overlapping_texts(page))
    sticks_out_px = max((note.page_width_px - width_px for note in page.notes if isinstance(note, CutOff)), default=0)
    shown = [(page.texts[a].text[:_EXAMPLE_CHARS], page.texts[b].text[:_EXAMPLE_CHARS]) for a, b in pairs]
    return Reflow(
        width_px=width_px,
        passed=not pairs and sticks_out_px == 0,
        overlaps=len(pairs),
        sticks_out_px=sticks_out_px,
        examples=tuple(shown[:_MOST_EXAMPLES]),
    )


def overlapping_texts(page: Page) -> Iterator[tuple[int, int]]:
    """Pairs of the page's texts, the first before the second, whose letters lie on each other; each pair once.

    `page` has its texts and lines; of more than 4,000 lines the first are looked at.
    """
    lines = page.lines[:_MOST_LINES]
    if not lines:
        return
    boxes_N4 = np.array([line.box for line in lines], dtype=np.float64)
    owners_N = np.array([line.text for line in lines])
    left, right = boxes_N4[:, 0], boxes_N4[:, 0] + boxes_N4[:, 2]
    top = boxes_N4[:, 1] + _ABOVE_CAPITALS * boxes_N4[:, 3]
    bottom = boxes_N4[:, 1] + (1 - _BELOW_BASELINE) * boxes_N4[:, 3]
    seen = set()
    for begin in range(0, len(lines), _ROWS_AT_ONCE):
        some = slice(begin, begin + _ROWS_AT_ONCE)
        down = np.minimum(bottom[some, None], bottom) - np.maximum(top[some, None], top)
        beside = np.minimum(right[some, None], right) - np.maximum(left[some, None], left)
        overlap = (down > 0) & (beside > _MOST_BESIDE_PX) & (owners_N[some, None] < owners_N)
        for i, j in np.argwhere(overlap).tolist():
            pair = (int(owners_N[begin + i]), int(owners_N[j]))
            if pair not in seen:
                seen.add(pair)
                yield pair
