"""Texts, characters and elements by DOM geometry."""

import pytest

from lensmith.core.types import Box
from lensmith.render import Capture

CSS = "<!doctype html><style>body{margin:0;font:16px/20px 'Liberation Sans',Arial,sans-serif}</style>"


@pytest.fixture
def texts(renderer):
    def measure(body: str):
        return renderer.render(CSS + body, Capture.TEXTS).texts

    return measure


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<p>  one\n two   <b>three</b> </p>", ["one two", "three"]),
        ("<ul><li>item<li>other</ul>", ["item", "other"]),
        ("a<!-- not this -->b", ["a", "b"]),
        ("<p style='text-transform:uppercase'>loud</p>", ["LOUD"]),
        ("<p style='text-transform:capitalize'>hello wide-world it's</p>", ["Hello Wide-World It's"]),
        ("<div style='display:contents'>contents</div>", ["contents"]),
        ("<div style='visibility:hidden'>no<b style='visibility:visible'>yes</b></div>", ["yes"]),
        ("<svg width=90 height=30><text x=5 y=20>drawn</text></svg>", ["drawn"]),
        ("<details><summary>title</summary>direct<p>deep</p></details>", ["title"]),
        ("<details open><summary>title</summary>direct</details>", ["title", "direct"]),
        ("<noscript>without scripts</noscript>", ["without scripts"]),
        ("<div style='overflow:hidden;height:20px'>in<div style='height:50px'></div>out</div>", ["in"]),
        ("<div style='overflow:hidden;width:0;height:0'><i style='position:absolute'>free</i></div>", ["free"]),
        ("<p>caf\u00e9 \U0001f600\u00a0x</p>", ["caf\u00e9 \U0001f600 x"]),
    ],
)
def test_texts_are_what_a_reader_sees(texts, body, expected):
    assert [block.text for block in texts(body)] == expected


@pytest.mark.parametrize(
    "body",
    [
        "<p style='display:none'>x</p>",
        "<p style='visibility:hidden'>x</p>",
        "<div style='opacity:0'><p>x</p></div>",
        "<p style='color:transparent'>x</p>",
        "<p style='font-size:0'>x</p>",
        "<p style='position:absolute;left:-9999px'>x</p>",
        "<p style='position:absolute;left:401px'>x</p>",
        "<p style='text-indent:-9999px;overflow:hidden'>x</p>",
        "<div style='overflow:hidden;width:0;height:0;position:relative'><i style='position:absolute'>x</i></div>",
        "<i style='position:absolute;width:1px;height:1px;overflow:hidden;clip:rect(0,0,0,0)'>x</i>",
        "<div style='content-visibility:hidden'>x<p>x</p></div>",
        "<script>x</script><style>x{}</style><template>x</template><p>   </p><title>x</title>",
        "<input type=hidden value=x><input type=checkbox value=x><input type=range value=3>",
        "<img alt=x>",
    ],
)
def test_what_cannot_be_seen_is_no_text(texts, body):
    assert texts(body) == ()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<input value=typed>", "typed"),
        ("<input placeholder=hint>", "hint"),
        ("<input value=typed placeholder=hint>", "typed"),
        ("<input type=password value=abc>", "\u2022\u2022\u2022"),
        ("<input type=submit>", "Submit"),
        ("<input type=submit value=Send>", "Send"),
        ("<input type=button value=Press>", "Press"),
        ("<button>Go</button>", "Go"),
        ("<textarea>long\ntext</textarea>", "long text"),
        ("<textarea placeholder=hint></textarea>", "hint"),
        ("<select><option>one<option selected>two</select>", "two"),
    ],
)
def test_form_fields_show_their_text(texts, body, expected):
    assert [block.text for block in texts(body)] == [expected]


def test_list_box_shows_its_options(texts):
    assert [block.text for block in texts("<select multiple><option>one<option>two</select>")] == ["one", "two"]


def test_field_text_lies_in_the_content_box(texts):
    field = "position:absolute;left:10px;top:20px;width:100px;height:30px;border:2px solid;padding:5px 7px"
    (block,) = texts(f"<input style='{field};box-sizing:content-box' value=x>")
    assert block.box == Box(10 + 2 + 7, 20 + 2 + 5, 100, 30)


def test_placeholder_has_its_own_colour(texts):
    (block,) = texts("<style>::placeholder{color:#0a141e}</style><input style='color:red' placeholder=hint>")
    assert block.colour == (10, 20, 30)


def test_box_is_the_union_of_the_lines(texts):
    (block,) = texts("<p style='margin:0;width:50px;line-height:20px'>aaaa bbbb cccc</p>")
    assert block.box.height_px > 40
    assert block.box.width_px <= 50
    assert (block.box.left_px, round(block.box.bottom_px)) in {(0, 59), (0, 58), (0, 60)}


def test_box_ends_where_the_text_is_cut_off(texts):
    (block,) = texts("<p style='margin:0;width:60px;overflow:hidden;white-space:nowrap'>a long line that is cut</p>")
    assert block.box.width_px == 60


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("color:#123456", (18, 52, 86)),
        ("color:rgba(0,0,0,.5)", (128, 128, 128)),
        ("color:rgba(255,255,255,.5);background:#000", (128, 128, 128)),
        ("color:#000;opacity:.5", (128, 128, 128)),
        ("color:oklch(1 0 0)", (255, 255, 255)),
        ("color:color(srgb 1 0 0)", (255, 0, 0)),
        ("color:red;-webkit-text-fill-color:blue", (0, 0, 255)),
        ("background:linear-gradient(#f00,#00f);-webkit-background-clip:text;color:transparent", (128, 0, 128)),
    ],
)
def test_colour_is_as_painted(texts, style, expected):
    (block,) = texts(f"<p style='{style}'>x</p>")
    assert block.colour == expected


