"""The blocking front: what comes back, in which order, and how it ends."""

import multiprocessing
import subprocess
import sys
import threading

import pytest

from lensmith.core.errors import ConfigError, PageTooLargeError, RenderError
from lensmith.core.types import Page
from lensmith.render import Capture, Extent, RenderConfig, Renderer, Scripts

SMALL = RenderConfig(viewport_width_px=200, viewport_height_px=100, pages_in_flight=2)


def texts(page: Page | RenderError) -> list[str]:
    assert isinstance(page, Page), page
    return [block.text for block in page.texts]


def test_picture_is_viewport_wide_and_page_high(renderer, pixels_of):
    page = renderer.render("<body style='margin:0'><div style='height:777px;background:#0c0'>")
    assert (page.width_px, page.height_px) == (400, 777)
    assert pixels_of(page).shape == (777, 400, 3)
    assert (pixels_of(page) == (0, 204, 0)).all()


def test_short_page_fills_the_viewport(renderer, pixels_of):
    page = renderer.render("<p>short")
    assert (page.width_px, page.height_px) == (400, 300)
    assert pixels_of(page).shape == (300, 400, 3)


@pytest.mark.parametrize("doctype", ["", "<!doctype html>"], ids=["quirks", "standards"])
def test_height_counts_margins_in_both_modes(renderer, doctype):
    page = renderer.render(f"{doctype}<body style='margin:10px'><div style='height:500px'>", Capture.TEXTS)
    assert page.height_px == 520


def test_sizes_in_viewport_units_keep_the_viewport(renderer, pixels_of):
    html = """<body style='margin:0'><div style='height:100vh;background:#f00'></div>
    <div style='height:500px;background:#00f'></div>"""
    page = renderer.render(html)
    assert page.height_px == 800
    assert (pixels_of(page)[:300] == (255, 0, 0)).all()
    assert (pixels_of(page)[300:] == (0, 0, 255)).all()


def test_viewport_only(pixels_of):
    config = RenderConfig(viewport_width_px=200, viewport_height_px=100, full_page=False, max_height_px=400)
    with Renderer(config) as renderer:
        page = renderer.render("<p>above</p><div style='height:9000px'></div><p>below</p>")
    assert (page.width_px, page.height_px) == (200, 100)
    assert pixels_of(page).shape == (100, 200, 3)
    assert texts(page) == ["above"]


@pytest.mark.parametrize("hides", ["", "html,body{overflow:hidden}"])
def test_a_picture_of_all_content_has_what_lies_beyond_the_window(pixels_of, hides):
    html = f"""<!doctype html><style>body{{margin:0}}{hides}</style>
    <p style='width:590px;height:150px;margin:0;text-align:right;background:#00f'>far right</p>"""
    config = RenderConfig(viewport_width_px=200, viewport_height_px=100, extent=Extent.CONTENT, max_width_px=600)
    with Renderer(config) as renderer, Renderer(SMALL) as plain:
        page, cut = renderer.render(html), plain.render(html)
        assert (page.width_px, page.height_px) == (590, 150)
        assert pixels_of(page).shape == (150, 590, 3)
        assert page.notes == ()
        assert cut.width_px == 200
        assert texts(page) == ["far right"]
        if not hides:
            assert (pixels_of(page)[140] == (0, 0, 255)).all()
            assert texts(cut) == []
        with pytest.raises(PageTooLargeError, match="too wide"):
            renderer.render(html.replace("590px", "601px"))


def test_scale_multiplies_the_picture_and_nothing_else(pixels_of):
    config = RenderConfig(viewport_width_px=200, viewport_height_px=100, scale=2.0)
    html = "<body style='margin:0'><div style='width:50px;height:150px;background:#000'>x</div>"
    with Renderer(config) as sharp, Renderer(SMALL) as plain:
        double, single = sharp.render(html), plain.render(html)
    assert (double.width_px, double.height_px) == (200, 150)
    assert pixels_of(double).shape == (300, 400, 3)
    assert double.texts[0].box.left_px == single.texts[0].box.left_px == 0
    assert (pixels_of(double)[250, :100] == 0).all()
    assert (pixels_of(double)[250, 100:] == 255).all()


