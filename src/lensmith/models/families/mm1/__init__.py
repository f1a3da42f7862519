"""MM1 (arXiv 2403.09611): a tower, a connector with a fixed number of tokens, decoder; in any size."""

import torch

from lensmith.models.checkpoints.folder import Loaded
from lensmith.models.families.base import Family
from lensmith.models.families.mm1.config import TOY, LlamaDecoderConfig, Mm1Parts, mm1_config, mm1_toy_config
from lensmith.models.families.mm1.loading import is_mm1, load
from lensmith.models.families.mm1.processor import Mm1PictureConfig, Mm1Processor, tiny_tokenizer
from lensmith.models.vlm import VisionLanguageModel


def _tiny() -> Loaded:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = VisionLanguageModel(mm1_toy_config(tokenizer)).eval()
    return Loaded(model, Mm1Processor.for_model(model.config, tokenizer))


FAMILY = Family(title="MM1", recognises=is_mm1, load=load, tiny=_tiny)

__all__ = [
    "FAMILY",
    "TOY",
    "LlamaDecoderConfig",
    "Mm1Parts",
    "Mm1PictureConfig",
    "Mm1Processor",
    "is_mm1",
    "load",
    "mm1_config",
    "mm1_toy_config",
]
