"""Tiny DeepSeek-VL checkpoints of each layout. Weights are random, no two of them alike; nothing is downloaded."""

from pathlib import Path

import torch

from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import CheckpointLayout, DeepseekVlProcessor, tiny_config
from lensmith.models.families.deepseek_vl.convert import convert
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer

FAMILIES = ("mlp", "hybrid")
PUBLISHED_LAYOUTS = (CheckpointLayout.ORIGINAL, CheckpointLayout.TRANSFORMERS_4, CheckpointLayout.TRANSFORMERS)


def tiny_model(family: str, exact: Exactness = Exactness.ORIGINAL, seed: int = 0) -> VisionLanguageModel:
    """Norms, biases and the hybrid tower's scalar are not what they start as, so that each of them counts."""
    torch.manual_seed(seed)
    model = VisionLanguageModel(tiny_config(family, exact=exact)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def save_own(folder: Path, model: VisionLanguageModel) -> Path:
    """With a tokenizer and a processor, in our own layout."""
    model.save_pretrained(folder)
    DeepseekVlProcessor.for_model(model.config, tiny_tokenizer()).save_pretrained(folder)
    return folder


def save_as(folder: Path, model: VisionLanguageModel, layout: CheckpointLayout) -> Path:
    """The same in another layout."""
    own = folder.with_name(f"{folder.name}-own")
    return convert(save_own(own, model), folder, layout).folder
