"""What a page holds and its picture does not show is in the result."""

import json
from dataclasses import asdict

import pytest

from lensmith.core.types import CutOff, MissingGlyphs, ScrolledAway
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.render.files import render_files

WINDOW = RenderConfig(viewport_width_px=400, viewport_height_px=300)


def notes_of(renderer, html):
    return renderer.render(f"<!doctype html><meta charset=utf-8><body style='margin:0'>{html}", Capture.PICTURE).notes


# --- wider than the window --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "width_px"),
    [
        ("<div style='width:1000px;height:9px'>", 1000),
        ("<div style='width:100px;height:9px;margin-left:500px'>", 600),
        ("<table><tr>" + "<td>cell" * 40, None),
        ("<p style='white-space:nowrap'>" + "word " * 200, None),
    ],
)
def test_a_page_wider_than_its_window_says_how_wide(renderer, html, width_px):
    (note,) = notes_of(renderer, html)
    assert isinstance(note, CutOff)
    assert note.window_width_px == 400
    assert note.page_width_px == width_px or (width_px is None and note.page_width_px > 500)
    assert f"{note.page_width_px:,} px wide" in str(note)


@pytest.mark.parametrize(
    "html",
    [
        "<div style='width:400px;height:9px'>",
        "<div style='overflow:hidden'><div style='width:1000px;height:9px'></div></div>",
        "<style>html{overflow-x:hidden}</style><div style='width:1000px;height:9px'>",
        "<style>body{overflow-x:clip}</style><div style='width:1000px;height:9px'>",
        "<div style='position:absolute;left:-900px;width:100px'>x</div>",
    ],
)
def test_what_nobody_can_scroll_to_is_not_cut_off(renderer, html):
    assert notes_of(renderer, html) == ()


# --- boxes that scroll ------------------------------------------------------------------------------------------------

FILLED = "<div style='height:900px;background:linear-gradient(red,blue)'>x</div>"
SHELLS = {
    "a box of the window's height": f"<main style='height:100vh;overflow:auto'>{FILLED}</main>",
    "a body that scrolls": f"<style>html,body{{height:100%;overflow:auto}}</style>{FILLED}",
    "a column with a bar": "<div style='display:flex;flex-direction:column;height:100vh'>"
    f"<nav style='height:50px'>bar</nav><main style='flex:1;min-height:0;overflow-y:scroll'>{FILLED}</main></div>",
    "a grid": "<div style='display:grid;grid-template-rows:50px 1fr;height:100vh'><nav>bar</nav>"
    f"<main style='overflow:auto'>{FILLED}</main></div>",
    "a fixed shell": "<div style='position:fixed;inset:0;overflow:hidden'>"
    f"<main style='position:absolute;inset:50px 0 0 0;overflow:auto'>{FILLED}</main></div>",
    "a box in a box": "<div style='height:100vh;overflow:auto'><div style='height:500px;overflow:auto'>"
    f"{FILLED}</div></div>",
    "a box around what is placed": f"<main style='height:100vh;overflow:auto;position:relative'>"
    f"<div style='position:absolute;left:0;right:0'>{FILLED}</div></main>",
    "in a shadow tree": "<div><template shadowrootmode=closed>"
    f"<main style='height:100vh;overflow:auto'>{FILLED}</main></template></div>",
}


@pytest.fixture(scope="module")
def expanding():
    with Renderer(RenderConfig(viewport_width_px=400, viewport_height_px=300, expand_scrolling=True)) as renderer:
        yield renderer


