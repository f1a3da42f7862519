"""A conversation about pictures, with whoever speaks: any OpenAI-compatible endpoint, or a model (`chat_local`)."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lensmith.core.endpoint import Finish, Request
from lensmith.core.errors import InputError
from lensmith.core.images import encoded_picture
from lensmith.core.types import Message, Picture
from lensmith.endpoints.http.client import HttpClient, connect

OnText = Callable[[str], None]
IsStopped = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How answers are made. `temperature` 0 is greedy; `system` None: what the model was trained with, if anything."""

    system: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer. `finish`: stop, length or interrupted. What an endpoint does not tell is None.

    `known_tokens` of the prompt's had been read before. `seconds` are all it took, `first_s` until the first text, and
    `tokens_per_s` the pace from then on.
    """

    answer: str
    finish: str | None
    pictures: int
    prompt_tokens: int | None
    known_tokens: int | None
    tokens: int | None
    seconds: float
    first_s: float | None
    tokens_per_s: float | None


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What a speaker said, and what it tells of it."""

    text: str
    finish: Finish | None = None
    interrupted: bool = False
    prompt_tokens: int | None = None
    known_tokens: int | None = None
    tokens: int | None = None


class Speaker(Protocol):
    """Who answers."""

    name: str
    stops_at_once: bool
    """Whether a KeyboardInterrupt may be raised within `speak`."""

    @property
    def reads_pictures(self) -> bool: ...

    def speak(self, request: Request, on_text: OnText, is_stopped: IsStopped) -> Spoken:
        """Answers; `on_text` hears the pieces as they come, and as soon as `is_stopped` says so there are no more."""


class EndpointSpeaker:
    """A model behind an interface. Its stream tells text only, and may be long in coming."""

    stops_at_once = True

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self.name = client.model

    @property
    def reads_pictures(self) -> bool:
        return True  # the server knows

    def speak(self, request: Request, on_text: OnText, is_stopped: IsStopped) -> Spoken:
        texts: list[str] = []
        interrupted = False
        with contextlib.closing(self._client.stream(request)) as pieces:  # type: ignore[type-var]  # a generator
            try:
                for piece in pieces:
                    texts.append(piece)
                    on_text(piece)
                    if is_stopped():
                        interrupted = True
                        break
            except KeyboardInterrupt:
                if not texts:
                    raise
                interrupted = True
        return Spoken(text="".join(texts), interrupted=interrupted)


class Chat:
    """A conversation. Pictures that are attached go with the next question, before it."""

    def __init__(self, speaker: Speaker, settings: ChatSettings | None = None) -> None:
        self.speaker, self.settings = speaker, settings or ChatSettings()
        self.history: list[Message] = []
        self.attached: list[Picture] = []

    def attach(self, pictures: Sequence[Picture]) -> None:
        """Raises InputError where the model reads none."""
        if pictures and not self.speaker.reads_pictures:
            raise InputError(
                "this model reads no pictures", expected="a vision-language model", actual=self.speaker.name
            )
        self.attached.extend(pictures)

    def clear(self) -> None:
        """Forgets what was said and attached."""
        self.history.clear()
        self.attached.clear()

    def ask(
        self,
        question: str,
        *,
        on_text: OnText = lambda piece: None,
        is_stopped: IsStopped = lambda: False,
    ) -> Reply:
        """Asks, and keeps question and answer in mind. What fails, or says nothing before it is stopped, is not kept.

        Raises InputError where the conversation makes no sense for the model, such as one that is too long.
        """
        if not question.strip() and not self.attached:
            raise InputError("there is nothing to ask", expected="a question, or a picture")
        asked = Message(role="user", parts=(*self.attached, _sendable(question)))
        watch = _Watch(on_text)
        spoken = self.speaker.speak(self._request(asked), watch.take, is_stopped)
        reply = watch.reply(spoken, pictures=len(self.attached))
        self.attached.clear()
        if reply.answer or not spoken.interrupted:
            self.history += [asked, Message(role="assistant", parts=(reply.answer,))]
        return reply

    def _request(self, asked: Message) -> Request:
        settings = self.settings
        system = [] if settings.system is None else [Message(role="system", parts=(_sendable(settings.system),))]
        return Request(
            messages=(*system, *self.history, asked),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=settings.seed,
            stop=settings.stop,
        )


class _Watch:
    """Passes text on, without white space at its beginning, and takes the times."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._began = time.monotonic()
        self._first_s: float | None = None
        self._has_begun = False

    def take(self, piece: str) -> None:
        if self._first_s is None:
            self._first_s = time.monotonic() - self._began
        shown = piece if self._has_begun else piece.lstrip()
        if shown:
            self._has_begun = True
            self._on_text(shown)

    def reply(self, spoken: Spoken, *, pictures: int) -> Reply:
        seconds = time.monotonic() - self._began
        finish = "interrupted" if spoken.interrupted else None if spoken.finish is None else spoken.finish.value
        pace = None
        if spoken.tokens is not None and spoken.tokens > 1 and self._first_s is not None and seconds > self._first_s:
            pace = (spoken.tokens - 1) / (seconds - self._first_s)
        return Reply(
            answer=spoken.text.strip(),
            finish=finish,
            pictures=pictures,
            prompt_tokens=spoken.prompt_tokens,
            known_tokens=spoken.known_tokens,
            tokens=spoken.tokens,
            seconds=seconds,
            first_s=self._first_s,
            tokens_per_s=pace,
        )


def read_picture(path: str | Path) -> Picture:
    """A picture from a file. Raises ImageError where there is none, or none that can be read."""
    return Picture(data=encoded_picture(path))


def _sendable(text: str) -> str:
    """Without what is no character: a terminal's bytes that were not UTF-8."""
    return text.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def endpoint_speaker(url: str, model: str | None = None, *, api_key: str | None = None) -> Iterator[EndpointSpeaker]:
    """The model of an endpoint; `model` None: the only one that it lists. Raises InputError where it lists others."""
    with connect(url, model, api_key=api_key) as client:
        yield EndpointSpeaker(client)
