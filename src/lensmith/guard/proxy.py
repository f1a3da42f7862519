"""A streaming reverse proxy that enforces an `Exposure` in front of any OpenAI-compatible server.

For servers that cannot close the read-outs of the two leak papers themselves (Carlini et al., arXiv 2403.06634;
Finlayson et al., arXiv 2403.09539): `policy` decides what may be asked, `answers` what is told,
`patterns` who asks too much. It fails closed: a path, a field or an answer that it does not know does not pass.
Of a stream nothing is held back but what is not yet a whole event.
"""

import asyncio
import contextlib
import functools
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lensmith.core.errors import LensmithError
from lensmith.core.exposure import visible_metadata
from lensmith.guard.answers import Rewriter, get_list, get_text
from lensmith.guard.config import GuardConfig
from lensmith.guard.http import (
    STRIPPED_HEADER,
    ClientGone,
    EventStream,
    NotingSend,
    ProblemError,
    bearer,
    client_name,
    expand_body,
    json_response,
    read_body,
    read_headers,
    write_problem,
)
from lensmith.guard.metrics import Metrics
from lensmith.guard.patterns import Watcher
from lensmith.guard.policy import Plan, check_field_names, make_plan
from lensmith.guard.strict_json import Json, read_object, write_object
from lensmith.guard.upstream import EventReader, Upstream, parse
from lensmith.hosting.bodies import Coding
from lensmith.openai_api import FIELDS, SSE_DONE, BusyError, Kind, MalformedAnswerError

log = logging.getLogger("lensmith.guard")

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_LISTING_TIMEOUT_S = 10.0
_DRAIN_S = 1.0
_LARGE_BODY = 1 << 18
"""A body of more bytes, or a compressed one, is read in a thread: other requests do not wait for it."""


