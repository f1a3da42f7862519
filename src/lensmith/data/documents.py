"""What training data is made of: documents of text and pictures in reading order, and the sources that hold them.

A conversation is a document too: which of its words are learnt, and what stands between them, follows from who speaks
and from the model's chat format, so it keeps its turns until it becomes tokens.

A source is random access: record number -> document, the same at any time and in any process, so that an order of
documents is a list of numbers and nothing else. Pictures stay where they are until a batch needs them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from lensmith.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PictureRef:
    """A picture within its source: `place` is all that the source needs to find its bytes."""

    place: str


Pieces = tuple[str | PictureRef, ...]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Document:
    """Text and pictures as they are read, all of it learnt. `key` names it within its source, for people."""

    key: str
    pieces: Pieces

    @property
    def pictures(self) -> tuple[PictureRef, ...]:
        return _pictures(self.pieces)


@dataclass(frozen=True, kw_only=True)
class ConversationTurn:
    """What one speaker says. No white space stands at a turn's ends or beside a picture: a chat format has its own."""

    role: Role
    pieces: Pieces


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns of which the assistant's are learnt: a user's and an assistant's by turns, behind a system's, if any.

    `key` names it within its source, for people. Raises BadRecordError where turns follow each other otherwise.
    """

    key: str
    turns: tuple[ConversationTurn, ...]

    def __post_init__(self) -> None:
        roles = [turn.role for turn in self.turns]
        spoken = roles[1:] if roles[:1] == ["system"] else roles
        if not spoken:
            raise BadRecordError("its conversation is empty", actual=self.key)
        if spoken[0] != "user":
            raise BadRecordError("its conversation does not begin with the user", actual=self.key)
        if spoken[-1] != "assistant":
            raise BadRecordError("its conversation does not end with an answer", actual=self.key)
        if any(role != ("user", "assistant")[place % 2] for place, role in enumerate(spoken)):
            raise BadRecordError("its speakers do not take turns", actual=self.key)
        if any(not turn.pieces for turn in self.turns):
            raise BadRecordError("a turn is empty", actual=self.key)

    @property
    def pieces(self) -> Pieces:
        """All texts and pictures, one turn's after the other's."""
        return tuple(piece for turn in self.turns for piece in turn.pieces)

    @property
    def pictures(self) -> tuple[PictureRef, ...]:
        return _pictures(self.pieces)


AnyDocument = Document | Conversation


def _pictures(pieces: Pieces) -> tuple[PictureRef, ...]:
    return tuple(piece for piece in pieces if isinstance(piece, PictureRef))


class BadRecordError(InputError):
    """A record that cannot be used. `problem` is its cause, worded alike for all records that share it."""


class Source(Protocol):
    """Documents by number. Every method may be called from several threads.

    `fingerprint` is a hash of what the source holds: a plan that was made from it is refused when it changes.
    """

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int:
        """How many records there are, bad ones included."""
        ...

    def document(self, index: int) -> AnyDocument:
        """Record number `index`. Raises BadRecordError for one that cannot be used."""
        ...

    def picture(self, ref: PictureRef) -> bytes:
        """A picture's encoded bytes. Raises BadRecordError where it is missing."""
        ...


def documents(source: Source) -> Iterator[AnyDocument]:
    """All that can be used, in order."""
    for index in range(len(source)):
        try:
            yield source.document(index)
        except BadRecordError:
            continue
