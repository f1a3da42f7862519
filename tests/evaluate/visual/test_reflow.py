"""The reflow test: what overlaps, what sticks out, and what is no fault."""

import pytest

from lensmith.evaluate.visual.reflow import REFLOW_WINDOWS, overlapping_texts, reflow
from lensmith.render import Assets, Capture, HtmlFile
from tests.support.screenshots import renderer_of

CSS = "<!doctype html><style>body{margin:0;font:16px/20px 'Liberation Sans',Arial,sans-serif}</style>"


def overlaps(body: str) -> list[tuple[str, str]]:
    page = renderer_of(400).render(CSS + body, Capture.TEXTS | Capture.LINES)
    return [(page.texts[a].text, page.texts[b].text) for a, b in overlapping_texts(page)]


@pytest.mark.parametrize(
    "body",
    [
        "<p>one</p><p>two</p>",
        f"<p>{'many words that go on, ' * 20}<a>with a link</a> {'and more of it ' * 20}</p>",
        "<p style='line-height:.9'>a heading that is<br><b>set tightly</b><br>in three lines</p>",
        "<p>H<sub>2</sub>O and x<sup>2</sup></p>",
        "<p><i>slanted</i><b>bold</b></p>",
        "<p>seen</p><p style='position:absolute;top:0;opacity:0'>unseen</p>",
        "<p style='line-height:.3'>a text that is many words long lies in lines that are over each other itself</p>",
    ],
)
def test_no_fault(body):
    assert overlaps(body) == []


def test_texts_over_each_other_are_found_once():
    assert overlaps("<div style='position:absolute;top:0'>aaaa aaaa</div><p style='margin:0'>bbbb</p>") == [
        ("aaaa aaaa", "bbbb")
    ]
    two_lines = "<p style='margin:0;width:50px'>aaaa aaaa</p><div style='position:absolute;top:0'>bb<br>bb</div>"
    assert len(overlaps(two_lines)) == 2  # two texts, each over the first, however many lines


def test_each_window_is_judged_alone():
    fits = CSS + "<p>words</p>"
    wide = CSS + "<div style='width:600px'>wide</div>"
    narrow = CSS + (
        "<style>@media(max-width:500px){b{position:absolute;left:0;top:0}}</style>"
        "<p style='margin:0'>text</p><b>over</b>"
    )
    passed = [[one.passed for one in page] for page in reflow([fits, wide, narrow])]
    assert passed == [[True, True, True], [True, True, False], [True, True, False]]


def test_what_is_wrong_is_said():
    wide, too_high = reflow([CSS + "<div style='width:600px'>wide</div>", "<div style='height:99999px'>"])
    assert [(one.width_px, one.sticks_out_px) for one in wide] == [(1024, 0), (768, 0), (390, 210)]
    assert str(wide[2]) == "390 px: sticks out by 210 px"
    assert str(wide[0]) == "1024 px: passed"
    assert [one.overlaps for one in too_high] == [None] * len(REFLOW_WINDOWS)
    assert str(too_high[0]) == "1024 px: not rendered"


def test_a_page_reads_its_folder_in_every_window(tmp_path):
    (tmp_path / "wide.css").write_text("p{width:500px}")
    (tmp_path / "page.html").write_text(CSS + "<link rel=stylesheet href=wide.css><p>text")
    file = tmp_path / "page.html"
    ((_, tablet, phone),) = reflow([HtmlFile(html=file.read_bytes(), assets=Assets.beside(file))])
    assert tablet.passed and not phone.passed
