"""`lensmith audit URL`, and beside it `snapshot`, `diff` and `signature`: what an endpoint gives away, and whether it
changed or is the one that it says it is."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.core

from lensmith.cli.console.extras import needs
from lensmith.cli.console.output import output_path, show
from lensmith.core.errors import InputError

if TYPE_CHECKING:
    from lensmith.audit.querying.config import SessionConfig
    from lensmith.audit.querying.tokens import TokenBytes

Named = TypeVar("Named")


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
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        help="The model's tokenizer (tokenizer.json, GGUF or a folder), for a server that names tokens by text: "
        "fewer queries."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("run")
@needs("audit")
def run(
    context: typer.Context,
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
    tokenizer: Tokenizer = None,
    use_whole_budget: Annotated[
        bool, typer.Option("--use-whole-budget", help="Read on greedy answers that are not expected to show a width.")
    ] = False,
    prices: Annotated[Path | None, typer.Option(help="A price list of yours (TOML).")] = None,
    api_key: Key = None,
    i_operate_this_endpoint: Owned = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Audit an endpoint of your own. Exits with 0 (clean), 1 (findings), 2 (bad usage) or 3 (could not tell).

    Writes events.jsonl, report.json, report.html, report.junit.xml, report.sarif and image.npz.
    """
    from lensmith.audit.findings.finding import ReadOut, Severity
    from lensmith.audit.querying.price import load_prices
    from lensmith.audit.report.files import as_dict, as_text
    from lensmith.audit.run import AuditConfig
    from lensmith.audit.weights.head import open_weights
    from lensmith.cli.console.progress import status_line
    from lensmith.workflows.audit import audit_url

    read_outs = {each.value: each for each in ReadOut}
    config = AuditConfig(
        session=replace(
            _session(url, model, out, budget_queries, budget_tokens, rate, seed, contexts),
            prices=None if prices is None else load_prices(prices),
            tokens=_tokens_of(tokenizer),
            use_whole_budget=use_whole_budget,
        ),
        threshold=_named({each.name.lower(): each for each in Severity}, threshold, "--threshold"),
        read_outs=tuple(_named(read_outs, name, "--read-out") for name in read_out or ()),
        truth=None if truth is None else open_weights(truth),
    )
    with status_line() as on_progress:
        report = audit_url(
            config,
            owned=i_operate_this_endpoint,
            api_key=api_key,
            retest=partial(retest_command, context),
            on_progress=on_progress,
        )
    show(as_dict(report), as_json=as_json, text=as_text(report))
    raise typer.Exit(report.verdict.exit_code)


@app.command("snapshot")
@needs("audit")
def snapshot(
    url: Url,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=output_path,
            help="The file to write (.npz); - is stdout, with a log in ./snapshot.events.",
        ),
    ],
    model: Model = None,
    contexts: Annotated[
        int, typer.Option(min=8, help="How many contexts; more than the model's width, to see its image.")
    ] = 720,
    columns: Annotated[int, typer.Option(min=8, help="How many tokens of each.")] = 1024,
    budget_queries: Queries = 20_000,
    budget_tokens: Tokens = 5_000_000,
    rate: Rate = 50.0,
    tokenizer: Tokenizer = None,
    api_key: Key = None,
    i_operate_this_endpoint: Owned = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Record an endpoint's outputs on fixed questions, to tell later whether the model behind it changed."""
    from lensmith.audit.change.snapshot import SnapshotConfig
    from lensmith.cli.console.progress import progress_bar
    from lensmith.core.files import is_stream
    from lensmith.workflows.audit import snapshot_url

    events = Path("snapshot.events") if is_stream(out) else out.with_suffix(".events")
    session = replace(
        _session(url, model, events, budget_queries, budget_tokens, rate, seed), tokens=_tokens_of(tokenizer)
    )
    config = SnapshotConfig(session=session, contexts=contexts, tokens=columns)
    with progress_bar("queries") as on_progress:
        result = snapshot_url(config, out, owned=i_operate_this_endpoint, api_key=api_key, on_progress=on_progress)
    show(result, as_json=as_json, out=out)


@app.command("diff")
@needs("audit")
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
@needs("audit")
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
    tokenizer: Tokenizer = None,
    api_key: Key = None,
    i_operate_this_endpoint: Owned = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Tell whether an endpoint's outputs come from the model whose image is known, whatever it is asked.

    A hidden prompt or a fine-tune below the head keeps the image. Exits with 0 (the same image), 1 (another) or 3
    (could not tell).
    """
    from lensmith.audit.change.signature import SignatureConfig
    from lensmith.cli.console.progress import progress_bar
    from lensmith.workflows.audit import check_signature_of_url

    session = replace(
        _session(url, model, out, budget_queries, budget_tokens, rate, seed, contexts), tokens=_tokens_of(tokenizer)
    )
    config = SignatureConfig(session=session, outputs=outputs)
    with progress_bar("outputs") as on_progress:
        result = check_signature_of_url(
            config, image, owned=i_operate_this_endpoint, api_key=api_key, on_progress=on_progress
        )
    show(result, as_json=as_json)
    raise typer.Exit(result.exit_code)


def _session(
    url: str, model: str | None, folder: Path, queries: int, tokens: int, rate: float, seed: int, contexts: str = "auto"
) -> "SessionConfig":
    from lensmith.audit.querying.config import SessionConfig
    from lensmith.audit.querying.contexts import ContextForm
    from lensmith.audit.querying.meter import Budget

    forms = {"auto": None, **{each.value: each for each in ContextForm}}
    return SessionConfig(
        target=url,
        model=model or "",
        folder=folder,
        budget=Budget(queries_per_s=rate, max_queries=queries, max_tokens=tokens),
        form=_named(forms, contexts, "--contexts"),
        seed=seed,
    )


def _tokens_of(tokenizer: Path | None) -> "TokenBytes | None":
    from lensmith.audit.querying.tokens import TokenBytes
    from lensmith.audit.weights.tokens import read_token_bytes

    return None if tokenizer is None else TokenBytes(bytes_of=read_token_bytes(tokenizer))


def _named(known: Mapping[str, Named], name: str, option: str) -> Named:
    """What a person typed the name of, in any case."""
    by_name = {each.lower(): value for each, value in known.items()}
    if name.lower() not in by_name:
        raise InputError(f"{option}: no such value", expected=", ".join(known), actual=name)
    return by_name[name.lower()]


IN_RETEST = (
    "contexts",
    "threshold",
    "truth",
    "tokenizer",
    "use_whole_budget",
    "prices",
    "seed",
    "budget_queries",
    "budget_tokens",
    "rate",
    "read_out",
    "i_operate_this_endpoint",
)
"""The options that decide what an audit finds, as a retest names them."""


def retest_command(context: typer.Context, model: str) -> str:
    """The command that audits the same endpoint in the same way again, into a new folder; quoted for a shell.

    Without the API key, and without what the URL may hold of secrets.
    """
    from lensmith.audit.findings.wording import public_target

    words = ["lensmith", "audit", public_target(context.params["url"]), "--model", model]
    options = {option.name: option for option in context.command.params}
    for name in IN_RETEST:
        value, flag = context.params[name], options[name].opts[0]
        if value is True:
            words.append(flag)
        elif value and value != options[name].default:
            for each in value if isinstance(value, list | tuple) else (value,):
                words += [flag, str(each)]
    return shlex.join([*words, "--out", "NEW-FOLDER"])
