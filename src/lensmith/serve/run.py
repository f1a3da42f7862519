"""Starts a server, says where it is, and stops it when it is told to."""

import contextlib
from collections.abc import Callable, Iterator

from lensmith.hosting.run import in_thread, listen, serve_until_signal, server_config
from lensmith.models.inference.loading import dtype_named, load_answering
from lensmith.serve.app import make_app
from lensmith.serve.config import Access, ServerConfig
from lensmith.serve.engine import Engine


def serve(config: ServerConfig, *, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Loads the model and serves it until SIGINT or SIGTERM, as `hosting.run.serve_until_signal` says.

    Raises InputError where it cannot listen there, or there is no such model.
    """
    # Bound before the model is loaded: that a port is taken should not be told after half a minute.
    listening = listen(config.host, config.port)
    app = make_app(load_engine(config), config.access)
    serve_until_signal(server_config(app), listening, on_ready=on_ready)


def load_engine(config: ServerConfig) -> Engine:
    """The engine with its model loaded, not yet started. Raises InputError where there is no such model."""
    answering = load_answering(
        config.model,
        name=config.name,
        dtype=dtype_named(config.dtype),
        device=config.device,
        options=config.options,
        max_length=config.max_length,
        cache_bytes=config.cache_bytes,
        pictures=config.limits.pictures,
    )
    return Engine(answering, config.exposure, slots=config.slots, limits=config.limits)


@contextlib.contextmanager
def running(engine: Engine, *, host: str = "127.0.0.1", port: int = 0, access: Access | None = None) -> Iterator[str]:
    """A server in a thread of this process, for tests and demonstrations; gives its base URL (with /v1)."""
    app = make_app(engine, access or Access())
    with in_thread(server_config(app), listen(host, port)) as url:
        yield url
