"""What both servers share: where they listen, how long they keep a connection, how they run, also in a thread.

A thread of this process is for tests, demonstrations, and whoever embeds a server.
"""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp, Receive

from lensmith.core.errors import InputError

LOG = logging.getLogger("lensmith.serve")
_UVICORN = logging.getLogger("uvicorn.error")
Result = TypeVar("Result")

BACKLOG = 2048
API_PATH = "/v1"
"""Below which an API is, as clients are given it; a server of pages announces another."""
KEEP_ALIVE_S = 120
"""How long a connection may be idle.

Longer than clients keep theirs (httpx and Node 5 s, aiohttp 15 s, proxies 60 s, Go 90 s). Where the server closes
first, a client may write its next request in that moment: it meets a reset, and must not ask again, as it may have run.
"""


class ReadyServer(uvicorn.Server):
    """A server that calls `on_ready` once it answers; `was_ready` tells whether it ever did."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.was_ready = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self.was_ready = True
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if running := len(self.server_state.tasks):
            LOG.warning("stopping: requests in progress: %d; another Ctrl-C does not wait for them", running)
        await super().shutdown(sockets=sockets)
        if self.force_exit:
            _UVICORN.disabled = True  # what is cut off now would be logged as failures of the application

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn does, which also notes the signal, and raises it again when all is stopped."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def serve_until_signal(
    config: uvicorn.Config, listening: socket.socket, *, on_ready: Callable[[str], None], path: str = API_PATH
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what was accepted.

    `on_ready` is told the URL of `path` once requests are answered. Raises InputError where it never came to it,
    and KeyboardInterrupt where a second SIGINT cut off what was accepted.
    """
    server = ReadyServer(config, lambda: on_ready(url_of(listening, path)))
    try:
        server.run(sockets=[listening])
    finally:
        _UVICORN.disabled = False
    if server.force_exit:
        raise KeyboardInterrupt
    if not server.was_ready:
        raise InputError("the server did not start", hint="its log says why")


@contextlib.contextmanager
def in_thread(config: uvicorn.Config, listening: socket.socket, *, path: str = API_PATH) -> Iterator[str]:
    """Serves from a thread until the block is left; gives the URL of `path`. Raises InputError."""
    ready = threading.Event()
    server = ReadyServer(config, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), name="lensmith-serve")
    thread.start()
    try:
        while not ready.wait(timeout=0.1):
            if not thread.is_alive():
                raise InputError("the server did not start", hint="its log says why")
        yield url_of(listening, path)
    finally:
        server.should_exit = True
        thread.join()


def server_config(app: ASGIApp, **settings: Any) -> uvicorn.Config:
    """How every server here runs, and `settings` of uvicorn's of its own."""
    # By name: uvicorn would take whichever parser and event loop somebody else has installed.
    settings = {"http": "h11", "loop": "asyncio", **settings}
    return uvicorn.Config(
        app,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=BACKLOG,
        **settings,
    )


async def unless_gone(
    receive: Receive, work: Coroutine[Any, Any, Result], *, is_answered: Callable[[], bool] = lambda: False
) -> Result | None:
    """What `work` gives; None as soon as the client goes away, which cancels it.

    `is_answered`: whether all is sent, for servers tell of a disconnection then too.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() or is_answered() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises InputError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol by name: asyncio sends small answers at once (TCP_NODELAY) only on sockets that say so.
        listening = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one, such as "a..b"
        raise _cannot_listen(host, port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise _cannot_listen(host, port, error) from error
    return listening


def _cannot_listen(host: str, port: int, error: Exception) -> InputError:
    hints = {
        errno.EADDRINUSE: "another program has this port: choose another --port; 0 takes a free one",
        errno.EACCES: "choose a --port from 1024 up",
    }
    number = error.errno if isinstance(error, OSError) else None
    return InputError(
        "cannot listen at this address",
        actual=f"{_in_url(host)}:{port}: {getattr(error, 'strerror', None) or error}",
        hint=hints.get(number or 0, "choose an address of this machine for --host, such as 127.0.0.1"),
    )


def url_of(listening: socket.socket, path: str = API_PATH) -> str:
    """Where `path` of this server is."""
    host, port = listening.getsockname()[:2]
    return f"http://{_in_url(host)}:{port}{path}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
