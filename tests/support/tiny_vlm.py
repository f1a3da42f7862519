"""Parts of a tiny vision-language model. Weights are random; nothing is downloaded."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import GPT2Config, LlamaConfig, MistralConfig, PreTrainedConfig, PreTrainedTokenizerFast

from lensmith.models import PictureConfig, VisionLanguageConfig, VisionLanguageModel, VisionLanguageProcessor
from lensmith.models.connectors import MlpConnectorConfig
from lensmith.models.language.experts import ExpertLlamaConfig, ExpertsConfig
from lensmith.models.towers import SiglipTowerConfig
from lensmith.models.towers.sam import Attend, SamAttention

IMAGE_TOKEN_ID = 3
VOCABULARY = 260
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}\n{% endfor %}assistant:"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and four special tokens."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<image>": IMAGE_TOKEN_ID}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    bytes_only = Tokenizer(models.BPE(vocabulary, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    assert len(vocabulary) == VOCABULARY
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<image>"]}
    return PreTrainedTokenizerFast(tokenizer_object=bytes_only, **names)


def tiny_llama(kind: type[LlamaConfig] = LlamaConfig, **changes: object) -> LlamaConfig:
    values = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.3,  # wide, so that what is read changes what is said
    }
    return kind(**(values | changes))


def tiny_texts() -> dict[str, PreTrainedConfig]:
    """Language models that remember and count positions in different ways; of one, tokens choose their weights."""
    small = {"vocab_size": VOCABULARY, "initializer_range": 0.3}
    sliding = MistralConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        sliding_window=6,
        max_position_embeddings=256,
        **small,
    )
    learned = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **small)
    experts = tiny_llama(ExpertLlamaConfig, experts=ExpertsConfig(count=4, every=2))
    return {"llama": tiny_llama(), "experts": experts, "sliding": sliding, "learned positions": learned}


def tiny_siglip(**changes: int) -> SiglipTowerConfig:
    values = {"width": 24, "hidden_width": 48, "layers": 2, "heads": 2, "patch_px": 8, "native_px": 32}
    return SiglipTowerConfig(**(values | changes))


def tiny_chat_model() -> tuple[VisionLanguageModel, VisionLanguageProcessor]:
    """A model that reads messages with pictures of up to 64 x 96 px, and its processor. Seeded by the caller."""
    config = VisionLanguageConfig(
        vision=tiny_siglip(),
        connector=MlpConnectorConfig(),
        language=tiny_llama(max_position_embeddings=512),
        image_token_id=IMAGE_TOKEN_ID,
    )
    pictures = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96)
    processor = VisionLanguageProcessor.for_model(config, byte_tokenizer(), pictures)
    processor.chat_template = CHAT_TEMPLATE
    return VisionLanguageModel(config), processor


def attend_by(module: nn.Module, attend: Attend) -> None:
    """All of SAM's attention within a module is computed this way, whatever the device."""
    layers = [layer for layer in module.modules() if isinstance(layer, SamAttention)]
    assert layers
    for layer in layers:
        layer.attend = attend
