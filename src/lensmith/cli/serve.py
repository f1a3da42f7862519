"""`lensmith serve`: a model behind OpenAI's interface."""

from typing import Annotated

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.model_options import Exact, PictureDecoding


@needs("serve")
def serve(
    model: Annotated[
        str,
        typer.Argument(help="A folder, a GGUF file, or a name on the Hub; sightseer_nano is the model that ships."),
    ],
    expose: Annotated[
        str, typer.Option(help="What the server reveals, such as top-logprobs=5,no-logit-bias or text-only.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="LENSMITH_SERVE_KEYS", help="A key that clients must have; may be given several times."),
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="What clients call the model; its folder's or file's name by default.")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Answers that are generated at once.")] = 8,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, or int8: 8-bit weights, the rest bfloat16.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")] = "cpu",
    exact: Exact = None,
    picture_decoding: PictureDecoding = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompt and answer together; the model's own limit by default.")
    ] = None,
    cache_mib: Annotated[
        int, typer.Option(min=0, help="Memory for prompts and pictures that may come again, in MiB.")
    ] = 512,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; further ones get status 429.")] = 256,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Time limit of one request, in seconds.")] = 600.0,
    body_mib: Annotated[int, typer.Option(min=1, help="The largest request body, in MiB.")] = 32,
    picture_host: Annotated[
        list[str] | None, typer.Option(help="A host that pictures may be fetched from; may be given several times.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="A web origin whose pages may ask, such as https://example.com; * is any; may be given several times."
        ),
    ] = None,
) -> None:
    """Serve a model with OpenAI's interface: completions and chat, with pictures where the model reads them.

    For one machine. The address is printed on stderr once requests are answered; Ctrl-C finishes what was accepted.
    """
    from lensmith.core.exposure import parse_exposure
    from lensmith.hosting.keys import SERVE_KEYS, note_on_keys
    from lensmith.models.inference.loading import given_options
    from lensmith.serve.config import Access, ServerConfig, ServerLimits
    from lensmith.serve.run import serve as serve_model

    if note := note_on_keys(SERVE_KEYS, api_key or ()):
        typer.echo(note, err=True)
    config = ServerConfig(
        model=model,
        name=served_model_name,
        dtype=dtype,
        device=device,
        options=given_options(exact=exact, picture_decoding=picture_decoding),
        max_length=max_model_len,
        cache_bytes=cache_mib << 20,
        exposure=parse_exposure(expose),
        slots=slots,
        limits=ServerLimits(
            body_bytes=body_mib << 20,
            waiting_requests=waiting,
            timeout_s=timeout_s,
            picture_hosts=tuple(picture_host or ()),
        ),
        access=Access(keys=tuple(api_key or ()), origins=tuple(allow_origin or ())),
        host=host,
        port=port,
    )
    typer.echo(f"loading {model}", err=True)
    serve_model(config, on_ready=lambda url: typer.echo(f"serving at {url}", err=True))
