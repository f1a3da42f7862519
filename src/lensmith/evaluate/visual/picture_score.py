"""How close a rendering comes to a target that is only a picture: no DOM, no OCR.

Blocks of both pictures are found in the same way (`picture_blocks`; the prediction's own boxes would be more exact, but
then even a perfect prediction would differ from its target), matched by place, size and colour, and compared. Whether
two lines say the same is seen from their shapes: the ink of one laid over the ink of the other. The five terms of
`overall` follow those of `visual.VisualScore`, so that best-of-N works alike with and without the target's DOM, and a
test holds that the two rank the same pages alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from lensmith.core.arrays import Float64Array
from lensmith.core.errors import InputError
from lensmith.core.types import Page
from lensmith.evaluate.visual.colour import colour_similarity
from lensmith.evaluate.visual.picture_blocks import PictureBlock, PictureBlocks, find_blocks
from lensmith.evaluate.visual.pixels import PictureLike, RgbArray, page_size_error, pixel_similarity, rgb_array

_REACH_PX = 160.0  # a block this far off its place is half as likely the same
_SMALLEST_LIKENESS = 0.35
_SHIFTS_PX = (-1, 0, 1)  # how far the ink of two lines is moved to lie on each other: rounding of sub-pixel places


@dataclass(frozen=True, kw_only=True)
class PictureScore:
    """All in [0, 1]; higher is better, but for `page_size_error`.

    block_match: area of matched lines / area of all lines, both pictures. area_match: the same for plain areas.
    text_recall, position_recall, colour_recall: for each line of the target the overlap of its ink with its partner's,
    1 - max(|dx|, |dy|) between centres in fractions of the page, and 1 - CIEDE2000 / 100 (mean of ink and of what is
    behind it); 0 without a partner. pixel: `pixels.pixel_similarity`.
    """

    means: ClassVar[tuple[str, ...]] = ("overall",)

    block_match: float
    area_match: float
    text_recall: float
    position_recall: float
    colour_recall: float
    pixel: float
    page_size_error: float

    @property
    def overall(self) -> float:
        """What best-of-N ranks by: the plain mean of five, where lines and areas share one term."""
        blocks = (self.block_match + self.area_match) / 2
        return (blocks + self.text_recall + self.position_recall + self.colour_recall + self.pixel) / 5

    @classmethod
    def of_failure(cls) -> "PictureScore":
        """The score of a prediction that could not be rendered: nothing matches."""
        return cls(
            block_match=0.0,
            area_match=0.0,
            text_recall=0.0,
            position_recall=0.0,
            colour_recall=0.0,
            pixel=0.0,
            page_size_error=1.0,
        )


class _Screenshot(NamedTuple):
    rgb: RgbArray
    blocks: PictureBlocks

    @property
    def size_px(self) -> tuple[int, int]:
        return self.rgb.shape[1], self.rgb.shape[0]


class PictureTarget:
    """A target picture whose blocks are found once, for scoring many predictions against it."""

    def __init__(self, picture: PictureLike) -> None:
        self._target = _look_at(picture)

    def score(self, prediction: Page) -> PictureScore:
        """Score a rendered prediction by its `png`. Both pictures must be at scale 1."""
        if not prediction.png:
            raise InputError("the predicted page has no screenshot", hint="render it with Capture.PICTURE")
        return _compare(self._target, _look_at(prediction.png))


def _look_at(picture: PictureLike) -> _Screenshot:
    rgb = rgb_array(picture)
    return _Screenshot(rgb, find_blocks(rgb))


def _compare(target: _Screenshot, prediction: _Screenshot) -> PictureScore:
    lines, predicted_lines = target.blocks.texts, prediction.blocks.texts
    line_pairs = _match(lines, predicted_lines)
    area_pairs = _match(target.blocks.areas, prediction.blocks.areas)

    def recall(likeness: Callable[[PictureBlock, PictureBlock], float]) -> float:
        if not lines:
            return 0.0 if predicted_lines else 1.0
        return sum(likeness(lines[i], predicted_lines[j]) for i, j in line_pairs) / len(lines)

    return PictureScore(
        block_match=_matched_share(lines, predicted_lines, line_pairs),
        area_match=_matched_share(target.blocks.areas, prediction.blocks.areas, area_pairs),
        text_recall=recall(lambda a, b: _ink_overlap(_ink(target.rgb, a), _ink(prediction.rgb, b))),
        position_recall=recall(lambda a, b: _nearness(a, b, target.size_px, prediction.size_px)),
        colour_recall=recall(lambda a, b: float(colour_similarity([a.colour, a.behind], [b.colour, b.behind]).mean())),
        pixel=pixel_similarity(target.rgb, prediction.rgb),
        page_size_error=page_size_error(target.size_px, prediction.size_px),
    )


def _match(first: Sequence[PictureBlock], second: Sequence[PictureBlock]) -> list[tuple[int, int]]:
    """Pairs of indices, so that the sum of likenesses (of place, size and colour) is greatest."""
    if not first or not second:
        return []
    likeness = _likeness_table(first, second)
    rows, columns = linear_sum_assignment(-likeness)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if likeness[i, j] >= _SMALLEST_LIKENESS]


def _likeness_table(first: Sequence[PictureBlock], second: Sequence[PictureBlock]) -> Float64Array:
    boxes, others = (np.array([block[:4] for block in blocks], dtype=np.float64) for blocks in (first, second))
    sizes, other_sizes = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    size = np.minimum(sizes[:, None], other_sizes) / np.maximum(sizes[:, None], other_sizes)
    middles, other_middles = boxes[:, :2] + sizes / 2, others[:, :2] + other_sizes / 2
    distance = np.abs(middles[:, None] - other_middles).max(axis=2)
    place = 1 / (1 + distance / _REACH_PX)
    colours, other_colours = (np.array([block.colour for block in blocks]) for blocks in (first, second))
    colour = colour_similarity(colours[:, None], other_colours[None, :])
    likeness: Float64Array = size.prod(axis=2) * place * (0.5 + 0.5 * colour)
    return likeness


def _matched_share(
    first: Sequence[PictureBlock], second: Sequence[PictureBlock], pairs: list[tuple[int, int]]
) -> float:
    """Area of matched blocks over area of all; 1 if there are none on either side."""
    everything = sum(block.area for block in (*first, *second))
    if everything == 0:
        return 1.0
    return sum(first[i].area + second[j].area for i, j in pairs) / everything


def _nearness(a: PictureBlock, b: PictureBlock, size_a: tuple[int, int], size_b: tuple[int, int]) -> float:
    across = abs((a.left + a.right) / 2 / size_a[0] - (b.left + b.right) / 2 / size_b[0])
    down = abs((a.top + a.bottom) / 2 / size_a[1] - (b.top + b.bottom) / 2 / size_b[1])
    return 1 - max(across, down)


def _ink(rgb: RgbArray, block: PictureBlock) -> Float64Array:
    """How strongly each pixel of a block is inked, in [0, 1]: 0 the colour behind, 1 the ink's. (height, width)"""
    patch = rgb[block.slices].astype(np.float64) - np.array(block.behind)
    direction = np.array(block.colour) - np.array(block.behind)
    length = float(direction @ direction)
    return np.clip(patch @ direction / length, 0.0, 1.0) if length > 0 else np.zeros(patch.shape[:2])


def _ink_overlap(first: Float64Array, second: Float64Array) -> float:
    """The best overlap of two inks laid on each other at the top left and moved by up to a pixel, in [0, 1]."""
    margin = max(_SHIFTS_PX)
    height, width = (max(a, b) + 2 * margin for a, b in zip(first.shape, second.shape, strict=True))
    canvas = np.zeros((height, width))
    canvas[margin : margin + first.shape[0], margin : margin + first.shape[1]] = first
    total = first.sum() + second.sum()
    if total == 0:
        return 1.0
    shared = 0.0
    for down in _SHIFTS_PX:
        for right in _SHIFTS_PX:
            top, left = margin + down, margin + right
            under = canvas[top : top + second.shape[0], left : left + second.shape[1]]
            shared = max(shared, float(np.minimum(under, second).sum()))
    return 2 * shared / float(total)
