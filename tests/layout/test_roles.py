"""What the parts of a page are for is told from how they look: tables, lists, navigation, fields, landmarks."""

import re

import numpy as np
import pytest
from PIL import Image

from lensmith.layout.fit import rebuild
from tests.support.screenshots import renderer_of, screenshot

STYLE = """<style>*{box-sizing:border-box}body{margin:0;font:16px/1.5 Arial;color:#212529}
header{background:#343a40;color:#fff;padding:16px 24px;display:flex;gap:40px}main{padding:24px}
table{border-collapse:collapse;width:720px;margin-bottom:40px}
td,th{text-align:left;padding:12px;border-top:1px solid #dee2e6}
ul.plain{list-style:none;padding:0;margin:40px 0}ul.plain li{padding:6px 0}
label{display:block;margin-bottom:4px}input,select{font:inherit;height:40px;padding:0 12px;border:1px solid #adb5bd;
border-radius:4px;display:block;background:#fff}::placeholder{color:#868e96}
input[type=checkbox]{padding:0;width:18px;height:18px;appearance:none;border:1px solid #868e96;display:inline-block;
margin:0 8px 0 0;vertical-align:middle}footer{background:#f1f3f5;padding:24px;margin-top:60px}</style>"""
PAGE = f"""<!doctype html>{STYLE}
<header><span>Home</span><span>Products</span><span>Prices</span><span>Contact</span></header>
<main><h1>Quarterly numbers</h1>
<table><tr><th>Region</th><th>Orders</th><th>Revenue</th></tr><tr><td>North</td><td>1,204</td><td>18,310</td></tr>
<tr><td>South</td><td>982</td><td>12,077</td></tr><tr><td>West</td><td>2,310</td><td>41,950</td></tr></table>
<ul class="plain"><li>Fast delivery</li><li>Free returns</li><li>Human support</li><li>Fair prices</li></ul>
<h2>What to bring</h2><ul><li>A passport that is valid for half a year after the day on which you mean to come home</li>
<li>A warm coat</li><li>Good shoes</li></ul>
<label>Your name</label><input style="width:360px" placeholder="First and last name"><br>
<label>Town</label><input style="width:360px"><br>
<div><input type="checkbox">Remember me</div></main>
<footer>Copyright by the people of the valley</footer>"""


@pytest.fixture(scope="module")
def html():
    pixels, _ = screenshot(PAGE, width_px=1024)
    return rebuild(Image.fromarray(pixels), renderer_of).html


