"""The server behind a guard: asked over HTTP, and its errors in a guard's own words.

Nothing of an upstream error reaches a client but its kind, and the field that it is about, where the client sent that
field: such texts name paths, versions and sizes.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from lensmith.guard.config import GuardConfig
from lensmith.guard.http import ProblemError, upstream_problem
from lensmith.guard.strict_json import Json, MalformedError, read_object, write_object
from lensmith.openai_api import Kind, MalformedAnswerError
from lensmith.openai_api.refusals import read_refusal, refused_field

_MOST_ERROR_BYTES = 65536
_IDLE_S = 1.0
"""How long an idle connection is used again.

Less than servers keep theirs (gunicorn 2 s, uvicorn, and so vLLM and SGLang, 5 s): a request that is written while the
server closes meets a reset, and an answer's POST must not be sent twice, for it may have run. Connecting is cheap.
"""
_TOO_LONG = re.compile(
    rb"context[_ ](length|window|size)|maximum context|exceed_context|too many tokens|longer than the model can read",
    re.IGNORECASE,
)


class Upstream:
    """An HTTP client for one server. Redirects, proxies from the environment and compression are not used."""

    def __init__(self, config: GuardConfig, transport: httpx.AsyncBaseTransport | None = None) -> None:
        timeouts = config.timeouts
        self._config = config
        headers = {"accept-encoding": "identity", "user-agent": "lensmith-guard"}
        if config.upstream.key:
            headers["authorization"] = f"Bearer {config.upstream.key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            transport=transport,
            # Reading the certificates takes time; without TLS, for nothing.
            verify=config.upstream.url.startswith("https"),
            timeout=httpx.Timeout(timeouts.silence_s, connect=timeouts.connect_s, pool=timeouts.connect_s),
            limits=httpx.Limits(
                max_connections=config.limits.concurrent, max_keepalive_connections=256, keepalive_expiry=_IDLE_S
            ),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def models(self, timeout_s: float) -> Json:
        """The server's list of models. Raises ProblemError and MalformedAnswerError."""
        try:
            return await self._models(timeout_s)
        except MalformedAnswerError as error:
            if not isinstance(error.__cause__, httpx.ReadError | httpx.RemoteProtocolError):
                raise
            return await self._models(timeout_s)  # a GET may be sent twice, unlike a POST

    async def _models(self, timeout_s: float) -> Json:
        async with self._exchange("GET", "models", None, timeout_s=timeout_s) as response:
            return await self._read_json(response)

    async def answer(self, kind: Kind, body: Json, asked: Json) -> Json:
        """A whole answer to `body`; `asked` are the fields of it that the client sent.

        Raises ProblemError and MalformedAnswerError.
        """
        async with self._exchange("POST", kind.value, body, asked) as response:
            return await self._read_json(response)

    @asynccontextmanager
    async def stream(self, kind: Kind, body: Json, asked: Json) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a streamed answer as they come, else as `answer`."""
        async with self._exchange("POST", kind.value, body, asked) as response:
            _check_content(response, "text/event-stream")
            with _faults():
                yield response.aiter_raw()

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, body: Json | None, asked: Json | None = None, *, timeout_s: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        content = None if body is None else write_object(body)
        headers = {} if body is None else {"content-type": "application/json"}
        timeout = self._client.timeout if timeout_s is None else httpx.Timeout(timeout_s)
        url = f"{self._config.upstream.base_url}/{path}"
        with _faults():
            async with self._client.stream(method, url, content=content, headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    raise _problem(response, await _read(response, _MOST_ERROR_BYTES), asked or {})
                yield response

    async def _read_json(self, response: httpx.Response) -> Json:
        _check_content(response, "application/json")
        limit = self._config.limits.answer_bytes
        data = await _read(response, limit + 1)
        if len(data) > limit:
            raise MalformedAnswerError("the answer is too long", expected=f"at most {limit} bytes")
        return parse(data)


def parse(data: bytes) -> Json:
    """A JSON object from an upstream server. Raises MalformedAnswerError."""
    try:
        return read_object(data)
    except MalformedError as error:
        raise MalformedAnswerError(f"the answer is {error.problem}") from error


class _faults:  # noqa: N801 (reads as a statement)
    """Turns the HTTP library's errors into problems. A class, because a generator here would hide cancellation."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.UnsupportedProtocol):
            raise upstream_problem("upstream_unreachable") from error
        if isinstance(error, httpx.TimeoutException):
            raise upstream_problem("upstream_timeout") from error
        # A connection that is reset under an answer broke it off, whether or not a part had come.
        if isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError | httpx.ReadError):
            raise MalformedAnswerError("the answer broke off, or is no HTTP") from error
        if isinstance(error, httpx.HTTPError | httpx.StreamError):
            message = "the connection to the upstream server failed"
            raise ProblemError(502, message, reason="upstream_failed", kind="upstream_error") from error


async def _read(response: httpx.Response, most_bytes: int) -> bytes:
    """The first `most_bytes` of a body, as sent."""
    data = bytearray()
    async for piece in response.aiter_raw():
        data += piece
        if len(data) >= most_bytes:
            break
    return bytes(data[:most_bytes])


def _check_content(response: httpx.Response, expected: str) -> None:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != expected:
        raise MalformedAnswerError("the answer has another type of content", expected=expected)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise MalformedAnswerError("the answer is compressed, which was not asked for")


def _problem(response: httpx.Response, body: bytes, asked: Json) -> ProblemError:
    """What a client is told of an upstream error. `asked` are the client's own fields."""
    status = response.status_code
    if status in (400, 413, 422) and _TOO_LONG.search(body):
        return ProblemError(400, "the request is longer than the model's context", reason="context_length_exceeded")
    if status in (400, 422):
        param = refused_field(read_refusal(body), asked)
        message = "the upstream server refused this request" + (f" because of {param}" if param else "")
        return ProblemError(400, message, reason="upstream_refused", param=param)
    if status == 404:
        return ProblemError(404, "the upstream server has no such model or path", reason="model_not_found")
    if status == 413:
        return ProblemError(413, "the request is too large for the upstream server", reason="upstream_too_large")
    if status in (429, 503):
        kind = "rate_limit_error" if status == 429 else "overloaded_error"
        after = response.headers.get("retry-after", "")
        after_s = min(3600, int(after)) if re.fullmatch(r"[0-9]{1,6}", after) else 1
        return ProblemError(
            status, "the upstream server is busy", reason="upstream_busy", kind=kind, retry_after_s=after_s
        )
    if status in (408, 504):
        return upstream_problem("upstream_timeout")
    return upstream_problem("upstream_unauthorized" if status in (401, 403) else "upstream_failed")
