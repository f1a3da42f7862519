"""The tokens of a made-up vocabulary: each a space and some letters, so that text splits into them in one way only."""

import re
from collections.abc import Sequence

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PIECE = re.compile(r" ?[^ ]*")


class FakeTokens:
    """Names of `size` tokens, and the way from text to tokens.

    The last `duplicates` tokens have the names of the first ones, as some real vocabularies do. Text that is not made
    of names is spelled byte by byte, in digits to the base of the size: different texts never give equal ids, and no
    name is needed for them. `end_id` has no text.
    """

    def __init__(self, size: int, *, duplicates: int = 0, end_id: int | None = None) -> None:
        self._texts = [f" {_letters(token_id)}" for token_id in range(size)]
        self._texts[size - duplicates :] = self._texts[:duplicates]
        if end_id is not None:
            self._texts[end_id] = ""
        self._ids = {text: token_id for token_id, text in reversed([*enumerate(self._texts)]) if text}
        self._spelled = [_digits(value, size) for value in range(256)]

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, token_id: int) -> str:
        return self._texts[token_id]

    def data(self, token_id: int) -> bytes:
        return self._texts[token_id].encode()

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(self._texts.__getitem__, token_ids))

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text; the inverse of `decode` where that gave the text and no name stands twice."""
        ids: list[int] = []
        for piece in filter(None, _PIECE.findall(text)):
            known = self._ids.get(piece)
            if known is not None:
                ids.append(known)
            else:
                for value in piece.encode("utf-8", "surrogatepass"):
                    ids.extend(self._spelled[value])
        return tuple(ids)


def _letters(number: int) -> str:
    letters = ""
    while True:
        number, digit = divmod(number, 26)
        letters = _LETTERS[digit] + letters
        if number == 0:
            return letters
        number -= 1


def _digits(value: int, base: int) -> tuple[int, ...]:
    """`value` below 256 in as many digits as 255 needs."""
    digits, most = [value % base], 255 // base
    while most:
        value //= base
        digits.insert(0, value % base)
        most //= base
    return tuple(digits)
