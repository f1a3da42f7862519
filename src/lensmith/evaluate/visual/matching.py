"""Which text of the prediction stands for which text of the target: Design2Code's block matching.

Source: Si et al., "Design2Code" (arXiv 2403.03163, section 4.2) and its published scorer, whose steps are followed so
that equal blocks give equal pairs (a parity test holds that):

1. Texts with one and the same box become one block; all text is lower-cased.
2. The cost of a pair is minus `difflib`'s ratio; scipy solves the linear assignment.
3. Neighbouring blocks of either page are merged while a merge betters the mean cost of the pairs it changes by more
   than 0.05 and brings a better best pair.
4. Before the final assignment, pairs above one half get a bonus: a tenth of their two best neighbours in the table.
5. Pairs under one half are discarded.

Where we differ: blocks come from the browser's geometry instead of from coloured pixels, so a box is as high as its
line, and text without a visible box is left out. And `pair_identical` mends a flaw of step 4: the bonus can make it
pay to swap equal or nearly equal texts ("Learn more" twice), so that a page would not match itself.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

import numpy as np
from cydifflib import SequenceMatcher
from scipy.optimize import linear_sum_assignment

from lensmith.core.arrays import Float64Array
from lensmith.core.types import Page
from lensmith.evaluate.visual.assignment import RowMerges, assigned_costs

_CONTEXT_BONUS = 0.1
_SMALLEST_GAIN = 0.05
_SMALLEST_RATIO = 0.5
_MOST_BLOCKS = 1000


class Block(NamedTuple):
    """A text with its box in fractions of the page, its colour (8-bit sRGB), and how many blocks it holds."""

    text: str
    left: float
    top: float
    width: float
    height: float
    colour: tuple[float, float, float]
    parts: int = 1

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2


class Side(Enum):
    """Whose blocks are merged."""

    PREDICTION = auto()
    TARGET = auto()


class Pair(NamedTuple):
    """Indices into the merged blocks of both pages, and how alike the texts are."""

    prediction: int
    target: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Both pages' blocks after merging, and the pairs that are alike enough. `parts` of a page's blocks sum to the
    number of blocks it had."""

    prediction: tuple[Block, ...]
    target: tuple[Block, ...]
    pairs: tuple[Pair, ...]


class RatioTable:
    """How alike the texts of one page (`a`) and of another (`b`) are: `difflib`'s ratio, each pair computed once.

    Every text meets every other, again after each merge that is tried. `cydifflib` is `difflib`'s algorithm compiled:
    ties, and assignments between equal costs, fall as they would there.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[str, float]] = {}

    def ratios(self, a_texts: Sequence[str], b_texts: Sequence[str]) -> Float64Array:
        """Shape (len(a_texts), len(b_texts)): the ratio of each pair, in 0..1."""
        columns = [self._column(a_texts, b) for b in b_texts]
        return np.array(columns, dtype=np.float64).reshape(len(b_texts), len(a_texts)).T

    def _column(self, a_texts: Sequence[str], b: str) -> list[float]:
        known = self._known.setdefault(b, {})
        unknown = [a for a in dict.fromkeys(a_texts) if a not in known]
        if unknown:
            matcher = SequenceMatcher(None, "", b)  # the second text is indexed once
            for a in unknown:
                matcher.set_seq1(a)
                known[a] = matcher.ratio()
        return [known[a] for a in a_texts]


def blocks_of(page: Page) -> tuple[Block, ...]:
    """The page's visible texts as blocks: lower-cased, boxes in fractions of the page, same boxes merged.

    Of more than 1,000 the largest are taken.
    """
    blocks = []
    for text, box, colour in page.texts:
        words = text.strip().lower()
        if words and box.width_px > 0 and box.height_px > 0:
            left, top = box.left_px / page.width_px, box.top_px / page.height_px
            width, height = box.width_px / page.width_px, box.height_px / page.height_px
            blocks.append(Block(words, left, top, width, height, colour))
    return largest_blocks(merge_same_boxes(blocks))


def largest_blocks(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """The blocks in their order; of more than 1,000 the largest: work grows with the square, pages may be hostile."""
    if len(blocks) <= _MOST_BLOCKS:
        return blocks
    largest = sorted(range(len(blocks)), key=lambda index: -blocks[index].area)[:_MOST_BLOCKS]
    return tuple(blocks[index] for index in sorted(largest))


def merge_same_boxes(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks with one and the same box become one: texts joined in order, colours averaged."""
    by_box: dict[tuple[float, ...], Block] = {}
    for block in blocks:
        box = (block.left, block.top, block.width, block.height)
        held = by_box.get(box)
        if held is None:
            by_box[box] = block
        else:
            red, green, blue = ((a + b) / 2 for a, b in zip(held.colour, block.colour, strict=True))
            by_box[box] = held._replace(text=f"{held.text} {block.text}", colour=(red, green, blue))
    return tuple(by_box.values())