def test_painted_colour_is_in_the_picture(renderer, pixels_of):
    page = renderer.render(CSS + "<body style='background:#fff'><p style='color:#c86432;font-size:80px'>M</p>")
    (block,) = page.texts
    left, top = int(block.box.left_px), int(block.box.top_px)
    inside = pixels_of(page)[top : top + int(block.box.height_px), left : left + int(block.box.width_px)]
    assert (inside == block.colour).all(axis=2).sum() > 300
    outside = pixels_of(page).copy()
    outside[top : top + int(block.box.height_px) + 1, left : left + int(block.box.width_px) + 1] = 255
    assert (outside == 255).all()


def test_chars_are_the_dom_text_exactly(renderer):
    body = "<p>  two\n words</p><script>let a = '<b>';</script><p>\u00e9\U0001f600</p>"
    page = renderer.render(f"{CSS}<body>{body}</body>", Capture.CHARS)
    assert "".join(char.char for char in page.chars) == "  two\n wordslet a = '<b>';\u00e9\U0001f600"


def test_char_boxes_follow_the_line(renderer):
    page = renderer.render(f"{CSS}<body><p style='margin:0'>  ab  c</p>", Capture.CHARS)
    boxes = {index: char.box for index, char in enumerate(page.chars) if char.box.width_px * char.box.height_px > 0}
    assert sorted(boxes) == [2, 3, 4, 6], "white space that collapses has no area"
    for before, after in zip(sorted(boxes), sorted(boxes)[1:], strict=False):
        assert boxes[before].right_px == pytest.approx(boxes[after].left_px, abs=0.05)
    assert boxes[2].left_px == 0


def test_char_boxes_fill_the_text_box(renderer):
    page = renderer.render(f"{CSS}<p style='width:90px'>several words over a few lines", Capture.CHARS | Capture.TEXTS)
    (block,) = page.texts
    inked = [char.box for char in page.chars if char.box.width_px * char.box.height_px > 0]
    assert min(box.left_px for box in inked) == pytest.approx(block.box.left_px, abs=0.1)
    assert max(box.bottom_px for box in inked) == pytest.approx(block.box.bottom_px, abs=0.1)
    assert len({box.top_px for box in inked}) > 1


def test_characters_without_a_box_have_no_area(renderer):
    page = renderer.render(f"{CSS}<p style='display:none'>ab</p>", Capture.CHARS)
    assert [(char.char, char.box) for char in page.chars] == [("a", Box(0, 0, 0, 0)), ("b", Box(0, 0, 0, 0))]


def test_elements_come_in_document_order_with_border_boxes(renderer):
    body = """<div style='width:100px;height:50px;padding:5px;border:2px solid;margin:3px'><b>x</b></div>
    <script></script><svg width=10 height=10><rect width=4 height=4 /></svg>"""
    page = renderer.render(CSS + body, Capture.ELEMENTS)
    assert [element.tag for element in page.elements] == ["div", "b", "script", "svg", "rect"]
    assert page.elements[0].box == Box(3, 3, 114, 64)
    assert page.elements[2].box.width_px * page.elements[2].box.height_px == 0


def test_names_in_the_page_cannot_shadow_what_we_call(renderer):
    names = ("body", "documentElement", "fonts", "createRange", "createTreeWalker", "getAnimations", "activeElement")
    traps = "".join(f"<img name={name}><form name={name}></form>" for name in names)
    fields = ("tagName", "localName", "parentElement", "childNodes", "getClientRects", "getBoundingClientRect", "style")
    form = "<form>visible" + "".join(f"<input name={name}>" for name in fields) + "</form>"
    page = renderer.render(f"{CSS}{traps}{form}", Capture.TEXTS | Capture.ELEMENTS | Capture.CHARS)
    assert [block.text for block in page.texts] == ["visible"]
    assert len(page.elements) == 2 * len(names) + 1 + len(fields)


def test_page_without_a_body(renderer):
    page = renderer.render("<frameset><frame></frameset>", Capture.TEXTS | Capture.ELEMENTS | Capture.PICTURE)
    assert (page.width_px, page.height_px, page.texts) == (400, 300, ())
    assert renderer.render("").height_px == 300


@pytest.mark.parametrize("clobbers", ["", "<form name=adoptedStyleSheets></form>"])
def test_what_a_width_decides_is_pictured_where_it_was_measured(clobbers, renderer, pixels_of):
    page = renderer.render(
        "<style>body{margin:0} div{width:90px;height:90px;background:#f00;margin-left:200px}"
        "@media (min-width:300px){div{margin-left:0;transition:margin-left .2s}}</style><div></div>" + clobbers,
        Capture.PICTURE | Capture.ELEMENTS,
    )
    assert page.elements[0].box == (0, 0, 90, 90)
    assert tuple(pixels_of(page)[45, 45]) == (255, 0, 0)
    assert tuple(pixels_of(page)[45, 245]) == (255, 255, 255)
