"""Frozen noise of a guard: many requests that bring the model to the same tokens meet one noise."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lensmith.core.exposure import Exposure, Noise, Sampled, frozen_noise
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.guard.config import TokenNaming
from tests.support.guard_bed import ask, guard_before, serve

EXACT = Exposure(echo=True, sampled_logprob=Sampled.SHOWN)
FROZEN = replace(EXACT, noise_nats=0.5, noise=Noise.FROZEN, noise_seed=77)
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
READS = {"model": "m", "temperature": 0}


def replies(bodies: list[dict[str, Any]], exposure: Exposure = FROZEN, upstream: Any = None) -> list[Any]:
    guard = guard_before(
        upstream or serve(FakeEndpoint(vocabulary=500, width=8)), exposure, token_naming=TokenNaming.IDS
    )

    async def run() -> list[Any]:
        app = guard.app()
        return [await ask(app, COMPLETIONS if "prompt" in body else CHAT, {**READS, **body}) for body in bodies]

    return asyncio.run(run())


def completion(prompt: list[int], count: int, exposure: Exposure = FROZEN, **fields: Any) -> Any:
    (reply,) = replies([{"prompt": prompt, "max_tokens": count, "logprobs": 1, **fields}], exposure)
    assert reply.status == 200, reply.body
    return reply.body["choices"][0]["logprobs"]


def ids_of(logprobs: Any) -> list[int]:
    return [int(name.partition(":")[2]) for name in logprobs["tokens"]]


def test_a_position_has_one_noise_wherever_the_prompt_ends_before_it():
    prompt, exact = [1, 2, 3], completion([1, 2, 3], 20, EXACT)
    answer = ids_of(exact)
    told = [completion(prompt + answer[:count], 20 - count)["token_logprobs"][-1] for count in range(20)]
    told += [completion(prompt + answer[:count], 20 - count, echo=True)["token_logprobs"][-1] for count in range(20)]
    assert len(set(told)) == 1
    assert abs(told[0] - exact["token_logprobs"][-1]) > 1e-3


def test_an_echoed_token_has_one_noise_whatever_follows_it():
    told = [completion([1, 2, 3, last], 1, echo=True)["token_logprobs"] for last in range(10)]
    assert len({tuple(each[1:3]) for each in told}) == 1
    assert len({each[3] for each in told}) == 10


def test_the_noise_is_the_one_that_our_server_adds():
    """It belongs to the tokens before a position, eight bytes each."""
    exact, told = completion([1, 2, 3], 2, EXACT), completion([1, 2, 3], 2)
    before = b"".join(token_id.to_bytes(8, "big") for token_id in [1, 2, 3])
    for place, token_id in enumerate(ids_of(exact)):
        added = told["token_logprobs"][place] - exact["token_logprobs"][place]
        context = hashlib.sha256(before).digest()
        assert added == pytest.approx(0.5 * frozen_noise(context, np.array([token_id]), 77)[0])
        before += token_id.to_bytes(8, "big")


@pytest.mark.parametrize("echoed", [[], [1], [9, 2, 3], [1, 2]])
def test_a_server_that_echoes_something_else_is_not_believed(echoed):
    """What it tells would have the noise of other tokens, and so could be had again without it."""

    async def answer(request: Request) -> Response:
        names = [f"token_id:{token_id}" for token_id in [*echoed, 7]]
        logprobs = {"tokens": names, "token_logprobs": [None if echoed else -1.0, *[-1.0] * len(echoed)]}
        choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": logprobs}
        return JSONResponse({"choices": [choice]})

    upstream = Starlette(routes=[Route(COMPLETIONS, answer, methods=["POST"])])
    asked = {"prompt": [1, 2, 3], "max_tokens": 1, "logprobs": 0, "echo": True}
    (reply,) = replies([asked], upstream=upstream)
    assert (reply.status, reply.body["error"]["code"]) == (502, "unparsable_answer")


def test_variants_that_a_template_drops_have_one_noise():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    extras = [{"tool_calls": [{**call, "id": str(n)}]} for n in range(5)]
    extras += [{name: str(n)} for name in ("tool_call_id", "reasoning", "reasoning_content") for n in range(5)]
    bodies = [
        {"messages": [{"role": "user", "content": "hi", **extra}], "logprobs": True, "top_logprobs": 1, "max_tokens": 1}
        for extra in [{}, *extras]
    ]
    told = [reply.body["choices"][0]["logprobs"]["content"][0]["logprob"] for reply in replies(bodies)]
    assert len(set(told)) == 1