class Guard:
    """What all requests share: the upstream client, the counters and the statistics of clients."""

    def __init__(
        self,
        config: GuardConfig,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_field_names(config)
        self.config = config
        self.metrics = Metrics()
        self.watcher = Watcher(config.watch, config.limits, clock=clock)
        self.upstream = Upstream(config, transport)

    def app(self) -> Starlette:
        """The web application. It closes the upstream client when it stops."""

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await self.upstream.close()

        app = Starlette(
            routes=[
                Route("/health", self.health, methods=["GET"]),
                Route("/metrics", self.show_metrics, methods=["GET"]),
                Route("/v1/models", self.models, methods=["GET"]),
                Route("/v1/models/{name:path}", self.one_model, methods=["GET"]),
                *(Route(f"/v1/{kind.value}", _Completions(self, kind), methods=["POST"]) for kind in self.config.kinds),
            ],
            exception_handlers={HTTPException: _http_error, ProblemError: _handled, LensmithError: _handled},
            lifespan=lifespan,
        )
        app.router.redirect_slashes = False
        return app

    async def health(self, request: Request) -> Response:
        """Whether the guard runs; it says nothing of the server behind it, which has its own."""
        return json_response({"status": "ok"})

    async def show_metrics(self, request: Request) -> Response:
        """The counters, for whoever has the metrics key, or without one for callers on this machine."""
        if self.config.metrics_key:
            allowed = hmac.compare_digest(bearer(request).encode(), self.config.metrics_key.encode())
        else:
            allowed = request.client is None or request.client.host in _LOOPBACK
        if not allowed:
            raise HTTPException(404)
        gauges = {"in_flight": self.metrics.in_flight, "clients": self.watcher.clients}
        return PlainTextResponse(self.metrics.text(gauges), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """The models' names; what else the server tells of them, where the exposure has metadata."""
        return json_response({"object": "list", "data": await self._listed(request)})

    async def one_model(self, request: Request) -> Response:
        """One entry of that list."""
        for model in await self._listed(request):
            if model["id"] == request.path_params["name"]:
                return json_response(model)
        raise ProblemError(404, "there is no such model here", reason="model_not_found", param="model")

    async def _listed(self, request: Request) -> list[Json]:
        self.watcher.arrive(client_name(request, self.config))
        try:
            listing = await self.upstream.models(_LISTING_TIMEOUT_S)
            return [self._model(model) for model in get_list(listing, "data")]
        except MalformedAnswerError:
            self.metrics.count("unparsable_answers_total")
            raise _malformed() from None

    async def model_names(self) -> list[str]:
        """The names that the upstream lists; none where it lists nothing that can be read."""
        try:
            listing = await self.upstream.models(_LISTING_TIMEOUT_S)
            return [get_text(self._model(model), "id") for model in get_list(listing, "data")]
        except (ProblemError, MalformedAnswerError):
            return []

    def _model(self, model: object) -> Json:
        if not isinstance(model, Mapping):
            raise MalformedAnswerError("a model is no object")
        facts = {**model, "id": get_text(model, "id")}
        return {"object": "model", "created": 0, "owned_by": "", **visible_metadata(facts, self.config.exposure)}


class _Completions:
    """One of the two paths that models answer on, as an ASGI application."""

    def __init__(self, guard: Guard, kind: Kind) -> None:
        self.guard, self.kind = guard, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = self.guard.metrics
        metrics.in_flight += 1
        try:
            status = await self._serve(scope, receive, send)
            metrics.count("requests_total", path=self.kind.value, status=str(status))
        except ClientGone:
            metrics.count("cancelled_total")
        finally:
            metrics.in_flight -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answers one request and returns its status."""
        noting = NotingSend(send, self.guard.config.timeouts.send_s)
        with contextlib.ExitStack() as place:
            try:
                plan = await self._admit(HTTPConnection(scope), receive, place)
            except (ProblemError, LensmithError) as error:
                written = write_problem(error)
                self.guard.metrics.count("refused_total", reason=written.reason)
                await json_response(written.body, written.status, written.headers)(scope, receive, noting)
                return written.status
            return await self._pass(plan, scope, receive, noting)

    async def _pass(self, plan: Plan, scope: Scope, receive: Receive, noting: NotingSend) -> int:
        """Answers a request that may go on, and returns the status."""
        headers = {STRIPPED_HEADER: ", ".join(plan.stripped)} if plan.stripped else {}

        async def answer() -> int:
            response = await self._answer(plan, EventStream(noting, headers))
            if response is None:
                return 200
            response.headers.update(headers)
            await response(scope, receive, noting)
            return response.status_code

        return await _while_connected(receive, noting, answer())

    async def _admit(self, connection: HTTPConnection, receive: Receive, place: contextlib.ExitStack) -> Plan:
        """What the request may ask. The client's place among those in progress is held until `place` closes."""
        guard = self.guard
        client = client_name(connection, guard.config)
        guard.watcher.arrive(client)
        place.enter_context(guard.watcher.answering(client))
        if guard.metrics.in_flight > guard.config.limits.concurrent:
            raise BusyError("too many requests at a time", status=503, retry_after_s=1)
        headers = read_headers(connection, guard.config)
        body = await read_body(receive, headers.length_bytes, guard.config.timeouts.body_s)
        is_small = len(body) <= _LARGE_BODY and headers.coding is Coding.IDENTITY
        read = functools.partial(self._plan, body, headers.coding)
        plan = read() if is_small else await asyncio.to_thread(read)
        for pattern in guard.watcher.admit(client, plan.seen):
            guard.metrics.count("extraction_total", pattern=pattern.value)
            log.warning("client %s: its requests look like an extraction: %s", client, pattern.value)
        for name in plan.stripped:
            guard.metrics.count("stripped_total", field=name if name in FIELDS else "other")
        return plan

    def _plan(self, body: bytes, coding: Coding) -> Plan:
        config = self.guard.config
        expanded = expand_body(body, coding, config)
        return make_plan(self.kind, read_object(expanded, most_values=config.limits.body_values), config)

    async def _answer(self, plan: Plan, stream: EventStream) -> Response | None:
        """The whole response; None where a stream was written."""
        config = self.guard.config
        rewriter = Rewriter(plan=plan, exposure=config.exposure, is_stream=plan.wires[0].stream)
        try:
            async with asyncio.timeout(config.timeouts.total_s):
                if not plan.wires[0].model:
                    rewriter.listed_models = await self.guard.model_names()
                if not rewriter.is_stream:
                    body = await self.guard.upstream.answer(self.kind, plan.upstream, plan.asked)
                    return json_response(rewriter.whole(body))
                await self._pass_stream(plan, rewriter, stream)
                return None
        except (ProblemError, MalformedAnswerError, TimeoutError) as error:
            problem = self._note(error)
        if not stream.is_started:
            written = write_problem(problem)
            return json_response(written.body, written.status, written.headers)
        await stream.write(b"data: " + write_object(problem.body) + b"\n\n")
        await stream.close()
        return None

    def _note(self, error: ProblemError | MalformedAnswerError | TimeoutError) -> ProblemError:
        """Counts what went wrong behind the guard, and what the client is told of it."""
        if isinstance(error, MalformedAnswerError):
            self.guard.metrics.count("unparsable_answers_total")
            log.warning("an upstream answer was not passed on: %s", error.problem)
            return _malformed()
        if isinstance(error, TimeoutError):
            message = "the upstream server did not answer in time"
            error = ProblemError(504, message, reason="upstream_timeout", kind="upstream_error")
        self.guard.metrics.count("upstream_errors_total", kind=error.reason)
        return error

    async def _pass_stream(self, plan: Plan, rewriter: Rewriter, stream: EventStream) -> None:
        """Every event goes on as soon as it is whole. A stream that ends without its end is malformed."""
        reader = EventReader(self.guard.config.limits.event_bytes)
        async with self.guard.upstream.stream(self.kind, plan.upstream, plan.asked) as pieces:
            async for piece in pieces:
                for event in reader.feed(piece):
                    if event == b"[DONE]":
                        if not rewriter.is_finished:
                            raise MalformedAnswerError("the stream ended before the answer")
                        await stream.write(SSE_DONE)
                        await _drain(pieces)
                        await stream.close()
                        return
                    await self._pass_event(event, rewriter, stream)
        raise MalformedAnswerError("the stream broke off")

    async def _pass_event(self, event: bytes, rewriter: Rewriter, stream: EventStream) -> None:
        body = parse(event)
        if "error" in body:
            raise ProblemError(502, "the upstream server failed", reason="upstream_failed", kind="upstream_error")
        chunk = rewriter.chunk(body)
        if chunk is not None:
            await stream.write(b"data: " + write_object(chunk) + b"\n\n")
            self.guard.metrics.count("events_total")


def _malformed() -> ProblemError:
    message = "the upstream server's answer could not be read"
    return ProblemError(502, message, reason="unparsable_answer", kind="upstream_error")


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Reads the end of a stream, so that its connection can be used again."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in pieces:
                pass


async def _while_connected(receive: Receive, send: NotingSend, answering: Coroutine[Any, Any, int]) -> int:
    """Runs `answering` until it is done or the client goes away, which cancels it, and with it the upstream request."""
    work = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and not send.is_complete:  # servers also tell of a disconnection once all is sent
            raise ClientGone
        return await work
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    paths = "no such path here; a guard has at most /v1/chat/completions, /v1/completions and /v1/models"
    message = {404: paths, 405: "another method is needed"}.get(status, "not possible")
    written = write_problem(ProblemError(status, message, reason="unknown_url"))
    return json_response(written.body, written.status)


async def _handled(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError | LensmithError)
    written = write_problem(error)
    return json_response(written.body, written.status, written.headers)
