"""Documents as token ids: text and one placeholder a visual token; and where a long one may be cut.

A document begins with the begin token, where the tokenizer has one, and ends with the end token. One that is longer
than a training sequence is cut into spans: at the end of a paragraph if the later half of what fits has one, else of
a sentence, else of a word's token; never within a picture. No document is dropped for its length.

Legend: T tokens of a document.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensmith.core.errors import ConfigError, InputError
from lensmith.data.documents import Document, PictureRef

Ids = NDArray[np.int32]

_PARAGRAPH, _SENTENCE, _ANYWHERE = 3, 2, 1
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", ":")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How text becomes ids. `encode` adds no special tokens; `pieces` are the vocabulary's texts by id.

    `per_picture`: visual tokens of one picture, the same for all. `fingerprint` is a hash of the tokenizer.
    """

    encode: Callable[[str], Sequence[int]]
    pieces: Sequence[str] = field(repr=False)
    begin: int | None
    end: int
    image: int
    per_picture: int
    fingerprint: str

    def __post_init__(self) -> None:
        if self.per_picture < 1:
            raise ConfigError("a picture has no tokens", expected="at least one", actual=self.per_picture)


class Encoded(NamedTuple):
    """A document's ids (T), and where each picture's placeholders begin."""

    ids_T: Ids
    picture_starts: tuple[int, ...]


class Span(NamedTuple):
    """Positions `start` to `stop` of an encoded document, and how many whole pictures lie in them."""

    start: int
    stop: int
    pictures: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start


def encode(document: Document, tokens: Tokens) -> Encoded:
    """The whole document. Raises InputError where its text has the picture's placeholder."""
    ids: list[int] = [] if tokens.begin is None else [tokens.begin]
    starts = []
    for piece in document.pieces:
        if isinstance(piece, PictureRef):
            starts.append(len(ids))
            ids += [tokens.image] * tokens.per_picture
            continue
        written = tokens.encode(piece)
        if tokens.image in written:
            raise InputError(f"the text of {document.key} has the token that stands for a picture")
        ids += written
    return Encoded(np.array([*ids, tokens.end], dtype=np.int32), tuple(starts))


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
        """The last best place to cut in the later half of what fits. A cut lies behind a token."""
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
