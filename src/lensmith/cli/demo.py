"""`lensmith demo`: everything at once, small and offline."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import show
from lensmith.cli.console.progress import progress_bar


@needs("html", "serve")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html.")] = Path("demo"),
    picture: Annotated[
        Path | None, typer.Option(help="Begin with this screenshot of your own, in place of a page by others.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder of another model than the one that ships.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show it all in one report.html.

    Rebuilds a page that others made (or yours) from its screenshot, converts pages that the model never saw, audits and
    guards that model's API, and writes one self-contained page.
    """
    from lensmith.workflows.demo.run import run

    with progress_bar("demo") as on_progress:
        result = run(out, picture=picture, model=model, on_progress=on_progress)
    show(result, as_json=as_json)
