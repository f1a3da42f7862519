"""Results on stdout, one JSON object a line for machines or a line for people, and the exit statuses."""

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import typer

from lensmith.core.files import STANDARD_INPUT, STANDARD_OUTPUT, own_descriptor

BAD_INPUT = 2
INTERRUPTED = 130


def input_path(path: Path) -> Path:
    """For an option or argument that names a file to read: `-` is standard input."""
    return STANDARD_INPUT if str(path) == "-" else path


def output_path(path: Path | None) -> Path | None:
    """For an option or argument that names a file to write: `-` is standard output."""
    return STANDARD_OUTPUT if str(path) == "-" else path


def given_options(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Which of these parameters a person gave, as they are written: `--stylesheet`."""
    sources = ((name, context.get_parameter_source(name)) for name in names)
    return [
        f"--{name.replace('_', '-')}" for name, source in sources if source is not None and source.name == "COMMANDLINE"
    ]


def show(result: object, *, as_json: bool, text: str | None = None, out: Path | None = None) -> None:
    """Prints a result dataclass: all its fields as JSON, or `text` (None: its `str`).

    On stderr where standard output is `out`, the file that the command wrote.
    """
    shown = str(result) if text is None else text
    is_taken = out is not None and own_descriptor(out) == 1
    typer.echo(json.dumps(json_value(result), sort_keys=True) if as_json else shown, err=is_taken)


def json_value(value: Any) -> Any:
    """The same value in JSON's types; dataclasses become objects, numpy numbers plain ones, the rest text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, enum.Enum):
        return json_value(value.value)
    if isinstance(value, PurePath | Exception):
        return str(value)
    if hasattr(value, "tolist"):  # a number or an array of numpy's
        return value.tolist()
    return value
