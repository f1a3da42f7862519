"""Penalties in the decoder: as transformers has them, row by row, and in any company."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, RepetitionPenaltyLogitsProcessor

from lensmith.core.endpoint import Penalties, Request, Reveal
from lensmith.core.exposure import PrecedingTokens, biased_logits
from lensmith.models.inference.endpoint import LocalEndpoint
from tests.support.tiny_vlm import VOCABULARY, tiny_llama

PROMPTS = ("a", "once upon a time there was a house", "xyzzy" * 9, "tomorrow, and tomorrow", "q?")


@pytest.fixture
def endpoint(tokenizer):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_llama()).eval()
    model.generation_config.eos_token_id = 2
    return LocalEndpoint(model, tokenizer, slots=3)


@pytest.mark.parametrize("penalty", [0.4, 1.0001, 1.3, 5.0])
def test_a_repetition_penalty_is_that_of_transformers(penalty):
    rng = np.random.default_rng(0)
    logits_V = rng.normal(scale=6, size=VOCABULARY).astype(np.float32)
    prompt, answer = rng.integers(VOCABULARY, size=30).tolist(), rng.integers(VOCABULARY, size=9).tolist()
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + answer]), torch.tensor(logits_V)[None])
    request = Request(token_ids=(0,), penalties=Penalties(repetition=penalty))
    ours = biased_logits(logits_V[None], request, PrecedingTokens(prompt_ids=prompt, answer_ids=answer))
    # Ours in float64, theirs in float32: one rounding of a number of up to 100.
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2**-23)
    assert (ours != logits_V).any()


@pytest.mark.parametrize("penalty", [0.8, 1.2, 2.0])
def test_greedy_is_what_transformers_generates_with_a_repetition_penalty(endpoint, tokenizer, penalty):
    penalties = Penalties(repetition=penalty)
    requests = [Request(prompt=text, max_tokens=25, temperature=0.0, penalties=penalties) for text in PROMPTS]
    for prompt, answer in zip(PROMPTS, endpoint.answer(requests), strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        whole = endpoint.answering.model.generate(
            ids, max_new_tokens=25, do_sample=False, pad_token_id=0, repetition_penalty=penalty
        )
        assert answer.choices[0].token_ids_T.tolist() == whole[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.9, "seed": 5, "n": 3}], ids=["greedy", "drawn"])
def test_rows_of_one_batch_have_penalties_of_their_own(endpoint, changes):
    kinds = [Penalties(), Penalties(presence=1.5), Penalties(frequency=0.7), Penalties(repetition=1.4)]
    requests = [
        Request(prompt=PROMPTS[i % 5], max_tokens=14, penalties=kinds[i % 4], **{"temperature": 0.0, **changes})
        for i in range(12)
    ]
    together = endpoint.answer(requests)
    for request, answer in zip(requests, together, strict=True):
        [alone] = endpoint.answer([request])
        assert [choice.text for choice in answer.choices] == [choice.text for choice in alone.choices]


def test_a_frequency_penalty_ends_a_loop(endpoint):
    asked = {"prompt": "a", "max_tokens": 60, "temperature": 0.0, "logit_bias": {70: 6.0, 2: -1000.0}}
    [plain, penalised] = endpoint.answer([Request(**asked), Request(**asked, penalties=Penalties(frequency=2.0))])
    most = [np.bincount(answer.choices[0].token_ids_T).max() for answer in (plain, penalised)]
    assert most[1] < most[0] / 3


def test_an_echoed_prompt_is_told_without_penalties(endpoint):
    asked = {"prompt": "hello hello", "max_tokens": 1, "temperature": 0.0, "reveal": Reveal.PROMPT | Reveal.SAMPLED}
    plain, penalised = endpoint.answer([Request(**asked), Request(**asked, penalties=Penalties(repetition=2.0))])
    np.testing.assert_array_equal(plain.prompt_logprobs.sampled_T, penalised.prompt_logprobs.sampled_T)
