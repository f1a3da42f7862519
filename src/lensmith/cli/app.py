"""The command `lensmith`: its parts, and what becomes of an error.

Nothing heavy is imported here or at the top of a command's file, so that `lensmith --help` answers at once. What a
person can have caused ends as a message on stderr and an exit status (0 done or clean, 1 findings, 2 bad usage or
input, 3 could not tell, 130 interrupted); a traceback means a mistake in lensmith.
"""

import errno
import sys
import warnings
from typing import Annotated, NoReturn

import typer

import lensmith
from lensmith.cli import (
    audit,
    chat,
    convert,
    data,
    defences,
    demo,
    evaluate,
    guard,
    html,
    render,
    serve,
    train,
    web_app,
)
from lensmith.cli.console.output import INTERRUPTED
from lensmith.core.errors import InputError, LensmithError

_HINTS = {
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
    errno.EROFS: "choose a place that you may read and write",
    errno.EEXIST: "choose another path: this one exists and is something else",
    errno.ENOTDIR: "choose another path: a part of this one is a file, where a folder is needed",
    errno.EISDIR: "choose another path: this one is a folder, where a file is needed",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "choose another path: this one is a link that leads to itself",
    errno.EBADF: "choose a stream that this command was started with, and that is open in this direction",
    errno.ENXIO: "choose another path: nothing is behind this device",
    errno.EFBIG: "allow larger files (ulimit -f), or choose another disk",
    errno.ENOSPC: "free some space on the disk, or choose another one",
    errno.EDQUOT: "free some space on the disk, or choose another one",
}
"""What a person can do about the state of a disk. Other errors of the system are mistakes in lensmith."""

app = typer.Typer(
    name="lensmith",
    help=lensmith.__doc__,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: loading the decoration takes longer than everything else here
    pretty_exceptions_enable=False,
)
app.command("html")(html.html)
app.command("chat")(chat.chat)
app.command("render")(render.render)
app.command("train")(train.train)
app.command("runs")(train.runs)
app.command("serve")(serve.serve)
app.command("app")(web_app.web_app)
app.command("demo")(demo.demo)
app.command("guard")(guard.guard)
app.command("convert")(convert.convert)
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
        _fail(InputError("no such file or folder", actual=_path(error)))
    except OSError as error:
        if error.errno not in _HINTS or (error.errno == errno.EBADF and error.filename is None):
            raise  # a bad descriptor that nobody named is a mistake of ours
        _fail(InputError((error.strerror or "not possible").lower(), actual=_path(error), hint=_HINTS[error.errno]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _path(error: OSError) -> object:
    """What it is about: of two paths the second, because files are written under another name first."""
    return error.filename if error.filename2 is None else error.filename2


def _fail(error: LensmithError) -> NoReturn:
    typer.echo(f"lensmith: {error}", err=True)
    sys.exit(error.exit_code)
