"""`lensmith train`: runs a recipe, or goes on with one."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.extras import needs
from lensmith.cli.output import INTERRUPTED, show


@needs("train")
def train(
    recipe: Annotated[str, typer.Argument(help="Name of the recipe.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; runs/RECIPE by default. A run in it goes on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model by a recipe.

    Type the same line again to go on where the run was interrupted.
    """
    from lensmith.workflows.training import run_recipe

    result = run_recipe(recipe, out or Path("runs") / recipe, steps=steps)
    show(result, as_json=as_json)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