def test_only_what_was_asked_for(renderer):
    html = "<p>hello"
    everything = Capture.PICTURE | Capture.TEXTS | Capture.ELEMENTS | Capture.CHARS
    page = renderer.render(html, everything)
    assert page.png.startswith(b"\x89PNG")
    assert page.texts
    assert page.elements
    assert page.chars
    bare = renderer.render(html, Capture.ELEMENTS)
    assert bare.png == b""
    assert bare.texts == ()
    assert bare.chars == ()
    assert bare.elements == page.elements


def test_many_come_in_order_with_errors_in_place(renderer):
    htmls = [f"<p>page {index}" for index in range(20)]
    htmls[7] = "<div style='height:99999px'>"
    results = list(renderer.render_many(htmls, Capture.TEXTS))
    assert isinstance(results[7], PageTooLargeError)
    del results[7]
    assert [texts(page) for page in results] == [[f"page {index}"] for index in range(20) if index != 7]


def test_many_reads_no_further_ahead_than_it_must():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield f"<p>{taken}"

    with Renderer(SMALL) as renderer:
        pages = renderer.render_many(endless(), Capture.TEXTS)
        assert [texts(next(pages)) for _ in range(3)] == [["1"], ["2"], ["3"]]
        assert taken <= 3 + 2 * 2
        pages.close()
        assert texts(renderer.render("<p>after")) == ["after"]


def test_many_of_none(renderer):
    assert list(renderer.render_many([])) == []


def test_error_of_the_source_reaches_the_caller(renderer):
    def source():
        yield "<p>one"
        raise KeyError("broken source")

    with pytest.raises(KeyError, match="broken source"):
        list(renderer.render_many(source()))


def test_threads_share_one_renderer(renderer):
    found = {}

    def work(name):
        found[name] = [texts(renderer.render(f"<p>{name} {index}", Capture.TEXTS)) for index in range(5)]

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [[f"{name} {index}"] for index in range(5)] for name in "abcd"}


def test_closed_renderer_starts_again():
    renderer = Renderer(SMALL)
    assert texts(renderer.render("<p>one")) == ["one"]
    renderer.close()
    renderer.close()
    assert texts(renderer.render("<p>two")) == ["two"]
    renderer.close()


def test_close_ends_pages_in_flight_with_an_error():
    loading = threading.Event()

    async def notice(_browser, _tab, _html):
        loading.set()

    renderer = Renderer(RenderConfig(scripts=Scripts.ON, timeout_s=60.0), watch=notice)
    outcome = []

    def work():
        outcome.extend(renderer.render_many(["<script>for(;;){}</script>"]))

    thread = threading.Thread(target=work)
    thread.start()
    assert loading.wait(30)
    renderer.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(outcome) == 1
    assert isinstance(outcome[0], RenderError)
    assert "closed" in str(outcome[0])


def _render_in_child(renderer, queue):
    queue.put(texts(renderer.render("<p>child", Capture.TEXTS)))
    renderer.close()


def test_forked_child_starts_its_own_browser(renderer):
    assert texts(renderer.render("<p>parent", Capture.TEXTS)) == ["parent"]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_render_in_child, args=(renderer, queue))
    child.start()
    assert queue.get(timeout=60) == ["child"]
    child.join(30)
    assert child.exitcode == 0
    assert texts(renderer.render("<p>parent still", Capture.TEXTS)) == ["parent still"]


def test_program_that_forgets_to_close_ends_cleanly():
    program = """
from lensmith.render import Renderer
page = Renderer().render("<p>hello")
print(page.texts[0].text)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_version_names_browser_and_number(renderer):
    name, _, number = renderer.version().partition("/")
    assert "Chrome" in name
    assert int(number.split(".")[0]) > 100


@pytest.mark.parametrize(
    "wrong",
    [{"viewport_width_px": 0}, {"timeout_s": 0}, {"scale": -1.0}, {"pages_in_flight": 0}, {"recycle_after": 0}],
    ids=str,
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RenderConfig(**wrong)
