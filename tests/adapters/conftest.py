"""Tiny models in folders, as the frameworks load them. Weights are random; nothing is downloaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from tests.support.tiny_vlm import byte_tokenizer, tiny_chat_model, tiny_llama

QUESTIONS = [
    {
        "question": f"What stands at place {number}?",
        "options": ["a dog", "two cats", "nothing at all that I can see", "B"][: 2 + number % 3],
        "answer": number % 2,
        "picture": f"{number // 3}.png",
    }
    for number in range(12)
]


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "text"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_llama(max_position_embeddings=512)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pictures"
    torch.manual_seed(0)
    model, processor = tiny_chat_model()
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
