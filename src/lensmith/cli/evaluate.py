"""`lensmith eval`: scores of a model."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.extras import needs
from lensmith.cli.output import show
from lensmith.cli.progress import progress_bar

app = typer.Typer(help="Score a model.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    # A group of one command would otherwise be taken for that command.
    pass


@app.command("html")
@needs("html")
def html(
    pages: Annotated[
        str, typer.Option(help="What to convert: `grammar:N` generated pages, or a folder of HTML files.")
    ],
    model: Annotated[str | None, typer.Option(help="Folder of another model than the one that ships.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Candidates to render for each page.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Also write the pages side by side as one HTML file.")] = None,
    nearest_among: Annotated[
        int, typer.Option(min=0, help="Training pages among which the nearest-page baseline looks; 0 leaves it out.")
    ] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Score screenshot to HTML.

    Renders pages, converts their pictures to HTML, and compares how both look.
    """
    from lensmith.workflows.evaluate_html import run

    with progress_bar("pages") as on_progress:
        scores = run(
            pages,
            model=model,
            samples=samples,
            nearest_among=nearest_among,
            report=report,
            on_progress=on_progress,
        )
    show(scores, as_json=as_json)
