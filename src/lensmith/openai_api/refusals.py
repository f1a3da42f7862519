"""What a server's error body says, and which field of the request it is about.

Read are OpenAI's error object, FastAPI's and pydantic's list of details (vLLM, SGLang, llama-cpp-python; some write it
into a message, as Python or as JSON), and the plain sentences of llama.cpp and TGI that name a field.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PathPart = str | int

_LOCATION = re.compile(r"""["']loc["']\s*:\s*[\[(]\s*([^\])]{1,300})[\])]""")
_PATH_SIGNS = re.compile(r"[.\[\]]+")
_PLAIN_NAMES = frozenset({"temperature", "logprobs"})
"""Names without an underscore that are no ordinary words of an error message either."""
_LONGEST_TEXT = 8192


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error body: what to show of it, its code, and the path to the field that it names (empty: none is named).

    `sentence` is the server's own message, empty where `message` is made of something else. The parts of a path are
    names and places in lists: `("messages", 0, "content")`.
    """

    message: str
    sentence: str = ""
    code: str = ""
    path: tuple[PathPart, ...] = ()


def read_refusal(content: bytes) -> Refusal:
    """What an error body says. Never raises: what is no JSON, or cut off, is a message."""
    text = content.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return Refusal(message=text, sentence=text, path=_located(text))
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        sentence = error if isinstance(error, str) else ""
        return Refusal(message=sentence or str(body), sentence=sentence, path=_located(sentence))
    detail = error.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        places = detail[0].get("loc")
        path = _path(places if isinstance(places, list) else [])
        return Refusal(message=f"{'.'.join(map(str, path))}: {detail[0].get('msg')}", path=path)
    message, param = error.get("message", detail if detail is not None else error), error.get("param")
    sentence = message if isinstance(message, str) else ""
    path = _path(_PATH_SIGNS.split(param)) if isinstance(param, str) and param else _located(sentence)
    return Refusal(message=str(message), sentence=sentence, code=str(error.get("code") or ""), path=path)


def refused_field(refusal: Refusal, sent: Mapping[str, Any]) -> str | None:
    """The field that a refusal is about, as far as it is in what was `sent`: `messages[2].content`.

    None where it names none of those. No other word of the refusal is in it.
    """
    path = refusal.path if refusal.path and refusal.path[0] in sent else _named(refusal.sentence, sent)
    if not path:
        return None
    shown, value = str(path[0]), sent[str(path[0])]
    for part in path[1:]:
        if isinstance(value, list) and isinstance(part, int) and part < len(value):
            shown, value = f"{shown}[{part}]", value[part]
        elif isinstance(value, Mapping) and part in value:
            shown, value = f"{shown}.{part}", value[part]
        else:
            break
    return shown


def _path(places: list[Any]) -> tuple[PathPart, ...]:
    parts = [part for part in places if isinstance(part, str | int) and part not in ("", "body")]
    return tuple(int(part) if isinstance(part, str) and re.fullmatch(r"[0-9]{1,6}", part) else part for part in parts)


def _located(text: str) -> tuple[PathPart, ...]:
    """The path of the first detail that stands in a text."""
    found = _LOCATION.search(text[:_LONGEST_TEXT])
    return _path([part.strip(" \t\n'\"") for part in found[1].split(",")]) if found else ()


def _named(sentence: str, sent: Mapping[str, Any]) -> tuple[PathPart, ...]:
    """The first of the sent fields that a sentence names.

    Names that are also ordinary words (stop, prompt, n) count only in quotes, at the beginning, or as a parameter.
    """
    text = sentence[:_LONGEST_TEXT]
    found: dict[str, int] = {}
    for name in sent:
        word = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
        is_plain = "_" in name or name in _PLAIN_NAMES
        pattern = word if is_plain else rf"^\W*{word}|[\"'`]{word}[\"'`]|\b(?:param|parameter|field)\b\W{{0,3}}{word}"
        place = re.search(pattern, text, re.IGNORECASE)
        if place is not None:
            found[name] = place.start()
    return (min(found, key=lambda name: found[name]),) if found else ()
