"""The demonstration's first chapter: a page by others, a person's own screenshot, and what is done without either."""

import time

import pytest

from lensmith.core.errors import ImageError
from lensmith.data.webpages.real.pinned import Split
from lensmith.render import Capture, RenderConfig, Renderer
from lensmith.workflows.demo.rebuilt import (
    REAL_PAGE,
    first_lines,
    own_screenshot,
    page_by_others,
    real_package,
    rebuild_given,
    rebuilt_section,
    write_rebuilt,
)
from lensmith.workflows.demo.run import run
from lensmith.workflows.html.gallery import write_report

PAGE = """<!doctype html><body style="margin:0;font:16px Arial;background:#fff">
<header style="background:#223;color:#fff;padding:16px 40px"><b>Harbour</b></header>
<main style="padding:40px"><h1 style="margin:0 0 12px">Boats for hire</h1>
<p style="margin:0;width:420px">Every boat has oars, a map and a lamp. Come back before the tide turns.</p></main>"""


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """An empty cache, and a folder of programs that is all there is to run."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(programs))
    return programs


@pytest.fixture
def screenshot(tmp_path):
    with Renderer(RenderConfig(viewport_width_px=800, viewport_height_px=300)) as renderer:
        (tmp_path / "boats.png").write_bytes(renderer.render(PAGE, Capture.PICTURE).png)
    return tmp_path / "boats.png"


def test_the_page_is_one_to_tune_on_and_may_be_shown():
    package = real_package()
    assert (package.split, package.license) == (Split.TUNE, "MIT")
    assert REAL_PAGE in [page.path for page in package.pages]


def test_without_npm_a_generated_page_takes_its_place(no_cache):
    given = page_by_others(instead=PAGE)
    assert (given.html, given.is_by_others) == (PAGE, False)
    assert given.missing.startswith("no page by others, a generated one in its place: npm:")
    assert given.missing.endswith("npm is not installed")
    assert "\n" not in given.missing


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("exec /bin/sleep 60", "npm gave no answer within 0.5 s"),
        ("echo npm error code ENOTFOUND >&2; exit 1", "npm pack failed (code ENOTFOUND)"),
    ],
)
def test_nothing_waits_for_a_registry_that_cannot_be_reached(program, told, no_cache):
    (no_cache / "npm").write_text(f"#!/bin/sh\n{program}\n")
    (no_cache / "npm").chmod(0o755)
    began = time.monotonic()
    given = page_by_others(instead=PAGE, limit_s=0.5)
    assert time.monotonic() - began < 30
    assert given.missing.endswith(told)
    assert "\n" not in given.missing


def test_npm_is_asked_to_give_up_soon(no_cache):
    (no_cache / "npm").write_text('#!/bin/sh\necho "$npm_config_fetch_retry_mintimeout ms" >&2\nexit 1\n')
    (no_cache / "npm").chmod(0o755)
    assert page_by_others(instead=PAGE).missing.endswith("(1000 ms)")


def test_a_screenshot_of_ones_own_becomes_a_page(screenshot, tmp_path):
    given = own_screenshot(screenshot)
    conversion = rebuild_given(given)
    rebuilt = write_rebuilt(given, conversion, tmp_path / "demo")
    assert rebuilt.score.overall > 0.8
    assert str(rebuilt).startswith(f"boats.png, rebuilt as {tmp_path / 'demo' / 'page.html'}: looks ")
    assert not given.is_by_others and "\n" not in str(rebuilt)
    html = (tmp_path / "demo" / "page.html").read_text()
    assert "Boats for hire" in html
    assert not (tmp_path / "demo" / "screenshot.png").exists(), "the person has it"
    shown = rebuilt_section(given, conversion)
    assert "A screenshot of your own." in shown.remark and "800 x" in shown.remark
    assert shown.scores["likeness"] == rebuilt.score.overall
    write_report(tmp_path / "demo" / "report.html", [shown], title="lensmith", lead="")
    report = (tmp_path / "demo" / "report.html").read_text()
    assert report.count("<figure>") == 4
    assert '<a href="page.html">' in report


def test_a_page_in_its_place_says_why(no_cache, monkeypatch, tmp_path):
    given = page_by_others(instead=PAGE)
    monkeypatch.undo()  # a browser is found by PATH
    conversion = rebuild_given(given)
    rebuilt = write_rebuilt(given, conversion, tmp_path)
    assert str(rebuilt).splitlines()[0] == given.missing
    assert rebuilt_section(given, conversion).remark.startswith("No page by others, a generated one in its place: npm")
    assert (tmp_path / "screenshot.png").exists()


def test_what_is_no_picture_is_named_before_anything_is_made(tmp_path):
    with pytest.raises(ImageError, match=r"nothing\.png"):
        run(tmp_path / "demo", picture=tmp_path / "nothing.png")
    assert not (tmp_path / "demo").exists()


def test_the_first_lines_begin_at_the_body_and_shorten_pictures():
    html = f'<style>a{{}}</style>\n<body class="a">\n<img src="data:image/png;base64,{"iVBO" * 20}">\n<p>more</p>'
    assert first_lines(html, 2) == '<body class="a">\n<img src="data:image/png;base64,...">'
    assert first_lines("<p>no body</p>", 5) == "<p>no body</p>"


def test_a_page_by_others_is_rebuilt_close_to_its_screenshot(tmp_path):
    given = page_by_others(instead=PAGE)
    if given.missing:
        pytest.skip(f"REAL PAGES WERE NOT TESTED: {given.missing}")
    conversion = rebuild_given(given)
    assert conversion.best.engine == "layout"
    assert conversion.best.rank > 0.85
    rebuilt = write_rebuilt(given, conversion, tmp_path)
    assert (tmp_path / "screenshot.png").exists() and rebuilt.missing == ""
    shown = rebuilt_section(given, conversion)
    assert shown.remark.startswith("A page made by Start Bootstrap (startbootstrap-modern-business 5.0.7, MIT).")
    assert shown.excerpt.startswith("<body")
