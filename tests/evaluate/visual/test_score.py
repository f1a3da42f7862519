"""Laws of the visual score: identity, blank pages, bounds, monotony, invariance; and time."""

import io
import time
from dataclasses import asdict, fields, replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lensmith.core.types import Box, Page, TextBlock
from lensmith.evaluate.visual.baselines import blank_page
from lensmith.evaluate.visual.matching import blocks_of, match_blocks
from lensmith.evaluate.visual.score import TextScores, VisualScore, score_pages

WIDTH, HEIGHT = 400, 1000
COLOURS = st.tuples(*[st.integers(0, 255)] * 3)
BOXES = st.builds(
    Box,
    st.integers(0, 300),
    st.integers(0, 900),
    st.integers(1, 100),
    st.integers(1, 100),
)
TEXTS = st.one_of(st.text("ab ", min_size=1, max_size=6), st.text(min_size=1, max_size=12))
PAGES = st.lists(st.builds(TextBlock, TEXTS, BOXES, COLOURS), max_size=8).map(
    lambda texts: Page(width_px=WIDTH, height_px=HEIGHT, texts=tuple(texts))
)
BLANK = Page(width_px=WIDTH, height_px=HEIGHT)


def text_scores(score: VisualScore) -> list[float]:
    names = {field.name for field in fields(TextScores)}
    return [value for name, value in asdict(score).items() if name in names]


def sentence_page(count: int, seed: int = 0) -> Page:
    random = np.random.default_rng(seed)
    words = "river lantern market price garden home contact about fresh bread daily since visit our shop".split()
    texts = [
        TextBlock(
            f"{' '.join(random.choice(words, random.integers(1, 6)))} {number}",
            Box(10 + 150.0 * (number % 2), 20.0 * number, 120, 16),
            tuple(int(level) for level in random.integers(0, 256, 3)),
        )
        for number in range(count)
    ]
    return Page(width_px=WIDTH, height_px=20 * count + 20, texts=tuple(texts))


@given(PAGES)
def test_identity_is_one(page: Page) -> None:
    score = score_pages(page, page)
    assert text_scores(score) == pytest.approx([1.0] * 8, abs=1e-9)
    assert score.page_size_error == 0
    assert score.overall == pytest.approx(1)


@given(PAGES)
def test_blank_against_text_is_zero(page: Page) -> None:
    shown = any(text.text.strip() for text in page.texts)
    expected = [0.0 if shown else 1.0] * 8
    assert text_scores(score_pages(page, BLANK)) == expected
    assert text_scores(score_pages(BLANK, page)) == expected


@given(PAGES, PAGES)
def test_bounds_and_recall(target: Page, prediction: Page) -> None:
    score = score_pages(target, prediction)
    assert all(0 <= value <= 1 for value in [*text_scores(score), score.overall, score.page_size_error])
    matching = match_blocks(blocks_of(prediction), blocks_of(target))
    if all(block.parts == 1 for block in matching.target):  # joined ones weigh more in recall than in the mean
        assert score.text_recall <= score.text + 1e-9
        assert score.position_recall <= score.position + 1e-9
        assert score.colour_recall <= score.colour + 1e-9


@settings(max_examples=60)
@given(PAGES.filter(lambda page: len(page.texts) > 1), st.randoms())
def test_removing_blocks_never_helps(page: Page, random: Random) -> None:
    by_text = {text.text.strip().lower(): text for text in page.texts if text.text.strip()}
    texts = list({text.box: text for text in by_text.values()}.values())  # same boxes would be one block
    page = replace(page, texts=tuple(texts))
    before = score_pages(page, page)
    while texts:
        texts.pop(random.randrange(len(texts)))
        after = score_pages(page, replace(page, texts=tuple(texts)))
        for name in ("block_match", "block_recall", "text_recall", "position_recall", "colour_recall", "overall"):
            assert getattr(after, name) <= getattr(before, name) + 1e-9, name
        before = after
    assert not by_text or before.overall == pytest.approx(0.2)  # what is left is the page's size


