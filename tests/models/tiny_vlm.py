"""Parts of a tiny vision-language model. Weights are random; nothing is downloaded."""

from transformers import LlamaConfig

from lensmith.models.towers import SiglipTowerConfig

IMAGE_TOKEN_ID = 3
VOCABULARY = 260


def tiny_llama(**changes: object) -> LlamaConfig:
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
    return LlamaConfig(**(values | changes))


def tiny_siglip(**changes: int) -> SiglipTowerConfig:
    values = {"width": 24, "hidden_width": 48, "layers": 2, "heads": 2, "patch_px": 8, "native_px": 32}
    return SiglipTowerConfig(**(values | changes))
