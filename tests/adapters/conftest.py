"""Tiny models in folders, as the frameworks load them. Weights are random; nothing is downloaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lensmith.models import PictureConfig, VisionLanguageConfig, VisionLanguageModel, VisionLanguageProcessor
from lensmith.models.connectors import MlpConnectorConfig
from lensmith.models.towers import SiglipTowerConfig

IMAGE_ID = 3
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}\n{% endfor %}assistant:"
)
QUESTIONS = [
    {
        "question": f"What stands at place {number}?",
        "options": ["a dog", "two cats", "nothing at all that I can see", "B"][: 2 + number % 3],
        "answer": number % 2,
        "picture": f"{number // 3}.png",
    }
    for number in range(12)
]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<image>": IMAGE_ID}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    bytes_only = Tokenizer(models.BPE(vocabulary, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<image>"]}
    return PreTrainedTokenizerFast(tokenizer_object=bytes_only, **names)


def tiny_llama() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=260,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,  # wide, so that what is read changes what is said
    )


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "text"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_llama()).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pictures"
    torch.manual_seed(0)
    tower = SiglipTowerConfig(width=24, hidden_width=48, layers=2, heads=2, patch_px=8, native_px=32)
    config = VisionLanguageConfig(
        vision=tower, connector=MlpConnectorConfig(), language=tiny_llama(), image_token_id=IMAGE_ID
    )
    model = VisionLanguageModel(config)
    pictures = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96)
    processor = VisionLanguageProcessor.for_model(model.config, byte_tokenizer(), pictures)
    processor.chat_template = TEMPLATE
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def questions_folder(tmp_path: Path) -> Path:
    """`questions.jsonl` and the pictures that it names."""
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (40, 30 + 8 * number, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    lines = [json.dumps({**question, "picture": str(tmp_path / question["picture"])}) for question in QUESTIONS]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path