@pytest.mark.parametrize("name", SHELLS)
def test_a_box_that_scrolls_says_how_much_it_hides_and_can_be_expanded(name, renderer, expanding, pixels_of):
    html = f"<!doctype html><body style='margin:0'>{SHELLS[name]}"
    page = renderer.render(html, Capture.PICTURE)
    hidden_px = [note.hidden_height_px for note in page.notes if isinstance(note, ScrolledAway)]
    assert 300 <= sum(hidden_px) <= 900 - 200
    assert page.height_px == 300
    whole = expanding.render(html, Capture.PICTURE)
    assert whole.notes == ()
    assert 900 <= whole.height_px <= 960
    image = pixels_of(whole)
    assert tuple(image[-3, 200] // 16) == (0, 0, 15)  # the gradient's end


def test_sideways_is_noted_and_not_expanded(expanding):
    (note,) = notes_of(expanding, "<pre style='overflow-x:auto;width:200px'>" + "word " * 100)
    assert (note.tag, note.hidden_height_px) == ("pre", 0)
    assert note.hidden_width_px > 500
    assert "px of its width are not in the picture" in str(note)


@pytest.mark.parametrize(
    "html",
    [
        f"<div style='height:100px;overflow:hidden'>{FILLED}</div>",
        f"<div style='height:100px;overflow:visible'>{FILLED}</div>",
        f"<div style='display:none;height:100px;overflow:auto'>{FILLED}</div>",
        f"<div style='visibility:hidden;height:100px;overflow:auto'>{FILLED}</div>",
        "<div style='overflow:auto'><p>fits</div>",
        "<textarea rows=3>one\ntwo</textarea>",
        "<p style='overflow:auto'>fits",
        f"<div style='height:9px;overflow:hidden'><p style='height:50px;overflow:auto;margin:50px'>{'x ' * 999}</div>",
    ],
)
def test_what_hides_nothing_from_a_person_is_not_noted(renderer, html):
    assert not [note for note in notes_of(renderer, html) if isinstance(note, ScrolledAway)]


def test_of_many_boxes_those_that_hide_most_are_named_in_order(renderer):
    boxes = [
        f"<div style='width:50px;height:20px;overflow:auto'><div style='height:{100 + i}px'></div></div>"
        for i in range(40)
    ]
    hidden_px = [note.hidden_height_px for note in notes_of(renderer, "".join(boxes))]
    assert hidden_px == [100 + index - 20 for index in range(20, 40)]


# --- characters without a glyph --------------------------------------------------------------------------------------


def test_characters_without_a_font_are_counted(renderer):
    (note,) = notes_of(renderer, "<p>abc 漢字漢 — Ünï ✓ → Ελληνικά Привет</p><p hidden>漢漢漢")
    assert note == MissingGlyphs(count=3, characters="漢字")
    assert "3 of the characters" in str(note)
    assert "漢 字" in str(note)


@pytest.mark.parametrize(
    "text", ["plain", "Ünïcödé €„“–…", "Ελληνικά Привет", "✓ → ★", "e\u0301 \u200b\u00ad", "\U0001f600"]
)
@pytest.mark.parametrize("family", ["Arial", "serif", "monospace", "'No Such Font', sans-serif"])
def test_characters_with_a_font_are_not(renderer, text, family):
    assert notes_of(renderer, f'<p style="font-family:{family}">{text}') == ()


def test_icons_that_styles_put_before_elements_are_missing_too(renderer):
    style = "<style>.home::before{font-family:Icons;content:'\\f015'} .no::after{content:'\\f016';display:none}</style>"
    (note,) = notes_of(renderer, f"{style}<i class=home></i> <i class=no>x</i> <p hidden><i class=home></i></p>")
    assert note == MissingGlyphs(count=1, characters="\uf015")
    assert notes_of(renderer, "<style>i::before{content:'\\2192'}</style><i></i>") == ()


def test_a_private_character_of_an_icon_font_that_is_gone_is_missing(renderer):
    (note,) = notes_of(renderer, "<i style='font-family:FontAwesome'>\uf015</i>")
    assert note == MissingGlyphs(count=1, characters="\uf015")
    assert "U+F015" in str(note)


# --- where it is said -------------------------------------------------------------------------------------------------


def test_notes_go_into_the_json_and_the_result(tmp_path):
    (tmp_path / "a.html").write_text("<!doctype html><body style='margin:0'><div style='width:900px;height:9px'>")
    (result,) = render_files([tmp_path / "a.html"], tmp_path / "out", WINDOW, Capture.PICTURE | Capture.TEXTS)
    (note,) = result.notes
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["notes"] == [asdict(note)] == [{"kind": "cut-off", "page_width_px": 900, "window_width_px": 400}]
    assert str(result).splitlines()[1].strip() == str(note)
