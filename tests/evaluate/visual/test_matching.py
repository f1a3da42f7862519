"""Matching blocks: parity with Design2Code's scorer, and small cases that can be checked by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from lensmith.core.types import Box, Page, TextBlock
from lensmith.evaluate.visual.matching import (
    Block,
    blocks_of,
    match_blocks,
    merge_same_boxes,
    pair_identical,
    with_context,
)
from lensmith.evaluate.visual.score import score_matching

CASES = json.loads((Path(__file__).parents[2] / "golden" / "design2code_scores.json").read_text())["cases"]


def page_of(described: dict[str, list]) -> Page:
    width_px, height_px = described["size"]
    texts = tuple(TextBlock(text, Box(*box), tuple(colour)) for text, box, colour in described["texts"])
    return Page(width_px=width_px, height_px=height_px, texts=texts)


def test_parity_with_design2code() -> None:
    compared = 0
    for case in CASES:
        target, prediction = page_of(case["target"]), page_of(case["prediction"])
        if not target.texts and not prediction.texts:
            continue  # the one place where we give 1 and Design2Code 0
        scores = score_matching(match_blocks(blocks_of(prediction), blocks_of(target)))
        block, text, position, colour = case["scores"]
        assert (scores.block_match, scores.text, scores.position) == pytest.approx((block, text, position), abs=1e-9)
        assert scores.colour == pytest.approx(colour, abs=2e-4)  # colormath rounds the constants of sRGB and Lab
        compared += any(case["scores"])
    assert compared >= 30


def block(text: str, left: float = 0.0, top: float = 0.0, width: float = 0.1, height: float = 0.1) -> Block:
    return Block(text, left, top, width, height, (0.0, 0.0, 0.0))


def test_blocks_of_a_page() -> None:
    box = Box(10, 20, 50, 10)
    page = Page(
        width_px=100,
        height_px=200,
        texts=(
            TextBlock(" Hello ", box, (10, 20, 30)),
            TextBlock("World", box, (20, 20, 31)),
            TextBlock("  ", Box(0, 0, 5, 5), (0, 0, 0)),
            TextBlock("hidden", Box(0, 0, 0, 5), (0, 0, 0)),
        ),
    )
    assert blocks_of(page) == (Block("hello world", 0.1, 0.1, 0.5, 0.05, (15.0, 20.0, 30.5)),)


def test_same_boxes_keep_their_order() -> None:
    merged = merge_same_boxes([block("a"), block("b", left=0.5), block("c")])
    assert [each.text for each in merged] == ["a c", "b"]


def test_split_text_is_merged_again() -> None:
    split = [block("fresh bread", top=0.1), block("every morning", top=0.2)]
    whole = [block("fresh bread every morning", top=0.1, height=0.2)]
    matching = match_blocks(split, whole)
    assert [each.text for each in matching.prediction] == ["fresh bread every morning"]
    assert matching.prediction[0].parts == 2
    assert matching.prediction[0].height == pytest.approx(0.2)
    assert match_blocks(whole, split).target[0].parts == 2


def test_unlike_texts_make_no_pair() -> None:
    assert match_blocks([block("abcdef")], [block("uvwxyz")]).pairs == ()
    assert match_blocks([], [block("a")]).pairs == ()


def test_context_lowers_the_cost_of_good_pairs_only() -> None:
    cost = np.array([[-1.0, -0.2], [-0.3, -0.6]])
    expected = [[-1.0 - 0.1 * (0.6 + 0.3), -0.2], [-0.3, -0.6 - 0.1 * (1.0 + 0.3)]]
    assert np.allclose(with_context(cost), expected)
    assert with_context(np.array([[-1.0]])).tolist() == [[-1.0]]


def test_identical_texts_pair_with_the_nearest_copy() -> None:
    target = [block("more", top=0.1), block("about", top=0.3), block("more", top=0.5), block("about", top=0.7)]
    matching = match_blocks(target, target)
    # With context it pays to swap the copies: a page does not match itself.
    assert any(pair.prediction != pair.target for pair in matching.pairs)
    paired = pair_identical(matching)
    assert [(pair.prediction, pair.target, pair.ratio) for pair in paired.pairs] == [(i, i, 1.0) for i in range(4)]


def test_fewer_copies_take_the_nearest() -> None:
    target = [block("more", top=0.1), block("more", top=0.5)]
    paired = pair_identical(match_blocks([block("more", top=0.45)], target))
    assert [(pair.prediction, pair.target) for pair in paired.pairs] == [(0, 1)]


def test_a_hostile_page_is_cut_to_its_largest_blocks() -> None:
    texts = tuple(TextBlock(f"text {n}", Box(0, n, 1 + n % 7, 1), (0, 0, 0)) for n in range(1500))
    blocks = blocks_of(Page(width_px=10, height_px=1500, texts=texts))
    assert len(blocks) == 1000
    assert min(each.width for each in blocks) > 0.2
    assert [each.top for each in blocks] == sorted(each.top for each in blocks)
