"""The command `lensmith`: its parts, and what becomes of an error.

Nothing heavy is imported here or at the top of a command's file, so that `lensmith --help` answers at once. What a
person can have caused ends as a message on stderr and an exit status (0 done or clean, 1 findings, 2 bad usage or
input, 3 could not tell, 130 interrupted); a traceback means a mistake in lensmith.
"""

import sys
import warnings
from typing import Annotated, NoReturn

import typer

import lensmith
from lensmith.cli import audit, data, defences, demo, evaluate, guard, html, render, serve, train
from lensmith.cli.output import INTERRUPTED
from lensmith.core.errors import InputError, LensmithError

app = typer.Typer(
    name="lensmith",
    help=lensmith.__doc__,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: loading the decoration takes longer than everything else here
    pretty_exceptions_enable=False,
)
app.command("html")(html.html)
app.command("render")(render.render)
app.command("train")(train.train)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("guard")(guard.guard)
app.command("defences")(defences.defences)
app.add_typer(audit.app, name="audit")
app.add_typer(evaluate.app, name="eval")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lensmith {lensmith.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # Decoders warn about broken pictures that they then refuse; the error that follows says it better.
    warnings.filterwarnings("ignore", module="PIL")


def main() -> None:
    """The entry point: runs the command in `sys.argv` and exits."""
    run(app)


def run(commands: typer.Typer) -> NoReturn:
    """Runs what `sys.argv` asks of `commands`, and exits with the status that the outcome deserves."""
    try:
        commands(prog_name="lensmith")
    except LensmithError as error:
        _fail(error)
    except FileNotFoundError as error:
        _fail(InputError("no such file or folder", actual=error.filename))
    except PermissionError as error:
        _fail(InputError("not permitted", actual=error.filename, hint="choose a place that you may read and write"))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _fail(error: LensmithError) -> NoReturn:
    typer.echo(f"lensmith: {error}", err=True)
    sys.exit(error.exit_code)
