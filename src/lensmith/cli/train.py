"""`lensmith train`: runs a recipe, goes on with one, or says what it would cost; and `lensmith runs` compares runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import INTERRUPTED, given_options, output_path, show
from lensmith.cli.console.progress import progress_bar
from lensmith.core.errors import InputError

_OF_DRY_RUNS = ("gpu", "nodes", "gpus")


@needs("train")
def train(
    context: typer.Context,
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
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Train nothing: say what it would cost in memory, arithmetic and time.")
    ] = False,
    gpu: Annotated[
        str, typer.Option(help="For --dry-run: cpu (this machine, measured), a100, a100-40gb, h100 or h200.")
    ] = "cpu",
    nodes: Annotated[int, typer.Option(help="For --dry-run: machines.")] = 1,
    gpus: Annotated[int, typer.Option(help="For --dry-run: GPUs of a machine.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model by a recipe.

    Type the same line again to go on where the run was interrupted. Recipes that have a plan (`lensmith data plan`) are
    also trained by several processes together: torchrun --nproc-per-node N -m lensmith.cli train RECIPE
    """
    folder = out or Path("runs") / recipe
    if is_dry_run:
        from lensmith.workflows.training.cost import dry_run

        show(dry_run(recipe, folder, device=gpu, nodes=nodes, devices=gpus), as_json=as_json)
        return
    if given := given_options(context, _OF_DRY_RUNS):
        raise InputError(
            f"{given[0]} is for --dry-run",
            hint="processes that train together are started by torchrun: lensmith train --help",
        )
    from lensmith.workflows.training import run_recipe

    with progress_bar("data") as on_data:
        result = run_recipe(
            recipe,
            folder,
            deadline_s=deadline_s,
            steps=steps,
            skip=_numbers(skip_steps or ""),
            on_data=on_data,
        )
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
        show(result, as_json=as_json)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


@needs("train")
def runs(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold such folders.")],
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with curves and samples into this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare training runs: how they stand, their losses and speed, and in what their recipes differ.

    A run under way is read as it is. The page needs no network and no other file.
    """
    from lensmith.core.files import write_atomic
    from lensmith.workflows.training.comparison import compare_runs
    from lensmith.workflows.training.comparison_page import comparison_page

    comparison = compare_runs(folders)
    out = output_path(html)
    if out is not None:
        write_atomic(out, comparison_page(comparison))
    show(comparison.summary, as_json=as_json, out=out)


def _numbers(text: str) -> frozenset[int]:
    """The numbers in text such as `113-117,240`. Raises InputError where it is none such."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise InputError("steps to pass over cannot be read", expected="such as 113-117,240", actual=text)
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
