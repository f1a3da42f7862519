"""A rebuilt page corrected by what a browser makes of it.

The page is rendered, and each text is compared with where it stands on the screenshot. Where it came out elsewhere it
is written as far to the other side; where it breaks at other words, its lines are parted by hand. A correction is kept
only if the page comes closer by it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lensmith.core.arrays import Float64Array
from lensmith.core.errors import RenderError
from lensmith.core.types import OnStep, Page, untold
from lensmith.layout.blocks import Passage
from lensmith.layout.markup import Markup
from lensmith.layout.measure import LayoutStep, Measured, measure, write
from lensmith.layout.tree import Nudges
from lensmith.layout.typography import extent
from lensmith.render import Capture, Renderer

ROUNDS = 3
_GOOD_PX = 0.4
"""A page whose texts stand so near their places on average is not corrected further."""
_MOST_PX = 400.0


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """How a page came out: for each block of text (N) how far it is off (x, y; px), which break elsewhere."""

    off_N2: Float64Array
    broken: frozenset[int]

    @property
    def distance(self) -> float:
        """How far the texts are off on average; one that breaks elsewhere counts as far off."""
        if not len(self.off_N2):
            return 0.0
        off_N = np.minimum(np.abs(self.off_N2).max(axis=1), _MOST_PX)
        off_N[list(self.broken)] += 20.0
        return float(off_N.mean())


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A page made of a screenshot, standing alone, the width of the window that it looks like it in, and how many
    texts were read."""

    html: str
    width_px: int
    texts: int


def rebuild(
    picture: Image.Image,
    renderer_of: Callable[[int], Renderer],
    on_step: OnStep = untold,
    *,
    rounds: int = ROUNDS,
    measuring: Callable[[Image.Image, OnStep], Measured] = measure,
) -> Rebuilt:
    """A page that looks like a screenshot, corrected up to `rounds` times.

    `renderer_of`: a renderer whose window has that width, to fit with. `measuring`: where what was measured before is
    kept.
    """
    measured = measuring(picture, on_step)
    page = fit(measured, renderer_of(measured.width), on_step, rounds=rounds)
    return Rebuilt(html=page.html, width_px=measured.width, texts=len(measured.blocks))


def fit(measured: Measured, renderer: Renderer, on_step: OnStep = untold, *, rounds: int = ROUNDS) -> Markup:
    """The page of what was measured, corrected. As it was written where it cannot be rendered."""
    on_step(LayoutStep.STRUCTURE)
    nudges = Nudges()
    best = write(measured, nudges)
    on_step(LayoutStep.FITTING)
    outcome = _rendered(best, measured, renderer)
    for _ in range(rounds):
        if outcome is None or outcome.distance <= _GOOD_PX:
            break
        nudges = _corrected(nudges, outcome)
        markup = write(measured, nudges)
        following = _rendered(markup, measured, renderer)
        if following is None or following.distance >= outcome.distance:
            break
        best, outcome = markup, following
    return best


def _corrected(nudges: Nudges, outcome: _Outcome) -> Nudges:
    moves = dict(nudges.moves)
    for number, (x, y) in enumerate(outcome.off_N2.tolist()):
        before = moves.get(number, (0.0, 0.0))
        moves[number] = (before[0] - x, before[1] - y)
    return Nudges(moves=moves, broken=nudges.broken | outcome.broken)


def _rendered(markup: Markup, measured: Measured, renderer: Renderer) -> _Outcome | None:
    """How a page comes out; None where it cannot be rendered or its texts cannot be told apart."""
    try:
        page = renderer.render(markup.html, Capture.TEXTS)
    except RenderError:
        return None
    return _compared(markup, page, measured)


def _compared(markup: Markup, page: Page, measured: Measured) -> _Outcome | None:
    written = [node for node in markup.nodes if isinstance(node.content, Passage)]
    pieces = [
        node.content.text_nodes(is_broken=node.is_broken) for node in written if isinstance(node.content, Passage)
    ]
    if len(page.texts) != sum(pieces):
        return None
    numbers = {id(block): number for number, block in enumerate(measured.blocks)}
    off_N2 = np.zeros((len(numbers), 2))
    broken = set()
    shown = iter(page.texts)
    for node, count in zip(written, pieces, strict=True):
        block = node.content
        assert isinstance(block, Passage)
        boxes = [next(shown).box for _ in range(count)]
        left, top = min(box.left_px for box in boxes), min(box.top_px for box in boxes)
        right, bottom = max(box.right_px for box in boxes), max(box.bottom_px for box in boxes)
        wanted = letters_box(block)
        number = numbers[id(block)]
        off_N2[number] = (left + right - wanted[0] - wanted[2]) / 2, top - wanted[1]
        if abs(bottom - top - (wanted[3] - wanted[1])) > 0.5 * block.pitch_px and not node.is_broken:
            broken.add(number)
    return _Outcome(off_N2=off_N2, broken=frozenset(broken))


def letters_box(block: Passage) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a block's lines without their leading, as the browser reports a text."""
    up, down = extent(block.style)
    left, _, right, _ = block.box
    return left, block.lines[0].baseline - up, right, block.lines[-1].baseline + down
