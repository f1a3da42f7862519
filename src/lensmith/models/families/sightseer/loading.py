"""Loading a Sightseer model: the small one that ships, or one that a recipe has trained."""

from pathlib import Path
from typing import Any

import torch

from lensmith.models.checkpoints.folder import CONFIG, PROCESSOR, Loaded, declared, is_saved, load_saved
from lensmith.models.families.base import Source
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.towers import ConvTowerConfig

SHIPPED = {"sightseer_nano": Path(__file__).parent / "sightseer_nano"}
"""The folders of the models that come with the package."""


def is_sightseer(source: Source) -> bool:
    """Whether a folder holds a model of this make: its own tower, and pictures at their own aspect ratio.

    Raises CheckpointError where the folder's files are damaged.
    """
    if not is_saved(source):
        return False
    vision: Any = declared(source, CONFIG, "vision")
    kind = vision.get("kind") if isinstance(vision, dict) else None
    return (
        kind == ConvTowerConfig.kind
        and declared(source, PROCESSOR, "processor_class") == VisionLanguageProcessor.__name__
    )


def load(source: Source, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Loaded:
    """Model and processor. float32: on a processor without bfloat16 it is the faster of the two. Raises InputError."""
    return load_saved(source, dtype=dtype, device=device)
