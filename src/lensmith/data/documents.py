"""What training data is made of: documents of text and pictures in reading order, and the sources that hold them.

A source is random access: record number -> document, the same at any time and in any process, so that an order of
documents is a list of numbers and nothing else. Pictures stay where they are until a batch needs them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lensmith.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PictureRef:
    """A picture within its source: `place` is all that the source needs to find its bytes."""

    place: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """Text and pictures as they are read. `key` names it within its source, for people."""

    key: str
    pieces: tuple[str | PictureRef, ...]

    @property
    def pictures(self) -> tuple[PictureRef, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, PictureRef))


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

    def document(self, index: int) -> Document:
        """Record number `index`. Raises BadRecordError for one that cannot be used."""
        ...

    def picture(self, ref: PictureRef) -> bytes:
        """A picture's encoded bytes. Raises BadRecordError where it is missing."""
        ...


def documents(source: Source) -> Iterator[Document]:
    """All that can be used, in order."""
    for index in range(len(source)):
        try:
            yield source.document(index)
        except BadRecordError:
            continue
