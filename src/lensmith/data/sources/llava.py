"""Conversations about pictures as LLaVA publishes them (arXiv 2304.08485): instruction data whose answers are learnt.

A record has `conversations`, a list of `{"from": "human" or "gpt", "value": text}`, and `image`: a path, several, or
none. `<image>` in a text stands for one of them, in order. The white space beside it is that file's own format, and
left out: what stands there is for the model's chat format to say.

Where we differ: LLaVA's own reader leaves out a first turn that is not the human's. Here such a record is a bad one, as
are all that a conversation cannot be made of, and they are counted by cause.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Conversation, ConversationTurn, PictureRef, Role
from lensmith.data.sources.base import well_formed
from lensmith.data.sources.lines import JsonRecords
from lensmith.data.sources.stores import PictureStore

PLACEHOLDER = "<image>"
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


@dataclass(frozen=True, kw_only=True)
class LlavaConfig:
    """Files of .json (an array, or an object a line) or .jsonl, or folders of them, and where their pictures are."""

    kind: ClassVar[str] = "llava"
    paths: tuple[Path, ...]
    pictures: tuple[Path, ...] = ()

    def open(self) -> "LlavaSource":
        """Raises InputError where there is no file, or one is compressed or damaged, or the pictures are not there."""
        return LlavaSource(self)


class LlavaSource:
    """A conversation for each record. Made by `LlavaConfig.open`."""

    def __init__(self, config: LlavaConfig) -> None:
        self._records = JsonRecords(config.paths, ".json", ".jsonl")
        self._pictures = PictureStore(config.pictures)
        said = [self._records.fingerprint, self._pictures.fingerprint]
        self.fingerprint = sha256_of_bytes("\n".join(said).encode())

    def __len__(self) -> int:
        return len(self._records)

    def document(self, index: int) -> Conversation:
        record = self._records.read(index)
        spoken, names = record.values.get("conversations"), _names(record.values.get("image"), record.key)
        if not isinstance(spoken, list):
            raise BadRecordError("it has no conversations", actual=record.key)
        texts = [_spoken(turn, record.key) for turn in spoken]
        if (count := sum(text.count(PLACEHOLDER) for _, text in texts)) != len(names):
            raise BadRecordError(
                "its placeholders and pictures differ in number",
                actual=f"{record.key}: {count} {PLACEHOLDER}, {len(names)} pictures",
            )
        if missing := [name for name in names if name not in self._pictures]:
            raise BadRecordError("a picture is not there", actual=f"{record.key}: {missing[0]}")
        left = iter(names)
        turns = [ConversationTurn(role=role, pieces=tuple(_pieces(text, left))) for role, text in texts]
        return Conversation(key=record.key, turns=tuple(turns))

    def picture(self, ref: PictureRef) -> bytes:
        return self._pictures.read(ref.place)


def _names(image: object, key: str) -> list[str]:
    given = [] if image is None else image if isinstance(image, list) else [image]
    names = [name for name in given if isinstance(name, str)]
    if len(names) < len(given):
        raise BadRecordError("its image is neither a path nor a list of paths", actual=key)
    return names


def _spoken(turn: Any, key: str) -> tuple[Role, str]:
    speaker, text = (turn.get(name) for name in ("from", "value")) if isinstance(turn, dict) else (None, None)
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise BadRecordError("a turn has no speaker or no text", actual=key)
    if speaker not in _ROLES:
        raise BadRecordError("a turn's speaker is unknown", actual=f"{key}: {speaker[:40]!r}")
    return _ROLES[speaker], text


def _pieces(text: str, names: Iterator[str]) -> Iterator[str | PictureRef]:
    for place, part in enumerate(text.split(PLACEHOLDER)):
        if place:
            yield PictureRef(place=next(names))
        if words := well_formed(part.strip()):
            yield words
