"""A guard in front of a server that exposes everything is a server with the guard's exposure."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.core.exposure import Exposure, Noise, PenaltyUse, Sampled, Taken, Together
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.guard.config import TokenNaming, UpstreamConfig
from tests.support.guard_bed import BASE, ask, guard_before, serve

VOCABULARY = 41
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
IDS = st.integers(0, VOCABULARY - 1)
SELDOM = st.sampled_from([False, False, True])
TOPS = st.integers(0, 4) | st.integers(-1, 8)


def endpoint(exposure: Exposure, seed: int = 0) -> FakeEndpoint:
    return FakeEndpoint(vocabulary=VOCABULARY, width=8, seed=seed, exposes=exposure, metadata={"n_embd": 8})


def both(
    path: str, body: dict[str, Any], exposure: Exposure, dialect: str = "lensmith", **config: Any
) -> tuple[Any, Any]:
    """What a server with the exposure answers, and what a guard with it answers."""
    everything = replace(Exposure.everything(), logprobs_taken=exposure.logprobs_taken)
    guard = guard_before(
        serve(endpoint(everything), dialect),
        exposure,
        server=UpstreamConfig(url=BASE, logprobs_taken=exposure.logprobs_taken, top_logprobs=VOCABULARY),
        **config,
    )

    async def run() -> tuple[Any, Any]:
        return await ask(serve(endpoint(exposure)), path, body), await ask(guard.app(), path, body)

    return asyncio.run(run())


exposures = st.builds(
    Exposure,
    top_logprobs=st.none() | st.integers(0, 6) | st.integers(4, 10),
    sampled_logprob=st.sampled_from([Sampled.MASKED, Sampled.MASKED, Sampled.SHOWN, Sampled.HIDDEN]),
    logprobs_taken=st.sampled_from(Taken),
    logit_bias=st.sampled_from([100.0, 100.0, 100.0, 5.0, 0.0]),
    biased_ids=st.none() | st.integers(0, 3),
    penalties=st.sampled_from(PenaltyUse),
    bias_with_logprobs=st.sampled_from([Together.ALLOWED, Together.ALLOWED, Together.REFUSED]),
    wanted_ids=st.none() | st.integers(0, 2),
    allowed_ids=st.none() | st.integers(0, 3),
    echo=st.booleans(),
    decimals=st.none() | st.integers(0, 3),
    metadata=st.just(False),
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": "fake", "max_tokens": draw(st.integers(1, 3)), "n": draw(st.integers(1, 2))}
    body["temperature"] = draw(st.sampled_from([0, 1]))
    body["seed"] = draw(st.integers(0, 5))
    body["stream"] = draw(st.booleans())
    if body["stream"] and draw(st.booleans()):
        body["stream_options"] = {"include_usage": True}
    if draw(SELDOM):
        body["logit_bias"] = draw(st.dictionaries(IDS.map(str), st.sampled_from([-100, -1, 0.5, 5, 100]), max_size=4))
    for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        if draw(SELDOM) and draw(SELDOM):
            body[name] = draw(st.sampled_from([0, 0.5, 1, 2]))
    if draw(SELDOM):
        body["allowed_token_ids"] = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    is_chat = draw(st.booleans())
    reads = not draw(SELDOM)
    if is_chat:
        body["messages"] = [{"role": "user", "content": draw(st.sampled_from(["hello", "a b c", "é"]))}]
        if reads:
            body |= {"logprobs": True, "top_logprobs": draw(TOPS)}
    else:
        body["prompt"] = draw(st.sampled_from([" b c", [1, 2, 3], [[4], [5, 6]], ["x", "y"]]))
        body["echo"] = draw(SELDOM) and not body["stream"]
        if reads:
            body["logprobs"] = draw(TOPS)
    if reads:
        body["return_tokens_as_token_ids"] = True
        if draw(SELDOM):
            body["logprob_token_ids"] = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
    return (CHAT if is_chat else COMPLETIONS), body


@given(questions(), exposures)
@settings(max_examples=200)
def test_guard_equals_a_server_with_its_exposure(question, exposure):
    path, body = question
    expected, actual = both(path, body, exposure)
    assert actual.status == expected.status
    assert_same(actual.body, expected.body)


def assert_same(actual: Any, expected: Any) -> None:
    if isinstance(expected, dict) and isinstance(actual, dict):
        expected.pop("system_fingerprint", None)
    assert actual == expected


@given(questions(), exposures, st.integers(1, 2**40))
@settings(max_examples=100)
def test_frozen_noise_is_the_servers_where_tokens_have_ids(question, exposure, noise_seed):
    path, body = question
    prompt = body.get("prompt", "")
    is_text = isinstance(prompt, str) or isinstance(prompt[0], str)
    if path == COMPLETIONS and "logprobs" in body and is_text:
        body |= {"max_tokens": 1, "echo": False}  # of more a guard tells nothing
    exposure = replace(exposure, noise_nats=0.3, noise=Noise.FROZEN, noise_seed=noise_seed)
    expected, actual = both(path, body, exposure, token_naming=TokenNaming.IDS)
    assert actual.status == expected.status
    assert_same(actual.body, expected.body)


@pytest.mark.parametrize("decimals", [None, 1])
def test_by_text_only_the_order_of_equals_differs(decimals):
    exposure = Exposure(top_logprobs=8, decimals=decimals, metadata=False)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 8}
    expected, actual = both(CHAT, {**body, "max_tokens": 8, "seed": 1}, exposure)
    for told, server in zip(
        actual.body["choices"][0]["logprobs"]["content"],
        expected.body["choices"][0]["logprobs"]["content"],
        strict=True,
    ):
        if decimals is None:
            assert told == server
        else:
            assert told["logprob"] == server["logprob"]
            assert sorted(map(repr, told["top_logprobs"])) == sorted(map(repr, server["top_logprobs"]))


@pytest.mark.parametrize("dialect", ["vllm", "llama-server"])
@given(question=questions(), exposure=exposures)
@settings(max_examples=100)
def test_servers_with_habits_of_their_own_are_made_equal(dialect, question, exposure):
    path, body = question
    body.pop("logprob_token_ids", None)
    body |= {"stream": False, "n": 1}
    body.pop("stream_options", None)
    if dialect == "llama-server":  # it has no ids for names, no allow-list, no whole vocabulary and no batches
        for name in ("return_tokens_as_token_ids", "allowed_token_ids", "echo"):
            body.pop(name, None)
        body |= {"prompt": [1, 2]} if "prompt" in body else {}
        body |= {name: 2 for name in ("logprobs", "top_logprobs") if body.get(name) == -1}
    expected, actual = both(path, body, exposure, dialect)
    assert actual.status == expected.status
    assert_same(actual.body, expected.body)