def test_one_change_moves_one_score() -> None:
    page = sentence_page(10)
    first, *others = page.texts
    moved = replace(page, texts=(first._replace(box=first.box._replace(left_px=first.box.left_px + 40)), *others))
    recoloured = replace(page, texts=(first._replace(colour=(255, 0, 255)), *others))
    reworded = replace(page, texts=(first._replace(text=first.text[:-3] + "xyz"), *others))
    by_change = {
        "position": score_pages(page, moved),
        "colour": score_pages(page, recoloured),
        "text": score_pages(page, reworded),
    }
    for changed, score in by_change.items():
        for name in ("block_match", "text", "position", "colour"):
            assert (getattr(score, name) < 1 - 1e-6) == (name == changed), (changed, name)
    assert by_change["position"].position == pytest.approx(1 - 0.1 / 10)  # 40 of 400 px, one block of ten


def test_recall_sees_what_the_means_over_pairs_do_not() -> None:
    page = sentence_page(10)
    half = replace(page, texts=page.texts[:5])
    score = score_pages(page, half)
    assert (score.text, score.position, score.colour) == pytest.approx((1, 1, 1))
    assert (score.text_recall, score.position_recall, score.colour_recall) == pytest.approx((0.5, 0.5, 0.5))
    assert score.block_match == pytest.approx(10 / 15)
    assert score.block_recall == pytest.approx(0.5)


def test_recall_weights_do_not_depend_on_merging() -> None:
    page = sentence_page(4)
    one, two, *others = page.texts
    joined = TextBlock(f"{one.text} {two.text}", Box(10, 0, 270, 36), one.colour)
    score = score_pages(page, replace(page, texts=(joined, *others)))
    assert score.text_recall == pytest.approx(1)
    assert score_pages(page, replace(page, texts=(joined,))).text_recall == pytest.approx(2 / 4)


def test_scores_do_not_depend_on_scale_or_case() -> None:
    page, other = sentence_page(12, seed=1), sentence_page(12, seed=2)

    def changed(each: Page) -> Page:
        texts = [
            TextBlock(text.text.upper(), Box(*(4 * side for side in text.box)), text.colour) for text in each.texts
        ]
        return Page(width_px=4 * each.width_px, height_px=4 * each.height_px, texts=tuple(texts))

    assert text_scores(score_pages(page, other)) == text_scores(score_pages(changed(page), changed(other)))


def test_page_size_and_pixels_count_in_overall() -> None:
    page = sentence_page(3)
    taller = replace(page, height_px=2 * page.height_px)
    assert score_pages(page, taller).page_size_error == pytest.approx(0.5)
    assert score_pages(page, taller).pixel is None
    blank = blank_page(40, 60)
    score = score_pages(blank, blank)
    assert (score.pixel, score.overall) == (1, 1)
    levels = np.zeros((60, 40, 3), dtype=np.uint8)
    levels[:30] = 255
    full = io.BytesIO()
    Image.fromarray(levels).save(full, "PNG")
    assert score_pages(replace(blank, png=full.getvalue()), blank).pixel == pytest.approx(0.0, abs=0.35)


def test_a_failed_page_scores_nothing() -> None:
    failure = VisualScore.of_failure()
    assert failure.overall == 0
    assert failure.page_size_error == 1
    assert isinstance(failure, TextScores)


@pytest.mark.parametrize(("count", "limit_s"), [(30, 0.5), (200, 20.0)])
def test_a_page_is_scored_in_little_time(count: int, limit_s: float) -> None:
    # Limits leave room for a loaded machine; idle, 30 blocks take about 5 ms and 200 under a second.
    target, prediction = sentence_page(count, seed=1), sentence_page(count, seed=2)
    score_pages(target, prediction)
    begin = time.process_time()
    score_pages(target, prediction)
    assert time.process_time() - begin < limit_s
