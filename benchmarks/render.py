"""How fast we turn pages into full-page screenshots, against the ways that others use.

All ways take the same pages at 1280 x 720 on the same two cores, in turn, round after round; the pictures are decoded
and must be equal pixel for pixel. The peers' ways, by Playwright:

a. a new driver and a new full Chromium a page, as Design2Code does (which starts a new Python too; we spare it that);
b. one driver, a new headless shell a page;
c. one page of one headless shell, `set_content` and `page.screenshot` again and again.

    python -m benchmarks.render [--quick] [--json]
"""

import argparse
import asyncio
import io
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageChops
from playwright.async_api import Browser, Playwright, async_playwright
from playwright.async_api import Page as PlaywrightPage

from benchmarks.cores import CORES, keep_to_cores
from benchmarks.render_pages import make_pages
from lensmith.core.types import Page
from lensmith.render import Capture, RenderConfig, Renderer, font_hash
from lensmith.render.browser import find_chromium
from lensmith.render.process import PICTURE_FLAGS

Way = Callable[[Sequence[str]], Awaitable[list[bytes]]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another way to do it, and how many times faster we mean to be."""

    name: str
    target: float
    way: Way


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest over the rounds."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way: pages a second, how many of its pictures equal ours, and our speed over its."""

    name: str
    pages_per_s: Spread
    equal_pictures: int
    ratio: Spread
    target: float | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run."""

    pages: int
    rounds: int
    cores: int
    browser: str
    fonts: str
    rows: tuple[Row, ...]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 pages and 2 rounds instead of 50 and 3")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    pages = make_pages(20 if options.quick else 50)
    report = asyncio.run(measure(pages, rounds=2 if options.quick else 3))
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    if any(row.equal_pictures < report.pages for row in report.rows):
        print("The pictures differ: these speeds compare different work.", file=sys.stderr)
        return 1
    return 0


async def measure(pages: Sequence[str], rounds: int) -> Report:
    """Runs every way in turn, `rounds` times."""
    async with AsyncExitStack() as stack:
        renderer = stack.enter_context(Renderer(RenderConfig(pages_in_flight=2 * CORES)))
        driver = await stack.enter_async_context(async_playwright())
        reused = await _open(await _launch(driver, str(find_chromium())))
        peers = (
            Peer(name="a: new driver, new Chromium a page", target=15.0, way=new_driver_each),
            Peer(name="b: new headless shell a page", target=5.0, way=partial(new_shell_each, driver)),
            Peer(name="c: page.screenshot on one page", target=1.8, way=partial(one_page, reused)),
        )
        ways: dict[str, Way] = {"ours": partial(ours, renderer)} | {peer.name: peer.way for peer in peers}
        expected = await ways["ours"](pages)  # also warms it; the third peer's page is warmed next
        await one_page(reused, pages[:5])
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        equal = dict.fromkeys(ways, len(pages))
        for number in range(rounds):
            for name, way in ways.items():
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                started = time.perf_counter()
                pictures = await way(pages)
                seconds[name].append(time.perf_counter() - started)
                equal[name] = min(equal[name], sum(map(_is_equal, pictures, expected)))
        targets = {peer.name: peer.target for peer in peers}
        rows = [
            Row(
                name=name,
                pages_per_s=_spread([len(pages) / each for each in seconds[name]]),
                equal_pictures=equal[name],
                ratio=_spread([theirs / our for theirs, our in zip(seconds[name], seconds["ours"], strict=True)]),
                target=targets.get(name),
            )
            for name in ways
        ]
        return Report(
            pages=len(pages),
            rounds=rounds,
            cores=CORES,
            browser=renderer.version(),
            fonts=font_hash(),
            rows=tuple(rows),
        )


async def ours(renderer: Renderer, pages: Sequence[str]) -> list[bytes]:
    results = await asyncio.to_thread(lambda: list(renderer.render_many(pages, Capture.PICTURE)))
    for result in results:
        if not isinstance(result, Page):
            raise result
    return [result.png for result in results if isinstance(result, Page)]


async def new_driver_each(pages: Sequence[str]) -> list[bytes]:
    pictures = []
    for html in pages:
        async with async_playwright() as driver:
            browser = await _launch(driver, _full_chromium(driver))
            pictures.append(await _shoot(await _open(browser), html))
            await browser.close()
    return pictures


async def new_shell_each(driver: Playwright, pages: Sequence[str]) -> list[bytes]:
    pictures = []
    for html in pages:
        browser = await _launch(driver, str(find_chromium()))
        pictures.append(await _shoot(await _open(browser), html))
        await browser.close()
    return pictures


async def one_page(page: PlaywrightPage, pages: Sequence[str]) -> list[bytes]:
    return [await _shoot(page, html) for html in pages]


async def _launch(driver: Playwright, executable: str) -> Browser:
    # The flags that decide pixels are ours, so that the work is the same.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return await driver.chromium.launch(executable_path=executable, args=[*sandbox, *PICTURE_FLAGS])


async def _open(browser: Browser) -> PlaywrightPage:
    return await browser.new_page(viewport={"width": 1280, "height": 720})


async def _shoot(page: PlaywrightPage, html: str) -> bytes:
    await page.set_content(html, wait_until="load")
    return await page.screenshot(full_page=True, animations="disabled")


def _full_chromium(driver: Playwright) -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    if Path(driver.chromium.executable_path).exists():
        return driver.chromium.executable_path
    sys.exit("the benchmark needs a full Chromium beside the headless shell; type: scripts/install_chromium python")


def _is_equal(one: bytes, other: bytes) -> bool:
    with Image.open(io.BytesIO(one)) as left, Image.open(io.BytesIO(other)) as right:
        same_size = left.size == right.size
        return same_size and ImageChops.difference(left.convert("RGB"), right.convert("RGB")).getbbox() is None


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median=statistics.median(values), lowest=min(values), highest=max(values))


def as_table(report: Report) -> str:
    lines = [
        f"{report.pages} pages, {report.rounds} rounds, {report.cores} cores, {report.browser}, "
        f"fonts {report.fonts[:12]}",
        f"{'way':38}{'pages/s':>9}{'(range)':>16}{'ours is':>10}{'(range)':>16}{'aim':>8}{'equal':>8}",
    ]
    for row in report.rows:
        speed, ratio = row.pages_per_s, row.ratio
        lines.append(
            f"{row.name:38}{speed.median:9.2f}{f'({speed.lowest:.2f}-{speed.highest:.2f})':>16}"
            f"{f'{ratio.median:.1f}x':>10}{f'({ratio.lowest:.1f}-{ratio.highest:.1f})':>16}"
            f"{'' if row.target is None else f'{row.target:g}x':>8}{row.equal_pictures:>8}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
