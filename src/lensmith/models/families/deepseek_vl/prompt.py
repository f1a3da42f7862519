"""DeepSeek-VL's chat format: messages of text and pictures to the one string that the model was trained on.

Source: the code that the weights were published with (github.com/deepseek-ai/DeepSeek-VL, `processing_vlm.py` and
`conversation.py`); the paper does not give it. `Exactness.TRANSFORMERS` writes what the chat template of the converted
checkpoints (deepseek-community on the Hub) writes, which differs:

| | original | transformers |
| --- | --- | --- |
| default system text | where there is no system message | always |
| system message | takes its place | follows it, as a turn "System: ..." that ends with the end-of-sentence token |
| after a turn | two newlines or the end-of-sentence token, by its place | the same by its role; none after the last |
| text parts in a row | joined as they are | joined with a space |
| white space | each message stripped, and the whole | stripped where a message begins or ends with text |

Where we differ: messages of one role in a row are one message, joined by a newline, for the original's separators go by
place and would end a question with the end-of-sentence token. A last message of the assistant's is the beginning of its
answer. A message that is a plain string is read in both; the template drops it without a word.

Conversations as people write them (OpenAI's parts, transformers' parts, the original's placeholders) to one form.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.core.types import Message, Part, Picture
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.tokenizer import END, IMAGE
from lensmith.models.pictures import PictureInput

DEFAULT_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
USER, ASSISTANT = "User", "Assistant"
_SEPARATORS = ("\n\n", END)
_ROLES = {"user": USER, "assistant": ASSISTANT, "system": "System"}


class Turn(NamedTuple):
    """Who speaks, as the prompt names them, and what: text with one placeholder for each picture."""

    role: str
    text: str


def original_prompt(turns: Iterable[Turn], system: str | None = None) -> str:
    """The prompt as the original writes it, whatever the order of roles. `system` None: the default; empty: nothing.

    A turn without text gives its role and a colon: where the answer begins.
    """
    instruction = DEFAULT_SYSTEM if system is None else system
    prompt = instruction + _SEPARATORS[0] if instruction else ""
    for place, turn in enumerate(turns):
        text = turn.text.strip()
        prompt += f"{turn.role}: {text}{_SEPARATORS[place % 2]}" if text else f"{turn.role}:"
    return prompt.strip()


def chat_prompt(messages: Sequence[Message], exact: Exactness = Exactness.ORIGINAL, *, answers: bool = True) -> str:
    """The prompt of a conversation; pictures become placeholders. `answers`: the assistant speaks next.

    A system message alone is answered, too. Raises InputError for what the format has no place for: a system message
    that is not the first, or a conversation that does not begin with the user.
    """
    if exact is Exactness.TRANSFORMERS:
        return _transformers_prompt(messages, answers=answers)
    system, spoken = _split_system(messages)
    turns = _merged(Turn(_ROLES[message.role], _text(message)) for message in spoken)
    if turns and turns[0].role != USER:
        raise InputError("the conversation does not begin with the user", actual=f"{turns[0].role}: ...")
    if not answers or not messages:
        return original_prompt(turns, system)
    if not turns or turns[-1].role == USER:
        return original_prompt([*turns, Turn(ASSISTANT, "")], system)
    return original_prompt(turns, system).removesuffix(END)


def _split_system(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    count = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    for place, message in enumerate(messages[count:], start=count):
        if message.role == "system":
            raise InputError(
                "a system message stands within the conversation",
                expected="system messages before all others",
                actual=f"one at place {place}",
            )
    if not count:
        return None, messages
    return "\n".join(_text(message).strip() for message in messages[:count]), messages[count:]


def _merged(turns: Iterable[Turn]) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            parts = (merged[-1].text.strip(), turn.text.strip())
            merged[-1] = Turn(turn.role, "\n".join(part for part in parts if part))
        else:
            merged.append(turn)
    return merged


def _text(message: Message) -> str:
    return "".join(part if isinstance(part, str) else IMAGE for part in message.parts)


def _transformers_prompt(messages: Sequence[Message], *, answers: bool) -> str:
    begun = answers and bool(messages) and messages[-1].role == "assistant"
    asks = answers and not begun
    prompt = DEFAULT_SYSTEM + _SEPARATORS[0]
    for place, message in enumerate(messages):
        is_last = place == len(messages) - 1
        is_empty = bool(message.parts) and message.parts[0] == ""
        space = "" if message.role == "assistant" and is_last and not asks and is_empty else " "
        prompt += f"{_ROLES[message.role]}:{space}{_spaced(message)}"
        if not is_last or asks:
            prompt += _SEPARATORS[0] if message.role == "user" else _SEPARATORS[1]
    return prompt + (f"{ASSISTANT}:" if asks else "")


def _spaced(message: Message) -> str:
    """The parts of a message as the template joins them: it strips only at its ends, and only text."""
    text, last = "", len(message.parts) - 1
    for place, part in enumerate(message.parts):
        if not isinstance(part, str):
            text += IMAGE
            continue
        shown = part.lstrip() if place == 0 else part
        shown = shown.rstrip() if place == last else shown
        follows_text = place > 0 and isinstance(message.parts[place - 1], str)
        text += " " + shown if follows_text else shown
    return text


Conversation = Sequence[Message | Mapping[str, Any]]

_CONVERSATION_ROLES = ("system", "user", "assistant")
_ELSEWHERE = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class ReadConversation:
    """Messages, in which each picture is a `Picture`, and the pictures themselves, in order."""

    messages: tuple[Message, ...]
    pictures: tuple[PictureInput, ...]


class ReadConversations(list[ReadConversation]):
    """One for each conversation; `is_batch`: they came as a list of several."""

    is_batch: bool = False


def read_conversations(
    conversations: Conversation | Sequence[Conversation], image_token: str, *, text_only: bool = False
) -> ReadConversations:
    """`text_only`: for the prompt alone; a part may be `{"type": "image"}`, and a message's `images` may be missing.

    Raises InputError, naming the sample and the message, for what cannot be read.
    """
    items = list(conversations)
    is_batch = bool(items) and not isinstance(items[0], Message | Mapping)
    samples = cast(list[Conversation], items if is_batch else [items])
    read = ReadConversations(
        _read(sample, f"sample {number}", image_token, text_only) for number, sample in enumerate(samples)
    )
    read.is_batch = is_batch
    return read


def _read(conversation: Conversation, sample: str, image_token: str, text_only: bool) -> ReadConversation:
    messages, pictures = [], []
    if not conversation:
        raise InputError(f"{sample}: a conversation without messages", expected="at least one")
    for place, message in enumerate(conversation):
        where = f"{sample}, message {place}"
        parts: list[Part] = []
        for part in _parts(message, where, image_token, text_only):
            if isinstance(part, str):
                parts.append(part)
                continue
            parts.append(Picture())
            if part.picture is not None:
                pictures.append(part.picture)
            elif not text_only:
                raise InputError(f"{where}: a part has no picture", expected='{"type": "image", "image": ...}')
        messages.append(Message(role=_role(message, where), parts=tuple(parts)))
    return ReadConversation(messages=tuple(messages), pictures=tuple(pictures))


@dataclass(frozen=True)
class _Shown:
    picture: PictureInput | None


def _parts(
    message: Message | Mapping[str, Any], where: str, image_token: str, text_only: bool
) -> Iterator[str | _Shown]:
    if isinstance(message, Message):
        for part in message.parts:
            yield part if isinstance(part, str) else _Shown(_of_picture(part, where))
        return
    content, images = message.get("content"), message.get("images")
    if isinstance(content, str) or content is None:
        if images is None and text_only:
            yield content or ""
        else:
            yield from _with_placeholders(content or "", images, where, image_token)
        return
    if not isinstance(content, Sequence):
        raise InputError(f"{where}: content cannot be read", expected="a string or a list of parts", actual=content)
    if images:
        raise InputError(f"{where}: pictures are given twice", expected="as parts, or as images", actual="both")
    for part in content:
        yield _part(part, where)


def _with_placeholders(text: str, images: Any, where: str, image_token: str) -> Iterator[str | _Shown]:
    """The original's form: one placeholder in the text for each picture beside it."""
    is_one = isinstance(images, str) or _is_picture(images)
    given = [] if images is None else [images] if is_one else list(images)
    first, *others = text.split(image_token)
    if len(others) != len(given):
        raise InputError(
            f"{where}: placeholders and pictures differ in number",
            expected=f"{len(others)} pictures, one for each {image_token} in its text",
            actual=f"{len(given)} pictures",
            hint=f"write one {image_token} where each picture stands, and leave it out where none does",
        )
    yield first
    for picture, rest in zip(given, others, strict=True):
        yield _Shown(_of_url(picture, where) if isinstance(picture, str) else picture)
        yield rest


