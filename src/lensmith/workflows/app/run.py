"""The app put together, and served on this machine until it is interrupted.

NiceGUI is mounted below a random path of an application of ours, behind the door, and served as all servers here are.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI
from nicegui import app as framework
from nicegui import ui

from lensmith.hosting.run import listen, serve_until_signal, server_config
from lensmith.workflows.app.door import Door
from lensmith.workflows.app.page import Site
from lensmith.workflows.app.routes import Drafts, routes
from lensmith.workflows.app.store import Store
from lensmith.workflows.app.studio import Studio
from lensmith.workflows.html.convert import Converter
from lensmith.workflows.html.engines import EngineName
from lensmith.workflows.html.writers import EndpointWriter, endpoint_writer

LOOPBACK = "127.0.0.1"
STOP_S = 1
"""How long an app that is told to stop waits for answers in progress; its tabs never hang up by themselves."""
RECONNECT_S = 20.0
"""How long a tab's state waits for its browser to come back, as after a closed lid."""


def default_folder() -> Path:
    """Where projects are kept: `$XDG_DATA_HOME/lensmith/app`, or `~/.local/share/lensmith/app`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "lensmith" / "app"


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """What the app is started with. `folder` holds the projects; `port` 0 takes a free one.

    `endpoint` is the URL of a server that reads pictures, and `model` the name of its model; without an endpoint,
    `model` is the folder of a model that writes pages, None for the one that ships.
    """

    folder: Path = field(default_factory=default_folder)
    port: int = 0
    engine: EngineName = EngineName.AUTO
    model: str | None = None
    endpoint: str | None = None
    api_key: str | None = None
    samples: int = 1


def run_app(config: AppConfig, *, on_ready: Callable[[str], None]) -> bool:
    """Serves the app until SIGINT or SIGTERM; `on_ready` is told its address, which holds the key.

    False where an engine is still within a step: an interpreter that is torn down under it aborts. Raises InputError
    where the port is taken, there is no such model, or the endpoint does not answer.
    """
    path = f"/{secrets.token_urlsafe(18)}/"
    # Bound before any model is loaded: that a port is taken should not be told after half a minute.
    with listen(LOOPBACK, config.port) as listening, _studio(config) as studio:
        drafts, store = Drafts(), Store(config.folder)
        site = Site(path=path, store=store, studio=studio, drafts=drafts)
        app = FastAPI(openapi_url=None)
        app.router.routes.extend(routes(path, store, studio, drafts))
        # Its bar at the top has no name for a screen reader, and the app says itself what goes on.
        framework.config.quasar_config["loadingBar"] = {"skipHijack": True}
        ui.run_with(
            app,
            root=site.build,
            mount_path=path.rstrip("/"),
            title="lensmith",
            language="en-US",
            favicon=Path(__file__).with_name("icon.svg"),
            tailwind=False,
            binding_refresh_interval=None,
            reconnect_timeout=RECONNECT_S,
            show_welcome_message=False,
        )
        door = Door(app, port=listening.getsockname()[1], path=path)
        settings = server_config(door, timeout_graceful_shutdown=STOP_S, proxy_headers=False)
        serve_until_signal(settings, listening, on_ready=on_ready, path=path)
    return studio.has_ended


@contextlib.contextmanager
def _studio(config: AppConfig) -> Iterator[Studio]:
    with contextlib.ExitStack() as stack:
        writer: EndpointWriter | None = None
        if config.endpoint is not None:
            writer = stack.enter_context(endpoint_writer(config.endpoint, config.model, api_key=config.api_key))
        folder = None if writer is not None else config.model
        converter = Converter.load(folder, engine=config.engine, writer=writer)
        yield stack.enter_context(Studio(converter, writer=writer, samples=config.samples))
