"""`lensmith html`: a screenshot to HTML."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import input_path, output_path, show


@needs("html")
def html(
    picture: Annotated[
        Path, typer.Argument(callback=input_path, help="The screenshot: PNG, JPEG, WEBP, GIF, BMP or TIFF; - is stdin.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", callback=output_path, help="The HTML file to write; - is stdout.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Candidates to render; the closest is kept.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Folder of a model other than the one that ships; its name, with --endpoint.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Let an OpenAI-compatible server that reads pictures write the HTML."),
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="LENSMITH_API_KEY", help="Key for --endpoint.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="What to ask the endpoint for, beside the picture; empty for the picture alone.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the candidates after the first.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a screenshot into HTML.

    The HTML stands alone, is well formed, and its rendering is compared with the screenshot.
    """
    from lensmith.workflows.html.convert import convert_file
    from lensmith.workflows.html.writers import endpoint_writer

    on_text = None if as_json else stream_to_stderr
    with contextlib.ExitStack() as stack:
        writer = None
        if endpoint is not None:
            writer = stack.enter_context(endpoint_writer(endpoint, model, api_key=api_key, instruction=instruction))
        result = convert_file(picture, out, model=model, writer=writer, samples=samples, seed=seed, on_text=on_text)
    typer.echo(err=True, nl=not as_json)
    show(result, as_json=as_json, out=out)


def stream_to_stderr(piece: str) -> None:
    """Shows the model at work, token by token."""
    typer.echo(piece, nl=False, err=True)