def _texts(html: str, tag: str) -> list[str]:
    found = re.findall(rf"<{tag}(?: [^>]*)?>(.*?)</{tag}>", html, flags=re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", inside)).strip() for inside in found]


def test_rows_that_share_their_columns_are_a_table(html):
    [table] = re.findall(r"<table.*?</table>", html, flags=re.DOTALL)
    assert _texts(table, "tr") == [
        "Region Orders Revenue",
        "North 1,204 18,310",
        "South 982 12,077",
        "West 2,310 41,950",
    ]
    assert _texts(table, "th") == ["Region", "Orders", "Revenue"]


def test_what_repeats_and_what_bullets_stand_before_are_lists(html):
    lists = [_texts(entries, "li") for entries in re.findall(r"<ul.*?</ul>", html, flags=re.DOTALL)]
    assert ["Fast delivery", "Free returns", "Human support", "Fair prices"] in lists
    marked = next(entries for entries in lists if "A warm coat" in entries)
    assert len(marked) == 3 and marked[0].endswith("home")
    assert "list-style:disc" in html


def test_a_row_of_short_texts_at_the_top_is_the_navigation(html):
    [navigation] = re.findall(r"<nav.*?</nav>|<header.*?</header>", html, flags=re.DOTALL)
    assert _texts(navigation, "a") == ["Home", "Products", "Prices", "Contact"]


def test_fields_are_fields(html):
    fields = re.findall(r"<input[^>]*>", html)
    assert len(fields) == 3
    assert 'placeholder="First and last name"' in fields[0] and 'aria-label="Your name"' in fields[0]
    assert 'aria-label="Town"' in fields[1]
    assert 'type="checkbox"' in fields[2] and "checked" not in fields[2].removeprefix('<input type="checkbox"')


def test_the_page_has_its_landmarks(html):
    assert [html.count(f"<{tag}") for tag in ("footer", "main")] == [1, 1]
    assert "Copyright" in _texts(html, "footer")[0]
    assert (
        html.index("<main")
        < html.index("Quarterly", html.index("<body"))
        < html.index("</main>")
        < html.index("<footer")
    )


def test_all_of_it_stands_where_it_stood(html):
    _, wanted = screenshot(PAGE, width_px=1024)
    _, shown = screenshot(html, width_px=1024)
    places = {text.text: text.box for text in shown.texts}
    # What stands in a field is no text of the page.
    missing = [text for text in wanted.texts if text.text not in places]
    assert not missing
    for text in wanted.texts:
        box = places[text.text]
        assert abs(box.left_px - text.box.left_px) <= 3, text.text
        assert abs((box.top_px + box.bottom_px) - (text.box.top_px + text.box.bottom_px)) <= 8, text.text


@pytest.mark.parametrize("page", ["", "<p>One line</p>", "<p>One</p><p>Two</p>"])
def test_little_text_is_no_table_list_or_navigation(page):
    pixels, _ = screenshot(f"<!doctype html>{page}", width_px=640)
    html = rebuild(Image.fromarray(pixels), renderer_of).html
    assert not re.findall(r"<(table|ul|nav|input|select)\b", html)


def test_columns_of_a_page_are_no_table():
    column = "<div style='width:260px'><h3>{}</h3><p>{}</p><p style='font-size:13px'>Read on</p></div>"
    words = ["Fast and light", "Open to all", "Made to last"]
    page = "".join(column.format(word, f"{word} is what we promise to everyone who works with us.") for word in words)
    pixels, _ = screenshot(
        f"<!doctype html><div style='display:flex;gap:60px;font-family:Arial'>{page}</div>", width_px=1024
    )
    assert "<table" not in rebuild(Image.fromarray(pixels), renderer_of).html


def test_pictures_in_cells_keep_their_shape_and_rows_their_lines():
    style = "td{padding:12px 16px;width:200px}tr{border-top:2px solid #c3ccd5}i{display:block;width:32px;height:32px;"
    style += "background:#9bb0c5}table{border-collapse:collapse;font:16px Arial}"
    boats = [("Gannet", "Two berths"), ("Puffin", "Four berths"), ("Heron", "Eight berths"), ("Tern", "Six berths")]
    rows = "".join(f"<tr><td><i></i></td><td>{name}</td><td>{room}</td></tr>" for name, room in boats)
    pixels, _ = screenshot(f"<!doctype html><style>{style}</style><table>{rows}</table>", width_px=1024)
    html = rebuild(Image.fromarray(pixels), renderer_of).html
    assert html.count("<tr") == len(boats)
    again, _ = screenshot(html, width_px=1024)
    height = min(len(again), len(pixels))
    assert np.mean(np.abs(again[:height].astype(int) - pixels[:height]).max(axis=2) > 40) < 0.02


def test_framed_cells_are_a_table_and_no_fields():
    rows = [("Name", "Town", "Since"), ("Ada Byron", "London", "1833"), ("Emmy Noether", "Erlangen", "1907")]
    rows.append(("Grace Hopper", "New York", "1944"))
    cells = "".join(f"<tr>{''.join(f'<td>{text}</td>' for text in row)}</tr>" for row in rows)
    style = "td{border:1px solid #dee2e6;padding:12px;width:200px}table{border-collapse:collapse;font:16px Arial}"
    pixels, _ = screenshot(f"<!doctype html><style>{style}</style><table>{cells}</table>", width_px=1024)
    html = rebuild(Image.fromarray(pixels), renderer_of).html
    assert _texts(html, "tr") == [" ".join(row) for row in rows]
    assert "<input" not in html
    again, _ = screenshot(html, width_px=1024)
    height = min(len(again), len(pixels))
    assert np.mean(np.abs(again[:height].astype(int) - pixels[:height]).max(axis=2) > 40) < 0.03
