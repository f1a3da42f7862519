"""What each token id is called, from the model's own tokenizer: a shortcut where a server names tokens by text.

Read without a tokenizer's library: only the table of its tokens is wanted. Byte-level tables (GPT-2's) spell each byte
as a letter; those of SentencePiece write a space as U+2581 and single bytes as `<0x0A>`.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensmith.audit.weights.gguf import read_gguf_tokens
from lensmith.core.errors import InputError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"
_FILE = "tokenizer.json"


def read_token_bytes(place: Path) -> dict[int, bytes]:
    """The bytes of each token id whose bytes no other has. `place`: a tokenizer.json, a folder that holds one or a GGUF
    file, or a GGUF file. Raises InputError for anything else."""
    path = _file_in(place)
    is_gguf = path.suffix.lower() == ".gguf"
    tokens, is_byte_level = _from_gguf(path) if is_gguf else _from_json(path)
    spelled = {each: _byte_level(text) if is_byte_level else _sentence_piece(text) for each, text in tokens.items()}
    shared = Counter(spelled.values())
    return {each: data for each, data in spelled.items() if data and shared[data] == 1}


def _file_in(place: Path) -> Path:
    if place.is_dir():
        found = [place / _FILE] if (place / _FILE).is_file() else sorted(place.glob("*.gguf"))
        if not found:
            raise InputError(f"{place} holds no tokenizer", expected=f"{_FILE}, or a GGUF file")
        return found[0]
    if not place.is_file():
        raise InputError(f"{place} is not there", expected=f"a {_FILE}, a GGUF file, or a folder with one of them")
    return place


def _from_gguf(path: Path) -> tuple[dict[int, str], bool]:
    kind, tokens = read_gguf_tokens(path)
    if not tokens:
        raise InputError(f"{path.name} holds no tokens", expected="tokenizer.ggml.tokens")
    return {number: token.decode("utf-8", "replace") for number, token in enumerate(tokens)}, kind == b"gpt2"


def _from_json(path: Path) -> tuple[dict[int, str], bool]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        model, added = table["model"], table.get("added_tokens") or []
        vocab = model["vocab"]
        pairs = (
            [(token, number) for number, (token, _) in enumerate(vocab)] if isinstance(vocab, list) else vocab.items()
        )
        tokens = {int(number): str(token) for token, number in pairs}
        tokens |= {int(each["id"]): str(each["content"]) for each in added}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name} is no tokenizer that can be read",
            expected=f"a {_FILE} of Hugging Face's tokenizers",
            actual=f"{type(error).__name__}: {error}",
        ) from error
    return tokens, _is_byte_level(table.get("decoder")) or _is_byte_level(table.get("pre_tokenizer"))


def _is_byte_level(part: Any) -> bool:
    """Whether a part of a tokenizer, or one of those that it is made of, spells bytes as letters."""
    if not isinstance(part, Mapping):
        return False
    inner = [*(part.get("decoders") or ()), *(part.get("pretokenizers") or ())]
    return part.get("type") == "ByteLevel" or any(map(_is_byte_level, inner))


def _byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level table stands for: printable bytes for themselves, the others in turn
    for what follows U+00FF."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + place): value for place, value in enumerate(others)}


_LETTERS = _byte_letters()


def _byte_level(text: str) -> bytes:
    """An added token stands for itself, as far as it has letters that are no bytes."""
    if all(letter in _LETTERS for letter in text):
        return bytes(_LETTERS[letter] for letter in text)
    return text.encode()


def _sentence_piece(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(_SPACE, " ").encode()
