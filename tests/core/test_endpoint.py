"""Requests that no endpoint could answer are refused where they are made, and their needs are known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from lensmith.core.endpoint import (
    Answer,
    Capabilities,
    Choice,
    Endpoint,
    Feature,
    Finish,
    Request,
    Reveal,
    needed_features,
)
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure, apply
from lensmith.core.types import Message, Picture

HELLO = Message(role="user", parts=("hello",))


class LinearEndpoint:
    """The smallest real endpoint: logits are a fixed function of the last token."""

    def __init__(self, exposure: Exposure) -> None:
        self.exposure = exposure
        self.logits_VV = np.random.default_rng(0).normal(size=(7, 7))

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Answer:
        revealed = apply(self.logits_VV[[request.token_ids[-1]]], request, self.exposure)
        choice = Choice(text="", token_ids_T=revealed.token_ids_T, logprobs=revealed.logprobs, finish=Finish.LENGTH)
        return Answer(choices=(choice,))

    def supports(self) -> Capabilities:
        return Capabilities(features=Feature.TOKEN_IDS | Feature.TOP_LOGPROBS)

    def metadata(self) -> Mapping[str, Any]:
        return {}


def test_an_endpoint_answers_a_batch_in_order():
    endpoint = LinearEndpoint(Exposure(top_logprobs=7))
    assert isinstance(endpoint, Endpoint)
    requests = [Request(token_ids=(token,), temperature=0, top_logprobs=7) for token in range(7)]
    answers = endpoint.answer(requests)
    for token, answer in enumerate(answers):
        row = endpoint.logits_VV[token]
        assert answer.choices[0].logprobs.top_ids_TK[0].tolist() == np.argsort(-row).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"messages": (HELLO,), "token_ids": (1,)},
        {"token_ids": (-1,)},
        {"token_ids": (1,), "max_tokens": -1},
        {"token_ids": (1,), "temperature": -0.1},
        {"token_ids": (1,), "temperature": float("inf")},
        {"token_ids": (1,), "top_p": 0.0},
        {"token_ids": (1,), "top_p": 1.1},
        {"token_ids": (1,), "n": 0},
        {"token_ids": (1,), "stop": ("",)},
        {"token_ids": (1,), "top_logprobs": -1},
        {"token_ids": (1,), "wanted_ids": (2, 2)},
        {"token_ids": (1,), "wanted_ids": (-2,)},
        {"token_ids": (1,), "allowed_ids": ()},
        {"token_ids": (1,), "logit_bias": {1: float("nan")}},
        {"token_ids": (1,), "logit_bias": {-1: 1.0}},
    ],
)
def test_impossible_requests_are_input_errors(options):
    with pytest.raises(InputError, match="impossible request"):
        Request(**options)


@pytest.mark.parametrize(
    ("request_", "features"),
    [
        (Request(token_ids=(1,)), Feature.TOKEN_IDS),
        (Request(messages=(HELLO,), seed=0), Feature.MESSAGES | Feature.SEED),
        (
            Request(messages=(Message(role="user", parts=(Picture(data=b"x"), "what?")),), stop=("\n",)),
            Feature.MESSAGES | Feature.PICTURES | Feature.STOP,
        ),
        (
            Request(token_ids=(1,), logit_bias={3: 1.0}, reveal=Reveal.SAMPLED),
            Feature.TOKEN_IDS | Feature.LOGIT_BIAS | Feature.SAMPLED_LOGPROB,
        ),
        (
            Request(token_ids=(1,), allowed_ids=(3,), wanted_ids=(3,), top_logprobs=2),
            Feature.TOKEN_IDS | Feature.ALLOWED_IDS | Feature.WANTED_IDS | Feature.TOP_LOGPROBS,
        ),
        (
            Request(token_ids=(1,), reveal=Reveal.VOCABULARY | Reveal.PROMPT),
            Feature.TOKEN_IDS | Feature.VOCABULARY_LOGPROBS | Feature.PROMPT_LOGPROBS,
        ),
    ],
)
def test_a_request_knows_what_it_needs(request_, features):
    assert needed_features(request_) == features
