"""A folder with a DeepSeek-VL checkpoint of any layout: recognised, checked, and nothing of its weights read yet."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lensmith.core.errors import CheckpointError, ConfigError, LensmithError
from lensmith.models.checkpoints.folder import CONFIG, PROCESSOR, declared, is_saved, read_json
from lensmith.models.checkpoints.key_rules import KeyPlan, Stored
from lensmith.models.checkpoints.shards import Shape, Weights, on_its_own, open_weights
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.families.deepseek_vl import published_config
from lensmith.models.families.deepseek_vl.config import IMAGE_TOKEN, IMAGE_TOKEN_ID, following, parts_of
from lensmith.models.families.deepseek_vl.layouts import EMBEDDINGS, HEAD, CheckpointForm, plan_for, recognise
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.published_config import MODEL_TYPES, read_transformers
from lensmith.models.towers import HybridTowerConfig
from lensmith.models.vlm import VisionLanguageModel

_JANUS = "gen_vision_config"
"""Janus has the model type of DeepSeek-VL's original layout, and parts that draw pictures."""


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """`config`: our configuration of it. `shapes`: our state dict. `is_tied`: it has no head of its own."""

    folder: Path
    form: CheckpointForm
    config: VisionLanguageConfig
    shapes: Mapping[str, Shape]
    plan: KeyPlan
    weights: Weights
    is_tied: bool

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the word embeddings."""
        return self.read(EMBEDDINGS).dtype

    @property
    def unused(self) -> list[str]:
        """The checkpoint's own names of tensors that nothing reads."""
        return self.plan.unused(self.weights.tensors)

    def read(self, name: str) -> Tensor:
        """One of our tensors, as a view of the file. A checkpoint that ties gives the embeddings for the head."""
        if name == HEAD and self.is_tied:
            name = EMBEDDINGS
        place, stored = self.places[name]
        tensor = stored.split(self.weights.tensors[place])[name]
        return on_its_own(tensor) if len(stored.pieces) > 1 else tensor

    @functools.cached_property
    def places(self) -> Mapping[str, tuple[str, Stored]]:
        """In which of the checkpoint's tensors each of ours lies."""
        return {own: (name, stored) for name, stored in self.plan.stored.items() for own in stored.pieces}


def open_checkpoint(folder: str | Path, *, exact: Exactness | None = None) -> PublishedCheckpoint:
    """`exact` None: the original's, or what a folder of our own layout says.

    Raises CheckpointError or ConfigError, and lists every key that is missing, unexpected or has the wrong shape.
    """
    folder = Path(folder)
    values = read_json(folder / CONFIG)
    weights = open_weights(folder)
    form = recognise(weights.tensors)
    head = plan_for({HEAD: ()}, form.layout)
    is_tied = not (head.stored.keys() & weights.tensors.keys()) and _says_tied(values)
    config, shapes = _understood(folder, values, is_tied, exact)
    variant = parts_of(config).variant
    if variant is not form.variant:
        raise CheckpointError(
            f"{folder}: {CONFIG} and weights belong to different models",
            expected=f"weights of the {variant.value} family, as {CONFIG} says",
            actual=f"weights of the {form.variant.value} family",
        )
    plan = plan_for(shapes, form.layout)
    plan.check(weights.shapes, optional=head.stored if is_tied else (), source=folder)
    used = ((name, weights.tensors[name]) for name in plan.stored if name in weights.tensors)
    not_numbers = [f"{name}: {tensor.dtype}" for name, tensor in used if not tensor.is_floating_point()]
    if not_numbers:
        raise CheckpointError(
            f"{folder}: weights in a form that is not read here",
            expected="floating-point tensors",
            actual="\n    ".join([f"{len(not_numbers)} of them are others", *not_numbers]),
        )
    return PublishedCheckpoint(
        folder=folder, form=form, config=config, shapes=shapes, plan=plan, weights=weights, is_tied=is_tied
    )


def is_published(folder: str | Path) -> bool:
    """Whether a folder's `config.json` is that of a DeepSeek-VL checkpoint in one of the published layouts."""
    is_named = declared(folder, CONFIG, "model_type") in _PUBLISHED
    return is_named and _JANUS not in read_json(Path(folder) / CONFIG)


