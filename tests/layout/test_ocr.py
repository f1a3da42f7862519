"""Text is read where it stands: lines apart, neighbours of a menu apart, strips joined, nothing where nothing is."""

import numpy as np
import pytest

from lensmith.layout.ocr import STRIP_PX, read_lines
from tests.support.screenshots import screenshot

PAGE = """<body style="margin:0;font:16px Arial;width:800px">
<div style="padding:20px;font-size:32px;font-weight:bold">Quarterly results</div>
<div style="display:flex;gap:24px;padding:0 20px"><a>Operations</a><a>Analytics</a><a>Sales</a></div>
<p style="padding:0 20px">The harbour was quiet when the first boats came in.</p>
<div style="background:#123456;color:#fff;padding:20px">White letters on a dark band</div></body>"""


def test_lines_and_neighbours_are_read_apart():
    rgb, page = screenshot(PAGE, width_px=800)
    lines = read_lines(rgb)
    assert [line.text for line in lines] == [block.text for block in page.texts]
    for line, block in zip(lines, page.texts, strict=True):
        # The browser's box is as high as its font; ink lies inside, and letters lean out by a pixel at most.
        assert block.box.left_px - 1 <= line.left <= block.box.left_px + 4
        assert block.box.right_px - 4 <= line.right <= block.box.right_px + 1.5
        assert block.box.top_px - 1 <= line.top
        assert line.bottom <= block.box.bottom_px + 1
        assert line.confidence > 0.8


def test_a_page_of_several_strips_is_read_whole_and_once():
    rows = "".join(
        f"<p style='margin:0;padding:20px'>Paragraph number {number} of the report</p>" for number in range(60)
    )
    rgb, page = screenshot(f"<body style='margin:0;font:16px Arial'>{rows}</body>", width_px=400)
    assert rgb.shape[0] > 2 * STRIP_PX
    assert [line.text for line in read_lines(rgb)] == [block.text for block in page.texts]


def test_what_stands_far_below_is_read_in_its_place():
    far = "<div style='height:2600px;background:#123456;margin:0 30px'></div>"
    far += "<p style='margin:20px'>The end of the page</p>"
    html = f"<body style='margin:0;font:16px Arial'><p style='margin:20px'>The beginning of it</p>{far}</body>"
    rgb, page = screenshot(html, width_px=400)
    lines = read_lines(rgb)
    assert [line.text for line in lines] == [block.text for block in page.texts]
    assert lines[1].top == pytest.approx(page.texts[1].box.top_px, abs=6)


@pytest.mark.parametrize("shape", [(1, 1), (40, 4000), (3000, 3), (600, 400)])
def test_there_is_no_text_on_a_plain_picture(shape):
    assert read_lines(np.full((*shape, 3), 200, dtype=np.uint8)) == []


def test_noise_is_no_text():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert len(read_lines(noise)) <= 2


def test_letters_that_the_reader_does_not_know_are_no_signs():
    html = """<body style="margin:0;font:18px 'DejaVu Sans';direction:rtl;padding:20px"><h1>ברוכים הבאים לספרייה</h1>
    <p>הספרייה פתוחה בכל יום מהשעה תשע בבוקר ועד שמונה בערב. ניתן להשאיל עד חמישה ספרים.</p>
    <p>Open - - - 9:00 (...) and "!?"</p></body>"""
    rgb, _ = screenshot(html, width_px=900)
    lines = [line.text for line in read_lines(rgb)]
    assert any("9:00" in line for line in lines)
    assert [line for line in lines if not any(map(str.isalnum, line))] == []
