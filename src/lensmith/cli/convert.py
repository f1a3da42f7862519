"""`lensmith convert`: a checkpoint of one layout to another."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import show
from lensmith.cli.console.progress import progress_bar


@needs("models")
def convert(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A DeepSeek-VL model: a folder of any layout, or its name on the Hub.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; made if need be.")],
    layout: Annotated[
        str,
        typer.Option(
            help="original, transformers (5), transformers-4 (4.5x), or lensmith (what save_pretrained writes)."
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there already.")] = False,
    shard_gb: Annotated[float, typer.Option(min=0.001, help="The most gigabytes of weights in one file.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Convert a DeepSeek-VL checkpoint to another layout.

    Weights are copied bit by bit, a tensor at a time; configuration, processor and tokenizer are written as the layout
    wants them. A checkpoint that is not whole is refused with all that is wrong with it.
    """
    from lensmith.models.families.registry import convert as convert_checkpoint

    with progress_bar("megabytes") as on_progress:
        result = convert_checkpoint(
            source, out, layout, overwrite=overwrite, shard_bytes=int(shard_gb * 1e9), on_progress=on_progress
        )
    show(result, as_json=as_json)
