"""How an MM1 model is built: a tower, a connector with a fixed number of tokens, and a Llama.

MM1 (arXiv 2403.09611): the parts as the ablations have them (section 3.1), and the published models (section 3.3):
ViT-H/14 at 378 px, C-Abstractor with 144 tokens, decoders of 3B, 7B and 30B.

Where we differ: the paper tells nothing of the decoders but their number of weights, and names no tokenizer. The
dimensions here are ours, a Llama's, chosen so that the weights without embeddings are what it says (2.9B and 6.4B for
"3B" and "7B"), to 1 %; embeddings and head are one tensor. The variants with mixtures of experts are not here. The
paper's towers are CLIP's; here a tower may also be EfficientNet-Lite0, whose weights a package registry has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from transformers import LlamaConfig, PreTrainedTokenizerBase

from lensmith.core.errors import ConfigError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.connectors.attention_pool import AttentionPoolConnectorConfig
from lensmith.models.connectors.c_abstractor import CAbstractorConfig
from lensmith.models.connectors.pool import PoolConnectorConfig
from lensmith.models.families.mm1.processor import IMAGE, Mm1Tower
from lensmith.models.towers import ClipTowerConfig

Mm1Connector = AttentionPoolConnectorConfig | CAbstractorConfig | PoolConnectorConfig
"""Those that the paper compares."""


@dataclass(frozen=True, kw_only=True)
class LlamaDecoderConfig:
    """The language model: a Llama of this size with tied embeddings."""

    width: int
    layers: int
    inner_width: int
    head_width: int = 128
    max_positions: int = 4096

    def __post_init__(self) -> None:
        if self.width % self.head_width:
            raise ConfigError("width: not whole heads", expected=f"k * {self.head_width}", actual=self.width)

    @property
    def parameters(self) -> int:
        """Weights without embeddings: N in MM1's law of the learning rate."""
        attention, gated, norms = 4 * self.width**2, 3 * self.width * self.inner_width, 2 * self.width
        return self.layers * (attention + gated + norms) + self.width

    def build(self, vocabulary_size: int) -> LlamaConfig:
        heads = self.width // self.head_width
        return LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=self.width,
            intermediate_size=self.inner_width,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=self.max_positions,
            tie_word_embeddings=True,
        )


@dataclass(frozen=True, kw_only=True)
class Mm1Parts:
    """What a model of this make consists of. An ablation replaces one of them."""

    tower: Mm1Tower
    connector: Mm1Connector
    decoder: LlamaDecoderConfig


# "quick_gelu" as in the encoder of this size and data that Apple published, DFN5B-CLIP-ViT-H-14-378.
_VIT_H = ClipTowerConfig(width=1280, hidden_width=5120, layers=32, heads=16, patch_px=14, native_px=378)
_DECODERS = {
    "3b": LlamaDecoderConfig(width=2560, layers=36, inner_width=7168),
    "7b": LlamaDecoderConfig(width=4096, layers=32, inner_width=10752),
    "30b": LlamaDecoderConfig(width=6656, layers=56, inner_width=17920),
}
SIZES: Mapping[str, Mm1Parts] = MappingProxyType(
    {
        name: Mm1Parts(tower=_VIT_H, connector=CAbstractorConfig(grid_side=_VIT_H.grid_side), decoder=decoder)
        for name, decoder in _DECODERS.items()
    }
)

TOY = Mm1Parts(
    tower=ClipTowerConfig(width=64, hidden_width=256, layers=3, heads=4, patch_px=8, native_px=64),
    connector=CAbstractorConfig(side=4, depth=1, hidden_width=64, grid_side=8),
    decoder=LlamaDecoderConfig(width=96, layers=3, inner_width=256, head_width=32, max_positions=1024),
)
"""Of the same make, half a million weights: 16 tokens a picture of 64 px."""


def mm1_config(size: str, *, vocabulary_size: int = 32_000, image_token_id: int = 3) -> VisionLanguageConfig:
    """The configuration of a published size: "3b", "7b" or "30b". Raises ConfigError for another.

    The vocabulary is whatever tokenizer the model is to have; the defaults only stand in for it.
    """
    if size not in SIZES:
        raise ConfigError("no such size of MM1", expected=" or ".join(SIZES), actual=size)
    parts = SIZES[size]
    return VisionLanguageConfig(
        vision=parts.tower,
        connector=parts.connector,
        language=parts.decoder.build(vocabulary_size),
        image_token_id=image_token_id,
    )


def mm1_toy_config(tokenizer: PreTrainedTokenizerBase, parts: Mm1Parts = TOY) -> VisionLanguageConfig:
    """A model of any parts, with a tokenizer's vocabulary and special tokens; `<image>` must be one of them."""
    return VisionLanguageConfig(
        vision=parts.tower,
        connector=parts.connector,
        language=parts.decoder.build(len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
