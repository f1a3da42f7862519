"""Documents as token ids: text and one placeholder a visual token; which are learnt; where a long one may be cut.

A document begins with the begin token, where the tokenizer has one, and ends with the end token. One that is longer
than a training sequence is cut into spans: at the end of a paragraph if the later half of what fits has one, else of
a sentence, else of a word's token; never within a picture. No document is dropped for its length.

A conversation is written in the model's chat format, and learnt is what the assistant writes. A long one is cut behind
the last turn that fits, and only where not even one does as other documents are. What a later span says of an earlier
one's picture, or after its system's words, it says without them.

Legend: T tokens of a document.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensmith.core.errors import ConfigError, InputError
from lensmith.data.documents import AnyDocument, Conversation, Document, PictureRef

Ids = NDArray[np.int32]
Learnt = NDArray[np.bool_]

_PARAGRAPH, _SENTENCE, _ANYWHERE = 3, 2, 1
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", ":")


@dataclass(frozen=True, kw_only=True)
class ChatPart:
    """A stretch of a conversation as its model reads it.

    `content` is text, a picture, or the id of a special token that the chat format writes. `ends_turn`: an answer and
    what belongs to it end here.
    """

    content: str | PictureRef | int
    learnt: bool = False
    ends_turn: bool = False


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How text becomes ids. `encode` adds no special tokens; `pieces` are the vocabulary's texts by id.

    `per_picture`: visual tokens of one picture, the same for all. `fingerprint` is a hash of the tokenizer. `chat`
    writes a conversation, without the tokens that begin and end every document; None: the model has no chat format.
    `chat_format` is a hash of that.
    """

    encode: Callable[[str], Sequence[int]]
    pieces: Sequence[str] = field(repr=False)
    begin: int | None
    end: int
    image: int
    per_picture: int
    fingerprint: str
    chat: Callable[[Conversation], Iterable[ChatPart]] | None = None
    chat_format: str = ""

    def __post_init__(self) -> None:
        if self.per_picture < 1:
            raise ConfigError("a picture has no tokens", expected="at least one", actual=self.per_picture)


class Encoded(NamedTuple):
    """A document's ids (T), which of them are learnt (T), where each picture's placeholders begin, and where turns end.

    Learnt are texts and the end token; of a conversation, what the assistant writes.
    """

    ids_T: Ids
    learnt_T: Learnt
    picture_starts: tuple[int, ...]
    turn_ends: tuple[int, ...]


class Span(NamedTuple):
    """Positions `start` to `stop` of an encoded document, and how many whole pictures lie in them."""

    start: int
    stop: int
    pictures: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start


def encode(document: AnyDocument, tokens: Tokens) -> Encoded:
    """The whole document.

    Raises InputError where its text has the picture's placeholder, ConfigError for a conversation without a chat
    format.
    """
    ids: list[int] = [] if tokens.begin is None else [tokens.begin]
    learnt = [False] * len(ids)
    starts, turn_ends = [], []
    for part in _parts(document, tokens):
        if isinstance(part.content, PictureRef):
            starts.append(len(ids))
            written = [tokens.image] * tokens.per_picture
        elif isinstance(part.content, int):
            written = [part.content]
        else:
            written = list(tokens.encode(part.content))
            if tokens.image in written:
                raise InputError(f"the text of {document.key} has the token that stands for a picture")
        ids += written
        learnt += [part.learnt] * len(written)
        if part.ends_turn:
            turn_ends.append(len(ids))
    return Encoded(
        ids_T=np.array([*ids, tokens.end], dtype=np.int32),
        learnt_T=np.array([*learnt, True], dtype=np.bool_),
        picture_starts=tuple(starts),
        turn_ends=tuple(turn_ends),
    )


def _parts(document: AnyDocument, tokens: Tokens) -> Iterable[ChatPart]:
    if isinstance(document, Document):
        return [ChatPart(content=piece, learnt=isinstance(piece, str)) for piece in document.pieces]
    if tokens.chat is None:
        raise ConfigError(
            "a conversation cannot be written for this model",
            expected="a processor with a chat format",
            actual=document.key,
        )
    return tokens.chat(document)


class Cutter:
    """Cuts encoded documents into spans that fit a sequence. Raises ConfigError where not even a picture would fit."""

    def __init__(self, tokens: Tokens, *, max_tokens: int, max_pictures: int) -> None:
        if max_tokens < tokens.per_picture + 2 or max_pictures < 1:
            raise ConfigError(
                "a sequence does not hold one picture",
                expected=f"max_tokens of at least {tokens.per_picture + 2}, max_pictures of at least 1",
                actual=f"{max_tokens}, {max_pictures}",
            )
        self._tokens, self._max_tokens, self._max_pictures = tokens, max_tokens, max_pictures
        self._quality = np.array([_quality(piece) for piece in tokens.pieces], dtype=np.uint8)

    def spans(self, encoded: Encoded) -> Iterator[Span]:
        """All of a document in order, without a gap."""
        length, start, first = len(encoded.ids_T), 0, 0
        starts = encoded.picture_starts
        while start < length:
            stop = min(length, start + self._max_tokens)
            if first + self._max_pictures < len(starts):
                stop = min(stop, starts[first + self._max_pictures])
            if stop < length:
                stop = self._better(encoded, start, self._outside(encoded, stop))
            last = first
            while last < len(starts) and starts[last] < stop:
                last += 1
            yield Span(start, stop, last - first)
            start, first = stop, last

    def _outside(self, encoded: Encoded, stop: int) -> int:
        """`stop`, or where the picture begins that it would cut."""
        at = int(np.searchsorted(encoded.picture_starts, stop, side="left")) - 1
        if at >= 0 and encoded.picture_starts[at] < stop < encoded.picture_starts[at] + self._tokens.per_picture:
            return encoded.picture_starts[at]
        return stop

    def _better(self, encoded: Encoded, start: int, stop: int) -> int:
        """The last end of a turn, else the last best place in the later half of what fits. It lies behind a token."""
        if turn_ends := [end for end in encoded.turn_ends if start < end <= stop]:
            return turn_ends[-1]
        middle = start + max(1, (stop - start) // 2)
        ids = encoded.ids_T[middle - 1 : stop]
        quality = np.where(ids == self._tokens.image, 0, self._quality[ids])
        quality[-1] = max(quality[-1], _ANYWHERE)  # `stop` itself never lies within a picture
        best = int(quality.max())
        return middle + int(np.flatnonzero(quality == best)[-1])


def _quality(piece: str) -> int:
    """How good a place the end of a token is to cut, in a byte-level or a plain vocabulary."""
    text = piece.replace("Ċ", "\n").replace("Ġ", " ").replace("▁", " ").rstrip(" ")
    if text.endswith("\n"):
        return _PARAGRAPH
    return _SENTENCE if text.endswith(_SENTENCE_ENDS) else _ANYWHERE
