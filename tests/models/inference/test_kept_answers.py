"""What was written need not be read: keys and values of answers, kept for the prompt that goes on from there."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure
from lensmith.models.inference.answers import Piece
from lensmith.models.inference.decoder import Answers, Job
from lensmith.models.inference.endpoint import Answering
from lensmith.models.inference.prefill import Prefill, Prompt
from tests.support.tiny_vlm import tiny_llama


@pytest.fixture(scope="module")
def answering(tokenizer):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_llama(max_position_embeddings=512)).eval()
    return Answering.of(model, tokenizer, name="tiny")


def written(answering, requests, answers, *, cancel_after=None):
    """Answers several requests at once, on fewer rows; gives the token ids of each prompt and answer."""
    decoder = answering.decoder(Exposure.everything(), slots=3, answers=answers)
    jobs, tokens = [], [[] for _ in requests]
    for request, into in zip(requests, tokens, strict=True):
        jobs.append(Job(request=request, prompt=answering.prompt(request), sink=into_list(into)))
        decoder.submit(jobs[-1])
    steps = 0
    while not decoder.is_idle:
        decoder.step()
        steps += 1
        if steps == cancel_after:
            jobs[0].cancelled = True
    return [[*job.prompt.token_ids_P.tolist(), *answer] for job, answer in zip(jobs, tokens, strict=True)]


def into_list(tokens):
    def sink(event):
        if isinstance(event, Piece):
            tokens.extend(event.token_ids)

    return sink


def requests():
    lengths = (5, 9, 30, 2, 12)  # rows leave in another order than they came
    texts = (
        "as long as is looked up",
        "a prompt that is longer than it",
        "something else altogether",
        "b" * 17,
        "z" * 40,
    )
    return [
        Request(prompt=text, max_tokens=length, temperature=1.5, seed=number)
        for number, (text, length) in enumerate(zip(texts, lengths, strict=True))
    ]


def test_kept_answers_are_what_reading_them_gives(answering):
    for ids in written(answering, requests(), Answers.KEPT):
        prompt = Prompt(token_ids_P=np.array([*ids[:-1], 7, 8]))
        [known] = answering.prefill.read([prompt])
        [fresh] = Prefill(answering.model, cache_bytes=1 << 20).read([prompt])
        assert known.known_tokens == len(ids) - 1
        assert fresh.known_tokens == 0
        np.testing.assert_allclose(known.logits_V, fresh.logits_V, rtol=0, atol=1e-5)
        whole = Prompt(token_ids_P=np.array(ids[:-1]))
        [known] = answering.prefill.read([whole])
        [fresh] = Prefill(answering.model, cache_bytes=1 << 20).read([whole])
        assert known.known_tokens == len(ids) - 1
        np.testing.assert_allclose(known.logits_V, fresh.logits_V, rtol=0, atol=1e-5)


def test_what_was_stopped_is_kept_too(answering):
    answering.prefill.forget()
    [ids, *_] = written(answering, [requests()[2]], Answers.KEPT, cancel_after=6)
    assert len(ids) < len("something else altogether") + 30
    [known] = answering.prefill.read([Prompt(token_ids_P=np.array([*ids, 7]))])
    assert known.known_tokens >= len(ids) - 2


def test_a_server_forgets_them(answering):
    answering.prefill.forget()
    for request, ids in zip(requests(), written(answering, requests(), Answers.FORGOTTEN), strict=True):
        [known] = answering.prefill.read([Prompt(token_ids_P=np.array([*ids, 7]))])
        assert known.known_tokens <= len(answering.prompt(request).token_ids_P)


def test_a_conversation_is_held_once(answering):
    answering.prefill.forget()
    [request] = [one for one in requests() if one.max_tokens == 30]
    [ids] = written(answering, [request], Answers.KEPT)
    longer = Request(token_ids=(*ids, 7, 8, 9), max_tokens=10, temperature=0.0)
    [ids] = written(answering, [longer], Answers.KEPT)
    assert [len(answering.prefill.known_prompts.peek(key).keys_P) for key in answering.prefill.known_prompts] == [
        len(ids) - 1
    ]
