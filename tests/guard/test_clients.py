"""Clients that people use, through a guard that listens."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.guard.config import GuardConfig, ResourceLimits, Timeouts, UpstreamConfig
from lensmith.guard.proxy import Guard
from tests.support.guard_bed import ask, guard_before, listening, serve, until

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
KEY = "sk-client"


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    endpoint = FakeEndpoint(vocabulary=61, width=8)
    with FakeServer(endpoint, dialect="vllm", api_key="sk-upstream") as url:
        guard = Guard(
            GuardConfig(
                upstream=UpstreamConfig(url=url, key="sk-upstream"),
                exposure=Exposure(top_logprobs=5),
                keys={KEY: "ann"},
            )
        )
        with listening(guard.app()) as address:
            yield openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0)


def test_openais_client_chats(client):
    answer = client.chat.completions.create(**CHAT, max_tokens=5)
    assert answer.model == "fake"
    assert answer.choices[0].message.content
    assert answer.choices[0].logprobs is None
    assert answer.usage.completion_tokens == 5


def test_openais_client_reads_logprobs(client):
    answer = client.chat.completions.create(**CHAT, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    for position in content:
        assert position.logprob == position.top_logprobs[0].logprob  # greedy: the sampled token is the best
        assert len(position.top_logprobs) == 3
        assert bytes(position.bytes).decode() == position.token


def test_openais_client_streams_what_it_gets_whole(client):
    options = {"max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**CHAT, **options)
    chunks = [*client.chat.completions.create(**CHAT, **options, stream=True, stream_options={"include_usage": True})]
    assert "".join(each.choices[0].delta.content or "" for each in chunks[:-1]) == whole.choices[0].message.content
    logprobs = [entry for each in chunks[:-1] for entry in each.choices[0].logprobs.content]
    assert [entry.logprob for entry in logprobs] == [entry.logprob for entry in whole.choices[0].logprobs.content]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 6


def test_openais_client_completes(client):
    answer = client.completions.create(model="fake", prompt=" b c", max_tokens=3, logprobs=2, temperature=0)
    assert len(answer.choices[0].logprobs.tokens) == 3
    assert [len(top) for top in answer.choices[0].logprobs.top_logprobs] == [2, 2, 2]


def test_openais_client_lists_the_models(client):
    assert [model.id for model in client.models.list()] == ["fake"]


def test_errors_are_of_openais_kinds(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=6)
    assert (refused.value.param, refused.value.code) == ("top_logprobs", "refused:top_logprobs")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**{**CHAT, "model": "other"})
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").chat.completions.create(**CHAT)
    with pytest.raises(openai.BadRequestError) as leak:
        client.chat.completions.create(**CHAT, extra_body={"prompt_logprobs": 1})
    assert leak.value.param == "prompt_logprobs"


def test_an_unreachable_upstream_is_a_502_that_does_not_say_where_it_is():
    with listening(Guard(GuardConfig(upstream=UpstreamConfig(url="http://127.0.0.1:9/v1"))).app()) as address:
        response = httpx.post(f"{address}/v1/chat/completions", json=CHAT)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_unreachable"
    assert "127.0.0.1" not in response.text


# --- time ---------------------------------------------------------------------------------------------------------


class Slow:
    """An upstream that sends each event when it is told to, and knows when its client has gone."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.has_begun = self.is_gone = False
        self.app = Starlette(routes=[Route("/v1/chat/completions", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        if not json.loads(await request.body())["stream"]:
            await self._wait(request)
            return JSONResponse({})
        return StreamingResponse(self._events(request), media_type="text/event-stream")

    async def _events(self, request: Request) -> AsyncIterator[str]:
        self.has_begun = True
        choice = {"index": 0, "delta": {"content": "first"}, "finish_reason": None}
        yield f": a comment\n\ndata: {json.dumps({'choices': [choice]})}\n\n"
        try:
            await self.go.wait()
        finally:
            self.is_gone = True

    async def _wait(self, request: Request) -> None:
        self.has_begun = True
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True


def test_events_go_on_at_once_and_a_client_that_leaves_ends_the_upstream_stream():
    slow = Slow()
    with listening(slow.app) as upstream:
        guard = Guard(GuardConfig(upstream=UpstreamConfig(url=f"{upstream}/v1")))
        with listening(guard.app()) as address:
            body = {**CHAT, "stream": True}
            with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=20) as response:
                pieces = response.iter_bytes()  # kept: a generator that is dropped closes the response
                assert b"first" in next(pieces)  # the upstream has not sent a second one
                assert not slow.is_gone
            until(lambda: slow.is_gone)
            until(lambda: guard.metrics.value("cancelled_total") == 1)
            assert guard.metrics.in_flight == 0


def test_a_client_that_leaves_ends_the_upstream_request_before_its_answer():
    slow = Slow()
    with listening(slow.app) as upstream:
        guard = Guard(GuardConfig(upstream=UpstreamConfig(url=f"{upstream}/v1")))
        with listening(guard.app()) as address:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/chat/completions", json=CHAT, timeout=httpx.Timeout(20, read=0.3))
            assert slow.has_begun
            until(lambda: slow.is_gone)
            until(lambda: guard.metrics.in_flight == 0)


LARGE = (
    b"data: "
    + json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * 60_000}, "finish_reason": None}]}).encode()
    + b"\n\n"
)