def _part(part: Any, where: str) -> str | _Shown:
    if isinstance(part, str):
        return part
    if isinstance(part, Picture) or _is_picture(part):
        return _shown(part, where)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return cast(str, part["text"])
    if kind in ("image", "image_url"):
        named = [part.get(name) for name in ("image", "image_url", "url", "path")]
        picture = next((value for value in named if value is not None), None)
        return _shown(picture.get("url") if isinstance(picture, Mapping) else picture, where)
    raise InputError(
        f"{where}: a part cannot be read",
        expected='text, a picture, {"type": "text", "text": ...} or {"type": "image", "image": ...}',
        actual=repr(part)[:100],
    )


def _shown(picture: Any, where: str) -> _Shown:
    if isinstance(picture, Picture):
        return _Shown(_of_picture(picture, where))
    return _Shown(_of_url(picture, where) if isinstance(picture, str) else picture)


def _is_picture(value: Any) -> bool:
    return isinstance(value, Image.Image | np.ndarray | bytes | Path)


def _of_picture(picture: Picture, where: str) -> PictureInput:
    return picture.data or _of_url(picture.url, where)


def _of_url(url: str, where: str) -> PictureInput:
    """A path, or the content of a data URL. Nothing is fetched."""
    if url.startswith(_ELSEWHERE):
        raise InputError(f"{where}: pictures are not fetched", expected="a path or a data URL", actual=url[:100])
    if not url.startswith("data:"):
        return url.removeprefix("file://")
    head, _, data = url.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("not base64")
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: a data URL cannot be read", actual=error) from error


def _role(message: Message | Mapping[str, Any], where: str) -> Any:
    role = message.role if isinstance(message, Message) else message.get("role")
    if isinstance(role, str) and role.lower() in _CONVERSATION_ROLES:
        return role.lower()
    raise InputError(f"{where}: unknown role", expected=", ".join(_CONVERSATION_ROLES), actual=role)
