"""Whatever a server's habits are, no logprob outside the cap comes through the guard."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure, Sampled, log_softmax
from lensmith.core.types import Message
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.guard.config import GuardConfig, UpstreamConfig
from lensmith.guard.proxy import Guard
from tests.support.guard_bed import Reply, ask

VOCABULARY, CAP, SHARED = 61, 4, 20
DIALECTS = ["lensmith", "vllm", "sglang", "llama-server", "llama-cpp-python"]
CHAT = {"messages": [{"role": "user", "content": "hello"}], "logprobs": True}
COMPLETION = {"prompt": " b c"}


@dataclass(frozen=True, kw_only=True)
class Server:
    endpoint: FakeEndpoint
    url: str
    dialect: str


@pytest.fixture(scope="module", params=DIALECTS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    endpoint = FakeEndpoint(vocabulary=VOCABULARY, width=8, duplicate_texts=SHARED)
    with FakeServer(endpoint, dialect=request.param) as url:
        yield Server(endpoint=endpoint, url=url, dialect=request.param)


def through_guard(url: str, bodies: Sequence[dict[str, Any] | None], exposure: Exposure) -> list[Reply]:
    """The replies to chats, completions and (None) to the question for the models."""

    async def run() -> list[Reply]:
        guard = Guard(GuardConfig(upstream=UpstreamConfig(url=url, top_logprobs=VOCABULARY), exposure=exposure))
        usual = {"model": "fake", "max_tokens": 1, "temperature": 0}
        replies = []
        for body in bodies:
            path = "models" if body is None else "chat/completions" if "messages" in body else "completions"
            replies.append(await ask(guard.app(), f"/v1/{path}", body and {**usual, **body}))
        await guard.upstream.close()
        return replies

    return asyncio.run(run())


def truth(endpoint: FakeEndpoint, body: dict[str, Any]) -> np.ndarray:
    if "messages" in body:
        request = Request(messages=(Message(role="user", parts=("hello",)),))
    else:
        request = Request(prompt=" b c")
    return log_softmax(endpoint.true_logits(request).astype(np.float64))


def numbers(value: Any) -> list[float]:
    """All logprobs in a body: every float there is."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("asked", [0, CAP])
@pytest.mark.parametrize("base", [CHAT, COMPLETION], ids=["chat", "completion"])
def test_a_forced_token_tells_its_logprob_only_inside_the_cap(server, base, asked, stream):
    endpoint = server.endpoint
    body = {**base, "stream": stream, ("top_logprobs" if base is CHAT else "logprobs"): asked}
    logprobs_V = truth(endpoint, body)
    ranking = np.argsort(-logprobs_V, kind="stable")
    ranks = (0, CAP - 1, CAP, CAP + 1, VOCABULARY - 1)
    bodies = [{**body, "logit_bias": {str(ranking[rank]): 100}} for rank in ranks]
    for rank, reply in zip(ranks, through_guard(server.url, bodies, Exposure(top_logprobs=CAP)), strict=True):
        assert reply.status == 200, reply.body
        told = [number for number in numbers(reply.body) if number != -9999.0]
        best = ranking[:CAP] if asked else ranking[:0]
        tellable = [*logprobs_V[best], *logprobs_V[[ranking[rank]] if rank < CAP else []]]
        assert all(min(abs(number - true) for true in tellable) < 1e-6 for number in told), (rank, told, tellable)
        # The other way round: what may be told is told, unless the token's text is another one's too.
        is_shared = endpoint.tokens.text(int(ranking[rank])) in map(endpoint.tokens.text, range(SHARED))
        assert bool(told) == bool(tellable) or is_shared


def test_a_hidden_sampled_token_is_not_told_among_the_top_either(server):
    endpoint = server.endpoint
    body = {**CHAT, "top_logprobs": 2}
    logprobs_V = truth(endpoint, body)
    ranking = np.argsort(-logprobs_V, kind="stable")
    exposure = Exposure(top_logprobs=CAP, sampled_logprob=Sampled.HIDDEN)
    (reply,) = through_guard(server.url, [{**body, "logit_bias": {str(ranking[-1]): 100}}], exposure)
    told = [number for number in numbers(reply.body) if number != -9999.0]
    true = logprobs_V[ranking[: CAP if server.dialect == "llama-cpp-python" else 2]]
    assert told == [pytest.approx(true[np.abs(true - number).argmin()], abs=1e-6) for number in told]
    assert len(told) == 2


def test_metadata_of_the_server_is_hidden(server):
    (reply,) = through_guard(server.url, [None], Exposure.text_only())
    assert reply.body == {"object": "list", "data": [{"id": "fake", "object": "model", "created": 0, "owned_by": ""}]}
    assert "server" not in reply.headers
