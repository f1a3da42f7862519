"""Loading a DeepSeek-VL model: from a folder of any layout, or under its name on the Hub.

The weights are never held twice. The model is built without weights, and each becomes what the file holds, mapped, one
after the other: in the stored precision nothing is copied at all (the memory is the file's, and what is written to goes
to a private copy), in another precision each tensor is converted on its own.

What a folder says of pictures: `preprocessor_config.json`, or in transformers 5 `processor_config.json`.

All of it counts where it is of the code that is followed: the original's file for `Exactness.ORIGINAL`, transformers'
for `Exactness.TRANSFORMERS`. Of the other code's file only what means the same in both: the least side, mean and
deviation, and whether to normalise where a tower does not do it. `background_color` never counts: either code computes
it from the mean.
"""

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import GenerationConfig

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.models.checkpoints.folder import PROCESSOR, Loaded, read_json
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.families.deepseek_vl.checkpoint import PublishedCheckpoint, open_checkpoint
from lensmith.models.families.deepseek_vl.layouts import HEAD, CheckpointLayout
from lensmith.models.families.deepseek_vl.options import EXACT, PICTURE_DECODING, Decoding, Exactness
from lensmith.models.families.deepseek_vl.pictures import HALF, DeepseekPictureConfig
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import load_tokenizer
from lensmith.models.vlm import VisionLanguageModel

PREPROCESSOR = "preprocessor_config.json"
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
    values = to_dict(pictures) | {"normalise": pictures.normalises, "low_filter": pictures.low_filter.value}
    kind = _ORIGINALS if is_original else _TRANSFORMERS
    return {"image_processor_type": kind} | {name: values[own] for name, own in names.items()}


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
        said = values.get(name)
        sides = list(said.values()) if isinstance(said, Mapping) else [said]
        if said is not None and any(side != side_px for side in sides):
            raise ConfigError(f"{name}: pictures do not fit the tower", expected=f"{side_px} px", actual=said)


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


GENERATION = "generation_config.json"
_FROM_HUB = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")
_PICKLED_FROM_HUB = ("pytorch_model*",)


def load(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    exact: Exactness | str | None = None,
    picture_decoding: Decoding | str | None = None,
    device: str = "cpu",
) -> Loaded:
    """Model, in evaluation mode, and processor. `source`: a folder of any layout, or a name on the Hub.

    `dtype` None: the precision of the file. `exact`: whose numbers; None: the original's, or what a folder that
    `save_pretrained` wrote says. `picture_decoding` None: as `exact` has it. Raises CheckpointError or ConfigError,
    which list all that does not fit; InputError where there is no such folder and no such name can be
    fetched.
    """
    wanted = None if exact is None else EXACT.read(exact)
    reads = None if picture_decoding is None else PICTURE_DECODING.read(picture_decoding)
    folder = as_folder(source)
    checkpoint = open_checkpoint(folder, exact=wanted)
    model = build(checkpoint, dtype=dtype, device=device)
    processor = read_processor(checkpoint, wanted)
    if reads is not None:
        processor.pictures = replace(processor.pictures, decoding=reads)
    return Loaded(model, processor)


def load_model(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    exact: Exactness | str | None = None,
    device: str = "cpu",
) -> VisionLanguageModel:
    """The model alone: the folder needs no tokenizer. See `load`."""
    wanted = None if exact is None else EXACT.read(exact)
    return build(open_checkpoint(as_folder(source), exact=wanted), dtype=dtype, device=device)


def build(
    checkpoint: PublishedCheckpoint, *, dtype: torch.dtype | None = None, device: str = "cpu"
) -> VisionLanguageModel:
    """The model of a checkpoint, with its weights, in evaluation mode."""
    precision = dtype or checkpoint.dtype
    model = model_without_weights(checkpoint.config)
    for name in checkpoint.shapes:
        if not (name == HEAD and checkpoint.is_tied):
            tensor = checkpoint.read(name).to(device=device, dtype=precision)
            _set(model, name, tensor)
    model.tie_weights()
    for _, buffer in model.named_buffers():
        buffer.data = buffer.data.to(device)
    left = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    assert not left, f"the plan covers the whole state dict, but not {left}"
    model.config.dtype = model.config.language.dtype = precision
    _set_generation(model, checkpoint.folder)
    model.eval()
    return model


def model_without_weights(config: VisionLanguageConfig) -> VisionLanguageModel:
    """A model whose parameters have shapes only (device `meta`), and whose buffers are computed as always.

    Built wholly on the meta device it would lack buffers that no file holds, such as rotary frequencies.
    """
    with _parameters_on_meta():
        return VisionLanguageModel(config)


def as_folder(source: str | Path) -> Path:
    """`source` itself, or where the Hub's files for that name lie after they were fetched. Raises InputError."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    name = str(source)
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError("there is no such folder", expected="a model's folder, or a name on the Hub", actual=source)
    return _fetch(name)


def _fetch(name: str) -> Path:
    # Imported here: a folder needs nothing of the Hub.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(_FROM_HUB)))
        if not any(folder.glob("*.safetensors")):  # else the same weights would be fetched twice
            folder = Path(snapshot_download(name, allow_patterns=[*_FROM_HUB, *_PICKLED_FROM_HUB]))
    except Exception as error:  # of many libraries: no network, no such name, no permission
        raise InputError(
            f"{name}: there is no such folder, and it cannot be fetched from the Hub",
            actual=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            hint="without network, give a folder that holds the model",
        ) from error
    return folder


def read_processor(checkpoint: PublishedCheckpoint, exact: Exactness | None = None) -> DeepseekVlProcessor:
    """The processor of a checkpoint that was opened with the same `exact`.

    What a saved one says of pictures stays, but for what follows from `exact`. Raises CheckpointError or ConfigError.
    """
    if checkpoint.form.layout is CheckpointLayout.LENSMITH and (checkpoint.folder / PROCESSOR).is_file():
        try:
            processor = DeepseekVlProcessor.from_pretrained(checkpoint.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise CheckpointError("the processor cannot be read", actual=f"{checkpoint.folder}: {reason}") from error
        assert isinstance(processor, DeepseekVlProcessor)
        if exact not in (None, processor.exact):
            # Of a hybrid tower's pictures, only those by transformers' numbers are normalised here.
            normalise = processor.pictures.normalise if processor.pictures.low_px is None else None
            processor.pictures = replace(processor.pictures, exact=exact, normalise=normalise)
        return processor
    tokenizer = load_tokenizer(checkpoint.folder)
    processor = DeepseekVlProcessor.for_model(checkpoint.config, tokenizer, exact=exact)
    processor.pictures = published_pictures(checkpoint.folder, processor.pictures)
    return processor


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    thread = threading.get_ident()

    def without_memory(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        # The hook is the process's; others may build models at the same time.
        if parameter is None or threading.get_ident() != thread:
            return None
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    # torch's annotation forgets that a hook may return another parameter.
    handle = register_module_parameter_registration_hook(cast(Any, without_memory))
    try:
        yield
    finally:
        handle.remove()


def _set(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
    else:
        setattr(module, leaf, tensor)


def _set_generation(model: VisionLanguageModel, folder: Path) -> None:
    """What the folder says of generation, but for the special tokens, which the tokenizer has said."""
    if not (folder / GENERATION).is_file():
        return
    try:
        given = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever transformers' checks of values raise
        raise CheckpointError(f"cannot read {folder / GENERATION}", actual=str(error).split("\n")[0]) from error
    own = model.generation_config
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "suppress_tokens"):
        setattr(given, name, getattr(own, name))
    model.generation_config = given
