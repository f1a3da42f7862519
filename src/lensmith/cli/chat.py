"""`lensmith chat`: a conversation about pictures, or without."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmith.cli.console.extras import needs
from lensmith.cli.console.model_options import Exact, PictureDecoding
from lensmith.cli.console.output import input_path, show
from lensmith.core.errors import InputError

if TYPE_CHECKING:
    from lensmith.workflows.chat.conversation import Chat, IsStopped, Reply, Speaker

# A model may write whatever a picture tells it to; a terminal would obey some of it.
_UNSEEN = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_NOTES = {"length": "(cut at --max-tokens)", "interrupted": "(stopped)"}
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@needs("models")
def chat(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURE... QUESTION",
            help="Pictures (- is stdin), then a question. Without a question: a conversation.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder, a GGUF file, or a name on the Hub; its name, with --endpoint.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Talk to an OpenAI-compatible server instead.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="LENSMITH_API_KEY", help="Key for --endpoint.")] = None,
    system: Annotated[
        str | None, typer.Option(help="System message, instead of the model's own; empty for none.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Sample from the likeliest tokens of this mass.")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text before which an answer ends; may be given several times.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or int8 (weights only).")] = "float32",
    device: Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")] = "cpu",
    exact: Exact = None,
    picture_decoding: PictureDecoding = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each answer as a JSON object, with times.")] = False,
) -> None:
    """Ask a model, about pictures or without.

    With a question, its answer is printed as it comes. Without one, lines are read and answered in turn; /help tells
    the commands.
    """
    from lensmith.workflows.chat.conversation import Chat, ChatSettings, endpoint_speaker, read_picture
    from lensmith.workflows.chat.session import run_session

    if endpoint and (exact or picture_decoding):
        raise InputError(
            "--exact and --picture-decoding are for a model in this process", expected="neither of them with --endpoint"
        )
    paths, question = _split(words or [])
    pictures = [read_picture(path) for path in paths]  # before a model is loaded, which takes longer
    settings = ChatSettings(
        system=system, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=tuple(stop or ())
    )
    local = {"dtype": dtype, "device": device, "exact": exact, "picture_decoding": picture_decoding}
    with endpoint_speaker(endpoint, model, api_key=api_key) if endpoint else _local(model, **local) as who:
        conversation = Chat(who, settings)
        conversation.attach(pictures)
        terminal = Console(conversation, as_json=as_json)
        if question is None:
            terminal.greet()
            run_session(conversation, terminal)
        else:
            terminal.answered(conversation.ask(question, on_text=terminal.text))


@contextlib.contextmanager
def _local(model: str | None, **options: Any) -> Iterator["Speaker"]:
    if model is None:
        raise InputError("which model?", expected="--model FOLDER, or --endpoint URL")
    from lensmith.workflows.chat.local import local_speaker

    yield local_speaker(model, **options)


def _split(words: list[str]) -> tuple[list[Path], str | None]:
    """Pictures and the question. The last word is a picture only if it is or looks like a file of one."""
    if not words:
        return [], None
    *paths, last = words
    looks_like_one = last == "-" or (last.lower().endswith(_PICTURE_SUFFIXES) and " " not in last)
    if looks_like_one or os.path.isfile(last):  # noqa: PTH113  # a Path raises for a question that is too long
        if "-" in words:
            raise InputError(
                "standard input cannot be both a picture and the conversation",
                expected="a question after the pictures",
                actual="pictures only",
            )
        return [Path(word) for word in words], None
    return [input_path(Path(word)) for word in paths], last


class Console:
    """Answers on stdout; prompts and notes on stderr, or where a line editor puts them."""

    def __init__(self, conversation: "Chat", *, as_json: bool) -> None:
        self._conversation, self._as_json = conversation, as_json
        self._is_person, self._is_seen = sys.stdin.isatty(), sys.stdout.isatty()
        self._is_within_line = False

    def greet(self) -> None:
        if self._is_person:
            with contextlib.suppress(ImportError):  # not on every system; input() then has no history
                import readline  # noqa: F401  # editing and history for input()
            attached = len(self._conversation.attached)
            pictures = f", {attached} attached" if attached else ""
            self.note(f"{self._conversation.speaker.name}{pictures} (/help for commands)")

    def line(self) -> str | None:
        try:
            return input("> " if self._is_person else "")
        except EOFError:
            if self._is_person:
                typer.echo(err=True)
            return None
        except UnicodeDecodeError as error:
            raise InputError("the input is not text", expected=f"{error.encoding}", actual=error.reason) from error

    def text(self, piece: str) -> None:
        if not self._as_json:
            typer.echo(piece.translate(_UNSEEN) if self._is_seen else piece, nl=False)
            sys.stdout.flush()
            self._is_within_line = True

    def answered(self, reply: "Reply") -> None:
        show(reply, as_json=self._as_json, text="")  # what was shown already ends with its line
        self._is_within_line = False
        if not self._as_json and reply.finish in _NOTES:
            self.note(_NOTES[reply.finish])

    def note(self, text: str) -> None:
        if self._is_within_line:
            typer.echo()
            self._is_within_line = False
        typer.echo(text, err=True)

    @contextlib.contextmanager
    def stopping(self) -> Iterator["IsStopped"]:
        pressed: list[int] = []

        def on_signal(number: int, frame: FrameType | None) -> None:
            if pressed or self._conversation.speaker.stops_at_once:
                raise KeyboardInterrupt
            pressed.append(number)

        before = signal.signal(signal.SIGINT, on_signal)
        try:
            yield lambda: bool(pressed)
        finally:
            signal.signal(signal.SIGINT, before)
