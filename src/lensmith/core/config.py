"""Strict configuration: frozen dataclasses to plain JSON and back, and a hash of what they say.

A configuration is a tree of frozen, keyword-only dataclasses. Only fields are saved: what a property derives is not, so
a file cannot contradict itself. Reading is strict, because a misspelt key that is ignored costs a training run: every
key must be a field, every value must have the field's type, and an error gives the dotted path and the nearest name.

Field types: bool, int, float, str, None, Path, enums (by value where that is a string, else by name), flags
(`"TEXTS|CHARS"`), Literal, nested dataclasses, `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, unions of these, and Any
for JSON values that are kept as they are (lists, not tuples).
In a union of several dataclasses the key `class` holds the class's name (no field can be called `class`).
"""

import dataclasses
import difflib
import enum
import functools
import json
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from lensmith.core.errors import ConfigError
from lensmith.core.files import sha256_of_bytes, write_atomic

Config = TypeVar("Config")
EnumKind = TypeVar("EnumKind", bound=enum.Enum)

_CLASS_KEY = "class"


def to_dict(config: object) -> dict[str, Any]:
    """The configuration as JSON values, fields only. Raises ConfigError where a value has not its field's type."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"to_dict needs a dataclass instance, not {config!r}")
    return _encode_dataclass(config, type(config), "")


def from_dict(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """The reverse of `to_dict`. Missing keys take the field's default.

    Raises ConfigError for a key that is no field (naming the nearest one), a value of another type, a missing value
    without default, or a value that the class itself refuses; the message starts with the dotted path.
    """
    return typing.cast(Config, _decode_dataclass(values, kind, ""))


def to_json(config: object) -> str:
    """The text that `save` writes: sorted keys, two spaces, a final newline."""
    return json.dumps(to_dict(config), indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(kind: type[Config], text: str | bytes, *, source: str = "configuration") -> Config:
    """Reads what `to_json` wrote. `source` names the text in errors. Raises ConfigError."""
    try:
        values = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not valid JSON", actual=error) from error
    return from_dict(kind, values)


def save(config: object, path: str | os.PathLike[str]) -> None:
    """Writes the configuration as JSON, atomically: a reader sees the old file or the new one."""
    write_atomic(path, to_json(config))


def load(kind: type[Config], path: str | os.PathLike[str]) -> Config:
    """Reads what `save` wrote. Raises ConfigError, also where the file is missing."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}", actual=error.strerror) from error
    return from_json(kind, text, source=str(path))


def content_hash(config: object) -> str:
    """SHA-256 (64 hex digits) of the configuration's canonical JSON.

    Equal configurations have equal hashes, in every process and on every platform.
    """
    return hash_of_values(to_dict(config))


