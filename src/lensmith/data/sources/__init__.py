"""Where documents come from: each kind is a configuration that opens a `Source`. Read `base`, then `tars`.

`source_of` makes one of what a person names on a command line: a kind, paths, and settings as text.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lensmith.core.config import from_dict
from lensmith.core.errors import ConfigError, InputError
from lensmith.data.sources.base import HeldOutBy, Portion, SourceConfig
from lensmith.data.sources.linked import LinkedConfig
from lensmith.data.sources.llava import LlavaConfig
from lensmith.data.sources.mmc4 import Mmc4Config
from lensmith.data.sources.obelics import ObelicsConfig
from lensmith.data.sources.packages import FluentEmojiConfig, OpenmojiConfig, PackagePagesConfig, TuxpaintConfig
from lensmith.data.sources.pages import PagesConfig
from lensmith.data.sources.shapes import ShapesConfig
from lensmith.data.sources.shards import ShardsConfig
from lensmith.data.sources.tars import TarConfig
from lensmith.data.sources.texts import CaptionTextsConfig, JsonlConfig, ParquetConfig

AnySource = (
    CaptionTextsConfig
    | FluentEmojiConfig
    | JsonlConfig
    | LinkedConfig
    | LlavaConfig
    | Mmc4Config
    | ObelicsConfig
    | OpenmojiConfig
    | PackagePagesConfig
    | PagesConfig
    | ParquetConfig
    | ShardsConfig
    | ShapesConfig
    | TarConfig
    | TuxpaintConfig
)
"""What a configuration that is saved may name."""

SOURCES: dict[str, type[SourceConfig]] = {
    "caption_texts": CaptionTextsConfig,
    "fluent_emoji": FluentEmojiConfig,
    "jsonl": JsonlConfig,
    "linked": LinkedConfig,
    "llava": LlavaConfig,
    "mmc4": Mmc4Config,
    "obelics": ObelicsConfig,
    "openmoji": OpenmojiConfig,
    "package_pages": PackagePagesConfig,
    "pages": PagesConfig,
    "parquet": ParquetConfig,
    "shards": ShardsConfig,
    "shapes": ShapesConfig,
    "tars": TarConfig,
    "tuxpaint": TuxpaintConfig,
}
"""Kinds of sources by name."""


@runtime_checkable
class Linking(Protocol):
    """A configuration of a source that is published with addresses in the place of pictures."""

    def addresses(self) -> Iterator[str]: ...


def source_of(
    kind: str, paths: Sequence[Path], *, pictures: Sequence[Path] = (), settings: Sequence[str] = ()
) -> SourceConfig:
    """The configuration of that kind; `settings` are NAME=VALUE.

    Raises ConfigError for a kind that there is not or that reads no paths, and for what is no setting of it.
    """
    if kind not in SOURCES:
        raise ConfigError("there is no such kind of source", expected=", ".join(SOURCES), actual=kind)
    names = {field.name for field in dataclasses.fields(SOURCES[kind])}  # type: ignore[arg-type]  # all are dataclasses
    values: dict[str, Any] = {"path": str(paths[0])} if "path" in names and len(paths) == 1 else {}
    values = values or {"paths": [str(path) for path in paths]}
    if pictures:
        values["pictures"] = [str(path) for path in pictures]
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or name in values:
            raise ConfigError("not a setting", expected="NAME=VALUE, each name once", actual=setting)
        values[name] = value
    return from_dict(SOURCES[kind], values)


def addresses_of(source: SourceConfig) -> Iterator[str]:
    """Of all its pictures, in order. Raises InputError where a source of this kind has the pictures themselves."""
    if not isinstance(source, Linking):
        named = [kind for kind, config in SOURCES.items() if hasattr(config, "addresses")]
        raise InputError("this kind of source names no addresses", expected=", ".join(named), actual=source.kind)
    return source.addresses()


__all__ = [
    "SOURCES",
    "AnySource",
    "CaptionTextsConfig",
    "FluentEmojiConfig",
    "HeldOutBy",
    "JsonlConfig",
    "LinkedConfig",
    "LlavaConfig",
    "Mmc4Config",
    "ObelicsConfig",
    "OpenmojiConfig",
    "PackagePagesConfig",
    "PagesConfig",
    "ParquetConfig",
    "Portion",
    "ShapesConfig",
    "ShardsConfig",
    "SourceConfig",
    "TarConfig",
    "TuxpaintConfig",
    "addresses_of",
    "source_of",
]
