"""The client's side of a guard's HTTP: which requests are read at all, and how answers and problems are written."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message, Receive, Send

from lensmith.core.errors import LensmithError
from lensmith.guard.config import GuardConfig
from lensmith.guard.strict_json import Json, write_object
from lensmith.hosting.bodies import ACCEPTED, BodyError, Coding, coding_of
from lensmith.hosting.keys import ApiKeys
from lensmith.openai_api import BusyError, write_error

STRIPPED_HEADER = "lensmith-stripped"
"""Names the request fields that were left out."""

_JSON_TYPE = re.compile(r'application/json(\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
_MOST_RETRY_S = 3600


class ProblemError(Exception):
    """A request that ends with this status and OpenAI's error body. `reason` is its label in the metrics."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        retry_after_s: int = 0,
    ) -> None:
        self.status, self.reason = status, reason
        self.body: Json = {"error": {"message": message, "type": kind, "param": param, "code": reason}}
        self._headers = {"retry-after": str(retry_after_s)} if retry_after_s else {}
        self._headers |= {"accept-encoding": ACCEPTED} if reason == "content_encoding" and status == 415 else {}
        super().__init__(message)

    def response(self) -> Response:
        return json_response(self.body, self.status, self._headers)


class ClientGone(Exception):  # noqa: N818 (an event, not a fault)
    """The client went away before its request was complete."""


def as_problem(error: ProblemError | BodyError | LensmithError) -> ProblemError:
    """Errors of the core as `openai_api` writes them, bodies that are not read, and the guard's own problems."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, BodyError):
        reason = "body_too_large" if error.status == 413 else "content_encoding"
        return ProblemError(error.status, error.problem, reason=reason)
    status, body = write_error(error)
    after_s = error.retry_after_s if isinstance(error, BusyError) else None
    after_s = 0 if after_s is None else min(_MOST_RETRY_S, max(1, round(after_s)))
    reason = body["error"]["code"] or body["error"]["type"]
    problem = ProblemError(status, body["error"]["message"], reason=reason, retry_after_s=after_s)
    problem.body = body
    return problem


_UPSTREAM = {
    "unparsable_answer": (502, "the upstream server's answer could not be read"),
    "upstream_failed": (502, "the upstream server failed"),
    "upstream_timeout": (504, "the upstream server did not answer in time"),
    "upstream_unauthorized": (502, "the upstream server does not accept this guard"),
    "upstream_unreachable": (502, "the upstream server cannot be reached"),
}


def upstream_problem(reason: str) -> ProblemError:
    """What a client is told where the server behind the guard is at fault."""
    status, message = _UPSTREAM[reason]
    return ProblemError(status, message, reason=reason, kind="upstream_error")


def json_response(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(write_object(body), status, headers=dict(headers or {}), media_type="application/json")


def client_name(connection: HTTPConnection, keys: ApiKeys) -> str:
    """Who asks: the name of the key, or without keys the address. Raises ProblemError (401) for an unknown key."""
    if not keys:
        return connection.client.host if connection.client else "unknown"
    name = keys.owner(connection.headers.get("authorization"))
    if name is None:
        raise ProblemError(401, "a valid API key is needed", reason="invalid_api_key", kind="authentication_error")
    return name


@dataclass(frozen=True, kw_only=True)
class BodyHeaders:
    """What a request's headers say of its body, which may be compressed."""

    length_bytes: int
    coding: Coding


def read_headers(connection: HTTPConnection, config: GuardConfig) -> BodyHeaders:
    """What the headers say. Raises ProblemError or BodyError for a body that has two readings, or is too large."""
    headers = connection.headers
    content_types = headers.getlist("content-type")
    if len(content_types) != 1 or not _JSON_TYPE.fullmatch(content_types[0].strip()):
        raise ProblemError(415, "the body must be application/json", reason="content_type")
    coding = coding_of(headers.getlist("content-encoding"))
    lengths = headers.getlist("content-length")
    if "transfer-encoding" in headers or len(lengths) != 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
        raise ProblemError(411, "the body's length must be told", reason="content_length")
    if int(lengths[0]) > config.limits.body_bytes:
        raise ProblemError(413, f"the body is larger than {config.limits.body_bytes} bytes", reason="body_too_large")
    return BodyHeaders(length_bytes=int(lengths[0]), coding=coding)


async def read_body(receive: Receive, length: int, timeout_s: float) -> bytes:
    """The whole body, as sent. Raises ProblemError where it is not as long as told or does not come, ClientGone."""
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > length:
                    raise ProblemError(400, "the body is longer than told", reason="content_length")
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise ProblemError(408, "the body did not come in time", reason="body_timeout") from None
    if len(body) != length:
        raise ProblemError(400, "the body is shorter than told", reason="content_length")
    return bytes(body)


class NotingSend:
    """Sends as `send` does, and calls `on_complete` as soon as a response is complete.

    Raises ClientGone for a client that does not take a piece within `timeout_s`: one that stops reading would keep its
    place among the requests in progress for ever.
    """

    def __init__(self, send: Send, timeout_s: float, *, on_complete: Callable[[], None]) -> None:
        self._send, self._timeout_s, self._on_complete = send, timeout_s, on_complete
        self.is_complete = False

    async def __call__(self, message: Message) -> None:
        self.is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None
        if self.is_complete:
            self._on_complete()


class EventStream:
    """A streamed response that begins with its first event, so that what fails before has a status of its own."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send, self._headers = send, headers
        self.is_started = False

    async def write(self, data: bytes) -> None:
        if not self.is_started:
            self.is_started = True
            headers = {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
                **self._headers,
            }
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": raw})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