def hash_of_values(values: Mapping[str, Any]) -> str:
    """`content_hash` of the configuration whose `to_dict` is `values`."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_of_bytes(canonical.encode("ascii"))


# --- values to JSON -----------------------------------------------------------------------------------------------


def _encode_dataclass(config: Any, kind: type, path: str) -> dict[str, Any]:
    if type(config) is not kind:
        raise _wrong_type(path, kind.__name__, config)
    hints = _field_types(kind)
    return {name: _encode(getattr(config, name), hint, _join(path, name)) for name, hint in hints.items()}


def _encode(value: object, hint: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_config(hint):
        return _encode_dataclass(value, hint, path)
    if origin in (Union, types.UnionType):
        return _encode_union(value, arguments, path)
    if origin is tuple:
        if not isinstance(value, tuple):
            raise _wrong_type(path, _name(hint), value)
        kinds = _tuple_kinds(arguments, len(value), path)
        return [_encode(item, kind, f"{path}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True))]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong_type(path, _name(hint), value)
        return {_string_key(key, path): _encode(item, arguments[1], _join(path, key)) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if not isinstance(value, hint):
            raise _wrong_type(path, hint.__name__, value)
        if isinstance(value, enum.Flag):
            return "|".join(flag.name or "" for flag in value)
        return _enum_text(value)
    if hint is Path:
        if not isinstance(value, Path):
            raise _wrong_type(path, "Path", value)
        return value.as_posix()
    return _scalar(value, hint, path)


def _encode_union(value: object, members: tuple[Any, ...], path: str) -> Any:
    classes = [member for member in members if _is_config(member)]
    if type(value) in classes:
        fields = _encode_dataclass(value, type(value), path)
        return {_CLASS_KEY: type(value).__name__, **fields} if len(classes) > 1 else fields
    others = [member for member in members if member not in classes]
    encoded = _first_that_fits(lambda member: _encode(value, member, path), others, members, value, path)
    # `str | Path` would come back as another type: better refused when it is written than misread later.
    decoded = _decode_union(encoded, members, path)
    if type(decoded) is not type(value) or decoded != value:
        raise ConfigError(f"{path}: {value!r} would be read back as {decoded!r}", expected=_names(members))
    return encoded


# --- JSON to values -----------------------------------------------------------------------------------------------


def _decode_dataclass(values: object, kind: type, path: str) -> object:
    if not isinstance(values, Mapping):
        raise _wrong_type(path, f"the keys of {kind.__name__}", values)
    hints = _field_types(kind)
    for key in values:
        if key not in hints:
            raise _unknown_key(key, kind, hints, path)
    arguments = {key: _decode(value, hints[key], _join(path, key)) for key, value in values.items()}
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and required and field.name not in arguments:
            raise ConfigError(f"{_join(path, field.name)}: required, but missing", expected=_name(hints[field.name]))
    try:
        return kind(**arguments)
    except ConfigError as error:
        prefix = f"{path}: " if path else ""
        raise ConfigError(
            f"{prefix}{error.problem}", expected=error.expected, actual=error.actual, hint=error.hint
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path or kind.__name__}: {error}") from error


def _decode(value: object, hint: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_config(hint):
        return _decode_dataclass(value, hint, path)
    if origin in (Union, types.UnionType):
        return _decode_union(value, arguments, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong_type(path, _name(hint), value)
        kinds = _tuple_kinds(arguments, len(value), path)
        return tuple(
            _decode(item, kind, f"{path}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True))
        )
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong_type(path, _name(hint), value)
        return {_string_key(key, path): _decode(item, arguments[1], _join(path, key)) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _decode_flag(value, hint, path) if issubclass(hint, enum.Flag) else parse_enum(value, hint, path)
    if hint is Path:
        return Path(_scalar(value, str, path))
    return _scalar(value, hint, path)


def _decode_union(value: object, members: tuple[Any, ...], path: str) -> Any:
    classes = {member.__name__: member for member in members if _is_config(member)}
    if isinstance(value, Mapping) and len(classes) == 1:
        return _decode_dataclass(value, next(iter(classes.values())), path)
    if isinstance(value, Mapping) and classes:
        tag = value.get(_CLASS_KEY)
        if tag not in classes:
            raise ConfigError(
                f"{_join(path, _CLASS_KEY)}: says which configuration this is",
                expected=", ".join(classes),
                actual=repr(tag),
                hint=nearest_hint(str(tag), classes),
            )
        rest = {key: item for key, item in value.items() if key != _CLASS_KEY}
        return _decode_dataclass(rest, classes[tag], path)
    others = [member for member in members if member not in classes.values()]
    return _first_that_fits(lambda member: _decode(value, member, path), others, members, value, path)


def parse_enum(value: object, hint: type[EnumKind], path: str) -> EnumKind:
    """The member of an enum that a text names. Raises ConfigError, which starts with `path`, for any other."""
    by_text = {_enum_text(member): member for member in hint}
    if not isinstance(value, str) or value not in by_text:
        raise ConfigError(
            f"{path}: no such {hint.__name__}",
            expected=", ".join(by_text),
            actual=repr(value),
            hint=nearest_hint(str(value), by_text),
        )
    return by_text[value]


def _decode_flag(value: object, hint: type[enum.Flag], path: str) -> enum.Flag:
    result = hint(0)
    for name in _scalar(value, str, path).split("|"):
        if name and name not in hint.__members__:
            raise ConfigError(
                f"{path}: no such {hint.__name__}",
                expected="|".join(hint.__members__),
                actual=repr(value),
                hint=nearest_hint(name, hint.__members__),
            )
        result |= hint[name] if name else hint(0)
    return result


# --- shared by both directions ------------------------------------------------------------------------------------


def _scalar(value: object, hint: Any, path: str) -> Any:
    """Checks a plain value; equal values come back in one form (1 and -0.0 as float are 1.0 and 0.0)."""
    if typing.get_origin(hint) is Literal:
        for allowed in typing.get_args(hint):
            if type(value) is type(allowed) and value == allowed:
                return value
        raise ConfigError(f"{path}: not one of the allowed values", expected=_name(hint), actual=repr(value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and is_number:
        return _finite(typing.cast(float, value), path)
    matches = {
        bool: isinstance(value, bool),
        int: is_number and isinstance(value, int),
        float: False,
        str: isinstance(value, str),
        types.NoneType: value is None,
    }
    if hint is Any:
        return _json_value(value, path)
    if hint not in matches:
        raise TypeError(f"{path}: a configuration field cannot have the type {hint!r}")
    if not matches[hint]:
        raise _wrong_type(path, _name(hint), value)
    return value


def _json_value(value: object, path: str) -> Any:
    if isinstance(value, list):
        return [_json_value(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_string_key(key, path): _json_value(item, _join(path, key)) for key, item in value.items()}
    if isinstance(value, float):
        return _finite(value, path)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise _wrong_type(path, "a JSON value", value)


def _finite(value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{path}: not a finite number", expected="a finite number", actual=value)
    return number + 0.0


def _first_that_fits(
    attempt: Callable[[Any], Any], members: Iterable[Any], all_members: tuple[Any, ...], value: object, path: str
) -> Any:
    # An int also fits float: the narrower type is tried first, so that 1 stays 1 in `float | int`.
    for member in sorted(members, key=lambda member: member is float):
        try:
            return attempt(member)
        except ConfigError:
            continue
    raise _wrong_type(path, _names(all_members), value)


def _tuple_kinds(arguments: tuple[Any, ...], length: int, path: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return (arguments[0],) * length
    if len(arguments) != length:
        raise ConfigError(f"{path}: wrong number of values", expected=len(arguments), actual=length)
    return arguments


def _is_config(hint: Any) -> typing.TypeGuard[type]:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _field_types(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _enum_text(member: enum.Enum) -> str:
    return member.value if isinstance(member.value, str) else member.name


def _string_key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{path}: a key is not a string", expected="str", actual=repr(key))
    return key


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return result


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _names(hints: Iterable[Any]) -> str:
    return " or ".join("None" if hint is types.NoneType else _name(hint) for hint in hints)


def nearest_hint(word: str, names: Iterable[str]) -> str:
    """The name that a person may have meant, for an error's hint."""
    nearest = difflib.get_close_matches(word, list(names), n=1, cutoff=0.0)
    return f"did you mean {nearest[0]!r}?" if nearest else "nothing can be set here"


def _wrong_type(path: str, expected: str, value: object) -> ConfigError:
    return ConfigError(
        f"{path}: wrong type" if path else "wrong type", expected=expected, actual=f"{value!r} ({type(value).__name__})"
    )


def _unknown_key(key: object, kind: type, hints: Mapping[str, Any], path: str) -> ConfigError:
    if isinstance(getattr(kind, str(key), None), property | functools.cached_property):
        return ConfigError(f"{_join(path, key)}: {kind.__name__} derives this value, so it cannot be set")
    return ConfigError(
        f"{_join(path, key)}: unknown key of {kind.__name__}",
        expected=", ".join(hints) or "no keys",
        actual=key,
        hint=nearest_hint(str(key), hints),
    )
