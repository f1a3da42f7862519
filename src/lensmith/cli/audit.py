"""`lensmith audit URL`, and beside it `snapshot`, `diff` and `signature`: what an endpoint gives away, and whether it
changed or is the one that it says it is."""

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from lensmith.cli.console.output import show


class _AuditGroup(typer.core.TyperGroup):
    """`lensmith audit URL`, without a subcommand's name, runs the audit."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: typer keeps its own copy of click
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_AuditGroup,
    no_args_is_help=True,
    help="What an endpoint of yours gives away: `lensmith audit URL --model NAME`.",
)

Url = Annotated[str, typer.Argument(help="The endpoint's base URL, such as http://127.0.0.1:8000/v1.")]
Model = Annotated[str | None, typer.Option(help="The model's name there; without it, the only one that is listed.")]
Key = Annotated[str | None, typer.Option("--api-key", envvar="LENSMITH_API_KEY", help="The endpoint's key.")]
Owned = Annotated[
    bool,
    typer.Option("--i-operate-this-endpoint", help="Required for an address that is not this machine's: it is yours."),
]
Queries = Annotated[int, typer.Option("--budget-queries", min=1, help="Most requests, those of earlier runs included.")]
Tokens = Annotated[int, typer.Option("--budget-tokens", min=1, help="Most tokens, sent and received.")]
Rate = Annotated[float, typer.Option("--rate", min=0.01, help="Most requests a second.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the questions.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("run")
def run(
    url: Url,
    model: Model = None,
    out: Annotated[Path, typer.Option(help="Folder of the report and of the event log; a run in it goes on.")] = Path(
        "audit"
    ),
    budget_queries: Queries = 20_000,
    budget_tokens: Tokens = 5_000_000,
    rate: Rate = 50.0,
    truth: Annotated[
        Path | None, typer.Option(help="The model's own weights (safetensors or GGUF), to score a recovered layer.")
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="Least severity that counts: info, low, medium, high or critical.")
    ] = "medium",
    read_out: Annotated[
        list[str] | None,
        typer.Option(help="Try these read-outs only (P1, P2, P3, P4a, P4b, P5, P6 or P7); may be given several times."),
    ] = None,
    contexts: Annotated[
        str,
        typer.Option(help="What is asked: prompt, messages, picture or token-ids; auto tries completions and chat."),
    ] = "auto",
    prices: Annotated[Path | None, typer.Option(help="A price list of yours (TOML).")] = None,
    api_key: Key = None,
    i_operate_this_endpoint: Owned = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Audit an endpoint of your own. Exits with 0 (clean), 1 (findings), 2 (bad usage) or 3 (could not tell).

    Writes events.jsonl, report.json, report.html, report.junit.xml, report.sarif and image.npz.
    """
    from lensmith.audit.report.files import as_dict, as_text
    from lensmith.cli.console.progress import status_line
    from lensmith.workflows.audit import AuditOptions, audit_url

    options = AuditOptions(
        url=url,
        model=model,
        out=out,
        max_queries=budget_queries,
        max_tokens=budget_tokens,
        queries_per_s=rate,
        truth=truth,
        threshold=threshold,
        read_outs=tuple(read_out or ()),
        contexts=contexts,
        prices=prices,
        owned=i_operate_this_endpoint,
        seed=seed,
    )
    with status_line() as on_progress:
        report = audit_url(options, api_key=api_key, on_progress=on_progress)
    show(as_dict(report), as_json=as_json, text=as_text(report))
    raise typer.Exit(report.verdict.exit_code)


@app.command("snapshot")
def snapshot(
    url: Url,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write (.npz).")],
    model: Model = None,
    contexts: Annotated[
        int, typer.Option(min=8, help="How many contexts; more than the model's width, to see its image.")
    ] = 720,
    columns: Annotated[int, typer.Option(min=8, help="How many tokens of each.")] = 1024,
    budget_queries: Queries = 20_000,
    budget_tokens: Tokens = 5_000_000,
    rate: Rate = 50.0,
    api_key: Key = None,
    i_operate_this_endpoint: Owned = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Record an endpoint's outputs on fixed questions, to tell later whether the model behind it changed."""
    from lensmith.cli.console.progress import progress_bar
    from lensmith.workflows.audit import AuditOptions, snapshot_url

    options = AuditOptions(
        url=url,
        model=model,
        out=out.with_suffix(".events"),
        max_queries=budget_queries,
        max_tokens=budget_tokens,
        queries_per_s=rate,
        owned=i_operate_this_endpoint,
        seed=seed,
    )
    with progress_bar("queries") as on_progress:
        result = snapshot_url(
            options, out, contexts=contexts, columns=columns, api_key=api_key, on_progress=on_progress
        )
    show(result, as_json=as_json)


@app.command("diff")
def diff(
    before: Annotated[Path, typer.Argument(help="A snapshot.")],
    after: Annotated[Path, typer.Argument(help="A later snapshot of the same questions.")],
    as_json: Json = False,
) -> None:
    """Tell two snapshots apart: the same, a hidden prompt, a low-rank change, or another model.

    Exits with 0 (the same), 1 (changed) or 3 (could not tell).
    """
    from lensmith.audit.change.snapshot import compare_files

    result: Any = compare_files(before, after)
    show(result, as_json=as_json)
    raise typer.Exit(result.exit_code)


@app.command("signature")
def signature(
    image: Annotated[Path, typer.Argument(help="A model's image: the image.npz that an audit wrote.")],
    url: Url,
    model: Model = None,
    out: Annotated[Path, typer.Option(help="Folder of the event log; what was interrupted in it goes on.")] = Path(
        "signature"
    ),
    outputs: Annotated[int, typer.Option(min=4, help="How many answers to read.")] = 16,
    contexts: Annotated[
        str, typer.Option(help="What is asked: prompt, messages, picture or token-ids; auto: the first that works.")
    ] = "auto",
    budget_queries: Queries = 20_000,
    budget_tokens: Tokens = 5_000_000,
    rate: Rate = 50.0,
    api_key: Key = None,
    i_operate_this_endpoint: Owned = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Tell whether an endpoint's outputs come from the model whose image is known, whatever it is asked.

    A hidden prompt or a fine-tune below the head keeps the image. Exits with 0 (the same image), 1 (another) or 3
    (could not tell).
    """
    from lensmith.cli.console.progress import progress_bar
    from lensmith.workflows.audit import AuditOptions, check_signature_of_url

    options = AuditOptions(
        url=url,
        model=model,
        out=out,
        max_queries=budget_queries,
        max_tokens=budget_tokens,
        queries_per_s=rate,
        contexts=contexts,
        owned=i_operate_this_endpoint,
        seed=seed,
    )
    with progress_bar("outputs") as on_progress:
        result = check_signature_of_url(options, image, outputs=outputs, api_key=api_key, on_progress=on_progress)
    show(result, as_json=as_json)
    raise typer.Exit(result.exit_code)
