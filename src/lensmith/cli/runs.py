"""`lensmith runs`: compares training runs."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import output_path, show


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
