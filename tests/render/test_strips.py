"""A page captured in strips is the page captured whole, to the bit."""

import io
import tracemalloc
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.core.errors import PageTooLargeError
from lensmith.core.images import open_picture
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.render.strips import PngJoiner, strips

STRIPES = "repeating-linear-gradient(45deg,#eee 0 20px,#888 20px 40px)"
PAGES = {
    "rows": "".join(f"<p style='background:hsl({i * 7},60%,80%)'>row {i}</p>" for i in range(60)),
    "fixed": f"<div style='height:3000px;background:{STRIPES}'><div style='position:fixed;top:0;left:0;right:0;"
    "height:60px;background:#0a0'>top</div>"
    "<div style='position:fixed;bottom:0;height:60px;width:100px;background:#00a'>bottom",
    "sticky": "<div style='height:1000px'><div style='position:sticky;top:10px;background:#fc0'>sticky</div></div>"
    "<div style='height:900px'></div><div style='position:sticky;bottom:0;background:#0cf'>bottom</div>"
    "<div style='height:900px'>",
    "attached": f"<body style='background:{STRIPES} fixed'><div style='height:3000px'><div style='margin-top:900px;"
    "height:900px;background:radial-gradient(red,blue) fixed'>x",
    "filtered": "<div style='height:3000px;filter:blur(3px);background:conic-gradient(red,yellow,green,blue)'>blurred",
    "layers": "<div style='height:100vh;background:#fee;will-change:transform'>one</div><div style='height:500vh;"
    "background:linear-gradient(#efe,#00f)'></div><div style='mix-blend-mode:multiply;opacity:.5;background:#ff0;"
    "height:1500px;margin-top:-1000px;transform:translateX(20px)'>",
    "see-through": "<style>html{background:transparent}</style><div style='height:2500px;background:rgba(255,0,0,.3)'>",
}


@pytest.fixture(scope="module", params=[1.0, 1.5])
def renderers(request):
    """The same page whole, and in strips of at most 700 rows."""
    window = {"viewport_width_px": 400, "viewport_height_px": 300, "scale": request.param}
    with Renderer(RenderConfig(**window)) as whole, Renderer(RenderConfig(**window, strip_height_px=700)) as cut:
        yield whole, cut


@pytest.mark.parametrize("name", PAGES)
def test_strips_are_the_whole(name, renderers, pixels_of):
    whole, cut = (each.render(f"<!doctype html><body style='margin:0'>{PAGES[name]}") for each in renderers)
    assert whole.height_px > 1400
    assert whole.png != cut.png
    assert np.array_equal(pixels_of(whole), pixels_of(cut))
    assert (whole.texts, whole.height_px) == (cut.texts, cut.height_px)


def test_a_layer_that_is_turned_differs_in_some_pixels_of_its_edge_at_most(renderers, pixels_of):
    html = "<div style='will-change:transform;background:#0c0;height:2500px;width:300px;transform:rotate(3deg)'>text"
    one, other = (pixels_of(each.render(html)) for each in renderers)
    assert (one != other).any(axis=2).mean() < 1e-4


def test_a_page_of_24_000_px_is_rendered(pixels_of):
    rows = "".join(f"<div style='height:100px;background:rgb({i},{255 - i},90)'></div>" for i in range(240))
    with Renderer(RenderConfig(viewport_width_px=390, viewport_height_px=844)) as renderer:
        page = renderer.render(f"<!doctype html><body style='margin:0'>{rows}", Capture.PICTURE)
    assert (page.width_px, page.height_px) == (390, 24_000)
    image = pixels_of(page)
    assert image.shape == (24_000, 390, 3)
    expected = np.array([(i, 255 - i, 90) for i in range(240)], np.uint8).repeat(100, axis=0)
    assert np.array_equal(image, np.broadcast_to(expected[:, None], image.shape))
    assert open_picture(page.png).size == (390, 24_000)


def test_the_limit_is_a_setting():
    html = "<div style='height:33000px'>"
    with Renderer(RenderConfig()) as renderer, pytest.raises(PageTooLargeError, match="32768"):
        renderer.render(html, Capture.PICTURE)
    higher = RenderConfig(viewport_width_px=100, max_height_px=40_000)
    with Renderer(higher) as renderer:
        assert renderer.render(html, Capture.PICTURE).height_px > 33_000


@given(
    height_px=st.integers(1, 50_000),
    rows=st.integers(1, 20_000),
    scale=st.sampled_from([0.5, 1.0, 1.1, 1.25, 4 / 3, 1.5, 2.0, 2.625, 3.0]),
)
def test_strips_cover_the_page_and_begin_at_whole_rows(height_px, rows, scale):
    parts = list(strips(height_px, rows, scale))
    assert [*(top for top, _ in parts), height_px] == list(accumulate((height for _, height in parts), initial=0))
    assert all(abs(top * scale - round(top * scale)) < 1e-6 for top, _ in parts)
    if rows > 3000:
        assert all(height * scale <= rows for _, height in parts)


def encoded(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_joined_pictures_are_those_below_each_other(mode):
    random = np.random.default_rng(0)
    parts = [Image.fromarray(random.integers(0, 256, (height, 50, 4), np.uint8)).convert(mode) for height in (7, 1, 30)]
    joiner = PngJoiner()
    for part in parts:
        joiner.add(encoded(part))
    joined = Image.open(io.BytesIO(joiner.png()))
    joined.load()
    assert joined.mode == (mode if mode == "RGBA" else "RGB")
    stacked = np.concatenate([np.asarray(part.convert(joined.mode)) for part in parts])
    assert np.array_equal(np.asarray(joined), stacked)


def test_memory_holds_one_strip():
    strip = encoded(Image.new("RGB", (1000, 1000), "white"))
    strip_bytes = 3 * 1000 * 1000
    tracemalloc.start()
    joiner = PngJoiner()
    for _ in range(30):
        joiner.add(strip)
    assert Image.open(io.BytesIO(joiner.png())).size == (1000, 30_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * strip_bytes
