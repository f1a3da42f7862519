"""`lensmith data`: training data."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import show
from lensmith.cli.console.progress import progress_bar

app = typer.Typer(help="Make training data.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    # A group of one command would otherwise be taken for that command.
    pass


@app.command("pages")
@needs("render")
def pages(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the parquet shards; those that exist are kept.")],
    count: Annotated[int, typer.Option(min=1, help="How many pages.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed; with a page's number it determines every byte.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Number of the first page.")] = 0,
    shard_pages: Annotated[int, typer.Option(min=1, help="Pages in one shard.")] = 1000,
    columns: Annotated[
        Literal["websight", "reading"],
        typer.Option(help="WebSight's columns, or also where each character shows, which `lensmith train` reads."),
    ] = "websight",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write generated web pages and screenshots.

    Parquet shards, which `datasets.load_dataset` reads.
    """
    from lensmith.data.webpages.export import Columns, write_shards

    with progress_bar("pages") as on_progress:
        result = write_shards(
            out,
            count=count,
            seed=seed,
            start=start,
            shard_pages=shard_pages,
            columns=Columns(columns),
            on_progress=on_progress,
        )
    show(result, as_json=as_json)
