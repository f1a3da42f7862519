"""JSON that can be read in one way only.

A guard reads a body, judges it, and sends one on; where the server behind it would read the same bytes differently, the
judgement is worth nothing. So what has two readings is refused (duplicate keys, NaN, numbers out of range, lone
surrogates, other encodings than UTF-8), what is deep enough to hurt a parser too, and what is sent on is written anew.
"""

import json
import math
from typing import Any, NoReturn

from lensmith.openai_api import WireError

MAX_DEPTH = 32
LARGEST_INT = 2**63 - 1

Json = dict[str, Any]


class MalformedError(WireError):
    """Bytes that are not one JSON object with a single reading."""


def read_object(data: bytes, *, most_values: int | None = None) -> Json:
    """The JSON object that `data` holds, of at most so many values (None: any number).

    Raises MalformedError; its message never repeats what was sent.
    """
    if most_values is not None:
        _check_values(data, most_values)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite_float,
            parse_int=_small_int,
        )
    except UnicodeDecodeError:
        raise MalformedError("not UTF-8") from None
    except RecursionError:
        raise MalformedError("nested too deeply", expected=f"at most {MAX_DEPTH} levels") from None
    except ValueError:  # what json raises for all else, and for more digits than Python converts
        raise MalformedError("not JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object", expected="an object", actual=json_type(value))
    _check_depth_and_text(value)
    return value


def write_object(value: Json) -> bytes:
    """`value` as compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def json_type(value: object) -> str:
    """What JSON calls the type of a value, for messages that must not repeat it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    names: dict[type, str] = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedError("a key stands twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise MalformedError("a number is not finite", expected="JSON numbers", actual=name)


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedError("a number is too large")
    return number


def _small_int(text: str) -> int:
    number = int(text) if len(text) <= 20 else LARGEST_INT + 1
    if abs(number) > LARGEST_INT:
        raise MalformedError("a number is too large", expected="within 64 bits")
    return number


def _check_values(data: bytes, most: int) -> None:
    """Before anything is parsed, and at the speed of a copy: 16 MiB of small values take seconds and much memory."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") < most:  # enough for nearly all, texts included
        return
    bare = data.replace(rb"\\", b"").replace(rb"\"", b"")
    quotes = bare.count(b'"')
    outside = b"" if quotes > 2 * most else b"".join(bare.split(b'"')[::2])
    if quotes > 2 * most or outside.count(b",") + outside.count(b"[") + outside.count(b"{") >= most:
        raise MalformedError("too many values in the body", expected=f"at most {most}")


def _check_depth_and_text(value: Json) -> None:
    """Level by level rather than by recursion, which a hostile body could exhaust."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                below += [each for each in item if isinstance(each, str | list | dict)]
            else:
                below += item.keys()
                below += [each for each in item.values() if isinstance(each, str | list | dict)]
        level = below
        if not level:
            return
    raise MalformedError("nested too deeply", expected=f"at most {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise MalformedError("text with half a surrogate pair") from None
