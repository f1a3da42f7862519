"""Keeps a browser and its pages alive, so that one page's trouble ends with that page.

| what happens | what the page gets | what becomes of the rest |
| --- | --- | --- |
| over a limit | PageTimeoutError, PageTooLargeError | its tab and renderer are replaced |
| its renderer dies | PageCrashError | its tab is replaced |
| the browser dies | a second try in a browser of its own; PageCrashError if that dies too | a new browser |
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lensmith.core.errors import PageCrashError, PageTimeoutError, PageTooLargeError, RenderError
from lensmith.core.types import Page
from lensmith.render.assets import Assets
from lensmith.render.browser import find_chromium
from lensmith.render.config import Capture, RenderConfig, Scripts
from lensmith.render.devtools import ConnectionLostError, ProtocolError, SessionLostError
from lensmith.render.process import BrowserProcess
from lensmith.render.tab import Tab

TAB_LIMIT_S = 10.0
"""A browser that does not open or close a tab in this time is taken for hung and replaced."""

CLEAR_LIMIT_S = 2.0
"""A page whose scripts do not let it be left in this time loses its tab."""

Watch = Callable[[BrowserProcess, Tab, bytes], Awaitable[None]]
"""Called with a page's browser, tab and bytes before it loads. For tests: the place to kill either."""


class _BrowserDiedError(Exception):
    """The whole browser went away under a page, by that page's doing or another's."""


class _Slot:
    """A place for one page in flight."""

    def __init__(self) -> None:
        self.tab: Tab | None = None
        self.browser: BrowserProcess | None = None


async def _is_cleared(tab: Tab) -> bool:
    """False if the page's scripts do not let go of the tab. The page was rendered all the same."""
    try:
        async with asyncio.timeout(CLEAR_LIMIT_S):
            await tab.clear()
    except (TimeoutError, ConnectionLostError, SessionLostError, ProtocolError):
        return False
    return True


class Pool:
    """A browser with up to `size` long-lived tabs. Lives in one event loop."""

    def __init__(self, config: RenderConfig, watch: Watch | None = None) -> None:
        self.config = config
        self.size = config.pages_in_flight or 2 * (os.cpu_count() or 1)
        self._watch = watch
        # Last in, first out: a caller with one page at a time opens one tab.
        self._slots: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        for _ in range(self.size):
            self._slots.put_nowait(_Slot())
        self._browser: BrowserProcess | None = None
        self._starting = asyncio.Lock()
        self._alone = asyncio.Lock()
        self._closed = False

    async def render(self, html: bytes, encoding: str, capture: Capture, assets: Assets | None = None) -> Page:
        """`encoding` as a web server names it; "" leaves it to the page, or UTF-8. Raises RenderError."""
        if len(html) > self.config.max_html_bytes:
            limit = f"at most {self.config.max_html_bytes}"
            raise PageTooLargeError("the page has too many bytes", expected=limit, actual=len(html))
        async with self._slot() as slot:
            try:
                return await self._attempt(slot, html, encoding, capture, assets)
            except _BrowserDiedError as error:
                if self._closed:
                    raise RenderError("the renderer was closed while the page was rendered") from error
        return await self._retry_alone(html, encoding, capture, assets)

    async def version(self) -> str:
        """The browser's name and version."""
        browser = await self._running_browser()
        return str((await browser.connection.send("Browser.getVersion"))["product"])

    async def close(self) -> None:
        self._closed = True
        async with self._starting:
            if self._browser is not None:
                self._browser.end()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[_Slot]:
        slot = await self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put_nowait(slot)

    async def _running_browser(self) -> BrowserProcess:
        async with self._starting:
            if self._closed:
                raise RenderError("the renderer is closed")
            if self._browser is not None and self._browser.connection.lost:
                self._browser.end()
                self._browser = None
            if self._browser is None:
                self._browser = await BrowserProcess.start(find_chromium())
            return self._browser

    async def _attempt(self, slot: _Slot, html: bytes, encoding: str, capture: Capture, assets: Assets | None) -> Page:
        browser, tab = await self._ready_tab(slot)
        finished = False
        try:
            async with asyncio.timeout(self.config.timeout_s):
                if self._watch is not None:
                    await self._watch(browser, tab, html)
                page = await tab.render(html, encoding, capture, assets)
            finished = self.config.scripts is Scripts.OFF or await _is_cleared(tab)
            return page
        except ConnectionLostError as error:
            raise _BrowserDiedError from error
        except SessionLostError as error:
            raise PageCrashError("the page took its renderer process down") from error
        except TimeoutError as error:
            limit = f"at most {self.config.timeout_s:g} s"
            raise PageTimeoutError("the page took too long", expected=limit) from error
        finally:
            if not finished:
                # It may be hung, dead, huge, or half loaded if we were cancelled: no next page may meet it.
                await self._discard(slot)

    async def _ready_tab(self, slot: _Slot) -> tuple[BrowserProcess, Tab]:
        browser = await self._running_browser()
        if slot.browser is not browser:
            slot.tab, slot.browser = None, browser
        if slot.tab is not None and (slot.tab.lost or slot.tab.renders >= self.config.recycle_after):
            await self._discard(slot)
        try:
            if slot.tab is None:
                async with asyncio.timeout(TAB_LIMIT_S):
                    slot.tab = await Tab.open(browser.connection, self.config)
        except (TimeoutError, ConnectionLostError, SessionLostError, ProtocolError) as error:
            browser.end()
            raise _BrowserDiedError from error
        return browser, slot.tab

    async def _discard(self, slot: _Slot) -> None:
        """Closes the slot's tab, and the whole browser if it cannot even do that."""
        tab, slot.tab = slot.tab, None
        if tab is None or slot.browser is None:
            return
        try:
            async with asyncio.timeout(TAB_LIMIT_S):
                await tab.close()
        except (TimeoutError, ConnectionLostError, ProtocolError):
            slot.browser.end()

    async def _retry_alone(self, html: bytes, encoding: str, capture: Capture, assets: Assets | None) -> Page:
        """Once more in a browser of its own: if that dies as well, this page is the one that kills it."""
        async with self._alone:
            solo, slot = Pool(self.config, self._watch), _Slot()
            blame: RenderError = RenderError("the browser opens no page", hint="look at the machine's free memory")
            try:
                await solo._ready_tab(slot)
                blame = PageCrashError("the page took the whole browser down, twice")
                return await solo._attempt(slot, html, encoding, capture, assets)
            except _BrowserDiedError as error:
                raise blame from error
            finally:
                await solo.close()
