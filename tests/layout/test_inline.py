"""Words within a line that are set otherwise: links, marked words, code; and bullets before lines."""

import numpy as np
import pytest
from PIL import Image

from lensmith.layout.fit import rebuild
from lensmith.layout.inline import without_bullet
from lensmith.layout.measure import measure
from lensmith.layout.ocr import Line
from tests.support.screenshots import renderer_of, screenshot

BODY = "<!doctype html><body style='margin:24px;font:16px/1.5 {family};color:#333'>"


AFTER = "<p>The rest of the page is in the same letters, by which a reader knows them: the morning was quiet.</p>" * 3


def measured(body: str, family: str = "Arial"):
    pixels, _ = screenshot(BODY.format(family=family) + body + AFTER, width_px=1024)
    return measure(Image.fromarray(pixels))


def runs(body: str, family: str = "Arial") -> list[tuple[str, object]]:
    """The pieces of the page's first text that are not set as most of it is."""
    block = measured(body, family).blocks[0]
    return [
        (piece.text.strip(), piece.style) for piece in block.pieces if piece.style != block.style and piece.text.strip()
    ]


@pytest.mark.parametrize("family", ["Arial", "Times New Roman", "DejaVu Sans"])
def test_a_link_is_found_with_its_colour(family):
    [(text, style)] = runs(
        "<p>All about it is in the <a style='color:#0d6efd;text-decoration:none'>users' guide</a> that we wrote.",
        family,
    )
    assert text == "users' guide"
    assert np.abs(np.array(style.colour) - (0x0D, 0x6E, 0xFD)).max() <= 30
    assert not style.is_underlined


def test_underlined_words_are_known_from_the_others():
    [(text, style)] = runs("<p>Please read <u>all the terms</u> before you sign the paper here.</p>")
    assert (text, style.is_underlined) == ("all the terms", True)


@pytest.mark.parametrize(
    "text",
    ["Underline", "Read more", "This line of text will render as underlined", "Privacy policy and terms"],
)
@pytest.mark.parametrize("family", ["Arial", "DejaVu Sans", "Times New Roman"])
def test_a_whole_line_that_is_underlined_keeps_its_size(text, family):
    block = measured(f"<p><u>{text}</u></p><p>{text}</p>", family).blocks
    assert [(piece.text, piece.style.is_underlined) for piece in block[:2]] == [(text, True), (text, False)]
    assert [piece.style.size_px for piece in block[:2]] == [16, 16]


@pytest.mark.parametrize("size_px", [14, 16])
def test_numbers_that_stand_on_flat_feet_keep_their_height(size_px):
    numbers = "".join(f"<span style='margin-right:48px'>{number}</span>" for number in (10, 20, 12, 21))
    blocks = measured(f"<p style='font-size:{size_px}px;color:#999'>{numbers}</p>").blocks[:4]
    assert [block.text for block in blocks] == ["10", "20", "12", "21"]
    assert not any(block.style.is_underlined for block in blocks)
    assert all(block.lines[0].line.height >= 0.7 * size_px for block in blocks)


def test_a_link_with_an_underscore_keeps_it():
    block = measured("<p>Then open <u>read_me file</u> in the folder that you made before.</p>").blocks[0]
    assert block.text == "Then open read_me file in the folder that you made before."


@pytest.mark.parametrize("text", ["Blog", "More of it", "Page 2"])
def test_an_arrow_after_a_text_is_none_of_its_letters(text):
    triangle = "border:5px solid;border-color:#333 transparent;border-bottom:0"
    caret = f"<i style='display:inline-block;margin-left:4px;vertical-align:4px;{triangle}'></i>"
    block = measured(f"<p>{text}{caret}</p>").blocks[0]
    assert (block.text, block.style.spacing_px, block.style.size_px) == (text, 0, 16)


def test_a_rule_below_a_line_is_no_underline():
    body = "<p style='border-bottom:1px solid #333;padding-bottom:6px;width:max-content'>Your orders</p>"
    assert not measured(body).blocks[0].style.is_underlined


def test_bold_words_are_known_from_the_others():
    [(text, style)] = runs("<p>Never <b>share your password</b> with people whom you hardly know.</p>")
    assert (text, style.is_bold) == ("share your password", True)


def test_words_of_code_stand_on_their_plate():
    code = "<code style='background:#eeeeee;padding:2px 5px;border-radius:3px'>install</code>"
    body = f"<p>Then call {code} and wait a while.</p>"
    [(text, style)] = runs(body)
    assert (text, style.plate) == ("install", (0xEE, 0xEE, 0xEE))
    assert not measured(body).ground.surfaces


def test_a_link_that_fills_a_line_does_not_end_its_paragraph():
    body = """<p style='width:300px'>This text begins in black and goes on for two lines, and
<a style='color:#d63384'>then there comes a link, so long that it ends</a> here, where all is black again. The paragraph
goes on for another while, says no more than it did and ends.</p>"""
    [(text, _)] = runs(body)
    assert text == "then there comes a link, so long that it ends"


@pytest.mark.parametrize(
    "text",
    [
        "Plain words of one colour, which have nothing at all to show to anyone.",
        "Words like ill, WWW, iii and MMM are of very different blackness: that means nothing.",
    ],
)
@pytest.mark.parametrize("family", ["Arial", "Times New Roman", "DejaVu Sans"])
@pytest.mark.parametrize("size_px", [13, 16, 22])
def test_plain_words_are_no_runs(text, family, size_px):
    assert not runs(f"<p style='font-size:{size_px}px'>{text}</p>", family)


def test_bullets_are_markers_and_no_pictures():
    page = measured("<ul><li>First of all</li><li>Second to none</li></ul><p>No bullet before it</p>")
    assert [block.is_marked for block in page.blocks] == [True, True, False, False, False, False]
    assert not page.pictures


def test_an_icon_before_a_line_is_no_bullet():
    icon = "<span style='display:inline-block;width:14px;height:14px;background:#c00;margin-right:10px'></span>"
    assert [block.is_marked for block in measured(f"<p>{icon}With an icon</p>").blocks] == 4 * [False]


def test_the_page_that_is_written_has_the_links_of_the_page():
    body = "<p>Everything stands in the <a style='color:#0d6efd'>guide</a> or <b>nowhere at all</b>.</p>"
    pixels, _ = screenshot(BODY.format(family="Arial") + body + AFTER, width_px=1024)
    html = rebuild(Image.fromarray(pixels), renderer_of).html
    assert (
        ">guide</a> or <strong>nowhere at all.</strong>" in html
        or ">guide</a> or <strong>nowhere at all</strong>" in html
    )


@pytest.mark.parametrize("gap_px", [6, 8, 14])
def test_an_icon_before_a_word_is_no_part_of_it(gap_px):
    icon = "<span style='display:inline-block;width:13px;height:13px;border:2px solid;border-radius:4px;"
    words = ("Interface", "Components", "Gallery")
    html = "".join(f"<p>{icon}margin-right:{gap_px}px'></span>{word}</p>" for word in words)
    sizes = [(block.text, block.style.size_px, block.style.is_bold) for block in measured(html).blocks[:3]]
    assert sizes == [(word, 16.0, False) for word in words]


def test_a_flat_area_behind_an_icon_is_left_as_it_is():
    pixels = np.full((40, 120, 3), 255, dtype=np.uint8)
    pixels[10:30, 10:14] = 0
    pixels[10:30, 30:40] = 0
    line = Line(text="\u2022 text", left=10, top=10, right=40, bottom=30, confidence=0.9)
    assert without_bullet(pixels, line) == line
