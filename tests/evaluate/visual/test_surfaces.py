"""Surfaces: what counts as one, how they are matched, and what a page without its cards scores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.evaluate.visual.baselines import blank_page
from lensmith.evaluate.visual.score import score_pages
from lensmith.evaluate.visual.surfaces import (
    PaintedSurface,
    compare_surfaces,
    score_surfaces,
    surfaces_of,
    unmatched_surfaces,
)
from lensmith.render import Capture
from tests.support.screenshots import renderer_of

WIDTH = 400
BLACK, WHITE, GREY = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), (128.0, 128.0, 128.0)
CARDS = """<style>body{margin:0;font:16px Arial}.card{background:#eef;border:1px solid #88a;width:150px;height:80px;
margin:10px}</style><div class=card>one</div><div class=card>two</div><hr style='border:0;border-top:1px solid #999'>"""
BARE = (
    "<style>body{margin:0;font:16px Arial}div{width:150px;height:82px;margin:10px}</style><div>one</div><div>two</div>"
)


def page_of(html: str):
    return renderer_of(WIDTH).render(html, Capture.PICTURE | Capture.TEXTS | Capture.STYLES)


def boxes(html: str) -> list[tuple[float, ...]]:
    return [tuple(surface[:4]) for surface in surfaces_of(page_of(html), WIDTH)]


def test_a_page_has_the_surfaces_of_itself():
    page = page_of(CARDS)
    assert len(surfaces_of(page, WIDTH)) == 3
    scores = score_surfaces(page, page)
    assert (scores.match, scores.recall, scores.colour) == pytest.approx((1, 1, 1))


def test_a_page_that_lost_its_cards_keeps_its_texts_and_not_its_surfaces():
    score = score_pages(page_of(CARDS), page_of(BARE))
    assert score.text_recall == pytest.approx(1)
    assert score.position_recall > 0.98
    assert (score.surface_match, score.surface_recall, score.surface_colour) == (0, 0, 0)


def test_blank_pages():
    blank = blank_page(WIDTH, 300)
    assert score_surfaces(page_of(CARDS), blank).recall == 0
    assert score_surfaces(blank, blank).match == 1
    assert score_surfaces(blank, page_of(CARDS)).match == 0


@pytest.mark.parametrize(
    "html",
    [
        "<p>only text</p>",
        "<div style='background:#fff'>white on white</div>",
        "<div style='background:#fefefe'>nobody sees this</div>",
        "<div style='border:3px solid #fff'>nor this</div>",
        "<div style='background:#000;visibility:hidden'>hidden</div>",
    ],
)
def test_what_cannot_be_seen_is_no_surface(html):
    assert boxes(html) == []


def test_a_rule_is_the_same_whoever_draws_it():
    css = "<style>body{margin:0;font:16px/20px Arial}div{height:20px}</style>"
    below = css + "<div style='border-bottom:1px solid #444'>a</div><div>b</div>"
    above = css + "<div>a</div><div style='border-top:1px solid #444'>b</div>"
    drawn = css + "<div>a</div><div style='height:1px;background:#444'></div><div>b</div>"
    assert boxes(below) == boxes(above) == boxes(drawn) == [(0, 20, WIDTH, 21)]
    assert score_surfaces(page_of(below), page_of(drawn)).match == 1


def test_a_picture_and_a_plain_box_of_its_colour_are_alike():
    css = "<style>body{margin:0}</style>"
    svg = "<svg width=100 height=60 style='display:block'><rect width=100 height=60 fill='#a33'/></svg>"
    plain = "<div style='width:100px;height:60px;background:#a33'></div>"
    scores = score_surfaces(page_of(css + svg), page_of(css + plain))
    assert scores.match == 1
    assert scores.colour == pytest.approx(1, abs=0.01)


def test_a_picture_of_the_colour_around_it_is_none():
    css = "<style>body{margin:0}div{background:#9ab;padding:10px;width:120px}svg{display:block}</style>"
    drawn = "<div><svg width=100 height=40><rect width=100 height=40 fill='{}'/></svg></div>"
    assert len(boxes(css + drawn.format("#9ab"))) == 1
    assert len(boxes(css + drawn.format("#89a"))) == 2


def test_a_dark_page_is_a_surface_as_large_as_the_page():
    assert boxes("<body style='background:#111;color:#eee'><p>night</p>") == [(0, 0, WIDTH, 64)]


def test_overlap_and_colour_are_literal():
    target = [PaintedSurface(0, 0, 100, 100, BLACK, BLACK)]
    shifted = [PaintedSurface(0, 20, 100, 120, WHITE, BLACK)]
    scores = compare_surfaces(target, shifted)
    assert scores.match == pytest.approx(80 / 120)
    assert scores.recall == pytest.approx(80 / 120)
    assert scores.colour == pytest.approx(0.5)  # black and white inside, the same edge
    twice = compare_surfaces(target, [*target, PaintedSurface(200, 0, 300, 100, GREY, GREY)])
    assert (twice.match, twice.recall) == (pytest.approx(2 / 3), 1)
    assert compare_surfaces(target, [PaintedSurface(0, 60, 100, 160, BLACK, BLACK)]).match == 0


def test_thin_things_bear_two_pixels():
    rule = [PaintedSurface(0, 100, 400, 101, GREY, GREY)]
    assert compare_surfaces(rule, [PaintedSurface(0, 102, 400, 103, GREY, GREY)]).recall == pytest.approx(6 / 10)
    assert compare_surfaces(rule, [PaintedSurface(0, 104, 400, 105, GREY, GREY)]).recall == 0


def test_of_equal_boxes_those_of_one_colour_are_partners():
    target = [PaintedSurface(0, 0, 50, 50, BLACK, BLACK), PaintedSurface(0, 0, 50, 50, WHITE, WHITE)]
    assert compare_surfaces(target, target[::-1]).colour == pytest.approx(1)


def test_what_is_lacking_and_what_is_surplus():
    lacking, surplus = unmatched_surfaces(
        page_of(CARDS), page_of(BARE + "<hr style='border:0;background:#000;height:9px'>")
    )
    assert len(lacking) == 3
    assert [round(surface.bottom - surface.top) for surface in surplus] == [9]


SURFACES = st.lists(
    st.builds(
        lambda left, top, width, height, inside, edge: PaintedSurface(
            left, top, left + width, top + height, inside, edge
        ),
        st.integers(0, 300),
        st.integers(0, 300),
        st.integers(1, 100),
        st.integers(1, 100),
        st.sampled_from([BLACK, WHITE, GREY]),
        st.sampled_from([BLACK, WHITE, GREY]),
    ),
    max_size=6,
)


@given(SURFACES, SURFACES)
def test_scores_lie_between_0_and_1_and_a_page_matches_itself(target, prediction):
    scores = compare_surfaces(target, prediction)
    assert all(0 <= value <= 1 for value in (scores.match, scores.recall, scores.colour))
    same = compare_surfaces(target, target)
    assert (same.match, same.recall) == (pytest.approx(1), pytest.approx(1))
