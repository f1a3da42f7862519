"""What a browser shows of a file that a person opens, and which files anybody opens in a folder."""

import ctypes
import io
import os
import select
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from lensmith.render.browser import find_chromium
from lensmith.render.process import PICTURE_FLAGS, SEALING_FLAGS

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

IN_OPEN = 0x20


def decoded(png: bytes) -> Pixels:
    """Height, width, RGB."""
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


@contextmanager
def file_browser(width_px: int, height_px: int) -> Iterator[Callable[[Path], Pixels]]:
    """Gives a function that opens a file by its `file:` address, without scripts and network, and pictures all of it.

    By Playwright, which shares nothing with our renderer but the browser's program and the flags that decide pixels.
    """
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    arguments = [*sandbox, *PICTURE_FLAGS, *SEALING_FLAGS]
    window = {"width": width_px, "height": height_px}
    # In a thread of its own, for its event loop would stand in the way of those that tests run.
    with ThreadPoolExecutor(1) as thread:
        driver = thread.submit(lambda: sync_playwright().start()).result()
        launch = thread.submit(driver.chromium.launch, executable_path=str(find_chromium()), args=arguments)
        browser = launch.result()

        def shot(path: Path) -> Pixels:
            # A context for each, as files may change between two looks.
            context = browser.new_context(viewport=window, java_script_enabled=False, locale="en-US", timezone_id="UTC")
            page = context.new_page()
            # Playwright puts another font in the place of the headless browser's own for `monospace`.
            own_fonts = {"fontFamilies": {"fixed": "Courier New"}}
            context.new_cdp_session(page).send("Page.setFontFamilies", own_fonts)
            page.goto(path.absolute().as_uri(), wait_until="load")
            picture = page.screenshot(full_page=True, animations="disabled")
            context.close()
            return decoded(picture)

        yield lambda path: thread.submit(shot, path).result()
        thread.submit(browser.close).result()
        thread.submit(driver.stop).result()


@contextmanager
def opened_in(*folders: Path) -> Iterator[Callable[[], set[str]]]:
    """Gives a function that returns the names of all files that anybody has opened in these folders since."""
    system = ctypes.CDLL(None, use_errno=True)
    watch = system.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0, os.strerror(ctypes.get_errno())
    try:
        for folder in folders:
            assert system.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN) >= 0

        def names() -> set[str]:
            found = set()
            while select.select([watch], [], [], 0)[0]:
                events = os.read(watch, 1 << 16)
                while events:
                    length = struct.unpack_from("iIII", events)[3]
                    found.add(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
                    events = events[16 + length :]
            return found - {""}

        yield names
    finally:
        os.close(watch)
