"""Design2Code's steps before and after the browser: markup, cleaning, colouring, and blocks from pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.evaluate.visual.design2code.blocks import find_blocks
from lensmith.evaluate.visual.design2code.cleaning import clean_prediction, without_repeated_text
from lensmith.evaluate.visual.design2code.colouring import ColouredText, coloured_copies
from lensmith.evaluate.visual.design2code.markup import read, write

# What Beautiful Soup 4.15 writes (`str(BeautifulSoup(html, "html.parser"))`, Python 3.11) for what it reads.
AS_BEAUTIFUL_SOUP = {
    "<p>one<p>two": "<p>one<p>two</p></p>",
    "<div/>after": "<div></div>after",
    "a<br>b<br/>c</br>d": "a<br/>b<br/>cd",
    "<b>x</i>y</b></b>z": "<b>xy</b>z",
    "<i><b>x</i>y</b>": "<i><b>x</b></i>y",
    '<A HREF=x Class=" b  a " title=\'say "hi"\'>t</A>': '<a class="b a" href="x" title=\'say "hi"\'>t</a>',
    "<p a=1 a=2 hidden>&lt;&copy;&unknown; &#65;&amp</p>": '<p a="2" hidden="">&lt;©&amp;unknown A&amp;</p>',
    "<!DOCTYPE html>\n\n<!-- c --><p> \n </p><pre> \n </pre>": "<!DOCTYPE html>\n\n<!-- c --><p>\n</p><pre> \n </pre>",
    "<script>if (a < b) c('</p>')</script>": "<script>if (a < b) c('</p>')</script>",
    "x < y & z": "x &lt; y &amp; z",
}


@pytest.mark.parametrize("html", AS_BEAUTIFUL_SOUP)
def test_markup_is_read_and_written_as_beautiful_soup_does(html):
    assert write(read(html)) == AS_BEAUTIFUL_SOUP[html]


@given(
    st.lists(
        st.sampled_from(["<p>", "</p>", "<div>", "</div>", "<b a='x'>", "<br>", "<img/>", "t", "&amp;", "<!--c-->"])
    )
)
def test_what_was_written_is_written_again_as_it_is(pieces):
    once = write(read("".join(pieces)))
    assert write(read(once)) == once


def test_deep_and_odd_markup_never_raises():
    deep = "<div>" * 20_000
    assert write(read(deep)) == deep + "</div>" * 20_000
    assert write(read("before<![unknown [x")).startswith("before")
    assert write(read("")) == ""


def test_a_prediction_without_html_is_wrapped():
    assert clean_prediction("<h1>Hi</h1>") == "<html><body><p><h1>Hi</h1></p></body></html>"
    assert clean_prediction("<HTML lang=en>Hi") == '<html lang="en">Hi</html>'


def test_the_fifty_first_equal_element_goes_with_what_is_in_it():
    cleaned = clean_prediction("<html>" + "<ul><li>same</li></ul>" * 60 + "<ul><li>other</li></ul></html>")
    assert cleaned.count("<ul><li>same</li></ul>") == 50
    assert cleaned.endswith("<ul><li>other</li></ul></html>")
    # What is in a list that has gone is counted no more, what is elsewhere is.
    mixed = clean_prediction("<html>" + "<ul><li>same</li></ul>" * 60 + "<ol><li>same</li></ol></html>")
    assert mixed.count("<li>same</li>") == 50
    assert "<ol></ol>" in mixed


def test_text_that_repeats_is_cut_off():
    piece = "".join(chr(97 + (n * 7) % 26) for n in range(100))
    start = "".join(chr(65 + (n * 11) % 26) for n in range(100))
    assert without_repeated_text(start + piece * 4) == start + piece * 4
    assert without_repeated_text(start + piece * 5) == start
    nearly = piece[:85] + "0123456789ABCDE"
    assert without_repeated_text(start + piece * 4 + nearly) == start
    assert without_repeated_text("") == ""


def test_where_there_is_more_markup_than_text_nothing_is_cut():
    piece = "".join(chr(97 + (n * 7) % 26) for n in range(100))
    assert without_repeated_text("<1>" * 400 + piece * 6) == "<1>" * 400 + piece * 6


def test_copies_are_coloured_from_the_light_end_of_the_grid():
    page = "<html><body style='color:red;color: blue'><p style='COLOR:red'>a<b>b</b></p><i>c</i></body>"
    (copies,) = coloured_copies(page)
    assert 'style="background-color: rgba(255, 255, 255, 0.0) !important; ' in copies.first
    assert "color: #FAFAFA !important; opacity: 1.0 !important" in copies.first
    # 250 + 50 wraps round to 44, 234 + 50 to 28.
    assert "color: #2C2C2C !important" in copies.second
    assert "color: #2C2C1C !important" in copies.second
    assert copies.texts == (
        ColouredText("a", (250, 250, 250), 0),
        ColouredText("b", (250, 250, 234), 1),
        ColouredText("c", (0, 0, 255), 2),
    )


def test_the_last_colour_in_an_elements_own_style_counts():
    styles = {
        "color:red": (255, 0, 0),
        "color: RGB(1,2,3)": None,
        "color: rgb(1,2,3)": (1, 2, 3),
        "color:#010203 !important": (1, 2, 3),
        "color:#123": None,
        "color:nosuch": (0, 0, 0),
        "color:red;border-color:#000102": (0, 1, 2),
        "background-color:red": (0, 0, 0),
        "color": (0, 0, 0),
        "color:": (0, 0, 0),
    }
    for style, colour in styles.items():
        (copies,) = coloured_copies(f"<body><label style='{style}'>t</label></body>")
        found = [text.colour for text in copies.texts]
        if style == "color: RGB(1,2,3)":
            assert found == [(1, 2, 3)]  # Pillow reads it
        else:
            assert found == ([] if colour is None else [colour]), style


def test_only_the_body_has_texts():
    (copies,) = coloured_copies("<html><p>outside</p><body><!-- no --><p> in side </p></body><p>after</p></html>")
    assert [text.text for text in copies.texts] == ["in side"]
    assert coloured_copies("<p>no body</p>")[0].texts == ()


def test_more_elements_than_colours_take_several_pairs_of_copies():
    many = coloured_copies("<body>" + "".join(f"<p>{n}</p>" for n in range(4096 * 2 + 1)) + "</body>")
    assert len(many) == 3
    coloured = [{text.text for text in copies.texts if text.colour != (0, 0, 0)} for copies in many]
    assert coloured == [
        {str(n) for n in range(4096)}, {str(n) for n in range(4096, 8192)}, {"8192"}
    ]  # fmt: skip
    assert len(coloured_copies("<body>" + "<p>x</p>" * 4096)) == 1


WHITE = np.full((40, 60, 3), 255, dtype=np.uint8)


def painted(*areas):
    """A white picture with rectangles (rows, columns, colour)."""
    picture = WHITE.copy()
    for rows, columns, colour in areas:
        picture[rows, columns] = colour
    return picture


def test_a_box_holds_all_pixels_of_a_colour():
    place, other = (slice(10, 14), slice(20, 30)), (slice(30, 32), slice(5, 6))
    page = painted((*place, (10, 20, 31)), (*other, (11, 20, 30)))
    first = painted((*place, (250, 250, 250)), (*other, (254, 246, 250)))
    second = painted((*place, (44, 44, 44)), (*other, (40, 40, 52)))
    texts = [ColouredText("Fresh BREAD", (250, 250, 250), 0), ColouredText("Gone", (250, 250, 234), 1)]
    ((order, block),) = find_blocks(page, first, second, texts)
    assert order == 0
    assert block.text == "fresh bread"
    assert (block.left, block.top, block.width, block.height) == (5 / 60, 10 / 40, 25 / 60, 22 / 40)
    assert block.colour == (10, 20, 30)


def test_what_differs_otherwise_is_no_text():
    place = (slice(10, 14), slice(20, 30))
    text = [ColouredText("bread", (250, 250, 250), 0)]
    first = painted((*place, (250, 250, 250)))
    for shown in ((250, 250, 250), (44, 44, 35), (53, 44, 44)):  # not at all; one channel is over 8 levels off
        assert find_blocks(WHITE, first, painted((*place, shown)), text) == []
    assert find_blocks(WHITE, painted((*place, (245, 250, 250))), painted((*place, (39, 44, 44))), text) == []


def test_a_colour_that_is_not_the_grids_is_found_unless_it_is_near_the_end():
    place = (slice(10, 14), slice(20, 30))
    for colour, count in (((100, 100, 100), 1), ((255, 100, 100), 0), ((3, 100, 100), 0)):
        first = painted((*place, colour))
        second = first + np.uint8(50)
        assert len(find_blocks(WHITE, first, second, [ColouredText("x", colour, 0)])) == count


def test_copies_that_do_not_fit_give_no_blocks():
    place = (slice(30, 34), slice(20, 30))
    first, second = painted((*place, (250, 250, 250))), painted((*place, (44, 44, 44)))
    text = [ColouredText("bread", (250, 250, 250), 0)]
    assert len(find_blocks(WHITE, first, second, text)) == 1
    assert find_blocks(WHITE[:32], first, second, text) == []
    assert find_blocks(WHITE, first, second[:39], text) == []
