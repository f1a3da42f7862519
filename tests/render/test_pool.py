"""What becomes of browsers, tabs and renderer processes."""

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from lensmith.core.errors import BrowserNotFoundError, PageCrashError, PageTimeoutError, RenderError
from lensmith.core.types import Page
from lensmith.render import Capture, RenderConfig, Renderer, Scripts
from lensmith.render.devtools import ProtocolError

MARK = b"<!--marked-->"


class Watcher:
    """Keeps note of which tab and browser rendered what; does `deed` to a marked page."""

    def __init__(self, deed=None):
        self.tabs = []
        self.browsers = []
        self._deed = deed

    async def __call__(self, browser, tab, html):
        self.tabs.append(tab)
        self.browsers.append(browser)
        if self._deed is not None and MARK in html:
            await self._deed(browser, tab)


async def kill_browser(browser, _tab):
    os.killpg(browser.pid, signal.SIGKILL)


async def crash_tab(_browser, tab):
    await tab.crash()


def small(**changes) -> RenderConfig:
    return RenderConfig(viewport_width_px=200, viewport_height_px=100, **changes)


def texts(page: Page | RenderError) -> list[str]:
    assert isinstance(page, Page), page
    return [block.text for block in page.texts]


def renderer_processes(group: int) -> int:
    """How many renderer processes live in a process group."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        count += int(fields[2]) == group and b"--type=renderer" in command
    return count


def waits_until(condition, limit_s=10.0) -> bool:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_tab_is_replaced_after_its_share_of_renders():
    watcher = Watcher()
    with Renderer(small(pages_in_flight=1, recycle_after=3), watch=watcher) as renderer:
        pages = list(renderer.render_many(["<p>same"] * 7))
        assert waits_until(lambda: renderer_processes(watcher.browsers[0].pid) <= 1)
    assert [watcher.tabs.index(tab) for tab in watcher.tabs] == [0, 0, 0, 3, 3, 3, 6]
    assert len(set(watcher.browsers)) == 1
    assert len(set(pages)) == 1


def test_one_caller_at_a_time_uses_one_tab():
    watcher = Watcher()
    with Renderer(small(pages_in_flight=4), watch=watcher) as renderer:
        for _ in range(4):
            renderer.render("<p>x", Capture.TEXTS)
    assert len(set(watcher.tabs)) == 1


def test_pages_in_flight_have_renderers_of_their_own():
    watcher = Watcher()
    with Renderer(small(pages_in_flight=3), watch=watcher) as renderer:
        list(renderer.render_many(["<p>x"] * 12, Capture.TEXTS))
        assert len(set(watcher.tabs)) == 3
        assert renderer_processes(watcher.browsers[0].pid) >= 3


def test_hung_renderer_is_killed():
    watcher = Watcher()
    with Renderer(small(pages_in_flight=1, timeout_s=1.0, scripts=Scripts.ON), watch=watcher) as renderer:
        with pytest.raises(PageTimeoutError):
            renderer.render("<script>for(;;){}</script>")
        (browser,) = set(watcher.browsers)
        assert waits_until(lambda: renderer_processes(browser.pid) <= 1)
        assert texts(renderer.render("<p>next")) == ["next"]
        assert set(watcher.browsers) == {browser}


def test_crash_costs_that_page_only():
    watcher = Watcher(crash_tab)
    htmls = [f"<p>{index}{MARK.decode() if index == 5 else ''}" for index in range(12)]
    with Renderer(small(pages_in_flight=3), watch=watcher) as renderer:
        results = list(renderer.render_many(htmls, Capture.TEXTS))
    assert isinstance(results[5], PageCrashError)
    assert [texts(page) for index, page in enumerate(results) if index != 5] == [[str(i)] for i in range(12) if i != 5]
    assert len(set(watcher.browsers)) == 1


@pytest.mark.parametrize("delay_s", [0.05, 0.5])
def test_crash_in_the_middle_is_noticed_at_once(delay_s):
    crashes = []

    async def crash_later(_browser, tab):
        async def crash():
            while True:
                await asyncio.sleep(delay_s)
                try:
                    return await tab.crash()
                except ProtocolError:  # Chromium refuses while the page is about to come, which it is longer under load
                    continue

        crashes.append(asyncio.ensure_future(crash()))

    config = small(pages_in_flight=1, timeout_s=60.0, scripts=Scripts.ON)
    with Renderer(config, watch=Watcher(crash_later)) as renderer:
        started = time.monotonic()
        with pytest.raises(PageCrashError):
            renderer.render(f"<script>for(;;){{}}</script>{MARK.decode()}")
        assert time.monotonic() - started < 30
        assert texts(renderer.render("<p>next")) == ["next"]


def test_dead_browser_costs_the_page_that_kills_it_only():
    watcher = Watcher(kill_browser)
    htmls = [f"<p>{index}{MARK.decode() if index == 5 else ''}" for index in range(12)]
    with Renderer(small(pages_in_flight=3), watch=watcher) as renderer:
        results = list(renderer.render_many(htmls, Capture.TEXTS))
    assert isinstance(results[5], PageCrashError)
    assert [texts(page) for index, page in enumerate(results) if index != 5] == [[str(i)] for i in range(12) if i != 5]
    assert len(set(watcher.browsers)) >= 3, "the first, the one for the second try, the next"


def test_browser_that_dies_once_costs_no_page():
    deaths = []

    async def kill_once(browser, tab):
        if not deaths:
            deaths.append(browser)
            await kill_browser(browser, tab)

    with Renderer(small(pages_in_flight=3), watch=Watcher(kill_once)) as renderer:
        results = list(renderer.render_many([f"<p>{MARK.decode()}{index}" for index in range(9)], Capture.TEXTS))
    assert [texts(page) for page in results] == [[str(index)] for index in range(9)]
    assert len(deaths) == 1


def test_browser_killed_while_idle_is_replaced():
    watcher = Watcher()
    with Renderer(small(), watch=watcher) as renderer:
        assert texts(renderer.render("<p>one")) == ["one"]
        os.killpg(watcher.browsers[0].pid, signal.SIGKILL)
        assert texts(renderer.render("<p>two")) == ["two"]
    assert len(set(watcher.browsers)) >= 2


def test_close_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    watcher = Watcher()
    with Renderer(small(), watch=watcher) as renderer:
        renderer.render("<p>x")
        group = watcher.browsers[0].pid
        assert renderer_processes(group) >= 1
        assert list(tmp_path.iterdir())
    assert waits_until(lambda: renderer_processes(group) == 0)
    assert list(tmp_path.iterdir()) == []


def test_program_that_is_no_browser_is_named(tmp_path, monkeypatch):
    program = tmp_path / "not-chromium"
    program.write_text("#!/bin/sh\necho 'I am something else' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("LENSMITH_CHROMIUM", str(program))
    with Renderer(small()) as renderer, pytest.raises(RenderError, match="I am something else"):
        renderer.render("<p>x")


def test_missing_browser_stops_many_pages_at_once(monkeypatch):
    monkeypatch.setenv("LENSMITH_CHROMIUM", "/nowhere/chromium")
    with Renderer(small()) as renderer, pytest.raises(BrowserNotFoundError, match="/nowhere/chromium"):
        list(renderer.render_many(["<p>x"] * 3))
