"""Starts a server, says where it is, and stops it when it is told to."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import uvicorn

from lensmith.core.errors import InputError
from lensmith.core.exposure_text import parse_exposure
from lensmith.models.local import load_answering
from lensmith.serve.app import make_app
from lensmith.serve.engine import Engine
from lensmith.serve.limits import Limits


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """What `lensmith serve` is told. `expose` is read by `core.exposure_text`; `name` by default the model's own."""

    model: str
    expose: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    slots: int = 8
    dtype: str = "float32"
    device: str = "cpu"
    max_length: int | None = None
    cache_mib: int = 512
    waiting_requests: int = 256
    timeout_s: float = 600.0
    body_mib: int = 32
    picture_hosts: tuple[str, ...] = ()

    def engine(self) -> Engine:
        """Loads the model. Raises ConfigError or InputError for what makes no sense, before that where possible."""
        exposure = parse_exposure(self.expose)
        limits = Limits(
            body_bytes=self.body_mib << 20,
            waiting_requests=self.waiting_requests,
            timeout_s=self.timeout_s,
            picture_hosts=self.picture_hosts,
        )
        answering = load_answering(
            self.model,
            name=self.name,
            dtype=_dtype(self.dtype),
            device=_device(self.device),
            max_length=self.max_length,
            cache_bytes=self.cache_mib << 20,
        )
        return Engine(answering, exposure, slots=self.slots, limits=limits)


def serve_model(settings: ServeSettings, *, keys: Iterable[str], on_ready: Callable[[str], None]) -> None:
    """Loads a model and serves it, as `serve` does."""
    # Bound before the model is loaded: that a port is taken should not be told after half a minute.
    listening = listen(settings.host, settings.port)
    serve(settings.engine(), listening, keys=keys, on_ready=on_ready)


def _dtype(name: str) -> torch.dtype:
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in kinds:
        raise InputError("no such precision", expected=" or ".join(kinds), actual=name)
    return kinds[name]


def _device(name: str) -> str:
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        raise InputError("no such device", actual=f"{name}: {str(error).splitlines()[0]}") from error
    return name


def serve(
    engine: Engine,
    listening: socket.socket,
    *,
    keys: Iterable[str] = (),
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what was accepted; a second SIGINT does not wait for that.

    `on_ready` is told the base URL (with /v1) once requests are answered.
    """
    server = _Server(_config(engine, keys), lambda: on_ready(url_of(listening)))
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn stops well, and then raises the signal again
        server.run(sockets=[listening])
    if not server.was_ready:
        raise InputError("the server did not start", hint="its log says why")


@contextlib.contextmanager
def running(engine: Engine, *, host: str = "127.0.0.1", port: int = 0, keys: Iterable[str] = ()) -> Iterator[str]:
    """A server in a thread of this process, for tests and demonstrations; gives its base URL (with /v1)."""
    listening = listen(host, port)
    ready = threading.Event()
    server = _Server(_config(engine, keys), ready.set)
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


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.was_ready = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self.was_ready = True
            self._on_ready()


def _config(engine: Engine, keys: Iterable[str]) -> uvicorn.Config:
    options: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False, "lifespan": "on"}
    return uvicorn.Config(make_app(engine, keys), **options)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises InputError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
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
