"""The fields of one record as a question. Each mistake has its own words, for whoever repairs the file."""

import re
from collections.abc import Mapping
from typing import Any

from lensmith.core.errors import InputError
from lensmith.evaluate.choice import LETTERS, Question


def read_id(values: Mapping[str, Any], line: int, *, is_table: bool) -> str:
    """The record's own name for itself; without one, its line."""
    value = values.get("index" if is_table else "id")
    return f"line {line}" if value is None or not str(value).strip() else str(value).strip()


def read_question(values: Mapping[str, Any], line: int, name: str, *, is_table: bool) -> Question:
    """The question, without its pictures. Raises InputError."""
    options = _table_options(values) if is_table else _options(values.get("options"))
    return Question(
        id=name,
        line=line,
        question=_text(values, "question", is_needed=True),
        options=options,
        answer=_answer(values.get("answer"), len(options)),
        category=_text(values, "category"),
        hint=_text(values, "hint"),
    )


def _text(values: Mapping[str, Any], key: str, *, is_needed: bool = False) -> str:
    value = values.get(key)
    text = "" if value is None else value.strip() if isinstance(value, str) else value
    if not isinstance(text, str):
        raise InputError(f"{key!r} is not a text", actual=type(value).__name__)
    if is_needed and not text:
        raise InputError(f"there is no {key!r}")
    return text


def _options(value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        if list(value) != list(LETTERS[: len(value)]):
            raise InputError("'options' by letter must be A, B, ... in order", actual=", ".join(map(str, value)))
        value = list(value.values())
    if not isinstance(value, list):
        raise InputError("there are no 'options'", expected="a list, or an object by letter")
    if not 2 <= len(value) <= len(LETTERS):
        raise InputError("a choice needs options", expected=f"2 to {len(LETTERS)}", actual=len(value))
    return tuple(_option(each, letter) for each, letter in zip(value, LETTERS, strict=False))


def _option(value: Any, letter: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"option {letter} is not a text", actual=type(value).__name__)
    text = str(value).strip()
    if not text:
        raise InputError(f"option {letter} is empty")
    return text


def _table_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns A, B, ... of a table; a question may have fewer than the table, but none between others is empty."""
    cells = [values[letter].strip() for letter in LETTERS if letter in values]
    while cells and not cells[-1]:
        cells.pop()
    if len(cells) < 2:
        raise InputError("a choice needs options", expected="at least 2", actual=len(cells))
    return _options(cells)


def _answer(value: Any, options: int) -> int:
    last = LETTERS[options - 1]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InputError("there is no right 'answer'", expected=f"A to {last}, or an index from 0")
    index = -1
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z]", value.strip()):
        index = LETTERS.index(value.strip().upper())
    elif isinstance(value, int) and not isinstance(value, bool):
        index = value
    elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value.strip()):
        index = int(value)
    if not 0 <= index < options:
        raise InputError(
            "its 'answer' is none of its options", expected=f"A to {last}, or 0 to {options - 1}", actual=repr(value)
        )
    return index
