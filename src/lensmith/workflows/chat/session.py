"""An interactive conversation: lines in, answers out, and a few commands."""

import contextlib
from pathlib import Path
from typing import Protocol

from lensmith.core.errors import LensmithError
from lensmith.workflows.chat.conversation import Chat, IsStopped, Reply, read_picture

HELP = """/picture FILE  attach a picture to the next question; several may be attached
/clear         forget the conversation
/help          this text
/exit          leave; so does Ctrl-D
Ctrl-C stops an answer. A line that begins with a space is a question, whatever follows."""


class Terminal(Protocol):
    """Where a person sits, or a program."""

    def line(self) -> str | None:
        """The next line, without its end; None: there are no more.

        Raises KeyboardInterrupt for Ctrl-C, InputError for what is no text, after which there is no more either.
        """

    def text(self, piece: str) -> None:
        """Shows a piece of an answer."""

    def answered(self, reply: Reply) -> None:
        """The answer is complete, or was stopped."""

    def note(self, text: str) -> None:
        """Shows what is not an answer."""

    def stopping(self) -> contextlib.AbstractContextManager[IsStopped]:
        """While it is entered, Ctrl-C does not raise at first; what it gives says whether it was pressed."""


def run_session(chat: Chat, terminal: Terminal) -> None:
    """Until the end of input or /exit. What goes wrong with one line is told, and the next is read."""
    while True:
        try:
            line = terminal.line()
        except KeyboardInterrupt:
            terminal.note("(/exit or Ctrl-D to leave)")
            continue
        if line is None or line.strip() == "/exit":
            return
        try:
            if line.startswith("/"):
                _obey(line, chat, terminal)
            elif line.strip():
                _ask(line.strip(), chat, terminal)
        except LensmithError as error:
            terminal.note(f"lensmith: {error}")


def _ask(question: str, chat: Chat, terminal: Terminal) -> None:
    try:
        with terminal.stopping() as is_stopped:
            reply = chat.ask(question, on_text=terminal.text, is_stopped=is_stopped)
    except KeyboardInterrupt:
        terminal.note("(stopped; the question is forgotten)")
        return
    terminal.answered(reply)


def _obey(line: str, chat: Chat, terminal: Terminal) -> None:
    command, _, argument = line.strip().partition(" ")
    match command:
        case "/picture" if argument.strip():
            # As terminals paste a path: with quotes, or with a tilde.
            chat.attach([read_picture(Path(argument.strip().strip("'\"")).expanduser())])
            terminal.note(f"({len(chat.attached)} attached to the next question)")
        case "/clear":
            chat.clear()
            terminal.note("(cleared)")
        case "/help":
            terminal.note(HELP)
        case _:
            terminal.note(f"{command}: not a command\n{HELP}")
