"""What each token of a vocabulary is called: its bytes, and its text where these are whole characters."""

import functools
import json
import re
from typing import Any

from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_START = "\u2581"


class TokenTable:
    """The tokens of a tokenizer. Ids without a token (padded vocabularies have some) are named by their number."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        names: dict[str, int] = tokenizer.get_vocab()
        added = {int(token_id): str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
        to_bytes = _by_byte_level if _has_byte_level(tokenizer) else _by_pieces
        self._data = {token_id: to_bytes(name) for name, token_id in names.items()}
        self._data |= {token_id: content.encode("utf-8", "replace") for token_id, content in added.items()}

    @property
    def longest_bytes(self) -> int:
        """No token stands for more bytes of text."""
        return max(map(len, self._data.values()))

    def data(self, token_id: int) -> bytes:
        """The token's bytes."""
        known = self._data.get(token_id)
        return f"<token {token_id}>".encode() if known is None else known

    def text(self, token_id: int) -> str:
        """The token alone, as text; broken UTF-8 is replaced."""
        return self.data(token_id).decode("utf-8", "replace")

    def __contains__(self, token_id: int) -> bool:
        return token_id in self._data


def _has_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hasattr(tokenizer, "byte_decoder")
    decoder: dict[str, Any] = json.loads(backend.to_str()).get("decoder") or {}
    return any(part.get("type") == "ByteLevel" for part in (decoder, *decoder.get("decoders", ())))


def _by_byte_level(name: str) -> bytes:
    table = _byte_of_character()
    return b"".join(bytes([table[char]]) if char in table else char.encode("utf-8", "replace") for char in name)


def _by_pieces(name: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace(_WORD_START, " ").encode("utf-8", "replace")


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """The reverse of GPT-2's table, in which printable bytes stand for themselves and others for letters from 256."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
