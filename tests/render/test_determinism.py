"""The same page gives the same pixels and boxes, whatever else is in flight."""

import pytest

from lensmith.render import Capture, RenderConfig, Renderer, Scripts

EVERYTHING = Capture.PICTURE | Capture.TEXTS | Capture.ELEMENTS | Capture.CHARS
FONTS = ("sans-serif", "serif", "monospace")


def page(index: int) -> str:
    """Text in many sizes, rounded corners, shadows, gradients, transforms: what anti-aliasing touches."""
    blocks = "".join(
        f"<div style='font:{11 + number}px {FONTS[number % 3]};border-radius:{number + index}px;padding:6px;"
        f"margin:5px;box-shadow:0 {number}px 9px #0008;transform:rotate({number - index % 5}deg);"
        f"background:linear-gradient({number * 31}deg,#{index % 10}ac,#fe{number})'>Block {number} of page {index}"
        "<svg width=20 height=20><circle cx=10 cy=10 r=7.5 stroke=red fill=none /></svg></div>"
        for number in range(9)
    )
    return f"<!doctype html><body><h1>Page {index}</h1>{blocks}<p style='height:50vh;background:#eee'>end"


def render_all(pages_in_flight: int, **changes: object):
    config = RenderConfig(
        viewport_width_px=500, viewport_height_px=300, pages_in_flight=pages_in_flight, timeout_s=60.0, **changes
    )
    with Renderer(config) as renderer:
        return list(renderer.render_many([page(index) for index in range(16)], EVERYTHING))


@pytest.fixture(scope="module")
def one_by_one():
    return render_all(1)


@pytest.mark.parametrize("pages_in_flight", [2, 4, 9])
def test_any_number_in_flight_gives_the_same(one_by_one, pages_in_flight):
    assert render_all(pages_in_flight) == one_by_one


def test_fresh_tabs_give_the_same_as_used_ones(one_by_one):
    assert render_all(2, recycle_after=1) == one_by_one


def test_scripts_on_gives_the_same_for_pages_without_scripts(one_by_one):
    assert render_all(3, scripts=Scripts.ON) == one_by_one


def test_page_that_scrolls_itself_looks_the_same():
    html = (
        "<body style='margin:0'><h1>top</h1><div style='height:2000px;background:linear-gradient(#0a0,#a00)'></div>end"
    )
    with Renderer(RenderConfig(scripts=Scripts.ON, timeout_s=60.0)) as renderer:
        still = renderer.render(html, EVERYTHING)
        scrolled = renderer.render(html + "<script>scrollTo(0,700)</script>", EVERYTHING)
    assert scrolled.png == still.png
    assert scrolled.texts == still.texts
    assert scrolled.elements[:-1] == still.elements


def test_pages_differ(one_by_one):
    assert len({rendered.png for rendered in one_by_one}) == len(one_by_one)


def test_clock_language_and_zone_are_fixed(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    html = "<p><script>document.write([new Date(0).getHours(),(1.5).toLocaleString(),navigator.language])</script>"
    with Renderer(RenderConfig(scripts=Scripts.ON)) as renderer:
        assert [block.text for block in renderer.render(html).texts] == ["0,1.5,en-US"]
