"""Where documents come from: each kind is a configuration that opens a `Source`. Read `base`, then `tars`."""

from lensmith.data.sources.base import HeldOutBy, Portion, SourceConfig
from lensmith.data.sources.linked import LinkedConfig
from lensmith.data.sources.llava import LlavaConfig
from lensmith.data.sources.mmc4 import Mmc4Config
from lensmith.data.sources.obelics import ObelicsConfig
from lensmith.data.sources.packages import FluentEmojiConfig, OpenmojiConfig, PackagePagesConfig, TuxpaintConfig
from lensmith.data.sources.pages import PagesConfig
from lensmith.data.sources.shards import ShardsConfig
from lensmith.data.sources.tars import TarConfig
from lensmith.data.sources.texts import JsonlConfig, ParquetConfig

AnySource = (
    FluentEmojiConfig
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
    | TarConfig
    | TuxpaintConfig
)
"""What a configuration that is saved may name."""

SOURCES: dict[str, type[SourceConfig]] = {
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
    "tars": TarConfig,
    "tuxpaint": TuxpaintConfig,
}
"""Kinds of sources by name."""

__all__ = [
    "SOURCES",
    "AnySource",
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
    "ShardsConfig",
    "SourceConfig",
    "TarConfig",
    "TuxpaintConfig",
]
