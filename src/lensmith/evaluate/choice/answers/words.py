"""The words by which answers are read, as patterns; `words.toml` holds them, a list for each part that a word plays."""

import functools
import re
import tomllib
from importlib import resources
from typing import Any


@functools.cache
def tables() -> dict[str, Any]:
    """All of `words.toml`."""
    return tomllib.loads(resources.files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))


@functools.cache
def any_of(*lists: str) -> str:
    """A pattern (for texts in any case) of every phrase in these lists of `words.toml`, the longest first."""
    phrases = {phrase for name in lists for phrase in tables()[name]}
    return f"(?:{'|'.join(map(_pattern, sorted(phrases, key=lambda phrase: (-len(phrase), phrase))))})"


def tag_names(part: str) -> str:
    """A pattern of the names in one list of the table `tags`."""
    return f"(?:{'|'.join(map(re.escape, sorted(tables()['tags'][part], key=len, reverse=True)))})"


def _pattern(phrase: str) -> str:
    body = r"\s+".join(re.escape(word).replace(r"\*", "[a-z]+") for word in phrase.split())
    return f"{_EDGE_BEFORE if _has_edges(phrase[0]) else ''}{body}{_EDGE_AFTER if _has_edges(phrase[-1]) else ''}"


def _has_edges(character: str) -> bool:
    """Whether words of its script are kept apart by blanks, and by letters that Python knows as such."""
    return character == "*" or (character.isalpha() and character < "\u0530")


_EDGE_BEFORE, _EDGE_AFTER = r"(?<![^\W_])", r"(?![^\W_])"