def is_deepseek_vl(source: str | Path) -> bool:
    """Whether a folder holds a DeepSeek-VL model in one of the published layouts, or in ours with its processor; or
    whether a name is that of a published model on the Hub. Raises CheckpointError where a folder's files are damaged.
    """
    folder = Path(source)
    if not folder.exists():
        return _PUBLISHED_NAME.fullmatch(str(source)) is not None
    if is_published(folder):
        return True
    return is_saved(folder) and declared(folder, PROCESSOR, "processor_class") == _PROCESSOR_CLASS


def configuration(
    folder: Path, values: Mapping[str, Any], *, tied: bool = False, exact: Exactness | None = None
) -> VisionLanguageConfig:
    """Our configuration, from the content of a `config.json`. Raises ConfigError.

    The tokens that begin and end a text are taken from the tokenizer where the folder has one: the published
    configurations leave them out, and Llama's defaults are wrong for it.
    """
    kind = values.get("model_type")
    if kind == VisionLanguageConfig.model_type:
        own: VisionLanguageConfig = VisionLanguageConfig.from_dict(_with_exactness(values, exact))
        own.language.tie_word_embeddings = tied
        return own
    wanted = exact or Exactness.ORIGINAL
    ids = _token_ids(folder)
    if kind == published_config.MODEL_TYPE and _JANUS not in values:
        image = ids.get("image_token_id", int(values.get("image_token_id", IMAGE_TOKEN_ID)))
        config = published_config.read_original(values, image_token_id=image, tied=tied, exact=wanted)
    elif kind in MODEL_TYPES:
        config = read_transformers(values, tied=tied, exact=wanted)
    else:
        raise ConfigError(
            f"{folder / CONFIG}: not a DeepSeek-VL model",
            expected=f"model_type {', '.join((*_PUBLISHED, VisionLanguageConfig.model_type))}",
            actual=f"model_type {kind}" + (" of Janus" if _JANUS in values else ""),
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if name in ids:
            setattr(config.language, name, ids[name])
    return config


def state_shapes(config: VisionLanguageConfig) -> dict[str, Shape]:
    """Names and shapes of the model's state dict; no memory is taken."""
    with torch.device("meta"):
        model = VisionLanguageModel(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


_PUBLISHED = (published_config.MODEL_TYPE, *MODEL_TYPES)
_PUBLISHED_NAME = re.compile(r"[\w.-]+/deepseek-vl-(1\.3b|7b)-(base|chat)")
_PROCESSOR_CLASS = "DeepseekVlProcessor"
"""What a folder that `save_pretrained` wrote says of its processor; the class itself is not needed here."""


def _understood(
    folder: Path, values: Mapping[str, Any], is_tied: bool, exact: Exactness | None
) -> tuple[VisionLanguageConfig, dict[str, Shape]]:
    try:
        config = configuration(folder, values, tied=is_tied, exact=exact)
        parts_of(config)
        return config, state_shapes(config)
    except LensmithError:
        raise
    except Exception as error:  # transformers and torch raise whatever an impossible value leads to
        raise ConfigError(
            f"{folder / CONFIG}: no model can be built from it",
            actual=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}",
        ) from error


def _with_exactness(values: Mapping[str, Any], exact: Exactness | None) -> dict[str, Any]:
    vision = values.get("vision")
    if exact is None or not isinstance(vision, Mapping) or vision.get("kind") != HybridTowerConfig.kind:
        return dict(values)
    read = HybridTowerConfig.from_saved({key: value for key, value in vision.items() if key != "kind"})
    return {**values, "vision": following(read, exact)}


def _says_tied(values: Mapping[str, Any]) -> bool:
    inner = [values.get(name) for name in ("text_config", "language_config", "language")]
    return any(part.get("tie_word_embeddings") is True for part in (values, *inner) if isinstance(part, Mapping))


def _token_ids(folder: Path) -> dict[str, int]:
    """What the folder's tokenizer calls the tokens of a configuration; nothing where there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {}
    # Imported here: a configuration alone needs no tokenizer.
    from lensmith.models.families.deepseek_vl.tokenizer import load_tokenizer  # noqa: PLC0415

    tokenizer = load_tokenizer(folder)
    return {
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
