"""What a record says of its pictures: paths, or base64 in itself, or another row that has them."""

import ast
import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from lensmith.core.errors import ImageError, InputError
from lensmith.core.images import DEFAULT_LIMITS

PictureValue: TypeAlias = str | Mapping[str, Any]

_KEYS = ("picture", "pictures", "image", "images")
_LONGEST_REFERENCE = 64
"""VLMEvalKit's rule: a shorter cell is no picture but the index of a row that has one."""
_LONGEST_PATH = 1024
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\-\s]*")


def record_pictures(values: Mapping[str, Any], *, is_table: bool) -> list[PictureValue]:
    """The pictures that a record names, in order; none where it has no key for them.

    Raises InputError where it has one that names nothing.
    """
    keys = [key for key in (("image", "image_path") if is_table else _KEYS) if key in values]
    if is_table:
        keys = [key for key in keys if values[key].strip()] or keys[:1]
    if not keys:
        return []
    if len(keys) > 1 and not is_table:
        raise InputError(f"pictures are given twice: {' and '.join(keys)}")
    value = values[keys[0]]
    if isinstance(value, str) and value.strip().startswith("["):
        value = _listed(value)
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not found or any(each is None or not isinstance(each, str | Mapping) or not each for each in found):
        raise InputError(f"no picture in {keys[0]!r}: leave the key out where there is none")
    if any(isinstance(each, str) and not each.strip() for each in found):
        raise InputError(f"no picture in {keys[0]!r}")
    return found


def is_inline(value: PictureValue, values: Mapping[str, Any], *, is_table: bool) -> bool:
    """Whether the picture is in the record itself; else it is a path."""
    if is_table:
        return bool(values.get("image", "").strip())
    if isinstance(value, Mapping):
        return True
    return value.startswith("data:") or (len(value) > _LONGEST_PATH and bool(_BASE64.fullmatch(value)))


def is_reference(value: PictureValue) -> bool:
    """Whether a cell of a table's `image` is the index of another row."""
    return isinstance(value, str) and len(value) <= _LONGEST_REFERENCE


def inline_bytes(value: PictureValue) -> bytes:
    """The bytes of a picture in base64. Raises ImageError."""
    text = value.get("base64") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        raise ImageError("a picture in a record has no base64", expected='{"base64": "..."}')
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ImageError("a data URL without base64", expected="data:image/png;base64,...")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError("its picture is no base64", actual=str(error)) from error


def file_bytes(path: Path) -> bytes:
    """The bytes of a picture file. Raises ImageError where there is none, or it is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(DEFAULT_LIMITS.max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError("its picture is not there", actual=path) from error
    except (OSError, ValueError) as error:
        raise ImageError("its picture cannot be read", actual=f"{path}: {error}") from error
    if len(data) > DEFAULT_LIMITS.max_bytes:
        raise ImageError("its picture is too large", expected=f"at most {DEFAULT_LIMITS.max_bytes:,} bytes")
    return data


def picture_path(folder: Path, value: PictureValue) -> Path:
    """Where a picture file is: paths count from the folder of the questions. Raises ImageError for a URL."""
    text = str(value)
    if re.match(r"https?://", text):
        raise ImageError("a picture is a URL, and nothing is fetched here", expected="a path, or base64", actual=text)
    return folder / text


def _listed(text: str) -> list[Any]:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError("its list of pictures cannot be read") from error
    return value if isinstance(value, list) else [value]
