"""What a DeepSeek-VL model of any size consists of, for recipes: SigLIP, with or without SAM, and a Llama.

arXiv 2403.05525, section 3.1; as in the releases, SAM is there in the larger make only. `config` has the published
sizes as transformers says them, `PUBLISHED` the same ones as parts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from transformers import LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lensmith.core.errors import ConfigError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.families.deepseek_vl.config import (
    IMAGE_TOKEN,
    PUBLISHED_VOCABULARY,
    SIZES,
    hybrid_config,
    mlp_config,
)
from lensmith.models.families.deepseek_vl.layouts import Variant
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import train_tokenizer
from lensmith.models.towers import SiglipTowerConfig
from lensmith.models.towers.hybrid import SIGLIP_L
from lensmith.models.towers.sam import SamTowerConfig


@dataclass(frozen=True, kw_only=True)
class UntiedLlamaConfig:
    """The language model: a Llama of this size whose embeddings and head are two tensors.

    `vocabulary_size` None: as many tokens as the tokenizer has.
    """

    width: int
    layers: int
    inner_width: int
    heads: int
    max_positions: int = 16384
    vocabulary_size: int | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError("width: not whole heads", expected=f"k * {self.heads}", actual=self.width)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary_size or len(tokenizer),
            hidden_size=self.width,
            intermediate_size=self.inner_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.max_positions,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


@dataclass(frozen=True, kw_only=True)
class DeepseekVlParts:
    """SigLIP and a Llama, and `sam` for the hybrid encoder; the adaptor follows from them. See `TrainableParts`."""

    siglip: SiglipTowerConfig
    language: UntiedLlamaConfig
    sam: SamTowerConfig | None = None

    @property
    def max_positions(self) -> int:
        return self.language.max_positions

    def train_tokenizer(self, texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
        return train_tokenizer(texts, vocabulary_size=vocabulary_size)

    def config(self, tokenizer: PreTrainedTokenizerBase) -> VisionLanguageConfig:
        language, image = self.language.build(tokenizer), tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if self.sam is None:
            return mlp_config(self.siglip, language, image)
        return hybrid_config(self.sam, self.siglip, language, image)

    def processor(self, tokenizer: PreTrainedTokenizerBase) -> DeepseekVlProcessor:
        return DeepseekVlProcessor.for_model(self.config(tokenizer), tokenizer)


PUBLISHED: Mapping[str, DeepseekVlParts] = MappingProxyType(
    {
        name: DeepseekVlParts(
            siglip=SIGLIP_L,
            sam=SamTowerConfig() if size.variant is Variant.HYBRID else None,
            language=UntiedLlamaConfig(
                width=size.hidden_size,
                layers=size.layers,
                inner_width=size.intermediate_size,
                heads=size.heads,
                vocabulary_size=PUBLISHED_VOCABULARY,
            ),
        )
        for name, size in SIZES.items()
    }
)
"""The published sizes, "1.3b" and "7b"."""
