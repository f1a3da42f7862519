"""Vision-language models, and their parts. Importing this registers them with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from lensmith.models.config import VisionLanguageConfig
from lensmith.models.pictures import PictureConfig, TooTall
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.vlm import VisionLanguageModel, VisionLanguageOutput

AutoConfig.register(VisionLanguageConfig.model_type, VisionLanguageConfig, exist_ok=True)
AutoModelForImageTextToText.register(VisionLanguageConfig, VisionLanguageModel, exist_ok=True)
AutoProcessor.register(VisionLanguageConfig, VisionLanguageProcessor, exist_ok=True)

__all__ = [
    "PictureConfig",
    "TooTall",
    "VisionLanguageConfig",
    "VisionLanguageModel",
    "VisionLanguageOutput",
    "VisionLanguageProcessor",
]
