"""Design2Code's terms of whole pages: parity with its authors' code, and what must hold for any page."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.core.errors import PageTooLargeError
from lensmith.evaluate.visual.design2code.score import (
    WINDOW,
    Design2CodeScore,
    TextPage,
    compare,
    score_pairs,
    text_pages,
)
from lensmith.evaluate.visual.score import summarise
from lensmith.render import Renderer

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "design2code_pages.json").read_text())["cases"]
WORDS = ("harbour", "bakery", "Monday", "seventeen", "lantern", "quiet", "orchard", "violin", "granite", "umbrella")


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer(WINDOW) as warm:
        yield warm


def score(target: str, prediction: str, renderer: Renderer) -> Design2CodeScore:
    (found,) = score_pairs([(target, prediction)], renderer)
    assert isinstance(found, Design2CodeScore)
    return found


def terms(found: Design2CodeScore) -> tuple[float, ...]:
    return found.block_match, found.text, found.position, found.colour


def page(*texts: str, style: str = "") -> str:
    body = "".join(f"<p>{text}</p>" for text in texts)
    return f"<!DOCTYPE html><html><head><style>{style}</style></head><body>{body}</body></html>"


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_parity_with_the_authors_code(case, renderer):
    # Both were one browser's pictures, so they agree to 1e-3 (colormath rounds its constants); another version of the
    # browser or of its fonts moves a text by a pixel or two, and 0.01 of 1280 px is 13.
    assert terms(score(case["target"], case["prediction"], renderer)) == pytest.approx(case["terms"], abs=0.01)


def test_the_cases_of_parity_reach_from_nothing_to_all():
    assert len(GOLDEN) >= 10
    for place in range(4):
        values = sorted(case["terms"][place] for case in GOLDEN)
        assert values[0] == 0
        assert values[-1] == pytest.approx(1, abs=1e-9)
        assert len({round(value, 3) for value in values}) >= 5


@settings(max_examples=10)
@given(st.lists(st.sampled_from(WORDS), min_size=1, unique=True))
def test_a_page_matches_itself(renderer, words):
    found = score(page(*words), page(*words), renderer)
    assert terms(found) == (1, 1, 1, 1)
    assert found.four_term_mean == 1


@settings(max_examples=10)
@given(st.lists(st.sampled_from(WORDS), min_size=2, unique=True), st.data())
def test_a_block_left_out_costs_block_and_the_recalls_but_not_text(renderer, words, data):
    gone = data.draw(st.integers(0, len(words) - 1))
    found = score(page(*words), page(*words[:gone], *words[gone + 1 :]), renderer)
    assert found.block_match < 1
    assert found.text == 1
    assert found.text_recall == pytest.approx(1 - 1 / len(words))
    assert found.position_recall < found.position + 1e-9
    assert found.colour_recall < found.colour


@pytest.mark.parametrize("prediction", ["", "<html><body></body></html>", "<html><p>no body</p></html>"])
def test_a_page_without_text_scores_nothing(prediction, renderer):
    found = score(page("harbour"), prediction, renderer)
    assert found == Design2CodeScore.of_failure()
    assert score(prediction, page("harbour"), renderer) == found
    assert score("<html><body></body></html>", prediction, renderer) == found  # there, two blank pages are no match


def test_colour_and_place_are_told_apart(renderer):
    target = page("harbour", "bakery")
    recoloured = score(target, page("harbour", "bakery", style="p{color:#e02020}"), renderer)
    assert recoloured.colour < 0.9
    assert (recoloured.block_match, recoloured.text, recoloured.position) == (1, 1, 1)
    moved = score(target, page("harbour", "bakery", style="p{margin-left:328px}"), renderer)
    assert moved.position == pytest.approx(1 - (328 - 0) / 1280, abs=1e-6)
    assert (moved.block_match, moved.text, moved.colour) == pytest.approx((1, 1, 1), abs=0.01)


def test_a_page_wider_than_the_window_is_measured_whole(renderer):
    wide = page("harbour", style="p{width:2000px;text-align:right}")
    (found,) = text_pages([wide], renderer)
    (block,) = found.blocks
    assert 0.95 < block.left + block.width < 1


def test_many_elements_are_all_found(renderer):
    many = "<html><body style='margin:0'>" + "".join(
        f"<b style='position:absolute;left:{30 * (n % 42)}px;top:{12 * (n // 42)}px;font-size:8px'>{n}</b>"
        for n in range(4200)
    )
    (found,) = text_pages([many], renderer)
    texts = [int(block.text) for block in found.blocks]
    assert len(texts) == 1000  # the largest
    assert texts == sorted(texts)
    assert max(texts) > 4096


def test_a_page_that_cannot_be_rendered_costs_itself_only(renderer):
    pairs = [(page("a"), page("a")), (page("a"), "<html><body><p style='height:99999px'>"), (page("b"), page("b"))]
    found = list(score_pairs(pairs, renderer))
    assert isinstance(found[1], PageTooLargeError)
    assert [terms(one) for one in (found[0], found[2])] == [(1, 1, 1, 1)] * 2


def test_clip_is_what_the_caller_computes(renderer):
    seen = []

    def clip(prediction: TextPage, target: TextPage) -> float:
        seen.append((prediction, target))
        return 0.5

    target, prediction = text_pages([page("fresh bread every morning"), page("fresh bread", "every morning")], renderer)
    found = compare(target, prediction, clip=clip)
    assert found.design2code == pytest.approx((4 * found.four_term_mean + 0.5) / 5)
    assert compare(target, prediction).design2code is None
    ((given_prediction, given_target),) = seen
    assert [block.text for block in given_prediction.blocks] == ["fresh bread every morning"]  # merged
    assert given_target == target


def test_summary_has_every_term_and_never_calls_four_of_them_design2code():
    whole = Design2CodeScore(**{field.name: 1.0 for field in fields(Design2CodeScore) if field.name != "clip"})
    summary = summarise([whole, Design2CodeScore.of_failure()])
    assert summary.metrics["four_term_mean"].mean == 0.5
    assert summary.metrics["text_recall"].low < 0.5 < summary.metrics["text_recall"].high
    assert "design2code" not in summary.metrics
    with_clip = summarise([Design2CodeScore.of_failure(clip=0.0), Design2CodeScore.of_failure(clip=1.0)])
    assert with_clip.metrics["design2code"].mean == pytest.approx(0.1)
