"""`lensmith train`: runs a recipe, or goes on with one."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import INTERRUPTED, show
from lensmith.cli.console.progress import progress_bar


@needs("train")
def train(
    recipe: Annotated[str, typer.Argument(help="Name of the recipe.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; runs/RECIPE by default. A run in it goes on.")
    ] = None,
    deadline_s: Annotated[
        float | None, typer.Option(min=0, help="Stop cleanly, with a checkpoint, so many seconds into a stage.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Stop cleanly, with a checkpoint, after so many steps of a stage.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model by a recipe.

    Type the same line again to go on where the run was interrupted. Recipes that have a plan (`lensmith data plan`) are
    also trained by several processes together: torchrun --nproc-per-node N -m lensmith.cli train RECIPE
    """
    from lensmith.workflows.training import run_recipe

    with progress_bar("data") as on_data:
        result = run_recipe(recipe, out or Path("runs") / recipe, deadline_s=deadline_s, steps=steps, on_data=on_data)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
        show(result, as_json=as_json)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
