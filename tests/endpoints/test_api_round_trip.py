"""What crosses the wire comes back as it was, in each dialect as far as the dialect can carry it.

Through real JSON text. Two differences are the wire's own: asking for any logprob asks for the sampled token's too, and
tokens that a server names by text come back as numbers for those texts.
"""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lensmith.core.endpoint import NO_TOKEN, TEXT_IDS_FROM, Answer, Logprobs, Request, Reveal, needed_features
from lensmith.core.exposure import Exposure, Noise
from lensmith.core.types import Message, Picture
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import as_read, known_fields, write_in
from lensmith.openai_api import (
    DIALECTS,
    Kind,
    TextVocabulary,
    Usage,
    WantedIds,
    kind_of,
    read_answer,
    write_request,
)
from tests.support.api import read_one

VOCABULARY = 23
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
IDS = st.integers(0, VOCABULARY - 1)
PICTURES = st.builds(lambda data: Picture(data=b"\x89PNG" + data), st.binary(max_size=6))
MESSAGES = st.builds(
    lambda role, parts: Message(role=role, parts=tuple(parts)),
    st.sampled_from(["system", "user", "assistant"]),
    st.lists(WORDS | PICTURES, min_size=1, max_size=3),
)


@st.composite
def requests(draw) -> Request:
    name, prompts = draw(
        st.sampled_from(
            [
                ("messages", st.lists(MESSAGES, min_size=1, max_size=2).map(tuple)),
                ("prompt", WORDS),
                ("token_ids", st.lists(IDS, min_size=1, max_size=4).map(tuple)),
            ]
        )
    )
    most = st.integers(1, 4) if name == "messages" else st.integers(0, 4)
    reveals = [Reveal.NOTHING, Reveal.SAMPLED, Reveal.SAMPLED | Reveal.VOCABULARY, Reveal.SAMPLED | Reveal.PROMPT]
    return Request(
        **{name: draw(prompts)},
        max_tokens=draw(most),
        temperature=draw(st.just(0.0) | st.floats(0.01, 2)),
        top_p=draw(st.floats(0, 1, exclude_min=True)),
        stop=tuple(draw(st.lists(WORDS, max_size=2))),
        n=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 1 << 40)),
        logit_bias=draw(st.dictionaries(IDS, st.floats(-100, 100), max_size=3)),
        allowed_ids=draw(st.none() | st.lists(IDS, min_size=1, max_size=4).map(tuple)),
        top_logprobs=draw(st.integers(0, 5)),
        wanted_ids=tuple(draw(st.lists(IDS, max_size=4, unique=True))),
        reveal=draw(st.sampled_from(reveals)),
    )


def sent(request: Request, dialect) -> dict:
    assume(not needed_features(request) & ~dialect.features)
    assume(request.messages == () or Reveal.PROMPT not in request.reveal)
    return json.loads(json.dumps(write_request(request, kind=kind_of(request), model="m", dialect=dialect)))


@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
@given(request=requests())
def test_requests_come_back(request):
    """In our own dialect; the whole vocabulary takes the place of the top, which is part of it."""
    wire = read_one(kind_of(request), sent(request, DIALECTS["lensmith"]))
    whole = Reveal.VOCABULARY in request.reveal
    assert wire.request == dataclasses.replace(
        request,
        reveal=request.reveal | Reveal.SAMPLED if request.wants_logprobs else Reveal.NOTHING,
        top_logprobs=0 if whole else request.top_logprobs,
    )
    assert (wire.model, wire.token_ids, wire.tokens_as_ids) == ("m", True, request.wants_logprobs)


ENDPOINTS = [
    FakeEndpoint(vocabulary=VOCABULARY, width=4, seed=1),
    FakeEndpoint(vocabulary=VOCABULARY, width=4, seed=1, end_id=3, padded_vocabulary=2),
    FakeEndpoint(
        vocabulary=VOCABULARY,
        width=4,
        exposes=dataclasses.replace(Exposure.everything(), decimals=1, noise_nats=0.5, noise=Noise.FROZEN),
    ),
]


