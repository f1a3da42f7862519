"""Random changes to good bodies, on both sides, end as an answer or as a refusal: never as a crash, never as a leak."""

import asyncio
import copy
import json
import random
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lensmith.core.exposure import Exposure, Noise
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.guard.config import OnRefusal, UnknownFields
from tests.support.guard_bed import ask, events, guard_before, serve

PATHS = ["/v1/chat/completions", "/v1/completions"]
FAKE = serve(FakeEndpoint(vocabulary=41, width=8))
GOOD = [
    {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "x"},
            {"role": "user", "content": [{"type": "text", "text": "y"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "z", "tool_call_id": "1"},
        ],
        "logprobs": True,
        "top_logprobs": 3,
        "logprob_token_ids": [1, 2],
        "logit_bias": {"1": 5},
        "allowed_token_ids": [1, 2, 3],
        "max_tokens": 2,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "stream_options": {"include_usage": True},
        "stream": True,
        "stop": ["q"],
        "surprise": 1,
    },
    {"model": "fake", "prompt": [[1, 2], [3]], "logprobs": 3, "echo": True, "max_tokens": 2, "n": 2, "seed": 3},
]
ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**40,
    1.5,
    1e300,
    "",
    "x",
    "\u0000",
    "é",
    [],
    [[]],
    {},
    {"a": {}},
    [None],
    ["x", 1],
]
EXPOSURES = [
    Exposure(top_logprobs=3),
    Exposure.everything(),
    Exposure.text_only(),
    Exposure(top_logprobs=5, wanted_ids=3, noise_nats=0.1, noise=Noise.FROZEN, decimals=2, echo=True),
]


def mutate(value: Any, dice: random.Random) -> Any:
    """One change somewhere: a value replaced, dropped, doubled, or a key renamed."""
    places: list[tuple[Any, Any]] = []

    def collect(part: Any) -> None:
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        for key in keys:
            places.append((part, key))
            collect(part[key])

    value = copy.deepcopy(value)
    collect(value)
    part, key = dice.choice(places)
    change = dice.randrange(4)
    if change == 0:
        del part[key]
    elif change == 1 and isinstance(part, list):
        part.append(part[key])
    elif change == 2 and isinstance(part, dict):
        part[dice.choice(["logprobs", "top_logprobs", "content", "role", "x", "0"])] = part.pop(key)
    else:
        part[key] = dice.choice(ODD)
    return value


@given(st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_changed_requests_are_answered_or_refused(dice):
    which = dice.randrange(2)
    body = GOOD[which]
    for _ in range(dice.randrange(1, 4)):
        body = mutate(body, dice)
    config = {
        "unknown_fields": dice.choice([*UnknownFields]),
        "on_refusal": dice.choice([*OnRefusal]),
    }
    guard = guard_before(FAKE, dice.choice(EXPOSURES), **config)
    reply = asyncio.run(ask(guard.app(), PATHS[which], body))
    assert reply.status in (200, 400)
    if reply.status == 400:
        assert reply.body["error"]["type"] == "invalid_request_error"


async def ask_raw(path: str, body: dict[str, Any]) -> bytes:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(FAKE), base_url="http://x") as client:
        return (await client.post(path, json=body)).content


ASKED = [
    {"model": "fake", "messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 3},
    {"model": "fake", "prompt": [1, 2], "logprobs": 3, "echo": True},
]
ASKED = [{**body, "max_tokens": 2, "temperature": 0, "logit_bias": {"40": 100}} for body in ASKED]


def replaying(data: bytes, kind: str) -> Starlette:
    async def answer(request: Request) -> Response:
        return Response(data, media_type=kind)

    return Starlette(routes=[Route(path, answer, methods=["POST"]) for path in PATHS])


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=150)
def test_changed_answers_pass_masked_or_do_not_pass(dice, stream):
    which = dice.randrange(2)
    asked = {**ASKED[which], "stream": stream}
    if stream:
        asked.pop("echo", None)
    exposure = Exposure(top_logprobs=4, echo=True)
    good = asyncio.run(ask_raw(PATHS[which], {**asked, ("top_logprobs" if which == 0 else "logprobs"): 5}))
    bodies = events(good)[:-1] if stream else [json.loads(good)]
    place = dice.randrange(len(bodies))
    bodies[place] = mutate(bodies[place], dice)
    data = b"".join(b"data: %b\n\n" % json.dumps(body).encode() for body in bodies) + b"data: [DONE]\n\n"
    whole = json.dumps(bodies[0]).encode()
    upstream = replaying(data, "text/event-stream") if stream else replaying(whole, "application/json")
    guard = guard_before(upstream, exposure)
    reply = asyncio.run(ask(guard.app(), PATHS[which], asked))
    assert reply.status in (200, 502)
    bad = reply.status == 502 or (stream and isinstance(reply.body[-1], dict))
    assert guard.metrics.value("unparsable_answers_total") + guard.metrics.value("upstream_errors_total") == bad
