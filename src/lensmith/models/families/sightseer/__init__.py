"""Sightseer: screenshots to HTML. The small model that ships, and how to load one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from lensmith.core.errors import InputError
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.vlm import VisionLanguageModel

SHIPPED = "sightseer_nano"


@contextlib.contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Loading a few megabytes needs no bar, and stderr is where the model's text is streamed."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def shipped_model() -> Path:
    """The folder of the model that comes with the package."""
    return Path(__file__).parent / SHIPPED


def load(folder: str | Path) -> tuple[VisionLanguageModel, VisionLanguageProcessor]:
    """Model and processor from a folder, in float32: on a processor without bfloat16 it is the faster of the two."""
    if not (Path(folder) / "config.json").is_file():
        raise InputError(
            "there is no model in this folder",
            expected="a folder with config.json and model.safetensors",
            actual=folder,
        )
    with _without_progress_bar():
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32", local_files_only=True)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    if not isinstance(model, VisionLanguageModel) or not isinstance(processor, VisionLanguageProcessor):
        raise InputError("not a lensmith model", expected="model type lensmith_vlm", actual=type(model).__name__)
    model.eval()
    return model, processor
