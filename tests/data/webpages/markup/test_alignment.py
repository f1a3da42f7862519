"""Where each character of the HTML shows: against the browser's own ink, and in cases small enough to write down."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.core.types import Box, CharBox, ElementBox, Page
from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.markup.alignment import CORNER_PX, Alignment, align, characters_by_cell
from lensmith.render import Capture

CAPTURE = Capture.PICTURE | Capture.CHARS | Capture.ELEMENTS


@pytest.fixture(scope="module")
def rendered(page_renderer):
    def render(html):
        return page_renderer.render(stand_alone(html), CAPTURE)

    return render


def darkness(page):
    with Image.open(io.BytesIO(page.png)) as picture:
        return 255 - np.asarray(picture.convert("L")).astype(int)


def ink_in(dark_HW, box):
    left, top, right, bottom = box
    return dark_HW[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]


def box_of(alignment, html, piece):
    """The one box that all characters of `piece` have."""
    start = html.index(piece)
    boxes = alignment.boxes_C4[start : start + len(piece)]
    assert (boxes == boxes[0]).all()
    return boxes[0]


# --- against the browser ------------------------------------------------------------------------------------------

SENTENCES = (
    "<body><h1>The umber lantern</h1>"
    '<p class="font-mono">We bake 12 rye loaves &amp; a “fig bun” for €3.50, and then some more of them until it '
    "wraps.</p>"
    '<p class="font-serif text-center">Call +39 174</p></body>'
)


def test_there_is_ink_where_characters_are_and_nowhere_else(rendered):
    page = rendered(SENTENCES)
    alignment = align(SENTENCES, page)
    dark_HW = darkness(page)
    seen = np.zeros_like(dark_HW, dtype=bool)
    text = [index for index, char in enumerate(SENTENCES) if alignment.shown_C[index] and not char.isspace()]
    assert len(text) > 100
    for index in text:
        box = alignment.boxes_C4[index]
        assert ink_in(dark_HW, box).max() > 60, SENTENCES[index]
        ink_in(seen, box)[:] = True
    assert dark_HW[seen].sum() > 0.99 * dark_HW.sum()  # a glyph may hang over its box by a hair


def test_a_character_stands_where_it_alone_is_painted_differently(rendered):
    # The same page with one word in another colour differs in that word's boxes only.
    html = '<body><p>alpha <b class="ink-red">beta</b> gamma</p></body>'
    other = html.replace("ink-red", "ink-sky")
    page, page_other = rendered(html), rendered(other)
    rows, columns = np.nonzero(darkness(page) != darkness(page_other))
    start = html.index("beta")
    boxes = align(html, page).boxes_C4[start : start + 4]
    assert np.floor(boxes[:, 0].min()) <= columns.min() and columns.max() < np.ceil(boxes[:, 2].max())
    assert np.floor(boxes[:, 1].min()) <= rows.min() and rows.max() < np.ceil(boxes[:, 3].max())
    assert columns.max() - columns.min() > 0.7 * (boxes[:, 2].max() - boxes[:, 0].min())


def test_generated_pages_align_and_all_their_text_shows(rendered):
    tags = set()
    for index in range(25):
        html = generate_page(77, index).html
        page = rendered(html)
        alignment = align(html, page)
        source = "".join(char.char for char in page.chars if not char.char.isspace())
        assert len(source) > 50
        assert alignment.boxes_C4.shape == (len(html), 4)
        assert (alignment.boxes_C4[:, 2] <= page.width_px + 1).all()
        assert (alignment.boxes_C4[:, 3] <= page.height_px + 1).all()
        inside_tag = np.cumsum([(char == "<") for char in html]) > np.cumsum([(char == ">") for char in html])
        visible = [i for i, char in enumerate(html) if not inside_tag[i] and char != ">" and not char.isspace()]
        assert alignment.shown_C[visible].all()
        tags |= {element.tag.lower() for element in page.elements}
    assert {"table", "form", "figure", "blockquote", "article"} <= tags


def test_every_letter_of_an_entity_has_the_box_of_its_character(rendered):
    html = "<body><p>a&lt;b &amp;c &copy; &#8364;&#x20AC;d</p></body>"
    page = rendered(html)
    alignment = align(html, page)
    assert "".join(char.char for char in page.chars) == "a<b &c © €€d"
    pieces = ["a", "&lt;", "b", "&amp;", "c", "&copy;", "&#8364;", "&#x20AC;", "d"]
    found, rest = [], 0
    for piece in pieces:
        rest = html.index(piece, rest if piece != "a" else html.index("<p>") + 3)
        boxes = alignment.boxes_C4[rest : rest + len(piece)]
        assert (boxes == boxes[0]).all(), piece
        found.append(boxes[0])
        rest += len(piece)
    lefts, rights = [box[0] for box in found], [box[2] for box in found]
    assert lefts == sorted(lefts)
    assert (np.subtract(lefts[1:], rights[:-1]) > -0.6).all()
    assert found[6][2] - found[6][0] == pytest.approx(
        found[7][2] - found[7][0], abs=0.1
    )  # the same sign, written twice


def test_an_entity_without_its_semicolon_is_read_too(rendered):
    html = "<body><p>a &copy 2020</p></body>"
    alignment = align(html, rendered(html))
    assert box_of(alignment, html, "&copy")[0] < alignment.boxes_C4[html.index("2020"), 0]
    assert not (alignment.boxes_C4[html.index("&copy")] == alignment.boxes_C4[html.index(" 2020")]).all()


def test_start_tags_show_where_their_text_begins_or_at_their_corner(rendered):
    html = '<body><p>Hi</p><div class="bg-red high-96"></div><label>Name</label><input placeholder="Ann"></body>'
    page = rendered(html)
    alignment = align(html, page)
    assert (box_of(alignment, html, "<p>") == alignment.boxes_C4[html.index("Hi")]).all()
    picture = next(element.box for element in page.elements if element.tag.lower() == "div")
    left, top, right, bottom = box_of(alignment, html, '<div class="bg-red high-96">')
    assert (left, top) == pytest.approx((picture.left_px, picture.top_px))
    assert (right - left, bottom - top) == (CORNER_PX, CORNER_PX)
    assert picture.height_px == 96
    field = next(element.box for element in page.elements if element.tag.lower() == "input")
    assert box_of(alignment, html, '<input placeholder="Ann">')[1] == pytest.approx(field.top_px)
    assert not alignment.shown_C[html.index("</p>")]
    assert not alignment.shown_C[html.index("<body>")]


def test_tables_keep_their_order_though_the_parser_supplies_a_tbody(rendered):
    html = "<body><table><tr><th>Item</th><th>Price</th></tr><tr><td>Lamp</td><td></td></tr></table><p>end</p></body>"
    page = rendered(html)
    assert "tbody" in [element.tag.lower() for element in page.elements]
    alignment = align(html, page)
    rows = [element.box for element in page.elements if element.tag.lower() == "tr"]
    cells = [element.box for element in page.elements if element.tag.lower() in ("th", "td")]
    second_row = html.index("<tr><td>")
    assert alignment.boxes_C4[second_row, 1] == pytest.approx(rows[1].top_px)
    empty = html.index("<td></td>")
    assert alignment.boxes_C4[empty, 0] == pytest.approx(cells[3].left_px)
    assert (alignment.boxes_C4[html.index("<p>")] == alignment.boxes_C4[html.index("end")]).all()


def test_a_tbody_that_is_written_counts(rendered):
    html = "<body><table><tbody><tr><td>a</td></tr></tbody></table><p>b</p></body>"
    alignment = align(html, rendered(html))
    assert (alignment.boxes_C4[html.index("<p>")] == alignment.boxes_C4[html.index("b</p>")]).all()
    assert alignment.shown_C[html.index("<tbody>")]


# --- what does not match ------------------------------------------------------------------------------------------


def page_of(chars: str, tags: str) -> Page:
    box = Box(0, 0, 8, 8)
    return Page(
        width_px=32,
        height_px=32,
        chars=tuple(CharBox(char, box) for char in chars),
        elements=tuple(ElementBox(tag, box) for tag in tags.split()),
    )


def test_another_text_is_refused():
    html = "<body><p>abc</p></body>"
    align(html, page_of("abc", "BODY P"))
    with pytest.raises(InputError, match="text is not the HTML's") as caught:
        align(html, page_of("abd", "BODY P"))
    assert "'abc'" in str(caught.value) and "'abd'" in str(caught.value)


@pytest.mark.parametrize("tags", ["BODY", "BODY P P", "BODY P B B", "BODY B P"])
def test_other_elements_are_refused_rather_than_shifted(tags):
    html = "<body><p>a<b>bc</b></p></body>"
    align(html, page_of("abc", "BODY P B"))
    align(html, page_of("abc", "BODY P TBODY B"))  # supplied by the parser
    with pytest.raises(InputError, match="elements are not the HTML's"):
        align(html, page_of("abc", tags))


def test_html_on_two_lines_is_refused():
    with pytest.raises(InputError, match="one line"):
        align("<body>\n<p>a</p></body>", page_of("\na", "BODY P"))


# --- cells --------------------------------------------------------------------------------------------------------


def literal(html: str, boxes: dict[int, tuple[float, float, float, float]]) -> Alignment:
    boxes_C4 = np.zeros((len(html), 4), np.float32)
    for index, box in boxes.items():
        boxes_C4[index] = box
    return Alignment(boxes_C4=boxes_C4, shown_C=(boxes_C4[:, 2] > boxes_C4[:, 0]))


def test_a_cell_belongs_to_the_character_over_its_middle():
    # <p>ab c&lt;</p> on 24 x 16 px: six cells of 4 px in two rows of 8.
    html = "<p>ab c&lt;</p>"
    alignment = literal(
        html,
        {
            0: (0, 0, 24, 16),  # a tag is no character
            3: (0, 0, 7, 8),  # covers the middles 2 and 6
            4: (7, 0, 9.9, 8),  # none: 6 lies before it, 10 after
            5: (9.9, 0, 14, 8),  # a space
            6: (14, 3, 22, 13),  # middles 14 and 18, in both rows
            7: (20, 9, 24, 16),  # an entity, in the lower row
        },
    )
    labels = characters_by_cell(
        html,
        alignment,
        width_px=24,
        height_px=16,
        cell_width_px=4,
        cell_height_px=8,
        index_of={"a": 1, "b": 2, " ": 3, "c": 4},
        other=9,
    )
    assert labels.tolist() == [[1, 1, 0, 4, 4, 0], [0, 0, 0, 4, 4, 9]]


def test_pages_that_are_not_whole_cells_and_characters_beyond_them():
    html = "<p>ab</p>"
    alignment = literal(html, {3: (-9, -9, 3, 7), 4: (8, 8, 400, 400)})
    arguments = {"cell_width_px": 4, "cell_height_px": 8, "index_of": {"a": 1, "b": 2}, "other": 9}
    labels = characters_by_cell(html, alignment, width_px=10, height_px=17, **arguments)
    assert labels.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 2]]
    hidden = replace(alignment, shown_C=np.zeros(len(html), bool))
    assert not characters_by_cell(html, hidden, width_px=10, height_px=17, **arguments).any()
