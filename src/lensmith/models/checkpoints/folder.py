"""A model's folder: the JSON files in it, and loading one that `save_pretrained` wrote."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from lensmith.core.errors import CheckpointError, InputError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.vlm import VisionLanguageModel

CONFIG, PROCESSOR = "config.json", "processor_config.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file. Raises CheckpointError."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}", expected="a model's folder", actual=error.strerror) from error
    except ValueError as error:
        raise CheckpointError(f"cannot read {path}", expected="JSON", actual=error) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"cannot read {path}", expected="an object", actual=type(values).__name__)
    return values


def declared(folder: str | Path, file: str, key: str) -> Any:
    """What a file of the folder says under a key; None where there is no such file or key.

    Raises CheckpointError where the file is there and damaged: it is not for another kind of model to fail on it.
    """
    path = Path(folder) / file
    return read_json(path).get(key) if path.is_file() else None


def is_saved(folder: str | Path) -> bool:
    """Whether `save_pretrained` of a `VisionLanguageModel` wrote this folder. Raises CheckpointError as `declared`."""
    return bool(declared(folder, CONFIG, "model_type") == VisionLanguageConfig.model_type)


class Loaded(NamedTuple):
    """A model, in evaluation mode, and what prepares its input."""

    model: VisionLanguageModel
    processor: VisionLanguageProcessor


def load_saved(folder: str | Path, *, dtype: torch.dtype, device: str = "cpu") -> Loaded:
    """What `save_pretrained` wrote. Raises InputError."""
    if not (Path(folder) / CONFIG).is_file():
        raise InputError(
            "there is no model in this folder",
            expected="a folder with config.json and model.safetensors",
            actual=folder,
        )
    with without_progress_bar():
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, local_files_only=True)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    if not isinstance(model, VisionLanguageModel) or not isinstance(processor, VisionLanguageProcessor):
        raise InputError("not a lensmith model", expected="model type lensmith_vlm", actual=type(model).__name__)
    return Loaded(model.eval().to(device), processor)


@contextlib.contextmanager
def without_progress_bar() -> Iterator[None]:
    """Weights are read in moments, and stderr is where a model's text is streamed."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
