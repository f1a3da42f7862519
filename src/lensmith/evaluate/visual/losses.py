"""Where a page lost its likeness: which texts and surfaces are missing, which were invented, what stands elsewhere.

For a person who looks at a score and asks why. It follows the matching of `score.score_pages` and of `surfaces`, so
that what is named here is what the score counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lensmith.core.types import Box, Page
from lensmith.evaluate.visual.colour import colour_similarity
from lensmith.evaluate.visual.matching import Block, Pair, blocks_of, match_blocks, pair_identical
from lensmith.evaluate.visual.surfaces import PaintedSurface, unmatched_surfaces

_MOVED = 0.02
"""A text further off than this share of the page stands elsewhere; it is what a reader sees at a glance."""
_RECOLOURED = 0.1
_QUOTED_CHARS, _MOST_QUOTED = 30, 3


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A text or a surface, where it is on its own page, and what it says (empty for a surface)."""

    box: Box
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What differs between a target and a prediction.

    On the target: `missing` and `missing_surfaces`, and `moved`, texts that stand elsewhere in the prediction. On the
    prediction: `invented` and `invented_surfaces`. `recoloured`: texts of the target with another colour.
    """

    missing: tuple[Loss, ...]
    invented: tuple[Loss, ...]
    moved: tuple[Loss, ...]
    recoloured: tuple[Loss, ...]
    missing_surfaces: tuple[Loss, ...]
    invented_surfaces: tuple[Loss, ...]

    def __str__(self) -> str:
        told = [
            _told(self.missing, "text", "missing"),
            _told(self.invented, "text", "that the page does not have"),
            _told(self.moved, "text", "elsewhere"),
            _told(self.recoloured, "text", "in another colour"),
            _told(self.missing_surfaces, "surface", "missing"),
            _told(self.invented_surfaces, "surface", "that the page does not have"),
        ]
        return "; ".join(words for words in told if words) or "nothing was lost"


def find_losses(target: Page, prediction: Page) -> Losses:
    """What was lost, both pages rendered with their texts, and with their styles for surfaces."""
    matching = pair_identical(match_blocks(blocks_of(prediction), blocks_of(target)))
    found, made = {pair.target for pair in matching.pairs}, {pair.prediction for pair in matching.pairs}
    moved, recoloured = [], []
    for pair in matching.pairs:
        wanted, answer = matching.target[pair.target], matching.prediction[pair.prediction]
        off = max(abs(a - b) for a, b in zip(wanted.centre, answer.centre, strict=True))
        if off > _MOVED:
            moved.append((off, pair))
        if 1 - float(colour_similarity(wanted.colour, answer.colour)) > _RECOLOURED:
            recoloured.append(pair)
    lacking: tuple[PaintedSurface, ...] = ()
    surplus: tuple[PaintedSurface, ...] = ()
    if target.styles and prediction.styles:
        lacking, surplus = unmatched_surfaces(target, prediction)
    return Losses(
        missing=_texts([block for i, block in enumerate(matching.target) if i not in found], target),
        invented=_texts([block for j, block in enumerate(matching.prediction) if j not in made], prediction),
        moved=_texts([matching.target[pair.target] for _, pair in sorted(moved, key=_furthest_first)], target),
        recoloured=_texts([matching.target[pair.target] for pair in recoloured], target),
        missing_surfaces=_surfaces(lacking, 1.0),
        invented_surfaces=_surfaces(surplus, prediction.width_px / target.width_px),
    )


def _furthest_first(moved: tuple[float, Pair]) -> float:
    return -moved[0]


def _texts(blocks: Sequence[Block], page: Page) -> tuple[Loss, ...]:
    width, height = page.width_px, page.height_px
    return tuple(
        Loss(box=Box(each.left * width, each.top * height, each.width * width, each.height * height), text=each.text)
        for each in blocks
    )


def _surfaces(surfaces: Sequence[PaintedSurface], scale: float) -> tuple[Loss, ...]:
    """Surfaces, which are in pixels of the target's width, on the page that they are of."""
    return tuple(
        Loss(
            box=Box(
                scale * each.left,
                scale * each.top,
                scale * (each.right - each.left),
                scale * (each.bottom - each.top),
            )
        )
        for each in surfaces
    )


def _told(losses: Sequence[Loss], kind: str, what: str) -> str:
    if not losses:
        return ""
    quoted = [f'"{loss.text[:_QUOTED_CHARS]}"' for loss in losses[:_MOST_QUOTED] if loss.text]
    more = ", ..." if quoted and len(losses) > len(quoted) else ""
    named = f" ({', '.join(quoted)}{more})" if quoted else ""
    return f"{len(losses)} {kind}{'s' if len(losses) > 1 else ''} {what}{named}"
