"""Where documents come from: each kind is a configuration that opens a `Source`. Read `base`, then `tars`."""

from lensmith.data.sources.base import HeldOutBy, Portion, SourceConfig
from lensmith.data.sources.obelics import ObelicsConfig
from lensmith.data.sources.packages import FluentEmojiConfig, OpenmojiConfig, PackagePagesConfig, TuxpaintConfig
from lensmith.data.sources.pages import PagesConfig
from lensmith.data.sources.shapes import ShapesConfig
from lensmith.data.sources.tars import TarConfig
from lensmith.data.sources.texts import CaptionTextsConfig, JsonlConfig, ParquetConfig

AnySource = (
    CaptionTextsConfig
    | FluentEmojiConfig
    | JsonlConfig
    | ObelicsConfig
    | OpenmojiConfig
    | PackagePagesConfig
    | PagesConfig
    | ParquetConfig
    | ShapesConfig
    | TarConfig
    | TuxpaintConfig
)
"""What a configuration that is saved may name."""

SOURCES: dict[str, type[SourceConfig]] = {
    "caption_texts": CaptionTextsConfig,
    "fluent_emoji": FluentEmojiConfig,
    "jsonl": JsonlConfig,
    "obelics": ObelicsConfig,
    "openmoji": OpenmojiConfig,
    "package_pages": PackagePagesConfig,
    "pages": PagesConfig,
    "parquet": ParquetConfig,
    "shapes": ShapesConfig,
    "tars": TarConfig,
    "tuxpaint": TuxpaintConfig,
}
"""Kinds of sources by name."""

__all__ = [
    "SOURCES",
    "AnySource",
    "CaptionTextsConfig",
    "FluentEmojiConfig",
    "HeldOutBy",
    "JsonlConfig",
    "ObelicsConfig",
    "OpenmojiConfig",
    "PackagePagesConfig",
    "PagesConfig",
    "ParquetConfig",
    "Portion",
    "ShapesConfig",
    "SourceConfig",
    "TarConfig",
    "TuxpaintConfig",
]