@pytest.mark.parametrize("name", sorted(DIALECTS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(request=requests(), endpoint=st.sampled_from(ENDPOINTS))
def test_answers_come_back(name, request, endpoint):
    dialect = DIALECTS[name]
    request = dataclasses.replace(
        request,
        allowed_ids=request.allowed_ids if name in ("lensmith", "vllm") else None,
        wanted_ids=request.wanted_ids if dialect.wanted_in else (),
        n=min(request.n, dialect.most_choices or request.n),
        max_tokens=max(request.max_tokens, dialect.least_tokens),
    )
    body = known_fields(sent(request, dialect), kind_of(request), dialect)
    wire = as_read(read_one(kind_of(request), body), dialect)
    asked = dataclasses.replace(request, reveal=request.reveal | Reveal.SAMPLED) if request.wants_logprobs else request
    true, vocabulary = endpoint.answer([asked])[0], TextVocabulary()
    completion = sum(len(choice.token_ids_T) for choice in true.choices)
    usage = Usage(prompt_tokens=true.prompt_tokens or 0, completion_tokens=completion)
    seen = endpoint.answer([wire.request])[0]
    written = write_in(dialect, [wire], [seen], endpoint.tokens, usage)
    told = read_answer(kind_of(request), json.loads(json.dumps(written, allow_nan=False)), request, dialect, vocabulary)
    Comparison(request, dialect, endpoint, vocabulary).answers(told, true)


class Comparison:
    """A told answer against the true one."""

    def __init__(self, request, dialect, endpoint, vocabulary):
        self.request, self.dialect = request, dialect
        self.endpoint, self.vocabulary = endpoint, vocabulary

    def answers(self, told: Answer, true: Answer) -> None:
        assert told.prompt_tokens == true.prompt_tokens
        for mine, its in zip(told.choices, true.choices, strict=True):
            assert (mine.text, mine.finish) == (its.text, its.finish)
            if self.request.wants_logprobs or self.dialect.returns_ids:
                assert np.array_equal(self.ids(mine.token_ids_T), its.token_ids_T)
            self.logprobs(mine.logprobs, its.logprobs)
        if Reveal.PROMPT in self.request.reveal:
            assert np.array_equal(self.ids(told.prompt_ids_P), true.prompt_ids_P)
            self.logprobs(told.prompt_logprobs, true.prompt_logprobs)

    def ids(self, told):
        known = [self.vocabulary.data(each).decode() if each >= TEXT_IDS_FROM else each for each in told.tolist()]
        return np.array([self.endpoint.tokens.encode(each)[0] if isinstance(each, str) and each else
                         3 if each == "" else each for each in known], dtype=np.int64)  # fmt: skip

    def logprobs(self, told: Logprobs | None, true: Logprobs | None) -> None:
        request = self.request
        assert (told is None) == (true is None) == (not request.wants_logprobs)
        if told is None or true is None:
            return
        sampled_T = true.sampled_T if Reveal.SAMPLED in request.reveal else np.full(len(true.sampled_T), np.nan)
        assert np.array_equal(told.sampled_T, sampled_T, equal_nan=True)
        assert np.array_equal(told.wanted_TW, true.wanted_TW, equal_nan=True)
        whole = Reveal.VOCABULARY in request.reveal
        if whole and self.endpoint.exposes.noise_nats:
            pass  # the server ranks before it adds noise; from the whole vocabulary the client can only rank after
        elif not whole and request.wanted_ids and self.dialect.wanted_ids is WantedIds.INSTEAD_OF_TOP:
            assert (told.top_ids_TK == NO_TOKEN).all()
        elif self.endpoint.exposes.noise_nats or (self.dialect.name == "vllm" and request.messages):
            # As above: where a server lists the sampled token too, noise can lift it over one of the top; and in chats
            # vLLM lists it in place of the last of the top.
            allowed = {*true.top_TK.ravel().tolist(), *true.sampled_T.tolist()}
            assert {value for value in told.top_TK.ravel().tolist() if not math.isnan(value)} <= allowed
        elif self.dialect.name == "vllm" and request.messages and not whole:
            # vLLM's chat lists the sampled token first, and cuts the list after that.
            for told_K, true_K, sampled in zip(told.top_TK, true.top_TK, true.sampled_T, strict=True):
                listed = true_K if sampled in true_K else [*true_K[:-1], sampled][: len(true_K)]
                assert np.array_equal(told_K, listed, equal_nan=True)
        else:
            assert np.array_equal(told.top_TK, true.top_TK, equal_nan=True)
        if true.vocabulary_TV is not None:
            self.whole(told.vocabulary_TV, true.vocabulary_TV)

    def whole(self, told_TV, true_TV) -> None:
        if self.dialect.names_ids or self.dialect.name == "llama-server":
            assert np.array_equal(told_TV, true_TV[:, : told_TV.shape[1]], equal_nan=True)
        else:
            columns = self.ids(np.arange(told_TV.shape[1]) + TEXT_IDS_FROM)
            assert np.array_equal(told_TV, true_TV[:, columns], equal_nan=True)


def test_equal_texts_lose_tokens_where_logprobs_are_keyed_by_text():
    """The trap of llama-cpp-python's answers, which bytes do not have."""
    endpoint = FakeEndpoint(vocabulary=VOCABULARY, width=4, duplicate_texts=5)
    request = Request(prompt="a", max_tokens=1, temperature=0.0, reveal=Reveal.VOCABULARY)
    dialect, vocabulary = DIALECTS["llama-cpp-python"], TextVocabulary()
    asked = write_request(request, kind=Kind.COMPLETION, model="m", dialect=dialect)
    wire = read_one(Kind.COMPLETION, asked)
    answer = endpoint.answer([wire.request])[0]
    body = write_in(dialect, [wire], [answer], endpoint.tokens, Usage(prompt_tokens=1, completion_tokens=1))
    told = read_answer(Kind.COMPLETION, body, request, dialect, vocabulary).choices[0].logprobs
    assert told.vocabulary_TV.shape == (1, VOCABULARY - 5)
    assert np.exp(told.vocabulary_TV).sum() < 1 - 1e-6
