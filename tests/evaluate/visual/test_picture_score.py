"""Scoring against a picture alone, on pages that a real browser renders: it ranks as the score with the DOM does."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from scipy.stats import spearmanr

from lensmith.core.errors import InputError
from lensmith.core.types import Page
from lensmith.evaluate.visual.baselines import blank_page
from lensmith.evaluate.visual.picture_score import PictureScore, PictureTarget
from lensmith.evaluate.visual.score import score_pages
from lensmith.render import RenderConfig, Renderer

SECTIONS = [
    '<header style="background:#1d4ed8;color:#fff;padding:12px;display:flex;justify-content:space-between">'
    "<b>Kaunas Spokes</b><nav>Tune Build</nav></header>",
    '<h1 style="font-size:26px;margin:12px">A bicycle for every street</h1>',
    '<p style="margin:12px">Since 1942 we have built frames by hand, and we still do.</p>',
    '<button style="margin:0 12px;padding:8px;background:#b91c1c;color:#fff;border:0">Book a repair</button>',
    '<h2 style="margin:12px">What it costs</h2>',
    '<table style="margin:12px"><tr><th>Work<th>Price<tr><td>Brakes<td>24.50<tr><td>Wheel<td>39.00</table>',
    '<div style="margin:12px;padding:12px;background:#fef3c7"><h3>Opening hours</h3>Monday to Friday, 9 to 17</div>',
    '<div style="margin:12px;height:60px;background:#2dd4bf"></div>',
    '<ul style="margin:12px 30px"><li>Electric wheels<li>Cargo racks<li>Children\'s seats</ul>',
    '<p style="margin:12px;color:#4b5563">Ask Jana about winter storage.</p>',
    '<footer style="background:#111827;color:#fff;padding:16px">12 Harbour Lane | +49 30 4471</footer>',
]
WHOLE = "".join(SECTIONS)
REWORDED = ("Vilnius Lamps", "Light up all the evenings", "Ask for a lantern", "Sun", "Our winter story")


def without(count: int) -> str:
    """The page without `count` of its sections, each time the same ones and more."""
    gone = [5, 8, 2, 6, 9, 1, 0, 10, 3, 4, 7][:count]
    return "".join(section for index, section in enumerate(SECTIONS) if index not in gone)


def lowered(by_px: int) -> str:
    return f'{SECTIONS[0]}<div style="height:{by_px}px"></div>{"".join(SECTIONS[1:])}'


def recoloured(count: int) -> str:
    order = [1, 4, 9, 2, 8, 5]
    changed = [
        f'<div style="color:#db2777">{section.replace("color:#4b5563", "")}</div>'
        if index in order[:count]
        else section
        for index, section in enumerate(SECTIONS)
    ]
    return "".join(changed)


def reworded(count: int) -> str:
    old = ("Kaunas Spokes", "A bicycle for every street", "Book a repair", "Brakes", "Opening hours")
    html = WHOLE
    for before, after in list(zip(old, REWORDED, strict=True))[:count]:
        html = html.replace(before, after)
    return html


LADDERS = {
    "removing": [without(count) for count in (0, 1, 2, 4, 6, 9)],
    "lowering": [lowered(by_px) for by_px in (0, 6, 25, 90)],
    "recolouring": [recoloured(count) for count in (0, 1, 3, 6)],
    "rewording": [reworded(count) for count in (0, 1, 3, 5)],
}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer(RenderConfig(viewport_width_px=384, viewport_height_px=64, timeout_s=120)) as warm:
        yield warm


@pytest.fixture(scope="module")
def ladders(renderer: Renderer) -> dict[str, list[Page]]:
    """Rendered pages, each step further from the first."""
    htmls = [html for steps in LADDERS.values() for html in steps]
    pages = iter([renderer.render(html) for html in htmls])
    return {name: [next(pages) for _ in steps] for name, steps in LADDERS.items()}


def test_identity_is_one_and_blank_is_nothing(ladders: dict[str, list[Page]]) -> None:
    page = ladders["removing"][0]
    same = PictureTarget(page.png).score(page)
    assert same.overall == pytest.approx(1, abs=1e-6)
    assert same.page_size_error == 0
    blank = blank_page(page.width_px, page.height_px)
    assert PictureTarget(page.png).score(blank).overall == 0
    assert PictureTarget(blank.png).score(page).overall == 0
    assert PictureTarget(blank.png).score(blank).overall == 1


@pytest.mark.parametrize("ladder", LADDERS)
def test_every_step_away_costs(ladder: str, ladders: dict[str, list[Page]]) -> None:
    steps = ladders[ladder]
    target = PictureTarget(steps[0].png)
    by_picture = [target.score(page).overall for page in steps]
    by_dom = [score_pages(steps[0], page).overall for page in steps]
    for overall in (by_picture, by_dom):
        assert all(nearer > further for nearer, further in pairwise(overall)), (ladder, overall)


def test_each_term_sees_its_own_change(ladders: dict[str, list[Page]]) -> None:
    target = PictureTarget(ladders["removing"][0].png)
    fewer, lower, repainted, other_words = (target.score(ladders[name][-1]) for name in LADDERS)
    assert fewer.block_match < 0.6
    assert lower.position_recall < 0.97 < lower.block_match
    assert lower.text_recall > 0.97
    assert repainted.colour_recall < 0.9 < repainted.position_recall
    assert other_words.text_recall < 0.9 < other_words.colour_recall


def test_ranks_pages_as_the_dom_does(ladders: dict[str, list[Page]]) -> None:
    pages = [page for steps in ladders.values() for page in steps]
    target = PictureTarget(pages[0].png)
    by_picture = [target.score(page).overall for page in pages]
    by_dom = [score_pages(pages[0], page).overall for page in pages]
    assert len(pages) >= 18
    assert spearmanr(by_picture, by_dom).statistic > 0.9


def test_the_scale_is_symmetric_in_size_and_pixels(ladders: dict[str, list[Page]]) -> None:
    first, second = ladders["removing"][0], ladders["removing"][3]
    there, back = PictureTarget(first.png).score(second), PictureTarget(second.png).score(first)
    assert there.pixel == pytest.approx(back.pixel)
    assert there.page_size_error == pytest.approx(back.page_size_error) != 0


def test_a_picture_is_needed() -> None:
    with pytest.raises(InputError, match="no screenshot"):
        PictureTarget(blank_page(4, 4).png).score(Page(width_px=4, height_px=4))
    assert PictureScore.of_failure().overall == 0
