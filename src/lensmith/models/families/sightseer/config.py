"""How a Sightseer model is built: a convolutional tower, an MLP connector, and a Llama of any size.

After WebSight and Sightseer (arXiv 2403.09029), whose model has SigLIP-SO400M and Mistral-7B at this place; these are
small enough for a laptop's processor.
"""

from dataclasses import dataclass

from transformers import LlamaConfig, PreTrainedTokenizerFast

from lensmith.models.config import VisionLanguageConfig
from lensmith.models.connectors import MlpConnectorConfig
from lensmith.models.families.sightseer.processor import IMAGE
from lensmith.models.towers import ConvTowerConfig


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The language model: a Llama of this size with tied embeddings."""

    width: int
    layers: int
    head_width: int = 64
    max_positions: int = 4096

    @property
    def inner_width(self) -> int:
        return self.width * 8 // 3 // 32 * 32

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


def sightseer_config(
    tower: ConvTowerConfig,
    connector: MlpConnectorConfig,
    decoder: DecoderConfig,
    tokenizer: PreTrainedTokenizerFast,
    *,
    vocabulary_size: int,
) -> VisionLanguageConfig:
    """The whole model's configuration, with the special tokens of a tokenizer that `train_tokenizer` made."""
    return VisionLanguageConfig(
        vision=tower,
        connector=connector,
        language=decoder.build(vocabulary_size),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
