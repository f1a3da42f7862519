"""A server with any exposure and a guard in front of it, in one process and without a socket."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lensmith.core.endpoint import Answer
from lensmith.core.errors import LensmithError
from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import as_read, known_fields, write_in
from lensmith.guard.config import GuardConfig, UpstreamConfig
from lensmith.guard.proxy import Guard
from lensmith.openai_api import (
    DIALECTS,
    SSE_DONE,
    Delta,
    Kind,
    Usage,
    WireRequest,
    read_requests,
    sse,
    visible_request,
    write_chunk,
    write_error,
    write_usage_chunk,
)

BASE = "http://upstream/v1"
PATH, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = {"model": "m", "messages": MESSAGES}
COMPLETION = {"model": "m", "prompt": "hello"}
OPEN = Exposure.everything()
PIXEL = "data:image/png;base64,iVBORw0KGgo="
BIAS = {"logit_bias": {"5": 9}}
READS = {"logprobs": True, "top_logprobs": 3}


def serve(endpoint: FakeEndpoint, dialect: str = "lensmith") -> Starlette:
    """OpenAI's two paths over an endpoint, as servers have them; streams as ours has them."""
    habits = DIALECTS[dialect]

    def completions(kind: Kind) -> Route:
        async def answer(request: Request) -> Response:
            try:
                wires = read_requests(kind, known_fields(json.loads(await request.body()), kind, habits))
                wires = [as_read(wire, habits) for wire in wires]
                answers = endpoint.answer([visible_request(wire.request, endpoint.exposes) for wire in wires])
            except LensmithError as error:
                status, body = write_error(error)
                return JSONResponse(body, status)
            if wires[0].stream:
                return Response(b"".join(chunks(wires, answers, endpoint)), media_type="text/event-stream")
            usage = Usage(prompt_tokens=1, completion_tokens=1)
            body = write_in(habits, wires, answers, endpoint.tokens, usage)
            return JSONResponse({**body, "system_fingerprint": "fp_secret"}, headers={"server": "secret/1.0"})

        return Route(f"/v1/{kind.value}", answer, methods=["POST"])

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [endpoint.metadata()]})

    return Starlette(routes=[*map(completions, Kind), Route("/v1/models", models)])


def chunks(wires: Sequence[WireRequest], answers: Sequence[Answer], endpoint: FakeEndpoint) -> list[bytes]:
    """One event for each token, then the usage where it was asked for."""
    result, index = [], 0
    for wire, answer in zip(wires, answers, strict=True):
        for choice in answer.choices:
            ids = choice.token_ids_T.tolist()
            for place, token_id in enumerate(ids):
                told = None if choice.logprobs is None else choice.logprobs.part(slice(place, place + 1))
                finish = choice.finish if place == len(ids) - 1 else None
                delta = Delta(
                    index=index,
                    text=endpoint.tokens.text(token_id),
                    token_ids=(token_id,),
                    logprobs=told,
                    finish=finish,
                    is_first=place == 0,
                )
                result.append(sse(write_chunk(wire, delta, endpoint.tokens, answer_id="x", created=7)))
            index += 1
    if wires[0].include_usage:
        usage = Usage(prompt_tokens=1, completion_tokens=1)
        result.append(sse(write_usage_chunk(wires[0], answer_id="x", created=7, usage=usage)))
    return [*result, SSE_DONE]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response without what differs by chance: ids and times."""

    status: int
    body: Any
    headers: Mapping[str, str]


async def ask(app: Starlette, path: str, body: Any, **options: Any) -> Reply:
    """Posts `body` (None: a GET); a dict as JSON, bytes as they are. Streams come back as a list of their events."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://guard") as client:
        if body is None:
            response = await client.get(path, **options)
        elif isinstance(body, bytes):
            response = await client.post(
                path,
                content=body,
                headers={"content-type": "application/json", **options.pop("headers", {})},
                **options,
            )
        else:
            response = await client.post(path, json=body, **options)
    is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
    parsed = events(response.content) if is_stream else _json(response)
    for each in parsed if is_stream else [parsed]:
        if isinstance(each, dict):
            each.pop("id", None)
            each.pop("created", None)
    return Reply(status=response.status_code, body=parsed, headers=dict(response.headers))


class Recorder:
    """An upstream that answers everything and keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.app = Starlette(routes=[Route("/v1/{path:path}", self.answer, methods=["POST", "GET"])])

    async def answer(self, request: Request) -> Response:
        self.bodies.append(json.loads(await request.body() or b"{}"))
        self.headers.append(dict(request.headers))
        count = len(self.bodies[-1].get("prompt", "x")) if isinstance(self.bodies[-1].get("prompt"), list) else 1
        choice = {"message": {"content": "hi"}, "text": "hi", "finish_reason": "stop"}
        return JSONResponse({"choices": [{"index": i, **choice} for i in range(count)]})


def send(body: Any, exposure: Exposure = OPEN, *, path: str = "", **config: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    guard = guard_before(recorder.app, exposure, **config)
    is_completion = isinstance(body, dict) and "prompt" in body
    reply = asyncio.run(ask(guard.app(), path or (COMPLETIONS if is_completion else PATH), body))
    return reply, recorder


def events(content: bytes) -> list[Any]:
    """The events of a stream, parsed; its end as text."""
    data = [line.removeprefix(b"data: ") for line in content.split(b"\n\n") if line]
    return [each.decode() if each == b"[DONE]" else json.loads(each) for each in data]


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text


def guard_before(upstream: Any, exposure: Exposure, *, server: UpstreamConfig | None = None, **config: Any) -> Guard:
    """A guard in front of an ASGI application."""
    transport = httpx.ASGITransport(upstream, raise_app_exceptions=False)
    return Guard(
        GuardConfig(upstream=server or UpstreamConfig(url=BASE), exposure=exposure, **config), transport=transport
    )


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serves an ASGI application as `lensmith guard` does, on a free port; gives its address without a path."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="h11", ws="none", lifespan="auto", log_level="error", server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)
        listener.close()


def until(holds: Any, timeout_s: float = 20.0) -> None:
    """Waits for something that another thread brings about."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)
