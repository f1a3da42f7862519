"""bfloat16: a batch agrees with each alone, and with float32, as far as 8 significant bits go.

The logits themselves come in bfloat16, so that a logprob cannot agree better than their spacing: 1/16 nat where the
largest logit is 8 to 16, 1/8 from 16 on. That, and not a number of nats, is the tolerance.
"""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.types import Message, Picture
from lensmith.models.families.sightseer import SHIPPED, load
from lensmith.models.inference.endpoint import LocalEndpoint
from tests.support.tiny_vlm import tiny_llama

BATCHED_SPACINGS = 4
"""In a batch against alone: sums in another order. SmolLM2 (135M, 30 layers) keeps to it with 0.41 nats at 1/8."""
ROUNDED_SPACINGS = 6
"""Against float32: every weight and every layer's output is rounded. SmolLM2: 0.63 nats."""
PROMPTS = ("a", "once upon a time there was a house", "xyzzy" * 9, "tomorrow, and tomorrow", "q?")


def spacing(logits):
    """Between the two largest neighbouring numbers of bfloat16 that these logits come near."""
    return 2.0 ** (np.floor(np.log2(np.abs(logits).max())) - 7)


def endpoint_of(model, reading, dtype):
    return LocalEndpoint(copy.deepcopy(model).to(dtype), reading, slots=8, cache_bytes=0)


def told(endpoint, requests):
    """The logprobs of the first token, for each request a whole vocabulary."""
    return np.array([answer.choices[0].logprobs.vocabulary_TV[0] for answer in endpoint.answer(requests)])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_llama()).eval()


def test_a_batch_is_as_each_alone_and_as_float32(model, tokenizer):
    requests = [Request(prompt=text, max_tokens=1, temperature=0, reveal=Reveal.VOCABULARY) for text in PROMPTS]
    with torch.no_grad():
        logits = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].numpy() for text in PROMPTS]
    narrow = endpoint_of(model, tokenizer, torch.bfloat16)
    assert narrow.metadata()["dtype"] == "bfloat16"
    alone = np.concatenate([told(narrow, [each]) for each in requests])
    batched = told(narrow, requests)
    exact = told(endpoint_of(model, tokenizer, torch.float32), requests)
    assert np.abs(batched - alone).max() <= BATCHED_SPACINGS * spacing(logits)
    error = np.abs(alone - exact).max()
    assert error <= ROUNDED_SPACINGS * spacing(logits)
    # It did compute in bfloat16, and rounding is what moved it.
    assert error > 1e-3
    assert np.exp(alone).sum(axis=1) == pytest.approx(np.ones(len(PROMPTS)), abs=1e-9)


def test_the_shipped_model_sees_a_picture():
    model, processor = load(SHIPPED["sightseer_nano"])
    buffer = io.BytesIO()
    Image.new("RGB", (160, 120), (200, 30, 30)).save(buffer, "PNG")
    message = Message(role="user", parts=(Picture(data=buffer.getvalue()),))
    asked = [Request(messages=(message,), max_tokens=1, temperature=0, reveal=Reveal.VOCABULARY)]
    exact, narrow = (told(endpoint_of(model, processor, dtype), asked) for dtype in (torch.float32, torch.bfloat16))
    likely = exact > np.log(0.01)
    assert likely.sum() > 1
    error = np.abs(narrow[likely] - exact[likely]).max()
    assert 1e-4 < error < 0.1
