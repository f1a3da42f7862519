"""How an MM1 model is built: a tower, a connector with a fixed number of tokens, and a Llama.

MM1 (arXiv 2403.09611): the parts as the ablations have them (section 3.1), and the published models (section 3.3):
ViT-H/14 at 378 px, C-Abstractor with 144 tokens, decoders of 3B, 7B and 30B, and two with experts: 64 in every second
layer of the 3B, 32 in every fourth of the 7B.

Where we differ: the paper tells nothing of the decoders but their number of weights, and names no tokenizer. The
dimensions here are ours, a Llama's, chosen so that the weights without embeddings are what it says, to 1 %: 2.9B and
6.4B for "3B" and "7B", and 64B and 47B with experts, where only feed-forwards are replaced. The last figure leaves the
7B's feed-forwards four fifths of its weights; so its attention shares keys. Embeddings and head are one tensor. Which
layers have experts is not told either: here the last of every two or four. The paper's towers are CLIP's; here a tower
may also be EfficientNet-Lite0, whose weights a package registry has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from transformers import LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lensmith.core.errors import ConfigError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.connectors.attention_pool import AttentionPoolConnectorConfig
from lensmith.models.connectors.c_abstractor import CAbstractorConfig
from lensmith.models.connectors.pool import PoolConnectorConfig
from lensmith.models.families.mm1.processor import IMAGE, Mm1Processor, Mm1Tower, train_tokenizer
from lensmith.models.language.experts import ExpertLlamaConfig, ExpertsConfig
from lensmith.models.towers import ClipTowerConfig

Mm1Connector = AttentionPoolConnectorConfig | CAbstractorConfig | PoolConnectorConfig
"""Those that the paper compares."""


@dataclass(frozen=True, kw_only=True)
class LlamaDecoderConfig:
    """The language model: a Llama of this size with tied embeddings.

    `key_heads`: heads of keys and values, each shared by as many heads of queries; None: as many as those. `experts`:
    in place of the feed-forwards of some layers, each of a feed-forward's size; None: no layer has any.
    """

    width: int
    layers: int
    inner_width: int
    head_width: int = 128
    key_heads: int | None = None
    max_positions: int = 4096
    experts: ExpertsConfig | None = None

    def __post_init__(self) -> None:
        if self.width % self.head_width:
            raise ConfigError("width: not whole heads", expected=f"k * {self.head_width}", actual=self.width)
        if self.key_heads is not None and (self.key_heads < 1 or self.heads % self.key_heads):
            raise ConfigError(
                "key_heads: heads cannot share them evenly",
                expected=f"a divisor of {self.heads}",
                actual=self.key_heads,
            )

    @property
    def heads(self) -> int:
        return self.width // self.head_width

    @property
    def parameters(self) -> int:
        """Weights without embeddings: N in MM1's law of the learning rate, for a model without experts."""
        return self._weights(0 if self.experts is None else self.experts.count)

    @property
    def active_parameters(self) -> int:
        """Those of them that one token meets: of the experts, only its own."""
        return self._weights(0 if self.experts is None else self.experts.per_token)

    def _weights(self, counted_experts: int) -> int:
        keys_width = self.head_width * (self.key_heads or self.heads)
        attention, norms = 2 * self.width * (self.width + keys_width), 2 * self.width
        gated, mixed = 3 * self.width * self.inner_width, 0
        if self.experts is not None:
            layers = sum(map(self.experts.is_at, range(self.layers)))
            mixed = layers * ((counted_experts - 1) * gated + self.experts.count * self.width)
        return self.layers * (attention + gated + norms) + self.width + mixed

    def build(self, vocabulary_size: int) -> LlamaConfig:
        values = {
            "vocab_size": vocabulary_size,
            "hidden_size": self.width,
            "intermediate_size": self.inner_width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads or self.heads,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": True,
        }
        return LlamaConfig(**values) if self.experts is None else ExpertLlamaConfig(**values, experts=self.experts)


@dataclass(frozen=True, kw_only=True)
class Mm1Parts:
    """What a model of this make consists of. An ablation replaces one of them."""

    tower: Mm1Tower
    connector: Mm1Connector
    decoder: LlamaDecoderConfig

    @property
    def max_positions(self) -> int:
        return self.decoder.max_positions

    def train_tokenizer(self, texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
        """See `TrainableParts`, as of the rest."""
        return train_tokenizer(texts, vocabulary_size=vocabulary_size)

    def config(self, tokenizer: PreTrainedTokenizerBase) -> VisionLanguageConfig:
        return mm1_toy_config(tokenizer, self)

    def processor(self, tokenizer: PreTrainedTokenizerBase) -> Mm1Processor:
        return Mm1Processor.for_model(self.config(tokenizer), tokenizer)


# "quick_gelu" as in the encoder of this size and data that Apple published, DFN5B-CLIP-ViT-H-14-378.
_VIT_H = ClipTowerConfig(width=1280, hidden_width=5120, layers=32, heads=16, patch_px=14, native_px=378)
_3B = LlamaDecoderConfig(width=2560, layers=36, inner_width=7040)
_7B = LlamaDecoderConfig(width=4096, layers=32, inner_width=13312, key_heads=2)
_DECODERS = {
    "3b": _3B,
    "7b": _7B,
    "30b": LlamaDecoderConfig(width=6656, layers=56, inner_width=17920),
    "3b_moe": replace(_3B, experts=ExpertsConfig(count=64, every=2)),
    "7b_moe": replace(_7B, experts=ExpertsConfig(count=32, every=4)),
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
    """The configuration of a published size: "3b", "7b", "30b", "3b_moe" or "7b_moe". Raises ConfigError for another.

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
