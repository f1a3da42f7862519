"""The blocking front of the pool: plain calls from any thread, one warm browser behind them."""

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from lensmith.core.errors import RenderError
from lensmith.core.types import Page
from lensmith.render.config import Capture, RenderConfig
from lensmith.render.pool import Pool

T = TypeVar("T")
DEFAULT_CAPTURE = Capture.PICTURE | Capture.TEXTS


class Renderer:
    """Turns HTML into pictures and boxes. Thread-safe; starts its browser at the first call.

    Pages are hostile input: no network, no file of this machine, no scripts unless `config.scripts` says so, and
    hard limits (RenderConfig). A page that breaks them raises its own error and disturbs no other.
    """

    def __init__(self, config: RenderConfig = RenderConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def render(self, html: str | bytes, capture: Capture = DEFAULT_CAPTURE) -> Page:
        """The page as laid out and painted. Raises PageTimeoutError, PageTooLargeError, PageCrashError or RenderError."""
        return self._submit(html, capture).result()

    def render_many(
        self, htmls: Iterable[str | bytes], capture: Capture = DEFAULT_CAPTURE
    ) -> Iterator[Page | RenderError]:
        """Pages in the order of `htmls`, several in flight; one that fails yields its error in its place.

        Streams: reads ahead by twice the pages in flight, no further.
        """
        waiting: deque[Future[Page]] = deque()
        try:
            for html in htmls:
                waiting.append(self._submit(html, capture))
                if len(waiting) >= 2 * self._started().size:
                    yield _outcome(waiting.popleft())
            while waiting:
                yield _outcome(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def version(self) -> str:
        """The browser's name and version, for run manifests."""
        return self._run(self._started().version()).result()

    def close(self) -> None:
        """Ends the browser. A later call starts a new one."""
        with self._lock:
            loop, thread, pool = self._loop, self._thread, self._pool
            self._loop = self._thread = self._pool = None
        if loop is None or thread is None or pool is None:
            return
        atexit.unregister(self.close)
        asyncio.run_coroutine_threadsafe(pool.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _submit(self, html: str | bytes, capture: Capture) -> Future[Page]:
        data = html.encode("utf-8", "replace") if isinstance(html, str) else html
        return self._run(self._started().render(data, capture))

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        assert self._loop is not None, "started by _started()"
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _started(self) -> Pool:
        with self._lock:
            if self._pool is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="lensmith-render", daemon=True)
                self._thread.start()
                self._pool = asyncio.run_coroutine_threadsafe(_make_pool(self.config), self._loop).result()
                atexit.register(self.close)
            return self._pool


async def _make_pool(config: RenderConfig) -> Pool:
    return Pool(config)


def _outcome(future: Future[Page]) -> Page | RenderError:
    try:
        return future.result()
    except RenderError as error:
        return error
