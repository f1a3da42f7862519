"""The server's paths: OpenAI's completions, chat completions and models; health and metrics.

Source: OpenAI's API reference, and vLLM's names for what it lacks (`openai_api` reads and writes both). Where we
differ: there are no tools and no grammars; a field that would ask for one is refused rather than ignored.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

import lensmith
from lensmith.core.endpoint import RefusedError
from lensmith.core.errors import ImageError, LensmithError
from lensmith.core.exposure import visible_metadata
from lensmith.hosting.bodies import ACCEPTED, BodyError, Coding, coding_of, expand
from lensmith.hosting.keys import ApiKeys
from lensmith.hosting.run import unless_gone
from lensmith.openai_api import BusyError, Kind, WireError, WireRequest, read_requests, visible_request, write_error
from lensmith.serve import schema
from lensmith.serve.config import Access
from lensmith.serve.engine import Engine, Prepared
from lensmith.serve.fetching import with_pictures
from lensmith.serve.metrics import CONTENT_TYPE, ServerMetrics, Stopwatch
from lensmith.serve.replies import Reply, json_bytes

_OPEN_PATHS = ("/health", "/metrics", "/openapi.json")
_CLIENT_CLOSED_REQUEST = 499
_PREFLIGHT_KNOWN_S = 600
"""How long a browser need not ask again whether a page may."""
_PROBLEMS = {
    404: "there is no such path; try: /v1/chat/completions, /v1/completions or /v1/models",
    405: "this path takes another method: models are listed with GET, and asked with POST",
}
_ERROR_KINDS = {401: "authentication_error", 404: "not_found_error", 405: "invalid_request_error"}


def make_app(engine: Engine, access: Access) -> FastAPI:
    """The application. The engine runs while the application does, and stops with it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine:
            yield

    app = FastAPI(
        title="lensmith serve", version=lensmith.__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    metrics = ServerMetrics(engine)
    app.state.metrics = metrics
    _add_error_handlers(app, metrics)
    app.add_middleware(_Gate, metrics=metrics, keys=ApiKeys(access.keys), paths=_OPEN_PATHS)
    if access.origins:
        _let_in_pages(app, access.origins)
    _add_models(app, engine)
    _add_answers(app, engine, metrics)

    @app.get("/health", summary="Whether the server answers requests.", responses=schema.responses(503))
    async def health() -> Response:
        return _json({"status": "ok" if engine.is_alive else "stopped"}, 200 if engine.is_alive else 503)

    @app.get("/metrics", summary="Prometheus metrics.", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return app


# --- paths --------------------------------------------------------------------------------------------------------


def _add_models(app: FastAPI, engine: Engine) -> None:
    created = int(time.time())

    def model() -> dict[str, Any]:
        facts = visible_metadata(engine.answering.facts(), engine.exposure)
        entry = {"id": facts.pop("id"), "object": "model", "created": created, "owned_by": "lensmith"}
        return {**entry, "meta": facts} if facts else entry

    @app.get("/v1/models", summary="The model that is served.", responses=schema.responses(401))
    async def models() -> Response:
        return _json({"object": "list", "data": [model()]})

    @app.get("/v1/models/{name:path}", summary="One model.", responses=schema.responses(401, 404))
    async def one_model(name: str) -> Response:
        if name != engine.answering.name:
            return _no_model(name, engine)
        return _json(model())


def _no_model(name: str, engine: Engine, param: str | None = None) -> Response:
    there_is = f"the model here is {engine.answering.name!r}"
    return _error(404, f"there is no model {name[:100]!r}; {there_is}", code="model_not_found", param=param)


def _add_answers(app: FastAPI, engine: Engine, metrics: ServerMetrics) -> None:
    errors = schema.responses(400, 401, 404, 413, 415, 429, 503)

    @app.post(
        "/v1/completions",
        summary="Goes on with a prompt.",
        openapi_extra=schema.operation(schema.COMPLETION),
        responses=errors,
    )
    async def completions(request: Request) -> Response:
        return await _answer(Kind.COMPLETION, request, engine, metrics)

    @app.post(
        "/v1/chat/completions",
        summary="Answers messages of text and pictures.",
        openapi_extra=schema.operation(schema.CHAT),
        responses=errors,
    )
    async def chat_completions(request: Request) -> Response:
        return await _answer(Kind.CHAT, request, engine, metrics)


async def _answer(kind: Kind, request: Request, engine: Engine, metrics: ServerMetrics) -> Response:
    stopwatch = Stopwatch(metrics)
    if engine.is_full:
        raise BusyError("too many requests are waiting", retry_after_s=1.0)
    body = await _read_body(request, engine.limits.body_bytes)
    wires = await engine.preparing(lambda: _wire_requests(kind, body, engine))
    if wires[0].model != engine.answering.name:
        return _no_model(wires[0].model, engine, param="model")
    wires = [replace(wire, request=await with_pictures(wire.request, engine.limits)) for wire in wires]
    prepared: list[Prepared] = await engine.preparing(lambda: [engine.prepare(wire.request) for wire in wires])
    reply = Reply(
        wires=wires,
        prepared=prepared,
        exchange=engine.open(prepared),
        names=engine.answering.tokens,
        vocabulary_size=engine.answering.vocabulary_size,
        stopwatch=stopwatch,
    )
    if wires[0].stream:
        return _Stream(reply, metrics)
    try:
        answers = await unless_gone(request.receive, reply.answers())
        if answers is None:
            metrics.disconnects.inc()
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        written = await engine.writing(lambda: reply.body(answers))
    finally:
        reply.exchange.close()
    return Response(written, media_type="application/json")


def _wire_requests(kind: Kind, body: bytes, engine: Engine) -> list[WireRequest]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError("the body is not JSON", actual=str(error)[:100]) from error
    wires = read_requests(kind, fields)
    engine.answering.check(wires[0].request)  # before a picture is fetched that nobody can look at
    name = engine.answering.name
    return [
        replace(wire, model=wire.model or name, request=visible_request(wire.request, engine.exposure))
        for wire in wires
    ]


async def _read_body(request: Request, most_bytes: int) -> bytes:
    """The whole body, without compression. Raises BodyError; of what is too large, the rest is not read."""
    coding = coding_of(request.headers.getlist("content-encoding"))
    too_large = BodyError(413, f"the body is too large; expected: at most {most_bytes:,} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most_bytes:
        raise too_large
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise too_large
    body = b"".join(pieces)
    if coding is Coding.IDENTITY:
        return body
    return await asyncio.to_thread(expand, body, coding, most_bytes=most_bytes)


class _Stream(StreamingResponse):
    """The answers as they come. However it ends, even before it began, what still runs for it is freed."""

    def __init__(self, reply: Reply, metrics: ServerMetrics) -> None:
        super().__init__(reply.stream(), media_type="text/event-stream")
        self._exchange, self._metrics = reply.exchange, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self._exchange.is_over:
                self._metrics.disconnects.inc()
            self._exchange.close()


# --- around all paths ---------------------------------------------------------------------------------------------


def _let_in_pages(app: FastAPI, origins: Iterable[str]) -> None:
    """Tells browsers that pages of these origins may ask. Outermost: what a browser asks first has no key.

    Any header may be sent, for clients add their own. A key is a header that a page must know; a browser has none to
    add by itself.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[*origins],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After"],
        max_age=_PREFLIGHT_KNOWN_S,
    )


class _Gate:
    """Lets in who has a key, and counts statuses. Plain ASGI, so that streams and disconnects pass untouched."""

    def __init__(self, app: Any, metrics: ServerMetrics, keys: ApiKeys, paths: Iterable[str]) -> None:
        self._app, self._metrics, self._keys, self._paths = app, metrics, keys, frozenset(paths)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = _known_path(scope["path"])

        async def counted(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(path=route, status=message["status"]).inc()
            await send(message)

        authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        if scope["path"] in self._paths or self._keys.accepts(authorization):
            await self._app(scope, receive, counted)
            return
        refusal = _error(401, "a valid API key is needed", code="invalid_api_key")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        await refusal(scope, receive, counted)


def _known_path(path: str) -> str:
    known = (*_OPEN_PATHS, "/v1/models", "/v1/completions", "/v1/chat/completions")
    return path if path in known else "/v1/models/..." if path.startswith("/v1/models/") else "other"


def _add_error_handlers(app: FastAPI, metrics: ServerMetrics) -> None:
    @app.exception_handler(LensmithError)
    async def refused(request: Request, error: LensmithError) -> Response:
        if isinstance(error, RefusedError):
            metrics.refused(error)
        status, body = write_error(error)
        if isinstance(error, ImageError):
            body["error"]["param"] = "messages"  # where the pictures are
        response = _json(body, status)
        if isinstance(error, BusyError) and error.retry_after_s is not None:
            response.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        return response

    @app.exception_handler(BodyError)
    async def unread(request: Request, error: BodyError) -> Response:
        response = _error(error.status, error.problem)
        if error.status == 415:
            response.headers["Accept-Encoding"] = ACCEPTED
        return response

    @app.exception_handler(HTTPException)
    async def wrong_path(request: Request, error: HTTPException) -> Response:
        response = _error(error.status_code, _PROBLEMS.get(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        metrics.disconnects.inc()
        return Response(status_code=_CLIENT_CLOSED_REQUEST)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _error(500, "the server failed")


def _error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Response:
    kind = _ERROR_KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return _json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_bytes(value), status_code=status, media_type="application/json")
