"""Loading an MM1 model that a recipe has trained. None is published: Apple kept the weights."""

from typing import Any, get_args

import torch

from lensmith.models.checkpoints.folder import CONFIG, PROCESSOR, Loaded, declared, is_saved, load_saved
from lensmith.models.families.base import Source
from lensmith.models.families.mm1.config import Mm1Connector
from lensmith.models.families.mm1.processor import Mm1Processor, Mm1Tower


def is_mm1(source: Source) -> bool:
    """Whether a folder holds a model of this make: one of its towers and connectors, and square pictures.

    Raises CheckpointError where the folder's files are damaged.
    """
    if not is_saved(source):
        return False
    vision, connector = (_kind(declared(source, CONFIG, part)) for part in ("vision", "connector"))
    return (
        vision in [config.kind for config in get_args(Mm1Tower)]
        and connector in [config.kind for config in get_args(Mm1Connector)]
        and declared(source, PROCESSOR, "processor_class") == Mm1Processor.__name__
    )


def load(source: Source, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Loaded:
    """Model and processor. Raises InputError."""
    return load_saved(source, dtype=dtype, device=device)


def _kind(component: Any) -> Any:
    return component.get("kind") if isinstance(component, dict) else None
