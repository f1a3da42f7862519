"""A page, its screenshot, and the page that is rebuilt from it: the same words in the same places, and code to edit."""

import re

import numpy as np
import pytest
from PIL import Image

from lensmith.data.webpages.markup.repair import is_well_formed
from lensmith.evaluate.visual.reflow import reflow
from lensmith.evaluate.visual.score import score_pages
from lensmith.layout.fit import rebuild
from lensmith.render import Capture, RenderConfig, Renderer
from tests.support.screenshots import renderer_of, screenshot

PAGE = """<body style="margin:0;font:16px/1.5 Arial;background:#f4f6f9;color:#17202b">
<div style="display:flex;justify-content:space-between;background:#123456;color:#fff;padding:16px 40px">
<b>Harbour</b><div style="display:flex;gap:32px"><a>Boats</a><a>Prices</a><a>Contact</a></div></div>
<div style="padding:48px 40px"><h1 style="margin:0;font-size:36px">Boats for a week or a summer</h1>
<p style="width:600px;margin:16px 0 0">The harbour was quiet when the first boats came in, and the people who had waited
for them since the early morning went down to the water with their baskets and their questions.</p></div>
<div style="display:flex;gap:24px;padding:0 40px 48px">
<div style="flex:1;background:#fff;border:1px solid #d0d8e0;border-radius:8px;padding:20px"><b>Small</b>
<p style="margin:8px 0 0">Two berths and a stove.</p></div>
<div style="flex:1;background:#fff;border:1px solid #d0d8e0;border-radius:8px;padding:20px"><b>Middle</b>
<p style="margin:8px 0 0">Four berths, a stove and a table.</p></div>
<div style="flex:1;background:#fff;border:1px solid #d0d8e0;border-radius:8px;padding:20px"><b>Large</b>
<p style="margin:8px 0 0">Eight berths and a cook.</p></div></div></body>"""


def rebuilt_from(rgb: np.ndarray) -> str:
    return rebuild(Image.fromarray(rgb), renderer_of).html


@pytest.fixture(scope="module")
def rebuilt():
    rgb, page = screenshot(PAGE, width_px=1000)
    html = rebuilt_from(rgb)
    answer = screenshot(html, width_px=1000)
    return html, page, answer[1]


def test_it_looks_like_the_page(rebuilt):
    _, page, answer = rebuilt
    score = score_pages(page, answer)
    assert score.block_match > 0.9
    assert score.text > 0.97
    assert score.position > 0.98
    assert score.colour > 0.95
    assert score.pixel > 0.8
    assert score.page_size_error < 0.02


def test_its_texts_stand_within_a_few_pixels(rebuilt):
    _, page, answer = rebuilt
    places = {block.text: block.box for block in answer.texts}
    found = [(block.box, places[block.text]) for block in page.texts if block.text in places]
    assert len(found) >= 9
    off = [max(abs(a.left_px - b.left_px), abs(a.top_px - b.top_px)) for a, b in found]
    assert float(np.mean(off)) < 2.5


def test_its_code_is_to_be_edited(rebuilt):
    html, _, _ = rebuilt
    assert is_well_formed(html)
    assert not re.search(r"position\s*:\s*(absolute|fixed)", html)
    assert 'class="row' in html
    assert "--colour-1" in html
    assert "<h1" in html
    assert "<header" in html
    assert html.count("<") < 80


@pytest.mark.parametrize("width_px", [390, 768])
def test_it_gives_way_where_there_is_less_room(rebuilt, width_px):
    html, _, _ = rebuilt
    with Renderer(RenderConfig(viewport_width_px=width_px, viewport_height_px=64)) as renderer:
        page = renderer.render(html, Capture.TEXTS)
    assert page.notes == ()  # nothing is cut off at the side
    boxes = [block.box for block in page.texts]
    assert max(box.right_px for box in boxes) <= width_px
    for index, box in enumerate(boxes):
        for other in boxes[:index]:
            across = min(box.right_px, other.right_px) - max(box.left_px, other.left_px)
            down = min(box.bottom_px, other.bottom_px) - max(box.top_px, other.top_px)
            assert across <= 0.5 or down <= 2


NARROWER = """<style>*{box-sizing:border-box}td,th{padding:12px;text-align:left;border-top:1px solid #ccd3da}</style>
<body style="margin:0;font:16px/1.5 Arial;background:#fff;color:#17202b">
<div style="display:flex;gap:24px;padding:32px 40px">
<div style="flex:0 0 400px;background:#dde6f0;padding:24px 150px">Small boats</div>
<div style="flex:0 0 400px;background:#e8f0dd;padding:24px 150px">Large boats</div>
<div style="flex:0 0 352px;background:#f0e6dd;padding:24px 110px">Something else</div></div>
<table style="width:1200px;margin:24px 40px;border-collapse:collapse;table-layout:fixed">
<tr><th>Boat</th><th>Berths</th><th>Harbour</th><th>Price</th></tr>
<tr><td>Gannet</td><td>Two</td><td>Old harbour</td><td>$300</td></tr>
<tr><td>Puffin</td><td>Four</td><td>New harbour</td><td>$500</td></tr>
<tr><td>Heron</td><td>Eight</td><td>Old harbour</td><td>$900</td></tr></table></body>"""


def test_broad_paddings_and_tables_give_way_too():
    rgb, page = screenshot(NARROWER, width_px=1280)
    html = rebuilt_from(rgb)
    assert "<table" in html
    assert [str(window) for window in reflow([html])[0] if not window.passed] == []
    score = score_pages(page, screenshot(html, width_px=1280)[1])
    assert min(score.block_match, score.text, score.position) > 0.95


def test_a_family_that_comes_again_is_a_variable():
    words = ("Boats for a week", "Boats for a summer", "Boats for the winter")
    parts = "".join(
        f"<h2 style='font:28px Courier New;color:{colour}'>{word}</h2><p>{word}, with a stove and a table.</p>"
        for word, colour in zip(words, ("#a02020", "#206020", "#2020a0"), strict=True)
    )
    rgb, _ = screenshot(f"<body style='font:16px Arial;padding:20px'>{parts}</body>", width_px=800)
    html = rebuilt_from(rgb)
    assert html.count("monospace") == html.count("--font-1:") == 1
    assert html.count("font-family:var(--font-1)") >= 2


def test_a_page_of_one_colour_is_that_page():
    picture = np.full((300, 500, 3), (240, 240, 250), dtype=np.uint8)
    rgb, _ = screenshot(rebuilt_from(picture), width_px=500)
    assert np.array_equal(rgb, picture)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (200, 8000), (1, 1)])
def test_odd_pictures_give_a_page(shape):
    picture = np.full((*shape, 3), 90, dtype=np.uint8)
    assert is_well_formed(rebuilt_from(picture))
