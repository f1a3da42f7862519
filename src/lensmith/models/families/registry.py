"""The model families that there are. To add one: a folder beside this file, and a line in `FAMILIES`.

Another package adds a family without touching this one, by an entry point that names its `Family`:

    [project.entry-points."lensmith.model_families"]
    my_family = "my_package.my_family:FAMILY"

Built-in families are asked first whether they recognise a model, then the others by name. An entry point that takes a
built-in family's name, or gives no `Family`, is an error that says which package it comes from.
"""

import functools
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lensmith.core.errors import ConfigError, InputError
from lensmith.models.families import deepseek_vl, mm1, sightseer
from lensmith.models.families.base import Family, Option, Source

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "deepseek_vl": deepseek_vl.FAMILY,
        "mm1": mm1.FAMILY,
        "sightseer": sightseer.FAMILY,
    }
)
"""The built-in ones, by the names of their folders."""

ENTRY_POINTS = "lensmith.model_families"
DEFAULT_MODEL = "sightseer_nano"
"""The shipped model that is meant where none is named."""


@functools.cache
def all_families() -> Mapping[str, Family]:
    """Built-in families and those of other packages, by name. Raises ConfigError for an entry point that is none."""
    found = dict(FAMILIES)
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        found[point.name] = _of_entry_point(point, found)
    return MappingProxyType(found)


def family_of(source: Source) -> Family | None:
    """The first family that recognises a model; None where none does. Raises CheckpointError for a damaged folder."""
    return next((family for family in all_families().values() if family.recognises(source)), None)


def resolved(source: Source | None) -> Source:
    """`source`, or the folder of the shipped model that it names; None means `DEFAULT_MODEL`."""
    name = DEFAULT_MODEL if source is None else str(source)
    for family in all_families().values():
        if name in family.shipped:
            return family.shipped[name]
    return name if source is None else source


def check_options(options: Mapping[str, str]) -> None:
    """Raises InputError where no family has such an option, or none of those that have it takes the value."""
    for name, value in options.items():
        owners = _owners(name)
        if not owners:
            known = sorted({name for family in all_families().values() for name in family.options})
            raise InputError(f"{name}: no model family has this option", expected=", ".join(known))
        if not any(value in [each.value for each in option.kind] for option in owners.values()):
            next(iter(owners.values())).read(value)


def options_for(family: Family | None, options: Mapping[str, str]) -> dict[str, str]:
    """Those of checked options that a model of this family (None: of no family) is loaded with.

    Raises InputError for one that it does not have, unless the value says what every model without it does.
    """
    own = {} if family is None else family.options
    for name, value in options.items():
        if name in own:
            own[name].read(value)
            continue
        owners = _owners(name)
        option = next(iter(owners.values()))
        if value != option.elsewhere:
            raise InputError(
                option.absent,
                expected=option.elsewhere or f"a model without {name}",
                actual=value,
                hint=f"only {', '.join(owners)} has several",
            )
    return {name: value for name, value in options.items() if name in own}


def convert(source: Source, out: Path, layout: str, **settings: Any) -> Any:
    """A checkpoint in another layout, by the family that recognises it; see that family's `convert`.

    Where none recognises it, the first that knows the layout says what is wrong with it. Raises ConfigError where no
    family knows the layout.
    """
    able = [family for family in all_families().values() if family.convert is not None]
    fitting = [family for family in able if layout in family.layouts]
    if not fitting:
        known = dict.fromkeys(name for family in able for name in family.layouts)
        raise ConfigError("no such layout", expected=", ".join(known), actual=layout)
    family = next((family for family in fitting if family.recognises(source)), fitting[0])
    assert family.convert is not None, "chosen among those that convert"
    return family.convert(source, out, layout, **settings)


def _owners(name: str) -> dict[str, Option[Any]]:
    """The option in each family that has it, by the family's title."""
    return {family.title: family.options[name] for family in all_families().values() if name in family.options}


def _of_entry_point(point: importlib.metadata.EntryPoint, found: Mapping[str, Family]) -> Family:
    package = point.dist.name if point.dist is not None else point.value
    if point.name in found:
        raise ConfigError(f"{package}: there is a model family {point.name!r} already", expected="another name")
    family = point.load()
    if not isinstance(family, Family):
        raise ConfigError(f"{package}: entry point {point.name!r} gives no model family", actual=type(family).__name__)
    return family