def match_blocks(prediction: Sequence[Block], target: Sequence[Block]) -> Matching:
    """Pair the blocks of two pages. Without blocks on either side there are no pairs."""
    if not prediction or not target:
        return Matching(prediction=tuple(prediction), target=tuple(target), pairs=())
    table = RatioTable()
    prediction, target = _merge_while_it_helps(list(prediction), list(target), table)
    ratios = table.ratios([block.text for block in prediction], [block.text for block in target])
    rows, columns = linear_sum_assignment(with_context(-ratios))
    pairs = (Pair(int(i), int(j), float(ratios[i, j])) for i, j in zip(rows, columns, strict=True))
    alike = tuple(pair for pair in pairs if pair.ratio >= _SMALLEST_RATIO)
    return Matching(prediction=tuple(prediction), target=tuple(target), pairs=alike)


def pair_identical(matching: Matching) -> Matching:
    """The same matching, but identical texts are partners wherever both pages have them, the nearest copies first.

    Blocks that lose their partner by that are assigned anew among themselves.
    """
    by_text: dict[str, tuple[list[int], list[int]]] = {}
    for side, blocks in enumerate((matching.prediction, matching.target)):
        for index, block in enumerate(blocks):
            by_text.setdefault(block.text, ([], []))[side].append(index)
    identical = [Pair(i, j, 1.0) for copies in by_text.values() for i, j in _nearest_copies(matching, *copies)]
    taken_predicted, taken_wanted = {pair.prediction for pair in identical}, {pair.target for pair in identical}
    left = [p for p in matching.pairs if p.prediction not in taken_predicted or p.target not in taken_wanted]
    kept = [p for p in left if p.prediction not in taken_predicted and p.target not in taken_wanted]
    bereft_predicted = [p.prediction for p in left if p.prediction not in taken_predicted and p.target in taken_wanted]
    bereft_wanted = [p.target for p in left if p.prediction in taken_predicted and p.target not in taken_wanted]
    pairs = identical + kept + _assign(matching, bereft_predicted, bereft_wanted)
    return replace(matching, pairs=tuple(sorted(pairs)))


def _nearest_copies(matching: Matching, predicted: list[int], wanted: list[int]) -> list[tuple[int, int]]:
    if not predicted or not wanted:
        return []
    from_centres = np.array([matching.prediction[i].centre for i in predicted])
    to_centres = np.array([matching.target[j].centre for j in wanted])
    rows, columns = linear_sum_assignment(np.abs(from_centres[:, None] - to_centres).max(axis=2))
    return [(predicted[row], wanted[column]) for row, column in zip(rows, columns, strict=True)]


def _assign(matching: Matching, predicted: list[int], wanted: list[int]) -> list[Pair]:
    texts = [matching.prediction[i].text for i in predicted], [matching.target[j].text for j in wanted]
    ratios = RatioTable().ratios(*texts)
    rows, columns = linear_sum_assignment(-ratios)
    pairs = [Pair(predicted[i], wanted[j], float(ratios[i, j])) for i, j in zip(rows, columns, strict=True)]
    return [pair for pair in pairs if pair.ratio >= _SMALLEST_RATIO]


def with_context(cost: Float64Array) -> Float64Array:
    """Costs of pairs above one half, lowered by a tenth of the two best of the up to eight neighbours in the table."""
    rows, columns = cost.shape
    padded = np.zeros((rows + 2, columns + 2))  # a neighbour outside the table adds nothing
    padded[1:-1, 1:-1] = cost
    steps = [(down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1)]
    neighbours = np.stack([padded[down : down + rows, right : right + columns] for down, right in steps])
    two_best = np.partition(neighbours, 1, axis=0)[:2]
    return np.where(cost < -0.5, cost + _CONTEXT_BONUS * (two_best[0] + two_best[1]), cost)


def _merge_while_it_helps(
    prediction: list[Block], target: list[Block], table: RatioTable
) -> tuple[list[Block], list[Block]]:
    while True:
        merged_prediction = _merge_once(prediction, target, table, side=Side.PREDICTION)
        merged_target = _merge_once(merged_prediction, target, table, side=Side.TARGET)
        if len(merged_prediction) == len(prediction) and len(merged_target) == len(target):
            return prediction, target
        prediction, target = merged_prediction, merged_target


