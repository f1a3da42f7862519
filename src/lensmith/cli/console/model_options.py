"""Options that several commands take for the model they load."""

import enum
from typing import Annotated

import typer

Exact = Annotated[str | None, typer.Option(help="For DeepSeek-VL: whose pixels and prompts, original or transformers.")]
PictureDecoding = Annotated[
    str | None,
    typer.Option(
        help="For DeepSeek-VL: stored (as the original), upright (turned as EXIF says), or as-seen (also on white)."
    ),
]


class EngineOption(enum.Enum):
    """`EngineName` of `workflows/html`, without what that imports."""

    AUTO = "auto"
    LAYOUT = "layout"
    MODEL = "model"


class AssetsOption(enum.Enum):
    """`PictureMode` of `workflows/html`, without what that imports."""

    EMBED = "embed"
    FILES = "files"
    NONE = "none"
