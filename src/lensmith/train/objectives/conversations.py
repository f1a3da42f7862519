"""Conversations in a model's own chat format: what its processor writes when people chat with it, and nothing else.

The format is asked for with marks in the place of texts, so it is known which characters are the format's own. Learnt
is what the model has to write itself: from where the processor lets it begin to speak (a space before the answer
belongs to it where the format has one) to the answer's end, and the end token where the format writes one behind it.
The last answer has the document's end token. MM1's format has no end token between turns: there a model learns to end
from last answers alone.

A text that spells a special token stays text, here as in documents.
"""

import re
from collections.abc import Iterator, Sequence

from lensmith.core.errors import ConfigError
from lensmith.core.types import Message, Picture
from lensmith.data.documents import Conversation, ConversationTurn, PictureRef
from lensmith.data.plan.tokens import ChatPart
from lensmith.models.processor import VisionLanguageProcessor

_MARK = "\ue000{}\ue001"
"""Stands for a text: characters that no format strips or writes."""
_SAMPLE = (
    ConversationTurn(role="system", pieces=("s",)),
    ConversationTurn(role="user", pieces=(PictureRef(place=""), "q")),
    ConversationTurn(role="assistant", pieces=("a",)),
    ConversationTurn(role="user", pieces=("q", PictureRef(place=""))),
    ConversationTurn(role="assistant", pieces=("a",)),
)


def chat_format(processor: VisionLanguageProcessor) -> str:
    """The format as it writes one small conversation; "" for a processor without a format."""
    return processor.chat_text(_messages(_SAMPLE)) or ""


def chat_parts(conversation: Conversation, processor: VisionLanguageProcessor) -> Iterator[ChatPart]:
    """A conversation as the model reads it, without the tokens that begin and end every document.

    Raises ConfigError where the processor has no format, or one that writes a beginning otherwise once more follows.
    """
    messages = _messages(conversation.turns)
    texts = [piece for piece in conversation.pieces if isinstance(piece, str)]
    reader = _Reader(processor, texts, list(conversation.pictures))
    written = ""
    for place, turn in enumerate(conversation.turns):
        if turn.role != "assistant":
            continue
        asked = _grown(written, processor.chat_text(messages[:place]))
        answered = _grown(asked, processor.chat_text(messages[: place + 1]))
        yield from reader.question(asked[len(written) :])
        # Behind the last answer stands the document's own end: no sequence may begin with that alone.
        yield from reader.answer(answered[len(asked) :], is_last=place + 1 == len(messages))
        written = answered


def _messages(turns: Sequence[ConversationTurn]) -> list[Message]:
    """The turns with numbered marks for their texts."""
    messages, number = [], 0
    for turn in turns:
        parts: list[str | Picture] = []
        for piece in turn.pieces:
            parts.append(Picture() if isinstance(piece, PictureRef) else _MARK.format(number))
            number += isinstance(piece, str)
        messages.append(Message(role=turn.role, parts=tuple(parts)))
    return messages


def _grown(before: str, after: str | None) -> str:
    if after is None or not after.startswith(before):
        raise ConfigError(
            "this model's chat format cannot be trained on",
            expected="a processor whose chat_text goes on where it ended when a turn is added",
            actual="no chat_text" if after is None else f"{before[-40:]!r}, then {after[-80:]!r}",
        )
    return after


class _Reader:
    """Reads a format's text piece by piece: marks become texts again, placeholders pictures."""

    def __init__(
        self, processor: VisionLanguageProcessor, texts: Sequence[str], pictures: Sequence[PictureRef]
    ) -> None:
        self._texts, self._pictures = texts, iter(pictures)
        self._image = processor.image_token
        self._end: str = processor.tokenizer.eos_token
        self._end_id: int = processor.tokenizer.eos_token_id
        specials = "|".join(map(re.escape, (self._image, self._end)))
        self._specials, self._marks = re.compile(f"({specials})"), re.compile("\ue000([0-9]+)\ue001")

    def question(self, written: str) -> Iterator[ChatPart]:
        """What stands before an answer, and behind the one before: its end token is learnt."""
        if written.startswith(self._end):
            yield ChatPart(content=self._end_id, learnt=True, ends_turn=True)
            written = written.removeprefix(self._end)
        yield from self._parts(written, learnt=False)

    def answer(self, written: str, *, is_last: bool) -> Iterator[ChatPart]:
        *parts, last = self._parts(written, learnt=True)
        yield from parts
        yield ChatPart(content=last.content, learnt=last.learnt, ends_turn=not is_last)

    def _parts(self, written: str, *, learnt: bool) -> Iterator[ChatPart]:
        for piece in self._specials.split(written):
            if piece == self._image:
                yield ChatPart(content=next(self._pictures))
            elif piece == self._end:
                yield ChatPart(content=self._end_id, learnt=learnt)
            elif piece:
                yield ChatPart(content=self._marks.sub(lambda mark: self._texts[int(mark[1])], piece), learnt=learnt)
