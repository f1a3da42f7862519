"""Conversations as people write them (OpenAI's parts, transformers' parts, the original's placeholders) to one form."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.core.types import Message, Part, Picture
from lensmith.models.pictures import PictureInput

Conversation = Sequence[Message | Mapping[str, Any]]

_ROLES = ("system", "user", "assistant")
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
    if isinstance(role, str) and role.lower() in _ROLES:
        return role.lower()
    raise InputError(f"{where}: unknown role", expected=", ".join(_ROLES), actual=role)
