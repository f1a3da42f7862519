"""`lensmith data`: training data."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.extras import needs
from lensmith.cli.output import show
from lensmith.cli.progress import progress_bar

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
    shard_pages: Annotated[int, typer.Option(min=1, help="Pages in one shard.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write generated web pages and screenshots.

    Parquet shards with WebSight's columns, which `datasets.load_dataset` reads.
    """
    from lensmith.data.webpages.export import write_shards

    with progress_bar("pages") as on_progress:
        result = write_shards(out, count=count, seed=seed, shard_pages=shard_pages, on_progress=on_progress)
    show(result, as_json=as_json)
