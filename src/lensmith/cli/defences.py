"""`lensmith defences`: what each defence of an interface costs an attacker and an honest user."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import show


@needs("audit", "models")
def defences(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder, a GGUF file or a name on the Hub; sightseer_nano is the model that ships. "
            "Or a .npy file of logits, contexts by vocabulary.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for defences.html and defences.json.")] = Path(
        "defences"
    ),
    expose: Annotated[
        list[str] | None,
        typer.Option(help="An interface of yours to compare, such as top-logprobs=5,decimals=2; may be repeated."),
    ] = None,
    contexts: Annotated[
        int, typer.Option(min=64, help="Contexts to take from the model: more than 1.25 of its width, better 4 times.")
    ] = 768,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the questions and of the noise.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare defences on a model's own logits: what each leaves an attacker, and what it costs an honest user."""
    from lensmith.cli.console.progress import progress_bar
    from lensmith.workflows.defences.page import as_dict, as_text
    from lensmith.workflows.defences.run import DefenceOptions, study_source

    options = DefenceOptions(source=source, out=out, expose=tuple(expose or ()), contexts=contexts, seed=seed)
    with progress_bar("studied") as on_progress:
        study = study_source(options, on_progress)
    show(as_dict(study), as_json=as_json, text=as_text(study))