def _merge_once(prediction: list[Block], target: list[Block], table: RatioTable, side: Side) -> list[Block]:
    """The blocks of one side after all helpful merges of neighbours, best first, none touching another."""
    blocks, others = (prediction, target) if side is Side.PREDICTION else (target, prediction)
    texts, other_texts = [block.text for block in blocks], [block.text for block in others]
    cost = _costs(table, texts, other_texts, side)
    current = assigned_costs(cost if side is Side.PREDICTION else cost.T)
    promising = _promising_merges(texts, other_texts, perfect_pairs=current.count(-1.0))
    if not promising:
        return blocks
    joined = [f"{texts[first]} {texts[first + 1]}" for first in promising]
    merges = RowMerges(cost)
    gains = []
    for first, merged_cost in zip(promising, _costs(table, joined, other_texts, side), strict=True):
        if len(blocks) > len(others) and not _may_gain(cost, merged_cost, first):
            continue
        gain = _mean_gain(current, merges.costs_after(first, merged_cost))
        if gain > _SMALLEST_GAIN:
            gains.append((gain, first))
    gains.sort(key=lambda entry: entry[0], reverse=True)  # stable: of equal gains the earlier block comes first
    return _apply_merges(blocks, [first for _, first in gains])


def _costs(table: RatioTable, texts: list[str], other_texts: list[str], side: Side) -> Float64Array:
    """Minus the ratios, shape (texts, other_texts). difflib is not symmetric: the prediction's text comes first."""
    return -table.ratios(texts, other_texts) if side is Side.PREDICTION else -table.ratios(other_texts, texts).T


def _promising_merges(texts: list[str], other_texts: list[str], perfect_pairs: int) -> list[int]:
    """First blocks of the merges that can count as a gain at all.

    A merge counts only if the best pair that it brings is better than the best it takes away. It cannot, if a perfect
    pair is lost; and there are at most as many perfect pairs as texts found on both sides. This spares a good
    prediction nearly all assignments.
    """
    ours, theirs = Counter(texts), Counter(other_texts)
    shared = sum((ours & theirs).values())
    promising = []
    for first in range(len(texts) - 1):
        gone, arrived = Counter(texts[first : first + 2]), f"{texts[first]} {texts[first + 1]}"
        touched = {*gone, arrived}
        before = sum(min(ours[text], theirs[text]) for text in touched)
        after = sum(min(ours[text] - gone[text] + (text == arrived), theirs[text]) for text in touched)
        if shared + after - before >= perfect_pairs:
            promising.append(first)
    return promising


def _may_gain(cost: Float64Array, merged_cost: Float64Array, first: int) -> bool:
    """Whether a merge can gain enough, on the side with more blocks.

    There the number of pairs stays as it is, and giving the merged block's partner back to the better of its two parts
    is a valid assignment: so the sum gains at most what the merged block has over that part.
    """
    return bool((cost[first : first + 2].min(axis=0) - merged_cost).max() > _SMALLEST_GAIN - 1e-6)


def _mean_gain(before: list[float], after: list[float]) -> float:
    """How much lower the mean of the changed costs is, as Design2Code counts it: 0 unless the best one got better."""
    only_before = list((Counter(before) - Counter(after)).elements())
    only_after = list((Counter(after) - Counter(before)).elements())
    mean_before = sum(only_before) / len(only_before) if only_before else 0.0
    mean_after = sum(only_after) / len(only_after) if only_after else 0.0
    gain = mean_before - mean_after
    if gain > 0 and min(only_before) <= min(only_after):
        return 0.0
    return gain


def _apply_merges(blocks: list[Block], firsts: list[int]) -> list[Block]:
    touched: set[int] = set()
    merged = list(blocks)
    gone: set[int] = set()
    for first in firsts:
        if first in touched or first + 1 in touched:
            continue
        touched |= {first, first + 1}
        gone.add(first + 1)
        merged[first] = _merge(blocks[first], blocks[first + 1])
    return [block for index, block in enumerate(merged) if index not in gone]


def _merge(first: Block, second: Block) -> Block:
    left, top = min(first.left, second.left), min(first.top, second.top)
    right = max(first.left + first.width, second.left + second.width)
    bottom = max(first.top + first.height, second.top + second.height)
    red, green, blue = ((a + b) // 2 for a, b in zip(first.colour, second.colour, strict=True))
    return Block(
        text=f"{first.text} {second.text}",
        left=left,
        top=top,
        width=right - left,
        height=bottom - top,
        colour=(red, green, blue),
        parts=first.parts + second.parts,
    )
