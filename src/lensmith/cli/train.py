"""`lensmith train`: runs a recipe, or goes on with one."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import INTERRUPTED, show
from lensmith.cli.console.progress import progress_bar
from lensmith.core.errors import InputError


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
    skip_steps: Annotated[
        str | None,
        typer.Option(help="Steps to pass over with their batches, as in 113-117,240: of the stage, as its log counts."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model by a recipe.

    Type the same line again to go on where the run was interrupted. Recipes that have a plan (`lensmith data plan`) are
    also trained by several processes together: torchrun --nproc-per-node N -m lensmith.cli train RECIPE
    """
    from lensmith.workflows.training import run_recipe

    with progress_bar("data") as on_data:
        result = run_recipe(
            recipe,
            out or Path("runs") / recipe,
            deadline_s=deadline_s,
            steps=steps,
            skip=_numbers(skip_steps or ""),
            on_data=on_data,
        )
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
        show(result, as_json=as_json)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _numbers(text: str) -> frozenset[int]:
    """The numbers in text such as `113-117,240`. Raises InputError where it is none such."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise InputError("steps to pass over cannot be read", expected="such as 113-117,240", actual=text)
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
