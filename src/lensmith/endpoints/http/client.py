"""An OpenAI-compatible server as an `Endpoint`: what a person who operates one points lensmith at.

Requests of one call are sent at the same time, at most `concurrency` of them, and answered in order. What a server
refuses becomes RefusedError with the feature that its error names; what is no answer becomes an error that says where;
what will pass (429, 502, 503, 504, no connection) is tried again after the time that the server names, or a growing
one. Which dialect a server speaks shows in its list of models, its headers and its version.
"""

import collections
import dataclasses
import ipaddress
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self
from urllib.parse import urlsplit

import fsspec
import httpx

from lensmith.core.endpoint import Answer, Capabilities, Choice, Request, needed_features
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.types import Part, Picture
from lensmith.endpoints.http.retries import OnWait, RetryPolicy, SilenceMonitor, log_wait
from lensmith.endpoints.http.transport import Sender
from lensmith.openai_api import (
    DIALECTS,
    Dialect,
    EndpointError,
    Kind,
    MalformedAnswerError,
    TextVocabulary,
    kind_of,
    read_answer,
    write_request,
)
from lensmith.openai_api.events import DONE, EventReader
from lensmith.openai_api.reading import short_repr

__all__ = ["HttpClient", "RetryPolicy", "connect"]

_LARGEST_EVENT_BYTES = 1 << 26
_IDLE_S = 1.0
"""How long an idle connection is used again: less than servers keep theirs, or a request meets a reset."""


