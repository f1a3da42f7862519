"""A web server in a thread of this process: for tests, demonstrations, and whoever embeds one."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from lensmith.core.errors import InputError


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


@contextlib.contextmanager
def in_thread(config: uvicorn.Config, listening: socket.socket) -> Iterator[str]:
    """Serves from a thread until the block is left; gives the base URL (with /v1). Raises InputError."""
    ready = threading.Event()
    server = ReadyServer(config, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), name="lensmith-serve")
    thread.start()
    try:
        while not ready.wait(timeout=0.1):
            if not thread.is_alive():
                raise InputError("the server did not start", hint="its log says why")
        yield url_of(listening)
    finally:
        server.should_exit = True
        thread.join()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises InputError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio sends small answers at once (TCP_NODELAY) only on sockets that say so.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(
            "cannot listen at this address",
            actual=f"{host}:{port}: {error.strerror}",
            hint="choose another --port; 0 takes a free one",
        ) from error
    listening.listen(1024)
    return listening


def url_of(listening: socket.socket) -> str:
    """The base URL, with /v1."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
