"""Who writes the HTML of a screenshot: any endpoint that reads pictures, behind a URL or in this process (`local.py`).

What a general model wraps around its page (an explanation, a Markdown fence) is left out; a bare answer is taken whole.
"""

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

from lensmith.core.endpoint import Choice, Endpoint, Finish, Request
from lensmith.core.types import Message, Picture

MAX_NEW_TOKENS = 1024
TEMPERATURE = 0.5
TOP_P = 0.95
INSTRUCTION = (
    "Write one complete HTML document whose rendering looks like this screenshot: the same text, colours and layout. "
    "Put all CSS inside it, load nothing, and answer with the HTML alone."
)
REVISION = (
    "Rendered in a window {width_px} px wide, your page differs from the screenshot (places and sizes in px: "
    "left,top width x height):\n{remarks}\nWrite the whole document again with these differences mended. Keep what was "
    "right, and answer with the HTML alone."
)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)(?:```|\Z)", re.DOTALL)

OnText = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a model wrote, and why it ended there."""

    text: str
    finish: Finish


class PageWriter(Protocol):
    """Writes HTML from screenshots."""

    def greedy(self, picture: Image.Image, on_text: OnText) -> Completion:
        """The most likely page; `on_text` hears its pieces as they come."""

    def sampled(self, picture: Image.Image, samples: int, seed: int) -> list[Completion]:
        """That many other pages."""

    def greedy_many(self, pictures: Sequence[Image.Image]) -> list[Completion]:
        """The most likely page of each picture."""


class StreamingEndpoint(Endpoint, Protocol):
    """An endpoint that can tell an answer's text as it comes."""

    def stream(self, request: Request) -> Iterator[str]:
        """The text of the one answer, in pieces."""


class EndpointWriter:
    """A model behind an interface. Pictures are sent as PNG inside the request."""

    def __init__(
        self,
        endpoint: StreamingEndpoint,
        *,
        instruction: str = INSTRUCTION,
        max_tokens: int = MAX_NEW_TOKENS,
        png_compression: int = 6,
    ) -> None:
        self.endpoint = endpoint
        self._png_compression = png_compression
        self._instruction = instruction
        self._max_tokens = max_tokens

    def greedy(self, picture: Image.Image, on_text: OnText) -> Completion:
        return self._written(self.request(picture), on_text)

    def sampled(self, picture: Image.Image, samples: int, seed: int) -> list[Completion]:
        request = replace(self.request(picture), temperature=TEMPERATURE, top_p=TOP_P)
        # One request a sample, each with its seed: many servers take no n, and all answer several requests at once.
        requests = [replace(request, seed=seed + number) for number in range(samples)]
        return [completion_of(answer.choices[0]) for answer in self.endpoint.answer(requests)]

    def greedy_many(self, pictures: Sequence[Image.Image]) -> list[Completion]:
        answers = self.endpoint.answer([self.request(picture) for picture in pictures])
        return [completion_of(answer.choices[0]) for answer in answers]

    def _written(self, request: Request, on_text: OnText) -> Completion:
        pieces = []
        for piece in self.endpoint.stream(request):
            pieces.append(piece)
            on_text(piece)
        return _unwrapped(_streamed(pieces))

    def request(self, picture: Image.Image) -> Request:
        """What is asked for a page: greedy, and one answer, until more is said."""
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=self._png_compression)
        parts = (Picture(data=file.getvalue()), *((self._instruction,) if self._instruction else ()))
        message = Message(role="user", parts=parts)
        return Request(messages=(message,), max_tokens=self._max_tokens, temperature=0.0)


class InstructedWriter(EndpointWriter):
    """A model that does what words ask: it takes hints beside the picture, and improves a page that it is shown."""

    def hinted(self, hints: str) -> "InstructedWriter":
        """The same writer, with what is known of the picture told beside the instruction."""
        return InstructedWriter(
            self.endpoint,
            instruction=f"{self._instruction}\n\n{hints}".strip(),
            max_tokens=self._max_tokens,
            png_compression=self._png_compression,
        )

    def revised(
        self, picture: Image.Image, html: str, words: str, on_text: OnText, *, seed: int | None = None
    ) -> Completion:
        """The page that it makes of its page `html` after being told `words`. Greedy, or sampled where there is a seed.

        `on_text` hears its pieces as they come.
        """
        asked = self.request(picture)
        turns = (Message(role="assistant", parts=(html,)), Message(role="user", parts=(words,)))
        request = replace(asked, messages=(*asked.messages, *turns))
        if seed is not None:
            request = replace(request, temperature=TEMPERATURE, top_p=TOP_P, seed=seed)
        return self._written(request, on_text)


def _streamed(pieces: Sequence[str]) -> Completion:
    text = "".join(pieces)
    # A stream does not say why it ended; a page that is complete ends with its body, or after it.
    whole = re.search(r"</(body|html)>\s*(```)?", text) is not None
    return Completion(text=text, finish=Finish.STOP if whole else Finish.LENGTH)


def completion_of(choice: Choice) -> Completion:
    """The page in an answer, without what was wrapped around it."""
    return _unwrapped(Completion(text=choice.text, finish=choice.finish))


def _unwrapped(completion: Completion) -> Completion:
    fence = _FENCE.search(completion.text)
    return completion if fence is None else replace(completion, text=fence.group(1))


@contextlib.contextmanager
def endpoint_writer(
    url: str, model: str | None = None, *, api_key: str | None = None, instruction: str | None = None
) -> Iterator[InstructedWriter]:
    """A writer behind the URL of an OpenAI-compatible endpoint; `model` None: the only one that it lists.

    `instruction`: what is asked beside the picture; None for a usual wording, empty for the picture alone.
    """
    from lensmith.endpoints.http.client import connect  # noqa: PLC0415 - other engines ask no server

    with connect(url, model, api_key=api_key) as client:
        yield InstructedWriter(client, instruction=INSTRUCTION if instruction is None else instruction)
