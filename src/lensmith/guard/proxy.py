"""A streaming reverse proxy that enforces an `Exposure` in front of any OpenAI-compatible server.

For servers that cannot close the read-outs of the two leak papers themselves (Carlini et al., arXiv 2403.06634;
Finlayson et al., arXiv 2403.09539): `policy` decides what may be asked, `answers` what is told,
`patterns` who asks too much. It fails closed: a path, a field or an answer that it does not know does not pass.
Of a stream nothing is held back but what is not yet a whole event.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lensmith.core.errors import LensmithError
from lensmith.core.exposure import visible_metadata
from lensmith.guard.answers import READER, Rewriter
from lensmith.guard.config import GuardConfig
from lensmith.guard.http import (
    STRIPPED_HEADER,
    ClientGone,
    EventStream,
    NotingSend,
    ProblemError,
    as_problem,
    client_name,
    json_response,
    read_body,
    read_headers,
    upstream_problem,
)
from lensmith.guard.metrics import CONTENT_TYPE, GuardMetrics
from lensmith.guard.patterns import ClientStatistics
from lensmith.guard.policy import Decision, check_field_names, decide
from lensmith.guard.strict_json import Json, read_object, write_object
from lensmith.guard.upstream import Upstream, parse
from lensmith.hosting.bodies import BodyError, Coding, expand
from lensmith.hosting.keys import ApiKeys
from lensmith.hosting.run import unless_gone
from lensmith.openai_api import FIELDS, SSE_DONE, BusyError, Kind, MalformedAnswerError
from lensmith.openai_api.events import DONE, EventReader

log = logging.getLogger("lensmith.guard")

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_LISTING_TIMEOUT_S = 10.0
_DRAIN_S = 1.0
_LARGE_BODY = 1 << 18
"""A body of more bytes, or a compressed one, is read in a thread: other requests do not wait for it."""


@dataclass(frozen=True)
class _AsgiEndpoint:
    """A handler that writes its response itself; Starlette takes functions for handlers that return one."""

    handle: Callable[[Scope, Receive, Send], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.handle(scope, receive, send)


class Guard:
    """A guard's paths, and what all requests share: the upstream client, the counters, the statistics of clients."""

    def __init__(
        self,
        config: GuardConfig,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_field_names(config)
        self.config = config
        self.clients = ClientStatistics(config.patterns, config.limits, clock=clock)
        self.metrics = GuardMetrics(clients=lambda: len(self.clients.states))
        self.upstream = Upstream(config, transport)
        self._keys = ApiKeys(config.keys)
        self._metrics_keys = ApiKeys([config.metrics_key])

    def app(self) -> Starlette:
        """The web application. It closes the upstream client when it stops."""

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await self.upstream.close()

        def answering(kind: Kind) -> Route:
            endpoint = _AsgiEndpoint(functools.partial(self._complete, kind))
            return Route(f"/v1/{kind.value}", endpoint, methods=["POST"])

        app = Starlette(
            routes=[
                Route("/health", self.health, methods=["GET"]),
                Route("/metrics", self.show_metrics, methods=["GET"]),
                Route("/v1/models", self.models, methods=["GET"]),
                Route("/v1/models/{name:path}", self.one_model, methods=["GET"]),
                *map(answering, self.config.kinds),
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
        if self._metrics_keys:
            is_allowed = self._metrics_keys.accepts(request.headers.get("authorization"))
        else:
            is_allowed = request.client is None or request.client.host in _LOOPBACK
        if not is_allowed:
            raise HTTPException(404)
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    # --- models ---------------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """The models' names; what else the server tells of them, where the exposure has metadata."""
        return json_response({"object": "list", "data": await self._models_for(request)})

    async def one_model(self, request: Request) -> Response:
        """One entry of that list."""
        for model in await self._models_for(request):
            if model["id"] == request.path_params["name"]:
                return json_response(model)
        raise ProblemError(404, "there is no such model here", reason="model_not_found", param="model")

    async def _models_for(self, request: Request) -> list[Json]:
        self.clients.arrive(client_name(request, self._keys))
        try:
            return await self._listed_models()
        except MalformedAnswerError:
            self.metrics.unparsable_answers.inc()
            raise upstream_problem("unparsable_answer") from None

    async def _model_names(self) -> list[str]:
        """The names that the upstream lists; none where it lists nothing that can be read."""
        try:
            return [model["id"] for model in await self._listed_models()]
        except (ProblemError, MalformedAnswerError):
            return []

    async def _listed_models(self) -> list[Json]:
        listing = await self.upstream.models(_LISTING_TIMEOUT_S)
        return [self._visible_model(model) for model in READER.as_list(listing.get("data"), "data")]

    def _visible_model(self, model: object) -> Json:
        facts = dict(READER.as_object(model, "data"))
        facts["id"] = READER.as_text(facts.get("id"), "id")
        return {"object": "model", "created": 0, "owned_by": "", **visible_metadata(facts, self.config.exposure)}

    # --- completions and chats ------------------------------------------------------------------------------------

    async def _complete(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, and counts how it ended.

        `slot` is the request's place among those in progress. It is free as soon as the answer is sent: a client that
        asks again at once must not meet its own last request.
        """
        with contextlib.ExitStack() as slot:
            slot.enter_context(self.metrics.request())
            noting = NotingSend(send, self.config.timeouts.send_s, on_complete=slot.close)
            try:
                status = await self._respond(kind, scope, receive, noting, slot)
                self.metrics.requests.labels(path=kind.value, status=str(status)).inc()
            except ClientGone:
                self.metrics.cancelled.inc()

    async def _respond(
        self, kind: Kind, scope: Scope, receive: Receive, send: NotingSend, slot: contextlib.ExitStack
    ) -> int:
        """Refuses a request, or passes it on and its answer back. Returns the status."""
        try:
            decision = await self._admit(kind, HTTPConnection(scope), receive, slot)
        except (ProblemError, BodyError, LensmithError) as error:
            problem = as_problem(error)
            self.metrics.refused.labels(reason=problem.reason).inc()
            await problem.response()(scope, receive, send)
            return problem.status
        headers = {STRIPPED_HEADER: ", ".join(decision.stripped)} if decision.stripped else {}

        async def answer() -> int:
            response = await self._answer(decision, EventStream(send, headers))
            if response is None:
                return 200
            response.headers.update(headers)
            await response(scope, receive, send)
            return response.status_code

        # Cancelled where the client goes away, and with it the upstream request.
        status = await unless_gone(receive, answer(), is_answered=lambda: send.is_complete)
        if status is None:
            raise ClientGone
        return status

    async def _admit(
        self, kind: Kind, connection: HTTPConnection, receive: Receive, slot: contextlib.ExitStack
    ) -> Decision:
        """What the request may ask. `slot` takes the client's place among those in progress."""
        client = client_name(connection, self._keys)
        self.clients.arrive(client)
        slot.enter_context(self.clients.answering(client))
        if self.metrics.in_flight > self.config.limits.concurrent:
            raise BusyError("too many requests at a time", status=503, retry_after_s=1)
        headers = read_headers(connection, self.config)
        body = await read_body(receive, headers.length_bytes, self.config.timeouts.body_s)
        is_small = len(body) <= _LARGE_BODY and headers.coding is Coding.IDENTITY
        read = functools.partial(self._decide, kind, body, headers.coding)
        decision = read() if is_small else await asyncio.to_thread(read)
        for pattern in self.clients.admit(client, decision.seen):
            self.metrics.extraction.labels(pattern=pattern.value).inc()
            log.warning("client %s: its requests look like an extraction: %s", client, pattern.value)
        for name in decision.stripped:
            self.metrics.stripped.labels(field=name if name in FIELDS else "other").inc()
        return decision

    def _decide(self, kind: Kind, body: bytes, coding: Coding) -> Decision:
        limits = self.config.limits
        expanded = expand(body, coding, most_bytes=limits.body_bytes)
        return decide(kind, read_object(expanded, most_values=limits.body_values), self.config)

    async def _answer(self, decision: Decision, stream: EventStream) -> Response | None:
        """The whole response; None where a stream was written."""
        rewriter = Rewriter(decision=decision, exposure=self.config.exposure, is_stream=decision.wires[0].stream)
        try:
            async with asyncio.timeout(self.config.timeouts.total_s):
                if not decision.wires[0].model:
                    rewriter.listed_models = await self._model_names()
                if not rewriter.is_stream:
                    body = await self.upstream.answer(decision.kind, decision.upstream, decision.asked)
                    return json_response(rewriter.whole(body))
                await self._pass_stream(decision, rewriter, stream)
                return None
        except (ProblemError, MalformedAnswerError, TimeoutError) as error:
            problem = self._upstream_problem(error)
        if not stream.is_started:
            return problem.response()
        await stream.write(b"data: " + write_object(problem.body) + b"\n\n")
        await stream.close()
        return None

    def _upstream_problem(self, error: ProblemError | MalformedAnswerError | TimeoutError) -> ProblemError:
        """Counts what went wrong behind the guard; what the client may know of it."""
        if isinstance(error, MalformedAnswerError):
            self.metrics.unparsable_answers.inc()
            log.warning("an upstream answer was not passed on: %s", error.problem)
            return upstream_problem("unparsable_answer")
        if isinstance(error, TimeoutError):
            error = upstream_problem("upstream_timeout")
        self.metrics.upstream_errors.labels(kind=error.reason).inc()
        return error

    async def _pass_stream(self, decision: Decision, rewriter: Rewriter, stream: EventStream) -> None:
        """Every event goes on as soon as it is whole. A stream that ends without its end is malformed."""
        reader = EventReader(self.config.limits.event_bytes)
        async with self.upstream.stream(decision.kind, decision.upstream, decision.asked) as pieces:
            async for piece in pieces:
                for event in reader.feed(piece):
                    if event == DONE:
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
            raise upstream_problem("upstream_failed")
        chunk = rewriter.chunk(body)
        if chunk is not None:
            await stream.write(b"data: " + write_object(chunk) + b"\n\n")
            self.metrics.events.inc()


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Reads the end of a stream, so that its connection can be used again."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in pieces:
                pass


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    paths = "no such path here; a guard has at most /v1/chat/completions, /v1/completions and /v1/models"
    message = {404: paths, 405: "another method is needed"}.get(status, "not possible")
    return ProblemError(status, message, reason="unknown_url").response()


async def _handled(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError | LensmithError)
    return as_problem(error).response()
