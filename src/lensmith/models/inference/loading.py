"""TODO."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import torch

from lensmith.core.errors import InputError
from lensmith.core.images import DEFAULT_LIMITS, ImageLimits
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.exactness import Exactness
from lensmith.models.families import deepseek_vl
from lensmith.models.families.sightseer import SHIPPED, load, shipped_model
from lensmith.models.inference.endpoint import CACHE_BYTES, Answering
from lensmith.models.language.loading import GGUF_SUFFIX, load_language_model
from lensmith.models.linear.int8 import quantize_linear_layers
from lensmith.models.linear.packed import pack_linear_layers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

_PUBLISHED = re.compile(r"[\w.-]+/deepseek-vl-(1\.3b|7b)-(base|chat)")


def dtype_named(name: str) -> torch.dtype:
    """What commands and adapters call a precision of weights. Raises InputError for another name."""
    if name not in DTYPES:
        raise InputError("no such precision", expected=" or ".join(DTYPES), actual=name)
    return DTYPES[name]


def load_answering(
    source: str | Path | None,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    max_length: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    pictures: ImageLimits = DEFAULT_LIMITS,
    exact: Exactness | None = None,
    picture_decoding: deepseek_vl.Decoding | None = None,
) -> Answering:
    """From a lensmith or DeepSeek-VL model's folder, a transformers folder or name, or a GGUF file.

    `source` None: the model that ships. `name` is by default the folder's or file's; `pictures` are the largest that
    are read. `exact` and `picture_decoding` matter to DeepSeek-VL only: other models read pictures as they are seen.
    `dtype` int8: the language model's weights are, the rest is bfloat16. On a CPU weights are packed, so that the model
    can be used and nothing else. Raises InputError where there is no such model or device, or it reads pictures
    otherwise.
    """
    _refuse_missing(device)
    weights, dtype = dtype, torch.bfloat16 if dtype is torch.int8 else dtype
    source = shipped_model() if source is None or str(source) == SHIPPED else source
    if _is_deepseek_vl(source):
        model, reading = deepseek_vl.load(source, dtype=dtype, exact=exact, decoding=picture_decoding, device=device)
    elif picture_decoding not in (None, deepseek_vl.Decoding.AS_SEEN):
        raise InputError(
            "this model reads pictures in one way",
            expected="as-seen",
            actual=picture_decoding.value,
            hint="only DeepSeek-VL was published with another",
        )
    elif _is_lensmith(Path(source)):
        model, reading = load(source)
        model = model.to(device=device, dtype=dtype)
    else:
        loaded = load_language_model(source, dtype=dtype, device=device)
        model, reading = loaded.model, loaded.tokenizer
    if weights is torch.int8:
        quantize_linear_layers(model, wanted=lambda layer: not layer.startswith(("vision_tower.", "connector.")))
    pack_linear_layers(model)
    named = name or Path(source).name.removesuffix(GGUF_SUFFIX)
    return Answering.of(model, reading, name=named, max_length=max_length, cache_bytes=cache_bytes, pictures=pictures)


def _refuse_missing(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        raise InputError("no such device", actual=f"{device}: {str(error).splitlines()[0]}") from error


def _is_lensmith(folder: Path) -> bool:
    return bool(_value(folder / "config.json", "model_type") == VisionLanguageConfig.model_type)


def _is_deepseek_vl(source: str | Path) -> bool:
    """A folder of one of its layouts or of our own, or the name of a published model on the Hub."""
    folder = Path(source)
    if not folder.exists():
        return _PUBLISHED.fullmatch(str(source)) is not None
    own = _value(folder / "processor_config.json", "processor_class") == deepseek_vl.DeepseekVlProcessor.__name__
    return deepseek_vl.is_deepseek_vl(folder) or (own and _is_lensmith(folder))


def _value(file: Path, key: str) -> Any:
    with contextlib.suppress(OSError, ValueError):
        values = json.loads(file.read_bytes())
        return values.get(key) if isinstance(values, dict) else None
    return None
