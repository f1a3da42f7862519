"""Tokens by name, for a client: ids that a server spells out, and numbers for tokens that it names by text only."""

from collections.abc import Sequence

import numpy as np

from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import TEXT_IDS_FROM
from lensmith.core.errors import InputError
from lensmith.openai_api.dialects import Dialect
from lensmith.openai_api.reading import CLIENT
from lensmith.openai_api.types import TOKEN_ID_PREFIX


class TextVocabulary:
    """Numbers the tokens that a server names by text (or bytes), from TEXT_IDS_FROM on, as they are met.

    One belongs to each server; all its answers must be read with it, one at a time.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes | str, int] = {}
        self._data: list[bytes] = []
        self._ids_by_name = _IdsByName()

    def __len__(self) -> int:
        return len(self._data)

    def number(self, name: bytes | str) -> int:
        """The id of a token; text stands for its UTF-8 bytes."""
        token_id = self._numbers.get(name)
        if token_id is None:
            data = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
            token_id = self._numbers.setdefault(data, TEXT_IDS_FROM + len(self._data))
            if token_id == TEXT_IDS_FROM + len(self._data):
                self._data.append(data)
            self._numbers[name] = token_id
        return token_id

    def data(self, token_id: int) -> bytes:
        """The bytes of a token that was met. Raises InputError for an id that is not from here."""
        if not 0 <= token_id - TEXT_IDS_FROM < len(self._data):
            raise InputError("not the id of a token known by its text", actual=token_id)
        return self._data[token_id - TEXT_IDS_FROM]

    def numbers(self, names: Sequence[str], dialect: Dialect) -> IdArray:
        """The ids of many tokens: as named (`token_id:123`) where the dialect can, else numbered."""
        if dialect.names_ids and names and names[0].startswith(TOKEN_ID_PREFIX):
            return np.fromiter(map(self._ids_by_name.__getitem__, names), np.int64, len(names))
        return np.fromiter(map(self.number, names), np.int64, len(names))


class _IdsByName(dict[str, int]):
    """What `token_id:123` means, remembered: the same names come at every position."""

    def __missing__(self, name: str) -> int:
        digits = name.removeprefix(TOKEN_ID_PREFIX)
        if digits == name or not digits.isascii() or not digits.isdigit() or len(digits) > 15:
            CLIENT.fail("a token's name", f"{TOKEN_ID_PREFIX} and digits", name)
        self[name] = int(digits)
        return self[name]
