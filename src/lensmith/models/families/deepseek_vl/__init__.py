"""DeepSeek-VL (arXiv 2403.05525): the published checkpoints, in each of their layouts, computed as published."""

import torch

from lensmith.models.checkpoints.folder import Loaded
from lensmith.models.families.base import Family
from lensmith.models.families.deepseek_vl.checkpoint import is_deepseek_vl
from lensmith.models.families.deepseek_vl.config import SIZES, deepseek_vl_config, tiny_config
from lensmith.models.families.deepseek_vl.convert import convert as convert_checkpoint
from lensmith.models.families.deepseek_vl.layouts import CheckpointLayout, Variant
from lensmith.models.families.deepseek_vl.loading import load, load_model
from lensmith.models.families.deepseek_vl.options import OPTIONS, Decoding, Exactness
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from lensmith.models.vlm import VisionLanguageModel


def _tiny() -> Loaded:
    """Of the larger make, both towers included."""
    torch.manual_seed(0)
    model = VisionLanguageModel(tiny_config(Variant.HYBRID)).eval()
    return Loaded(model, DeepseekVlProcessor.for_model(model.config, tiny_tokenizer()))


FAMILY = Family(
    title="DeepSeek-VL",
    recognises=is_deepseek_vl,
    load=load,
    options=OPTIONS,
    published=tuple(
        f"{owner}/deepseek-vl-{size}-chat" for size in SIZES for owner in ("deepseek-ai", "deepseek-community")
    ),
    tiny=_tiny,
    convert=convert_checkpoint,
    layouts=tuple(layout.value for layout in CheckpointLayout),
)

__all__ = [
    "FAMILY",
    "CheckpointLayout",
    "Decoding",
    "DeepseekVlProcessor",
    "Exactness",
    "Variant",
    "deepseek_vl_config",
    "is_deepseek_vl",
    "load",
    "load_model",
    "tiny_config",
]