class HttpClient:
    """A server below `base_url` (which ends in /v1 as a rule) and one of its models.

    `dialect` is found out at first use where it is None: one or two GETs. `timeout_s` is the longest wait for a
    connection and for the next bytes of an answer. `on_wait` hears a sentence where nothing comes for long; by default
    it is logged. `transport` and `sleep` are seams for tests. A proxy of the environment is used for other hosts only.
    Use it as a context manager, or `close` it: from Ctrl-C on, nothing is waited for.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        dialect: Dialect | None = None,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        concurrency: int = 8,
        retries: RetryPolicy | None = None,
        on_wait: OnWait = log_wait,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError("the endpoint's URL", expected="http://... or https://...", actual=base_url)
        if concurrency < 1:
            raise ConfigError("concurrency: too small", expected="at least 1", actual=concurrency)
        self.base_url, self.model = base_url.rstrip("/"), model
        self.vocabulary = TextVocabulary()
        """The tokens of which this server told the text and not the id."""
        self._dialect, self._concurrency = dialect, concurrency
        self._lock = threading.Lock()
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=timeout_s,
            limits=httpx.Limits(
                max_connections=concurrency, max_keepalive_connections=concurrency, keepalive_expiry=_IDLE_S
            ),
            transport=transport,
            trust_env=not is_loopback(base_url),
            verify=base_url.startswith("https:"),  # loading the certificates takes longer than many a request
        )
        self._sender = Sender(
            self._client,
            self.base_url,
            concurrency=concurrency,
            retries=retries or RetryPolicy(),
            monitor=SilenceMonitor(self.base_url, on_wait),
            sleep=sleep,
        )

    @classmethod
    def named(cls, base_url: str, model: str, dialect: str, **options: Any) -> Self:
        """A client that speaks a dialect by its name. Raises ConfigError for an unknown one."""
        if dialect not in DIALECTS:
            raise ConfigError("unknown dialect", expected=", ".join(DIALECTS), actual=dialect)
        return cls(base_url, model, dialect=DIALECTS[dialect], **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up what was not answered yet, and closes the connections."""
        self._sender.close()

    # --- the endpoint ---------------------------------------------------------------------------------------------

    @property
    def dialect(self) -> Dialect:
        """What the server speaks; asks it at first use."""
        with self._lock:
            if self._dialect is None:
                self._dialect = find_dialect(self.base_url, self._sender.peek)
            return self._dialect

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, in order.

        Raises RefusedError for what the server (or its dialect) does not allow, BusyError where it stays busy,
        EndpointError where it fails, MalformedAnswerError where what it says is no answer.
        """
        dialect = self.dialect
        parts = [split for request in requests for split in _split(_with_bytes(request), dialect)]
        bodies = [write_request(part, kind=kind_of(part), model=self.model, dialect=dialect) for part in parts]
        responses = self._send_all(parts, bodies)
        answers = (self._read(part, response) for part, response in zip(parts, responses, strict=True))
        return [_merged([next(answers) for _ in _split(request, dialect)]) for request in requests]

    def supports(self) -> Capabilities:
        """What the dialect has fields for; whether the server honours them, an auditor finds out."""
        return Capabilities(features=self.dialect.features, max_top_logprobs=self.dialect.max_top_logprobs)

    def metadata(self) -> dict[str, Any]:
        """The server's entry for this model in its list of models; empty where it has none."""
        listed = _models_in(self.raw("models"))
        return next((dict(entry) for entry in listed if entry.get("id") == self.model), {})

    def raw(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends `body` (None: a GET) to `path` below the base URL and returns the JSON object that comes back."""
        return _object(self._sender.send(f"{self.base_url}/{path.lstrip('/')}", body))

    def stream(self, request: Request) -> Iterator[str]:
        """The text of a single answer, piece by piece as it comes. Logprobs are not read from a stream."""
        body = write_request(
            _with_bytes(request), kind=kind_of(request), model=self.model, dialect=self.dialect, stream=True
        )
        url, asked = f"{self.base_url}/{kind_of(request).value}", needed_features(request)
        response = self._sender.send(url, body, asked, reads_later=True)
        try:
            with self._sender.monitor.request():
                yield from _stream_text(self._noting(response.iter_bytes()), kind_of(request))
        except httpx.HTTPError as error:
            raise EndpointError("the endpoint's stream broke off", actual=f"{type(error).__name__}: {error}") from error
        finally:
            response.close()

    # --- sending --------------------------------------------------------------------------------------------------

    def _send_all(self, requests: Sequence[Request], bodies: Sequence[Mapping[str, Any]]) -> Iterator[httpx.Response]:
        """The responses in order; at most twice `concurrency` are under way or waiting to be read."""
        waiting: collections.deque[Future[httpx.Response]] = collections.deque()
        try:
            for request, body in zip(requests, bodies, strict=True):
                url, asked = f"{self.base_url}/{kind_of(request).value}", needed_features(request)
                waiting.append(self._sender.submit(url, body, asked))
                if len(waiting) >= 2 * self._concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _noting(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._sender.monitor.received()
            yield piece

    def _read(self, request: Request, response: httpx.Response) -> Answer:
        with self._lock:
            assert self._dialect is not None
            return read_answer(kind_of(request), _object(response), request, self._dialect, self.vocabulary)


def connect(base_url: str, model: str | None = None, *, api_key: str | None = None, **options: Any) -> HttpClient:
    """A client for the model that is named, or for the only one that the server lists (it is asked for that).

    Raises InputError where it lists none or several.
    """
    if model is not None:
        return HttpClient(base_url, model, api_key=api_key, **options)
    with HttpClient(base_url, "", api_key=api_key, **options) as client:
        names = [entry.get("id") for entry in _models_in(client.raw("models"))]
    if len(names) != 1 or not isinstance(names[0], str):
        listed_names = ", ".join(map(str, names)) or "none is listed"
        raise InputError("which model of the endpoint?", expected="the name of one (--model)", actual=listed_names)
    return HttpClient(base_url, names[0], api_key=api_key, **options)


# --- what a server is ---------------------------------------------------------------------------------------------

_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama-server",
    "lensmith": "lensmith",
    "me": "llama-cpp-python",
}
"""What servers write as the owner of their models."""


def find_dialect(base_url: str, get: Callable[[str], httpx.Response | None]) -> Dialect:
    """The dialect of a server; one that says nothing of itself is taken as plainly compatible with OpenAI.

    `get` gives what is at a URL, None where nothing is: the request that follows will say why.
    """
    if urlsplit(base_url).hostname == "api.openai.com":
        return DIALECTS["openai"]
    response = get(f"{base_url}/models")
    if response is not None:
        owner = next((str(entry.get("owned_by")) for entry in _models_in(_json(response))), "")
        if owner in _OWNERS:
            return DIALECTS[_OWNERS[owner]]
        product = str(response.headers.get("server", "")).lower()
        if product.startswith("llama.cpp"):
            return DIALECTS["llama-server"]
        if product.startswith("lensmith"):
            return DIALECTS["lensmith"]
    version = get(f"{base_url.removesuffix('/v1')}/version")
    return DIALECTS["vllm" if version is not None and "version" in _json(version) else "compatible"]


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine by address or by name. No name server is asked about other names."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == socket.gethostname()


def _models_in(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a list of models; none in a body that is none."""
    listed = body.get("data")
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


# --- requests and answers -----------------------------------------------------------------------------------------


def _split(request: Request, dialect: Dialect) -> list[Request]:
    """The request, or several with seeds of their own where the server gives fewer choices at once."""
    if dialect.most_choices is None or request.n <= dialect.most_choices:
        return [request]
    seeds = [None if request.seed is None else request.seed + number for number in range(request.n)]
    return [dataclasses.replace(request, n=1, seed=seed) for seed in seeds]


def _merged(answers: Sequence[Answer]) -> Answer:
    first, counts = answers[0], [answer.completion_tokens for answer in answers]
    choices: tuple[Choice, ...] = sum((answer.choices for answer in answers), ())
    return Answer(
        choices=choices,
        prompt_ids_P=first.prompt_ids_P,
        prompt_logprobs=first.prompt_logprobs,
        prompt_tokens=first.prompt_tokens,
        completion_tokens=None if None in counts else sum(count or 0 for count in counts),
    )


def _with_bytes(request: Request) -> Request:
    """The request with its pictures read; those on the web are the server's to fetch."""
    if all(isinstance(part, str) or part.data for message in request.messages for part in message.parts):
        return request
    messages = tuple(
        dataclasses.replace(message, parts=tuple(map(_part_with_bytes, message.parts))) for message in request.messages
    )
    return dataclasses.replace(request, messages=messages)


def _part_with_bytes(part: Part) -> Part:
    if isinstance(part, str) or part.data or part.url.startswith(("http://", "https://")):
        return part
    try:
        with fsspec.open(part.url, "rb") as file:
            return Picture(data=file.read())
    except (OSError, ValueError) as error:
        raise InputError("a picture cannot be read", actual=f"{part.url}: {error}") from error


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        shown = response.text[:120]
        raise MalformedAnswerError("the answer is not JSON", expected="a JSON object", actual=shown) from error
    if not isinstance(body, dict):
        raise MalformedAnswerError("the answer is malformed", expected="a JSON object", actual=type(body).__name__)
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _stream_text(pieces: Iterator[bytes], kind: Kind) -> Iterator[str]:
    """The text in the chunks of a stream. Raises MalformedAnswerError where it breaks off."""
    reader = EventReader(_LARGEST_EVENT_BYTES)
    for event in itertools.chain(itertools.chain.from_iterable(map(reader.feed, pieces)), reader.close()):
        if event.strip() == DONE:
            return
        try:
            chunk = json.loads(event)
            error, choices = chunk.get("error"), chunk.get("choices", [])
            text = choices and (choices[0]["delta"].get("content") if kind is Kind.CHAT else choices[0]["text"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as cause:
            raise MalformedAnswerError("a chunk of the stream is malformed", actual=short_repr(event)) from cause
        if error:
            raise EndpointError("the endpoint failed within its stream", actual=str(error)[:200])
        if text:
            yield text
    raise MalformedAnswerError("the stream broke off", expected="data: [DONE] at its end", actual="its end")
