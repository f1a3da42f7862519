"""`lensmith guard`: a reverse proxy that enforces what an interface may reveal."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.extras import needs

EXPOSE = "What may be told, e.g. top-logprobs=5,no-logit-bias; metadata only where it is named."
UPSTREAM_TAKEN = "When the server takes logprobs: before-bias (vLLM, llama.cpp, lensmith) or after-bias (SGLang, TGI)."
UPSTREAM_TOP = "How many top logprobs the server tells at most."
BIAS = (
    "Distinct ids that one client may bias on one prompt within the window; below the model's width, it stays unread."
)
REFUSE = "A known field not to let through, e.g. response_format; repeatable."
PATHS = "all, chat or completions: completions take token ids, and special tokens outside the template."
METRICS = (
    "Key for /metrics; without, this machine only. Behind a reverse proxy on this machine every caller is it: set one."
)
TOKENS = "as-asked, or ids: tokens are always named by id, so that frozen noise is the one a server would add."


@needs("guard")
def guard(
    upstream: Annotated[str, typer.Option(help="Base URL of the server, e.g. http://127.0.0.1:8000/v1.")],
    expose: Annotated[str, typer.Option(help=EXPOSE)] = "top-logprobs=5,no-logit-bias,penalties=allowed",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    api_key: Annotated[
        list[str] | None, typer.Option(envvar="LENSMITH_GUARD_KEYS", help="A key that clients may use; repeatable.")
    ] = None,
    keys_file: Annotated[Path | None, typer.Option(help="A file of keys, one a line: NAME KEY, or KEY alone.")] = None,
    upstream_key: Annotated[
        str, typer.Option(envvar="LENSMITH_UPSTREAM_KEY", help="The guard's own key at the server.", show_default=False)
    ] = "",
    metrics_key: Annotated[str, typer.Option(envvar="LENSMITH_METRICS_KEY", help=METRICS)] = "",
    unknown_fields: Annotated[str, typer.Option(help="Fields that are not known: strip or refuse.")] = "strip",
    on_refusal: Annotated[str, typer.Option(help="What is not allowed: reject the request, or strip it.")] = "reject",
    pass_field: Annotated[list[str] | None, typer.Option(help="A further field to pass on; repeatable.")] = None,
    refuse_field: Annotated[list[str] | None, typer.Option(help=REFUSE)] = None,
    paths: Annotated[str, typer.Option(help=PATHS)] = "all",
    remote_pictures: Annotated[bool, typer.Option(help="Let clients name pictures by http URL.")] = False,
    upstream_taken: Annotated[str, typer.Option(help=UPSTREAM_TAKEN)] = "before-bias",
    upstream_top_logprobs: Annotated[int, typer.Option(min=0, help=UPSTREAM_TOP)] = 20,
    naming: Annotated[str, typer.Option(help=TOKENS)] = "as-asked",
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests of one client.")] = None,
    bias_per_prompt: Annotated[int | None, typer.Option(min=1, help=BIAS)] = None,
    concurrent_per_client: Annotated[
        int | None, typer.Option(min=1, help="Requests of one client in progress at a time.")
    ] = None,
    window_s: Annotated[float, typer.Option(min=1, help="Window of these statistics in seconds.")] = 600.0,
    on_extraction: Annotated[str, typer.Option(help="Requests that look like an extraction: log or block.")] = "log",
    body_mib: Annotated[int, typer.Option(min=1, help="Largest request body in MiB.")] = 16,
    timeout_s: Annotated[float, typer.Option(min=1, help="Longest silence of the server in seconds.")] = 300.0,
) -> None:
    """Guard an OpenAI-compatible server.

    Requests and answers go through as far as --expose allows; what the guard does not know does not pass.
    """
    from lensmith.core.config import parse_enum
    from lensmith.core.exposure import Taken
    from lensmith.guard import config as parts
    from lensmith.guard.run import guard_exposure, read_keys, run_guard
    from lensmith.hosting.keys import GUARD_KEYS, note_on_keys

    config = parts.GuardConfig(
        upstream=parts.UpstreamConfig(
            url=upstream,
            key=upstream_key,
            logprobs_taken=parse_enum(upstream_taken, Taken, "upstream_taken"),
            top_logprobs=upstream_top_logprobs,
        ),
        exposure=guard_exposure(expose),
        keys=read_keys(api_key or [], keys_file),
        metrics_key=metrics_key,
        unknown_fields=parse_enum(unknown_fields, parts.UnknownFields, "unknown_fields"),
        on_refusal=parse_enum(on_refusal, parts.OnRefusal, "on_refusal"),
        token_naming=parse_enum(naming, parts.TokenNaming, "naming"),
        pass_fields=tuple(pass_field or ()),
        refuse_fields=tuple(refuse_field or ()),
        paths=parse_enum(paths, parts.Paths, "paths"),
        remote_pictures=remote_pictures,
        limits=parts.ResourceLimits(body_bytes=body_mib << 20, concurrent_per_client=concurrent_per_client),
        timeouts=parts.Timeouts(silence_s=timeout_s),
        patterns=parts.PatternConfig(
            window_s=window_s,
            requests_per_minute=requests_per_minute,
            bias_per_prompt=bias_per_prompt,
            on_extraction=parse_enum(on_extraction, parts.OnExtraction, "on_extraction"),
        ),
    )
    if note := note_on_keys(GUARD_KEYS, config.keys):
        typer.echo(note, err=True)
    run_guard(config, host=host, port=port, on_ready=lambda line: typer.echo(line, err=True))
