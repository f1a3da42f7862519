"""Loading whatever can answer: a model of any family, one that `save_pretrained` wrote, or a language model.

Which family a model belongs to, the registry knows (`models.families.registry`); nothing here does.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from lensmith.core.errors import InputError
from lensmith.core.images import DEFAULT_LIMITS, ImageLimits
from lensmith.models.checkpoints.folder import Loaded, is_saved, load_saved
from lensmith.models.families.base import Source
from lensmith.models.families.registry import check_options, family_of, options_for, resolved
from lensmith.models.inference.endpoint import CACHE_BYTES, Answering, Reading
from lensmith.models.language.loading import GGUF_SUFFIX, load_language_model
from lensmith.models.linear.int8 import quantize_linear_layers
from lensmith.models.linear.packed import pack_linear_layers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

FamilyOptions = Mapping[str, str]
"""Values of options that only models of some families have, by name; see `families.base.Option`."""
NO_OPTIONS: FamilyOptions = MappingProxyType({})


def dtype_named(name: str) -> torch.dtype:
    """What commands and adapters call a precision of weights. Raises InputError for another name."""
    if name not in DTYPES:
        raise InputError("no such precision", expected=" or ".join(DTYPES), actual=name)
    return DTYPES[name]


def given_options(**values: str | None) -> FamilyOptions:
    """Those options that have a value, checked. Raises InputError where no family takes it."""
    options = {name: value for name, value in values.items() if value is not None}
    check_options(options)
    return options


def load_answering(
    source: Source | None,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    max_length: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    pictures: ImageLimits = DEFAULT_LIMITS,
    options: FamilyOptions = NO_OPTIONS,
) -> Answering:
    """From the folder or name of a family's model, a transformers folder or name, or a GGUF file.

    `source` None: the model that ships. `name` is by default the folder's or file's; `pictures` are the largest that
    are read. `dtype` int8: the language model's weights are, the rest is bfloat16. On a CPU weights are packed, so that
    the model can be used and nothing else. Raises InputError where there is no such model or device, or it has not
    these options.
    """
    _refuse_missing(device)
    check_options(options)
    weights, dtype = dtype, torch.bfloat16 if dtype is torch.int8 else dtype
    source = resolved(source)
    reading: Reading
    if (loaded := load_vision_language(source, dtype=dtype, device=device, options=options)) is not None:
        model, reading = loaded
    else:
        model, reading = load_language_model(source, dtype=dtype, device=device)
    if weights is torch.int8:
        quantize_linear_layers(model, wanted=lambda layer: not layer.startswith(("vision_tower.", "connector.")))
    pack_linear_layers(model)
    named = name or Path(source).name.removesuffix(GGUF_SUFFIX)
    return Answering.of(model, reading, name=named, max_length=max_length, cache_bytes=cache_bytes, pictures=pictures)


def load_vision_language(
    source: Source,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    options: FamilyOptions = NO_OPTIONS,
) -> Loaded | None:
    """A vision-language model as it was trained; None where no family recognises it and none was saved there.

    Raises InputError for options that the model has not, CheckpointError for a damaged folder.
    """
    family = family_of(source)
    own = options_for(family, options)
    if family is not None:
        return family.load(source, dtype=dtype, device=device, **own)
    return load_saved(source, dtype=dtype, device=device) if is_saved(source) else None


def _refuse_missing(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        raise InputError("no such device", actual=f"{device}: {str(error).splitlines()[0]}") from error
