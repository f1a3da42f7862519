"""The blocking front of the pool: plain calls from any thread, one warm browser behind them."""

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import NamedTuple, Self

from lensmith.core.errors import BrowserNotFoundError, RenderError
from lensmith.core.types import Page
from lensmith.render.assets import Assets
from lensmith.render.config import Capture, RenderConfig
from lensmith.render.pool import Pool, Watch

DEFAULT_CAPTURE = Capture.PICTURE | Capture.TEXTS


@dataclass(frozen=True, kw_only=True)
class HtmlFile:
    """HTML as read from a file, and what of the file's folder it may read; None: nothing.

    Bytes are decoded as `Renderer.render` decodes them; text is what somebody else has read.
    """

    html: str | bytes
    assets: Assets | None


class _Running(NamedTuple):
    pool: Pool
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    process_id: int


class Renderer:
    """Turns HTML into pictures and boxes. Thread-safe; starts its browser at the first call.

    Pages are hostile input: no network, no file of this machine unless a call gives the page a folder (Assets), no
    scripts unless `config.scripts` says so, and hard limits (RenderConfig). A page that breaks them raises its own
    error and disturbs no other.
    """

    def __init__(self, config: RenderConfig = RenderConfig(), *, watch: Watch | None = None) -> None:  # noqa: B008
        """`watch` is a seam for tests, see pool.Watch."""
        self.config = config
        self._watch = watch
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def render(self, html: str | bytes, capture: Capture = DEFAULT_CAPTURE, *, assets: Assets | None = None) -> Page:
        """The page as laid out and painted. `assets` is the folder that it may read; what it was not given is noted.

        Bytes are decoded as the browser does: by a byte order mark, else as the page's own `meta` says, else as UTF-8,
        with replacement characters for what is invalid.
        Raises PageTimeoutError, PageTooLargeError, PageCrashError, BrowserNotFoundError or RenderError.
        """
        future = self._submit(html, capture, assets)
        try:
            return _result(future)
        finally:
            future.cancel()  # on Ctrl-C; without effect on one that is done

    def render_many(
        self, htmls: Iterable[str | bytes | HtmlFile], capture: Capture = DEFAULT_CAPTURE
    ) -> Iterator[Page | RenderError]:
        """Pages in the order of `htmls`, several in flight; one that fails yields its error in its place.

        Streams: reads ahead by twice the pages in flight, no further. Raises BrowserNotFoundError.
        """
        waiting: deque[Future[Page]] = deque()
        try:
            for html in htmls:
                content, assets = (html.html, html.assets) if isinstance(html, HtmlFile) else (html, None)
                waiting.append(self._submit(content, capture, assets))
                if len(waiting) >= 2 * self._start().pool.size:
                    yield _outcome(waiting.popleft())
            while waiting:
                yield _outcome(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def version(self) -> str:
        """The browser's name and version, for run manifests. Raises BrowserNotFoundError or RenderError."""
        running = self._start()
        return asyncio.run_coroutine_threadsafe(running.pool.version(), running.loop).result()

    def close(self) -> None:
        """Ends the browser; pages in flight raise RenderError. A later call starts a new one."""
        with self._lock:
            running, self._running = self._running, None
        if running is None or running.process_id != os.getpid():
            return
        atexit.unregister(self.close)
        asyncio.run_coroutine_threadsafe(_shut_down(running.pool), running.loop).result()
        running.loop.call_soon_threadsafe(running.loop.stop)
        running.thread.join()
        running.loop.close()

    def _submit(self, html: str | bytes, capture: Capture, assets: Assets | None) -> Future[Page]:
        running = self._start()
        if isinstance(html, str):
            work = running.pool.render(_encode(html), "utf-8", capture, assets)
        else:
            work = running.pool.render(html, "", capture, assets)
        return asyncio.run_coroutine_threadsafe(work, running.loop)

    def _start(self) -> _Running:
        with self._lock:
            # After a fork the child has this object but not its thread; it starts its own.
            if self._running is None or self._running.process_id != os.getpid():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="lensmith-render", daemon=True)
                thread.start()
                self._running = _Running(Pool(self.config, self._watch), loop, thread, os.getpid())
                atexit.register(self.close)
            return self._running


async def _shut_down(pool: Pool) -> None:
    """Closes the pool and lets what was in flight see it."""
    await pool.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=2.0)
    late = asyncio.all_tasks() - {asyncio.current_task()}
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


def _result(future: Future[Page]) -> Page:
    try:
        return future.result()
    except CancelledError as error:
        raise RenderError("the renderer was closed while the page was rendered") from error


def _outcome(future: Future[Page]) -> Page | RenderError:
    try:
        return _result(future)
    except BrowserNotFoundError:
        raise  # no page's fault
    except RenderError as error:
        return error


def _encode(html: str) -> bytes:
    try:
        return html.encode()
    except UnicodeEncodeError:
        # Lone surrogates become what a browser shows for broken text.
        return html.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
