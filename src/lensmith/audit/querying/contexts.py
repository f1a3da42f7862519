"""The questions of an audit: random, harmless, and the same again from the same seed.

What a context says is of no interest; it has to bring the model into a state of its own. So a text is a handful of
random common words, and a picture is a handful of random coloured rectangles.
"""

import enum
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from PIL import Image, ImageDraw

from lensmith.core.endpoint import Request
from lensmith.core.types import Message, Picture

_WORDS = (
    "river stone table green window paper silver garden winter letter music bridge yellow morning engine forest candle "
    "ocean mirror copper village thunder basket marble rocket pepper canvas harbor velvet spider market island desert "
    "hammer ribbon castle violin meadow tunnel puzzle orchid lantern anchor saddle pocket feather circle cotton planet "
    "shadow hollow gentle seven narrow bright early broken heavy simple under before after while because never always"
).split()
_WORDS_A_TEXT = 10
_PICTURE_PX = (384, 192)
_FIRST_IDS = range(3, 90)
"""Token ids that any vocabulary has."""


class ContextForm(enum.Enum):
    """How a context is put. `auto` in a command means: the first of these that the endpoint answers."""

    PROMPT = "prompt"
    MESSAGES = "messages"
    PICTURE = "picture"
    TOKEN_IDS = "token-ids"


class Route(enum.Enum):
    """The two ways to ask an OpenAI-compatible server, which may be filtered differently."""

    COMPLETIONS = "completions"
    CHAT = "chat"


def route_of(form: ContextForm) -> Route:
    """Where contexts of this form go."""
    return Route.CHAT if form in (ContextForm.MESSAGES, ContextForm.PICTURE) else Route.COMPLETIONS


class Contexts:
    """An endless sequence of contexts in one form; the same for the same seed."""

    def __init__(self, form: ContextForm, seed: int) -> None:
        self.form = form
        self.seed = seed

    def __getitem__(self, number: int) -> Request:
        asked = _MAKERS[self.form](random.Random(f"{self.seed}.{self.form.value}.{number}"))
        return replace(asked, max_tokens=1, temperature=0.0)

    def take(self, start: int, stop: int) -> list[Request]:
        return [self[number] for number in range(start, stop)]


def first_of_each_form(seed: int) -> list[Request]:
    """One context in each form, the cheapest first: what a probe tries."""
    return [Contexts(form, seed)[0] for form in ContextForm]


def form_of(context: Request) -> ContextForm:
    """The form that a context has."""
    if context.prompt:
        return ContextForm.PROMPT
    if context.token_ids:
        return ContextForm.TOKEN_IDS
    parts = [part for message in context.messages for part in message.parts]
    return ContextForm.PICTURE if any(isinstance(part, Picture) for part in parts) else ContextForm.MESSAGES


def _text(rng: random.Random) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(_WORDS_A_TEXT))


def _prompt(rng: random.Random) -> Request:
    return Request(prompt=_text(rng))


def _messages(rng: random.Random) -> Request:
    return Request(messages=(Message(role="user", parts=(_text(rng),)),))


def _token_ids(rng: random.Random) -> Request:
    return Request(token_ids=tuple(rng.choice(_FIRST_IDS) for _ in range(_WORDS_A_TEXT)))


def _picture(rng: random.Random) -> Request:
    width_px, height_px = _PICTURE_PX
    picture = Image.new("RGB", _PICTURE_PX, _colour(rng))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        left, right = sorted((rng.randrange(width_px), rng.randrange(width_px)))
        top, bottom = sorted((rng.randrange(height_px), rng.randrange(height_px)))
        draw.rectangle((left, top, right, bottom), fill=_colour(rng))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return Request(messages=(Message(role="user", parts=(Picture(data=file.getvalue()),)),))


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


_MAKERS: Mapping[ContextForm, Callable[[random.Random], Request]] = {
    ContextForm.PROMPT: _prompt,
    ContextForm.MESSAGES: _messages,
    ContextForm.PICTURE: _picture,
    ContextForm.TOKEN_IDS: _token_ids,
}
