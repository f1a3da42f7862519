"""How elements are placed and what they paint, and the lines of texts."""

import pytest

from lensmith.core.types import BorderSide, Box
from lensmith.render import Capture

CSS = "<!doctype html><style>body{margin:0;font:16px/20px 'Liberation Sans',Arial,sans-serif}</style>"


@pytest.fixture
def styles(renderer):
    def measure(body: str, css: str = CSS):
        return {style.tag: style for style in renderer.render(css + body, Capture.STYLES).styles}

    return measure


def test_a_position_counts_whoever_sets_it(styles):
    found = styles("<style>em{position:fixed}</style><b style='position:absolute'>x</b><em>y</em><i>z</i>")
    assert {tag: found[tag].position for tag in ("b", "em", "i")} == {"b": "absolute", "em": "fixed", "i": "static"}


def test_depth_counts_from_html(styles):
    found = styles("<main><p><b>x</b></p></main>")
    assert [(tag, found[tag].depth) for tag in found] == [("html", 0), ("body", 1), ("main", 2), ("p", 3), ("b", 4)]


def test_what_has_no_box_is_left_out_and_what_cannot_be_seen_has_no_area(styles):
    found = styles("<p style='display:none'>x</p><b style='visibility:hidden'>y</b><svg><g><path d='M0 0'/></g></svg>")
    assert "p" not in found
    assert found["b"].box.width_px == 0
    assert "svg" in found and "path" not in found


def test_paints_are_what_shows(styles):
    found = styles(
        "<main style='background:#000;opacity:.5;width:100px;height:40px'></main>"
        "<p style='background:linear-gradient(#000,#fff);margin:0'>x</p><b>z</b>"
        "<nav style='border:2px solid rgba(255,0,0,.5);border-left:0'>y</nav><img width=9 height=9>"
    )
    assert found["main"].fill == (128, 128, 128)
    assert found["main"].behind == (255, 255, 255)
    assert found["main"].box == Box(0, 0, 100, 40)
    assert found["p"].fill == (128, 128, 128)
    assert found["b"].fill is None
    side = BorderSide(2, (255, 128, 128))
    assert found["nav"].borders == (side, side, side, None)
    assert found["img"].is_picture and not found["nav"].is_picture


@pytest.mark.parametrize(
    ("rule", "body", "expected"),
    [
        ("b::before{content:'\\2605'}", "<b></b>", True),
        ("b::before{content:'\\2605'}", "<b> <!-- x --> </b>", True),
        ("b::after{content:url(data:image/gif;base64,R0lGODlhAQABAAAAACw=)}", "<b></b>", True),
        ("b::before{content:'\\2605'}", "<b>with words</b>", False),
        ("b::before{content:''}b::after{content:' '}", "<b></b>", False),
        ("", "<b></b>", False),
    ],
)
def test_what_a_style_puts_into_an_empty_element_is_a_picture(styles, rule, body, expected):
    assert styles(body, f"{CSS}<style>{rule}</style>")["b"].is_picture == expected


@pytest.mark.parametrize(
    ("css", "canvas", "body"),
    [
        ("body{background:#123456}", (18, 52, 86), None),
        ("html{background:#123456}", (18, 52, 86), None),
        ("html{background:#123456}body{background:#fff}", (18, 52, 86), (255, 255, 255)),
        ("", None, None),
    ],
)
def test_the_canvas_is_painted_by_root_or_body(styles, css, canvas, body):
    found = styles("<p>x</p>", f"{CSS}<style>{css}</style>")
    assert (found["html"].fill, found["body"].fill) == (canvas, body)
    assert found["html"].box == Box(0, 0, 400, 300)


def test_a_box_is_cut_where_it_cannot_be_seen(styles):
    found = styles("<div style='overflow:hidden;width:50px;height:30px'><p style='width:200px;margin:0'>x</p></div>")
    assert found["p"].box == Box(0, 0, 50, 20)


def test_a_text_has_its_lines(renderer):
    html = CSS + "<div style='width:60px'>aaaa bbbb <b>cc</b></div><p style='display:none'>x</p>"
    page = renderer.render(html, Capture.TEXTS | Capture.LINES)
    assert [page.texts[line.text].text for line in page.lines] == ["aaaa bbbb", "aaaa bbbb", "cc"]
    first, second, third = (line.box for line in page.lines)
    assert first.top_px < second.top_px == third.top_px
    assert second.right_px <= third.left_px + 1


def test_lines_still_belong_to_their_texts_behind_a_frame(renderer):
    html = CSS + "<p>one</p><iframe srcdoc='<p>inside</p><p>more</p>' width=200 height=90></iframe><p>two</p>"
    page = renderer.render(html, Capture.TEXTS | Capture.LINES)
    assert [block.text for block in page.texts] == ["one", "inside", "more", "two"]
    assert [page.texts[line.text].text for line in page.lines] == ["one", "two"]


def test_nothing_is_measured_that_was_not_asked_for(renderer):
    page = renderer.render("<p>x</p>", Capture.TEXTS)
    assert page.styles == () and page.lines == ()
