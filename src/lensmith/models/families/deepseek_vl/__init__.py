"""DeepSeek-VL (arXiv 2403.05525): the published checkpoints, in each of their layouts, computed as published."""

from lensmith.models.families.deepseek_vl.checkpoint import is_deepseek_vl
from lensmith.models.families.deepseek_vl.config import deepseek_vl_config, tiny_config
from lensmith.models.families.deepseek_vl.layouts import Family, Layout
from lensmith.models.families.deepseek_vl.loading import load, load_model
from lensmith.models.families.deepseek_vl.pictures import Decoding
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor

__all__ = [
    "Decoding",
    "DeepseekVlProcessor",
    "Family",
    "Layout",
    "deepseek_vl_config",
    "is_deepseek_vl",
    "load",
    "load_model",
    "tiny_config",
]
