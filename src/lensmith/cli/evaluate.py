"""`lensmith eval`: scores of a model."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.model_options import EngineOption, PictureDecoding
from lensmith.cli.console.output import BAD_INPUT, output_path, show
from lensmith.cli.console.progress import progress_bar
from lensmith.evaluate.choice.question import Mode, Normalise
from lensmith.evaluate.visual.ways import ScoreWay

app = typer.Typer(help="Score a model.", no_args_is_help=True, rich_markup_mode=None)


class Exact(enum.Enum):
    ORIGINAL = "original"
    TRANSFORMERS = "transformers"


class Dtype(enum.Enum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


@app.command("html")
@needs("html")
def html(
    pages: Annotated[
        str,
        typer.Option(
            help="What to convert: grammar:N, real:tune, real:test (real:test:N: N of them), or a folder of HTML files."
        ),
    ],
    engine: Annotated[
        list[EngineOption] | None,
        typer.Option(
            help="Who makes the pages that are scored; several times for several, side by side. By default model, "
            "and nobody where a peer is given."
        ),
    ] = None,
    peer: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Score answers that another tool wrote too: a folder with NAME.html for each page.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder of another model than the one that ships.")] = None,
    width: Annotated[
        int | None,
        typer.Option(min=64, help="Width in px that pages are rendered at; by default what the pages are meant for."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Candidates to render for each page.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            callback=output_path,
            help="Also write the pages side by side as one HTML file, the worst first; - is stdout.",
        ),
    ] = None,
    nearest_among: Annotated[
        int, typer.Option(min=0, help="Training pages among which the nearest-page baseline looks; 0 leaves it out.")
    ] = 1000,
    score: Annotated[
        ScoreWay, typer.Option(help="What is printed: lensmith's own score, Design2Code's four terms, or both.")
    ] = ScoreWay.GEOMETRY,
    by_page: Annotated[bool, typer.Option("--by-page", help="Also print each page's scores, the worst first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Score screenshot to HTML.

    Renders pages, converts their pictures to HTML, and compares how both look and what their code is like. Beside each
    engine stand a blank page and the nearest training page. Pages that cannot be rendered are listed at the end, and
    the exit status is then 2.
    """
    from lensmith.workflows.html.engines import EngineName
    from lensmith.workflows.html.evaluate import run

    with progress_bar("pages") as on_progress:
        scores = run(
            pages,
            engines=[EngineName(name.value) for name in engine or ([] if peer else [EngineOption.MODEL])],
            model=model,
            width_px=width,
            samples=samples,
            nearest_among=nearest_among,
            peers=peer or [],
            report=report,
            way=score,
            on_progress=on_progress,
        )
    text = f"{scores}\n{scores.by_page()}" if by_page else str(scores)
    show(scores, as_json=as_json, text=text, out=report)
    if scores.failed:
        raise typer.Exit(BAD_INPUT)


@app.command("choice")
@needs("models")
def choice(
    file: Annotated[Path, typer.Argument(help="Questions: JSON lines, or a table of VLMEvalKit's (.tsv).")],
    model: Annotated[str, typer.Option(help="A folder, a GGUF file, or a name on the Hub: what `serve` can load.")],
    mode: Annotated[Mode, typer.Option(help="Compare likelihoods, or read the answer from what is written.")] = (
        Mode.LIKELIHOOD
    ),
    normalise: Annotated[
        Normalise | None,
        typer.Option(
            help="What likelihood compares: the letters (default), the options' texts a token, or their sum.",
        ),
    ] = None,
    circular: Annotated[bool, typer.Option("--circular", help="Right only where right in every rotation.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=output_path,
            help="Results as JSON lines; the same command goes on there. - is stdout, from the start.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at bad lines before anything is computed.")] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a written answer, 64 by default; generation only.")
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="Precision of the weights; int8 is for the language model.")
    ] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")] = "cpu",
    cache_mib: Annotated[int, typer.Option(min=0, help="Memory for what may be read again, in MiB.")] = 512,
    exact: Annotated[Exact | None, typer.Option(help="For DeepSeek-VL: whose pixels and prompts.")] = None,
    picture_decoding: PictureDecoding = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score multiple-choice questions, with pictures where they have some.

    Every number says its mode. Bad lines are listed at the end, and the exit status is then 2.
    """
    from lensmith.models.inference.loading import given_options
    from lensmith.workflows import choice as workflow

    settings = workflow.ChoiceSettings(
        mode=mode,
        normalise=normalise,
        circular=circular,
        max_new_tokens=max_new_tokens,
        strict=strict,
        dtype=dtype.value,
        device=device,
        cache_mib=cache_mib,
        options=given_options(exact=exact and exact.value, picture_decoding=picture_decoding),
    )
    with progress_bar("bytes checked") as on_read, progress_bar("questions") as on_progress:
        summary = workflow.run(file, model=model, settings=settings, out=out, on_read=on_read, on_progress=on_progress)
    show(summary, as_json=as_json, out=out)
    if summary.bad_lines:
        raise typer.Exit(BAD_INPUT)
