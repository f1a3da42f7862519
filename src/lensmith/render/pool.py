"""Keeps a browser and its pages alive: one page's trouble ends with that page."""

import asyncio
import os

from lensmith.core.errors import PageCrashError, PageTimeoutError, PageTooLargeError, RenderError
from lensmith.core.types import Page
from lensmith.render.browser import find_chromium
from lensmith.render.config import Capture, RenderConfig
from lensmith.render.devtools import ConnectionLostError, ProtocolError, SessionLostError
from lensmith.render.process import BrowserProcess
from lensmith.render.tab import Tab

TAB_LIMIT_S = 10.0
"""A browser that cannot open or close a page in this time is taken for hung and replaced."""


class _BrowserDiedError(Exception):
    """The whole browser went away under a page, by that page's doing or another's."""


class _Slot:
    """A place for one page in flight."""

    def __init__(self) -> None:
        self.tab: Tab | None = None
        self.browser: BrowserProcess | None = None


class Pool:
    """A browser with `pages_in_flight` long-lived pages. Lives in one event loop."""

    def __init__(self, config: RenderConfig) -> None:
        self.config = config
        self.size = config.pages_in_flight or 2 * (os.cpu_count() or 1)
        self._slots: asyncio.Queue[_Slot] = asyncio.Queue()
        for _ in range(self.size):
            self._slots.put_nowait(_Slot())
        self._browser: BrowserProcess | None = None
        self._starting = asyncio.Lock()
        self._alone = asyncio.Lock()

    async def render(self, html: bytes, capture: Capture) -> Page:
        """Raises RenderError."""
        if len(html) > self.config.max_html_bytes:
            raise PageTooLargeError(
                "the page has too many bytes",
                expected=f"at most {self.config.max_html_bytes}",
                actual=len(html),
            )
        slot = await self._slots.get()
        try:
            return await self._attempt(slot, html, capture)
        except _BrowserDiedError:
            pass  # not a failure to hide: the retry below tells whether this page is to blame
        finally:
            self._slots.put_nowait(slot)
        return await self._retry_alone(html, capture)

    async def close(self) -> None:
        if self._browser is not None:
            await self._browser.end()
            self._browser = None

    async def version(self) -> str:
        browser = await self._running_browser()
        answer = await browser.connection.call("Browser.getVersion")
        return str(answer["product"])

    async def _running_browser(self) -> BrowserProcess:
        async with self._starting:
            if self._browser is not None and self._browser.connection.lost.is_set():
                await self._browser.end()
                self._browser = None
            if self._browser is None:
                self._browser = await BrowserProcess.start(find_chromium())
            return self._browser

    async def _attempt(self, slot: _Slot, html: bytes, capture: Capture) -> Page:
        tab = await self._ready_tab(slot)
        try:
            async with asyncio.timeout(self.config.timeout_s):
                return await tab.render(html, capture)
        except ConnectionLostError as error:
            raise _BrowserDiedError from error
        except SessionLostError as error:
            await self._discard(slot)
            raise PageCrashError("the page took its renderer process down") from error
        except TimeoutError as error:
            await self._discard(slot)
            raise PageTimeoutError(
                "the page took too long", expected=f"at most {self.config.timeout_s:g} s"
            ) from error
        except RenderError:
            # Too large, or changing under us: what it left in its renderer must not slow the next page.
            await self._discard(slot)
            raise

    async def _ready_tab(self, slot: _Slot) -> Tab:
        for _ in range(2):
            browser = await self._running_browser()
            if slot.browser is not browser:
                slot.tab, slot.browser = None, browser
            if slot.tab is not None and (slot.tab.lost or slot.tab.renders >= self.config.recycle_after):
                await self._discard(slot)
            try:
                if slot.tab is None:
                    async with asyncio.timeout(TAB_LIMIT_S):
                        slot.tab = await Tab.open(browser.connection, self.config)
                return slot.tab
            except (TimeoutError, ConnectionLostError, SessionLostError, ProtocolError):
                await browser.end()
        raise RenderError("the browser opens no page", hint="look at the machine's memory and /dev/shm")

    async def _discard(self, slot: _Slot) -> None:
        tab, slot.tab = slot.tab, None
        if tab is None or slot.browser is None:
            return
        try:
            async with asyncio.timeout(TAB_LIMIT_S):
                await tab.close()
        except (TimeoutError, ConnectionLostError, ProtocolError):
            await slot.browser.end()

    async def _retry_alone(self, html: bytes, capture: Capture) -> Page:
        """Once more in a browser of its own: if that dies as well, this page is the one that kills it."""
        async with self._alone:
            solo = Pool(self.config)
            slot = _Slot()
            try:
                return await solo._attempt(slot, html, capture)
            except _BrowserDiedError as error:
                raise PageCrashError("the page took the whole browser down, twice") from error
            finally:
                await solo.close()
