"""The conversation and its commands, with speakers that say what the test wants."""

import contextlib

import pytest
from PIL import Image

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError, LensmithError
from lensmith.workflows.chat.conversation import Chat, ChatSettings, EndpointSpeaker, Spoken, read_picture
from lensmith.workflows.chat.session import run_session


class Script:
    """Says the texts one after the other; an exception in their place is raised."""

    name, stops_at_once, reads_pictures = "script", False, True

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def speak(self, request, on_text, is_stopped):
        self.asked.append(request.messages)
        text = self.texts.pop(0)
        if isinstance(text, BaseException):
            raise text
        said = ""
        for character in text:
            if is_stopped():
                return Spoken(text=said, interrupted=True)
            said += character
            on_text(character)
        return Spoken(text=said, finish=Finish.STOP, tokens=len(said))


class Lines:
    """A terminal that types these lines; an exception among them is raised."""

    def __init__(self, *lines, stop_after=None):
        self.lines, self.shown, self.notes, self.replies = list(lines), "", [], []
        self.stop_after = stop_after

    def line(self):
        line = self.lines.pop(0) if self.lines else None
        if isinstance(line, BaseException):
            raise line
        return line

    def text(self, piece):
        self.shown += piece

    def answered(self, reply):
        self.replies.append(reply)

    def note(self, text):
        self.notes.append(text)

    @contextlib.contextmanager
    def stopping(self):
        yield lambda: self.stop_after is not None and len(self.shown) >= self.stop_after


def said(messages):
    return [(message.role, *message.parts) for message in messages]


def test_each_turn_is_asked_with_those_before():
    speaker = Script(" One. ", "Two.")
    chat = Chat(speaker, ChatSettings(system="Be short."))
    assert chat.ask("a").answer == "One."
    chat.ask("b")
    assert said(speaker.asked[1]) == [("system", "Be short."), ("user", "a"), ("assistant", "One."), ("user", "b")]


def test_white_space_before_an_answer_is_not_shown():
    terminal = Lines("a")
    run_session(Chat(Script(" \n One two ")), terminal)
    assert terminal.shown == "One two "
    assert terminal.replies[0].answer == "One two"


def test_a_stopped_answer_is_kept_as_far_as_it_went():
    speaker = Script("One two three", "Four")
    terminal = Lines("a", "b", stop_after=5)
    run_session(Chat(speaker), terminal)
    assert terminal.shown == "One t"
    assert [reply.finish for reply in terminal.replies] == ["interrupted", "interrupted"]
    assert said(speaker.asked[1]) == [("user", "a"), ("assistant", "One t"), ("user", "b")]


def test_a_question_without_an_answer_is_forgotten_and_its_pictures_stay(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    speaker = Script(LensmithError("it failed"), KeyboardInterrupt(), "One")
    terminal = Lines(f"/picture {tmp_path / 'a.png'}", "a", "b", "c")
    run_session(Chat(speaker), terminal)
    assert said(speaker.asked[2]) == [("user", picture, "c")]
    assert terminal.notes == [
        "(1 attached to the next question)",
        "lensmith: it failed",
        "(stopped; the question is forgotten)",
    ]
    assert terminal.replies[0].pictures == 1


@pytest.mark.parametrize("path", ["{}", "'{}'", '"{}"', " {} "])
def test_a_path_is_taken_as_terminals_paste_it(tmp_path, path):
    file = tmp_path / "two words.png"
    Image.new("RGB", (4, 4)).save(file)
    chat = Chat(Script("One"))
    run_session(chat, Lines("/picture " + path.format(file)))
    assert len(chat.attached) == 1


def test_a_line_that_begins_with_a_space_is_a_question():
    speaker = Script("One")
    terminal = Lines(" /clear what?", "/clear", "/nonsense", KeyboardInterrupt(), "/exit", "never")
    run_session(Chat(speaker), terminal)
    assert said(speaker.asked[0]) == [("user", "/clear what?")]
    assert terminal.notes[0] == "(cleared)"
    assert terminal.notes[1].startswith("/nonsense: not a command")
    assert "Ctrl-D" in terminal.notes[2]
    assert terminal.lines == ["never"]


def test_pictures_for_who_reads_none_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    speaker = Script("One")
    speaker.reads_pictures = False
    with pytest.raises(InputError, match="reads no pictures"):
        Chat(speaker).attach([read_picture(tmp_path / "a.png")])


class Streaming:
    """A client whose stream gives these pieces; an exception among them is raised."""

    model = "remote"

    def __init__(self, *pieces):
        self.pieces, self.is_closed = pieces, False

    def stream(self, request):
        try:
            for piece in self.pieces:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.is_closed = True


def test_an_endpoints_answer_can_be_stopped_at_once_and_its_stream_is_closed():
    client = Streaming("One ", "two", KeyboardInterrupt(), "three")
    reply = Chat(EndpointSpeaker(client)).ask("a")
    assert (reply.answer, reply.finish, reply.tokens) == ("One two", "interrupted", None)
    assert client.is_closed
    client = Streaming(KeyboardInterrupt())
    chat = Chat(EndpointSpeaker(client))
    with pytest.raises(KeyboardInterrupt):
        chat.ask("a")
    assert not chat.history
    client = Streaming("One ", "two")
    assert Chat(EndpointSpeaker(client)).ask("a", is_stopped=lambda: True).answer == "One"
    assert client.is_closed
