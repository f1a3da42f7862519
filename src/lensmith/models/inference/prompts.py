"""Requests to prompts: chat templates, token ids, and pictures as the tower reads them.

Legend: P prompt positions.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import Feature, RefusedError, Request, Reveal
from lensmith.core.errors import ImageError, InputError
from lensmith.core.images import DEFAULT_LIMITS, ImageLimits
from lensmith.core.types import Message, Picture
from lensmith.models.inference.lru import ByteLru
from lensmith.models.inference.prefill import PreparedPicture, Prompt
from lensmith.models.processor import VisionLanguageProcessor

_PICTURES_KEPT_BYTES = 64 << 20


class PromptMaker(Protocol):
    """Turns what a request says into what a model reads. Not for several threads."""

    tokenizer: PreTrainedTokenizerBase

    @property
    def reads_messages(self) -> bool: ...

    @property
    def reads_pictures(self) -> bool: ...

    @property
    def picture_reading(self) -> str:
        """How a picture is decoded, as a name; empty where none is read."""

    def prompt(self, request: Request) -> Prompt:
        """Raises InputError (ImageError for a picture) where the request makes no sense for this model."""


class TextPrompts:
    """Prompts of a model that reads text only. Messages need the tokenizer's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @property
    def reads_messages(self) -> bool:
        return self.tokenizer.chat_template is not None

    @property
    def reads_pictures(self) -> bool:
        return False

    @property
    def picture_reading(self) -> str:
        return ""

    def prompt(self, request: Request) -> Prompt:
        if not request.messages:
            return _completed(self.tokenizer, request)
        if any(isinstance(part, Picture) for message in request.messages for part in message.parts):
            raise InputError("this model reads no pictures", expected="messages of text")
        text = _templated(self.tokenizer, request.messages, lambda message: "".join(map(str, message.parts)))
        # The template writes the special tokens itself.
        return _text_prompt(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class PicturePrompts:
    """Prompts of a lensmith vision-language model: `<image>` in its text stands for one picture, in order.

    Without a chat template the prompt is Sightseer's: the pictures, then the token that begins an answer. Such a model
    has seen no words beside a picture, and they make its answer worse, so they are not read; without any picture the
    words are. A last message of the assistant's is the beginning of the answer.
    """

    def __init__(self, processor: VisionLanguageProcessor, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self.processor, self.limits = processor, limits
        self.tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        self._known: ByteLru[bytes, PreparedPicture] = ByteLru(_PICTURES_KEPT_BYTES, lambda picture: picture.num_bytes)

    @property
    def reads_messages(self) -> bool:
        return True

    @property
    def reads_pictures(self) -> bool:
        return True

    @property
    def picture_reading(self) -> str:
        return self.processor.picture_reading

    def prompt(self, request: Request) -> Prompt:
        if not request.messages:
            prompt = _completed(self.tokenizer, request)
            self._check_placeholders(prompt.token_ids_P, [])
            return prompt
        parts = [part for message in request.messages for part in message.parts]
        pictures = [self._prepared(part) for part in parts if isinstance(part, Picture)]
        if self._template is None:
            _refuse_tools(request.messages, "")
        has_tools = any(message.is_of_tools for message in request.messages)
        written = None if has_tools else self.processor.chat_text(request.messages)
        text = self._text(request.messages) if written is None else written
        first, *others = text.split(self.processor.image_token)
        if len(others) != len(pictures):
            raise InputError(
                "placeholders and pictures differ in number",
                expected=f"{len(pictures)} placeholders, one for each picture",
                actual=f"{len(others)}",
                hint=f"leave {self.processor.image_token} out of the text",
            )
        pairs = zip(pictures, others, strict=True)
        text = first + "".join(self.processor.image_token * picture.tokens + other for picture, other in pairs)
        ids = self.tokenizer(text, add_special_tokens=written is not None or self._template is None)["input_ids"]
        return self._prompt(ids, pictures)

    @property
    def _template(self) -> str | None:
        return cast(str | None, self.processor.chat_template or self.tokenizer.chat_template)

    def _text(self, messages: Sequence[Message]) -> str:
        image = self.processor.image_token
        if self._template is not None:
            return _templated(self.processor, messages, _content)
        answer = messages[-1].parts if messages[-1].role == "assistant" else ()
        asked = [part for message in (messages[:-1] if answer else messages) for part in message.parts]
        pictures = [image for part in asked if isinstance(part, Picture)]
        words = [part for part in asked if isinstance(part, str)]
        begun = [part for part in answer if isinstance(part, str)]
        return "".join([*(pictures or words), self.tokenizer.bos_token, *begun])

    def _prepared(self, picture: Picture) -> PreparedPicture:
        if not picture.data:
            raise ImageError("the picture is not here", expected="its bytes", actual="a URL")
        digest = hashlib.sha256(picture.data).digest()
        known = self._known.get(digest)
        if known is None:
            inputs = self.processor.picture_inputs([self.processor.open_picture(picture.data, self.limits)])
            known = PreparedPicture(tokens=inputs.tokens[0], inputs=inputs.values)
            self._known.put(digest, known)
        return known

    def _prompt(self, ids: Sequence[int], pictures: list[PreparedPicture]) -> Prompt:
        token_ids_P = np.array(ids, dtype=np.int64)
        self._check_placeholders(token_ids_P, pictures)
        if not len(token_ids_P):
            raise InputError("the prompt is empty", expected="at least one token")
        return Prompt(token_ids_P=token_ids_P, pictures=tuple(pictures), image_token_id=self.processor.image_token_id)

    def _check_placeholders(self, token_ids_P: IdArray, pictures: list[PreparedPicture]) -> None:
        placeholders = int((token_ids_P == self.processor.image_token_id).sum())
        if placeholders != sum(picture.tokens for picture in pictures):
            raise InputError(
                "the prompt has image placeholders without pictures",
                expected="pictures in messages",
                actual=f"{placeholders} placeholders",
            )


def _completed(tokenizer: PreTrainedTokenizerBase, request: Request) -> Prompt:
    """The prompt of a request without messages; with the offsets of its tokens where its echo shows them."""
    if request.token_ids or Reveal.PROMPT not in request.reveal or not tokenizer.is_fast:
        return _text_prompt(request.token_ids or tokenizer(request.prompt)["input_ids"])
    encoded = tokenizer(request.prompt, return_offsets_mapping=True)
    return replace(_text_prompt(encoded["input_ids"]), offsets_P=_offsets(encoded["offset_mapping"]))


def _offsets(spans: Sequence[tuple[int, int]]) -> IdArray:
    """Where each token begins, given the characters that each stands for.

    A token that the prompt does not spell (BOS) begins where the one before it ends; so does one whose spaces a
    tokenizer does not count. Several tokens of one character begin where it does.
    """
    offsets, end = [], 0
    for first, behind in spans:
        offsets.append(min(first, end) if behind > first else end)
        end = max(end, behind)
    return np.array(offsets, dtype=np.int64)


def _text_prompt(ids: Sequence[int]) -> Prompt:
    if not len(ids):
        raise InputError("the prompt is empty", expected="at least one token")
    return Prompt(token_ids_P=np.array(ids, dtype=np.int64))


def _content(message: Message) -> list[dict[str, str]]:
    return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message.parts]


def _templated(template_of: Any, messages: Sequence[Message], content: Callable[[Message], Any]) -> str:
    """The text that a chat template makes of the messages.

    Raises RefusedError where it leaves out a call of a tool or its answer: most templates skip what they do not know.
    """
    if template_of.chat_template is None:
        raise InputError(
            "this model has no chat template",
            expected="a prompt, not messages",
            hint="ask at /v1/completions",
        )
    text = _rendered(template_of, messages, content)
    if any(message.is_of_tools for message in messages):
        # Whether a name or an answer is in the text says little: it may stand there for another reason.
        marked = [_marked(message, place) for place, message in enumerate(messages)]
        _refuse_tools(messages, _rendered(template_of, marked, content))
    return text


def _rendered(template_of: Any, messages: Sequence[Message], content: Callable[[Message], Any]) -> str:
    import jinja2  # noqa: PLC0415  # transformers loads it as late, for chat only

    chat = [_turn(message, content(message)) for message in messages]
    try:
        text: str = template_of.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except (jinja2.TemplateError, TypeError, json.JSONDecodeError) as error:
        raise InputError("the chat template refuses the messages", actual=str(error)) from error
    return text


def _turn(message: Message, content: Any) -> dict[str, Any]:
    """As templates expect it: arguments as an object, and no field that a message has not."""
    turn = {"role": message.role, "content": content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return {**turn, "tool_call_id": message.tool_call_id} if message.tool_call_id else turn


def _mark(place: int) -> str:
    return f"lensmith-8d1f3c5a-{place}."


def _marked(message: Message, place: int) -> Message:
    """The message with a mark for the names of tools that it calls, or for what a tool answered."""
    if message.role == "tool":
        return replace(message, parts=(_mark(place),))
    return replace(message, tool_calls=tuple(replace(call, name=_mark(place)) for call in message.tool_calls))


def _refuse_tools(messages: Sequence[Message], marked_text: str) -> None:
    """Raises RefusedError for calls of tools, and their answers, whose marks are not in the text."""
    for place, message in enumerate(messages):
        if message.is_of_tools and _mark(place) not in marked_text:
            where = f"messages[{place}].{'role' if message.role == 'tool' else 'tool_calls'}"
            raise RefusedError(
                f"{where}: this model's chat template knows no calls of tools",
                feature=Feature.MESSAGES,
                hint="leave the calls and their answers out, or tell of them in a user's message",
            )