async def endless(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.001)
            yield LARGE

    return StreamingResponse(pieces(), media_type="text/event-stream")


@pytest.mark.parametrize("total_s", [0.3, 1800.0], ids=["the whole answer took too long", "a piece is not taken"])
def test_a_client_that_stops_reading_loses_its_place(total_s):
    endless_app = Starlette(routes=[Route("/v1/chat/completions", endless, methods=["POST"])])
    timeouts = Timeouts(total_s=total_s, send_s=0.3)
    with listening(endless_app) as upstream:
        guard = Guard(GuardConfig(upstream=UpstreamConfig(url=f"{upstream}/v1"), timeouts=timeouts))
        with listening(guard.app()) as address:
            request = httpx.Request("POST", f"{address}/v1/chat/completions", json={**CHAT, "stream": True})
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            port = int(address.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + request.content)
                until(lambda: guard.metrics.in_flight == 1)
                until(lambda: guard.metrics.in_flight == 0)
            assert guard.metrics.value("cancelled_total") == 1


def test_one_client_has_so_many_requests_in_progress_and_no_more():
    slow = Slow()
    with listening(slow.app) as upstream:
        config = GuardConfig(
            upstream=UpstreamConfig(url=f"{upstream}/v1"),
            keys={"a": "ann", "b": "bob"},
            limits=ResourceLimits(concurrent_per_client=1),
        )
        guard = Guard(config)
        with listening(guard.app()) as address:
            ann, bob = ({"authorization": f"Bearer {key}"} for key in "ab")
            ask_one = {"url": f"{address}/v1/chat/completions", "json": {**CHAT, "stream": True}, "timeout": 20}
            with httpx.stream("POST", **ask_one, headers=ann) as first:
                pieces = first.iter_bytes()
                next(pieces)
                refused = httpx.post(**ask_one, headers=ann)
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                with httpx.stream("POST", **ask_one, headers=bob) as other:
                    assert other.status_code == 200
            until(lambda: guard.metrics.in_flight == 0)
            with httpx.stream("POST", **ask_one, headers=ann) as again:
                assert again.status_code == 200


def test_one_request_at_a_time_is_enough_for_a_client_that_waits_for_its_answers():
    """Its last request is over once its answer is sent, and not some steps later."""
    with listening(serve(FakeEndpoint(vocabulary=61, width=8))) as upstream:
        guard = Guard(
            GuardConfig(upstream=UpstreamConfig(url=f"{upstream}/v1"), limits=ResourceLimits(concurrent_per_client=1))
        )
        with listening(guard.app()) as address, httpx.Client(timeout=20) as client:
            statuses = []
            for number in range(100):
                body = {**CHAT, "max_tokens": 8, "stream": number % 2 == 0}
                statuses.append(client.post(f"{address}/v1/chat/completions", json=body).status_code)
    assert statuses == [200] * 100


def test_a_large_body_is_read_beside_other_requests():
    """One of many small values takes long, and nobody else waits for it."""
    guard = guard_before(serve(FakeEndpoint(vocabulary=61, width=8)), Exposure(metadata=False))
    large = {**CHAT, "surprise": [[]] * 100_000}

    async def run() -> None:
        app, gate = guard.app(), threading.Event()
        with ThreadPoolExecutor(max_workers=1) as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            threads.submit(gate.wait)
            try:
                waiting = asyncio.create_task(ask(app, "/v1/chat/completions", large))
                for _ in range(10):
                    assert (await asyncio.wait_for(ask(app, "/v1/chat/completions", CHAT), timeout=20)).status == 200
                assert not waiting.done()
            finally:
                gate.set()
            assert (await waiting).status == 200

    asyncio.run(run())


def test_many_clients_at_once_get_their_own_answers():
    endpoint = FakeEndpoint(vocabulary=61, width=8)
    guard = guard_before(serve(endpoint), Exposure(top_logprobs=5, metadata=False))
    bodies = [
        {**CHAT, "messages": [{"role": "user", "content": f"{n}"}], "temperature": 0, "max_tokens": 8}
        for n in range(40)
    ]

    async def run() -> tuple[list[object], list[object]]:
        app = guard.app()
        together = await asyncio.gather(*(ask(app, "/v1/chat/completions", body) for body in bodies))
        alone = [await ask(app, "/v1/chat/completions", body) for body in bodies]
        return [reply.body for reply in together], [reply.body for reply in alone]

    together, alone = asyncio.run(run())
    assert together == alone
    assert len({json.dumps(body) for body in together}) == 40
