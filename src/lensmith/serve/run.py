"""Starts a server, says where it is, and stops it when it is told to."""

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import uvicorn

from lensmith.core.exposure import parse_exposure
from lensmith.hosting.run import BACKLOG, KEEP_ALIVE_S, in_thread, listen, serve_until_signal
from lensmith.models.inference.loading import dtype_named, given_options, load_answering
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
    exact: str | None = None
    picture_decoding: str | None = None
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
            dtype=dtype_named(self.dtype),
            device=self.device,
            options=given_options(exact=self.exact, picture_decoding=self.picture_decoding),
            max_length=self.max_length,
            cache_bytes=self.cache_mib << 20,
            pictures=limits.pictures,
        )
        return Engine(answering, exposure, slots=self.slots, limits=limits)


def serve_model(settings: ServeSettings, *, keys: Iterable[str], on_ready: Callable[[str], None]) -> None:
    """Loads a model and serves it, as `serve` does."""
    # Bound before the model is loaded: that a port is taken should not be told after half a minute.
    listening = listen(settings.host, settings.port)
    serve(settings.engine(), listening, keys=keys, on_ready=on_ready)


def serve(
    engine: Engine,
    listening: socket.socket,
    *,
    keys: Iterable[str] = (),
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what was accepted, as `serve_until_signal` says."""
    serve_until_signal(_config(engine, keys), listening, on_ready=on_ready)


@contextlib.contextmanager
def running(engine: Engine, *, host: str = "127.0.0.1", port: int = 0, keys: Iterable[str] = ()) -> Iterator[str]:
    """A server in a thread of this process, for tests and demonstrations; gives its base URL (with /v1)."""
    with in_thread(_config(engine, keys), listen(host, port)) as url:
        yield url


def _config(engine: Engine, keys: Iterable[str]) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(engine, keys),
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=BACKLOG,
    )
