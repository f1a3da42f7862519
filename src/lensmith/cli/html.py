"""`lensmith html`: a screenshot to HTML."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.model_options import AssetsOption, EngineOption
from lensmith.cli.console.output import BAD_INPUT, input_path, output_path, show

ModelName = Annotated[
    str | None, typer.Option(help="Folder of a model other than the one that ships; its name, with --endpoint.")
]
Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Let an OpenAI-compatible server that reads pictures write the HTML."),
]
Key = Annotated[str | None, typer.Option(envvar="LENSMITH_API_KEY", help="Key for --endpoint.")]
Instruction = Annotated[
    str | None, typer.Option(help="What to ask the endpoint for, beside the picture; empty for the picture alone.")
]
Hints = Annotated[
    bool,
    typer.Option("--ocr", help="Tell the endpoint the texts that were read from the picture, and their boxes."),
]
Assets = Annotated[
    AssetsOption,
    typer.Option(help="Pictures of the page: inside it, as files in a folder beside it, or grey boxes."),
]
Rounds = Annotated[
    int, typer.Option(min=0, help="Rounds in which the closest page is compared and made again, if that helps.")
]
Report = Annotated[
    Path | None, typer.Option(help="For a folder: also one HTML file with all side by side, the least alike first.")
]


@needs("html")
def html(
    picture: Annotated[
        Path,
        typer.Argument(
            callback=input_path,
            help="The screenshot: PNG, JPEG, WEBP, GIF, BMP or TIFF; - is stdin. Or a folder of screenshots.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", callback=output_path, help="The HTML file to write, - is stdout; a folder for a folder."
        ),
    ],
    engine: Annotated[
        EngineOption,
        typer.Option(help="Who proposes pages: the picture's own measures, a model, or whichever comes closest."),
    ] = EngineOption.AUTO,
    samples: Annotated[int, typer.Option(min=1, help="Candidates that a model writes; the closest is kept.")] = 1,
    model: ModelName = None,
    endpoint: Server = None,
    api_key: Key = None,
    instruction: Instruction = None,
    ocr: Hints = False,
    refine: Rounds = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the candidates after the first.")] = 0,
    assets: Assets = AssetsOption.EMBED,
    report: Report = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="For a folder: make pages again that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, one object a screenshot.")] = False,
) -> None:
    """Turn a screenshot, or a folder of them, into HTML.

    The HTML stands alone, is well formed, and its rendering is compared with the screenshot. Of a folder, pages that
    are there already are kept, so that the same command goes on where it stopped.
    """
    from lensmith.workflows.html.batch import convert_folder
    from lensmith.workflows.html.convert import Converter, convert_file
    from lensmith.workflows.html.engines import EngineName
    from lensmith.workflows.html.pictures import PictureMode
    from lensmith.workflows.html.writers import endpoint_writer

    name = EngineName(engine.value)
    with contextlib.ExitStack() as stack:
        writer = None
        if endpoint is not None:
            writer = stack.enter_context(endpoint_writer(endpoint, model, api_key=api_key, instruction=instruction))
        folder_of_model = None if writer is not None else model
        if picture.is_dir():
            converter = stack.enter_context(Converter.load(folder_of_model, engine=name, writer=writer, ocr=ocr))
            files = convert_folder(
                picture,
                out,
                converter,
                samples=samples,
                seed=seed,
                refine=refine,
                overwrite=overwrite,
                assets=PictureMode(assets.value),
                report=report,
                on_file=lambda file: show(file, as_json=as_json, out=out),
            )
            raise typer.Exit(BAD_INPUT if any(file.error for file in files) else 0)
        result = convert_file(
            picture,
            out,
            engine=name,
            model=folder_of_model,
            writer=writer,
            samples=samples,
            seed=seed,
            refine=refine,
            ocr=ocr,
            assets=PictureMode(assets.value),
            on_text=None if as_json else stream_to_stderr,
        )
    typer.echo(err=True, nl=not as_json)
    show(result, as_json=as_json, out=out)


def stream_to_stderr(piece: str) -> None:
    """Shows the model at work, token by token."""
    typer.echo(piece, nl=False, err=True)
