"""A real language model from a GGUF file: converted once, sensible, quick in a batch."""

import time

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from benchmarks.real_models import smollm2_gguf
from lensmith.core.endpoint import Request, Reveal
from lensmith.core.errors import InputError
from lensmith.core.types import Message
from lensmith.models.inference.endpoint import LocalEndpoint
from lensmith.models.inference.loading import load_answering
from lensmith.models.language.loading import gguf_as_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

BEGINNINGS = (
    "The capital of France is",
    "Once upon a time there was",
    "Water boils at",
    "One two three",
    "In the beginning",
    "My name is",
    "To be or not",
    "The sun rises in the",
)
NEAR = 1e-4
"""Batched against alone. 30 layers deep, sums in another order end up to 3e-5 apart; a tiny model keeps to 1e-5."""


@pytest.fixture(scope="module")
def gguf():
    try:
        return smollm2_gguf()
    except InputError as error:
        pytest.skip(f"SmolLM2 cannot be fetched: {error}")


@pytest.fixture(scope="module")
def endpoint(gguf, tmp_path_factory):
    answering = load_answering(gguf)
    return LocalEndpoint(answering.model, answering.prompts.tokenizer, name=answering.name)


def test_it_is_converted_once(gguf, endpoint, monkeypatch):
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("it was converted before")
    )
    folder = gguf_as_folder(gguf)
    assert (folder / "model.safetensors").is_file()
    assert endpoint.metadata()["width"] == 576
    assert endpoint.supports().vocabulary_size == 49152


def test_it_knows_the_capital_of_france(endpoint):
    question = Message(role="user", parts=("What is the capital of France?",))
    [answer] = endpoint.answer([Request(messages=(question,), max_tokens=20, temperature=0)])
    assert answer.choices[0].text == "The capital of France is Paris."


@pytest.mark.alone
def test_a_batch_of_8_is_the_same_and_quicker(endpoint):
    requests = [
        Request(prompt=text, max_tokens=12, temperature=0, top_logprobs=5, reveal=Reveal.SAMPLED) for text in BEGINNINGS
    ]
    seconds = {}
    answers = {}
    for how, groups in (("warm", [requests[:1]]), ("alone", [[each] for each in requests]), ("batch", [requests])):
        endpoint.answering.prefill.forget()
        began = time.monotonic()
        answers[how] = [answer for group in groups for answer in endpoint.answer(group)]
        seconds[how] = time.monotonic() - began
    for one, other in zip(answers["alone"], answers["batch"], strict=True):
        assert one.choices[0].token_ids_T.tolist() == other.choices[0].token_ids_T.tolist()
        np.testing.assert_allclose(one.choices[0].logprobs.top_TK, other.choices[0].logprobs.top_TK, atol=NEAR)
    tokens = sum(len(answer.choices[0].token_ids_T) for answer in answers["batch"])
    told = {how: f"{tokens / seconds[how]:.1f} tokens/s" for how in ("alone", "batch")}
    assert seconds["alone"] > 1.5 * seconds["batch"], told
