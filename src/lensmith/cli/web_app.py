"""`lensmith app`: the web app, on this machine alone."""

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.model_options import EngineOption


@needs("app")
def web_app(
    folder: Annotated[
        Path | None, typer.Option(help="Where projects are kept; by default below the user's data folder.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    engine: Annotated[
        EngineOption,
        typer.Option(help="Who proposes pages: the picture's own measures, a model, or whichever comes closest."),
    ] = EngineOption.AUTO,
    samples: Annotated[int, typer.Option(min=1, help="Candidates that a model writes; all are kept as versions.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Folder of a model other than the one that ships; its name, with --endpoint.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="An OpenAI-compatible server that reads pictures: it writes and changes pages."
        ),
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="LENSMITH_API_KEY", help="Key for --endpoint.")] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the address in a browser.")] = True,
) -> None:
    """Turn screenshots into pages in a browser: watch, compare, edit, ask for changes, download.

    Only this machine can reach it, at an address with a key that is new each time. Ctrl-C ends it; what was made stays.
    """
    from lensmith.workflows.app.run import AppConfig, run_app
    from lensmith.workflows.html.engines import EngineName

    settings = {} if folder is None else {"folder": folder}
    config = AppConfig(
        port=port,
        engine=EngineName(engine.value),
        model=model,
        endpoint=endpoint,
        api_key=api_key,
        samples=samples,
        **settings,
    )

    def tell(url: str) -> None:
        typer.echo(f"lensmith app: {url}")
        typer.echo(f"projects are kept in {config.folder}; Ctrl-C ends the app", err=True)
        if open_browser:
            # In a thread of its own, for a browser of the terminal would stand still here.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    if not run_app(config, on_ready=tell):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
