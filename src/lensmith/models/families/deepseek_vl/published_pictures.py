"""What a folder says of pictures: `preprocessor_config.json`, or in transformers 5 `processor_config.json`.

All of it counts where it is of the code that is followed: the original's file for `Exactness.ORIGINAL`, transformers'
for `Exactness.TRANSFORMERS`. Of the other code's file only what means the same in both: the least side, mean and
deviation, and whether to normalise where a tower does not do it. `background_color` never counts: either code computes
it from the mean.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import ConfigError
from lensmith.models.exactness import Exactness
from lensmith.models.families.deepseek_vl.checkpoint import read_json
from lensmith.models.families.deepseek_vl.pictures import HALF, DeepseekPictureConfig

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_ORIGINALS, _TRANSFORMERS = "VLMImageProcessor", "DeepseekVL"
_PLAIN = {"min_size": "min_px", "image_mean": "mean", "image_std": "std", "do_normalize": "normalise"}
_HYBRID = {
    "min_size": "min_px",
    "high_res_image_mean": "mean",
    "high_res_image_std": "std",
    "image_mean": "low_mean",
    "image_std": "low_std",
    "do_normalize": "normalise",
    "resample": "low_filter",
}
"""The names of our fields by those in the files."""
_SHARED = frozenset({"min_px", "mean", "std"})


def published_pictures(folder: str | Path, fitting: DeepseekPictureConfig) -> DeepseekPictureConfig:
    """`fitting` with what the folder's file says. Raises ConfigError where that fits no tower, or cannot be followed,
    CheckpointError where the file cannot be read."""
    values = published_values(Path(folder))
    kind = str(values.get("image_processor_type", ""))
    if kind != _ORIGINALS and not kind.startswith(_TRANSFORMERS):
        return fitting
    code = Exactness.ORIGINAL if kind == _ORIGINALS else Exactness.TRANSFORMERS
    is_hybrid = fitting.low_px is not None and code is Exactness.TRANSFORMERS
    names = _HYBRID if is_hybrid else _PLAIN
    if code is fitting.exact:
        _refuse_other_sizes(values, fitting, is_hybrid)
        _refuse_other_steps(values, is_hybrid)
    else:
        shared = _SHARED if fitting.low_px is not None else _SHARED | {"normalise"}
        names = {name: own for name, own in names.items() if own in shared}
    taken = {own: _value(values[name], own) for name, own in names.items() if name in values}
    return from_dict(DeepseekPictureConfig, to_dict(fitting) | taken)


def published_values(folder: Path) -> Mapping[str, Any]:
    """What the folder says, in the words of its code; a folder of our own layout in those of the code it follows.

    Raises CheckpointError where a file cannot be read, ConfigError where our own says what cannot be.
    """
    if (folder / PREPROCESSOR).is_file():
        return read_json(folder / PREPROCESSOR)
    said = read_json(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else {}
    nested, own = said.get("image_processor"), said.get("pictures")
    if isinstance(own, Mapping):
        return _in_words(from_dict(DeepseekPictureConfig, own))
    return nested if isinstance(nested, Mapping) else {}


def _in_words(pictures: DeepseekPictureConfig) -> dict[str, Any]:
    """Our fields in the words of the code that they follow."""
    is_original = pictures.exact is Exactness.ORIGINAL
    names = _PLAIN if is_original or pictures.low_px is None else _HYBRID
    told = to_dict(pictures) | {"normalise": pictures.normalises, "low_filter": pictures.low_filter.value}
    kind = _ORIGINALS if is_original else _TRANSFORMERS
    return {"image_processor_type": kind} | {name: told[own] for name, own in names.items()}


def _value(value: Any, own: str) -> Any:
    if own == "low_filter":
        known = {filter_.value: filter_.name for filter_ in Image.Resampling}
        if value not in known:
            raise ConfigError("resample: no such filter", expected=", ".join(map(str, known)), actual=value)
        return known[value]
    # Without a mean the original pads with 127, which is half.
    return list(HALF) if value is None and own in ("mean", "low_mean", "std", "low_std") else value


def _refuse_other_sizes(values: Mapping[str, Any], fitting: DeepseekPictureConfig, is_hybrid: bool) -> None:
    wanted = {"image_size": fitting.image_px, "size": fitting.low_px if is_hybrid else fitting.image_px}
    if is_hybrid:
        wanted["high_res_size"] = fitting.image_px
    for name, side_px in wanted.items():
        told = values.get(name)
        sides = list(told.values()) if isinstance(told, Mapping) else [told]
        if told is not None and any(side != side_px for side in sides):
            raise ConfigError(f"{name}: pictures do not fit the tower", expected=f"{side_px} px", actual=told)


def _refuse_other_steps(values: Mapping[str, Any], is_hybrid: bool) -> None:
    """What neither code's published models do."""
    factor = values.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or not math.isclose(factor, 1 / 255, rel_tol=1e-9):
        raise ConfigError("rescale_factor: cannot be followed", expected=1 / 255, actual=factor)
    for name in ("do_resize", "do_pad", "do_rescale"):
        if values.get(name) is False:
            raise ConfigError(f"{name}: cannot be followed", expected=True, actual=False)
    name = "high_res_resample" if is_hybrid else "resample"
    if values.get(name, Image.Resampling.BICUBIC.value) != Image.Resampling.BICUBIC.value:
        raise ConfigError(f"{name}: cannot be followed", expected=Image.Resampling.BICUBIC.value, actual=values[name])
