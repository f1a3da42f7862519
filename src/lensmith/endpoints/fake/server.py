"""A `FakeEndpoint` behind HTTP on this machine, in the dialect of a server that people run.

    with FakeServer(FakeEndpoint(vocabulary=97, width=8), dialect="vllm") as url:
        HttpClient(url, "fake")

Everything crosses `openai_api`, as in the real server; a stream is cut out of the finished answer, token by token.

How servers that are not ours read a request and write an answer, for `FakeServer`.

Each dialect ignores the fields that it does not know, as the servers do, and has its server's habits: vLLM puts the
sampled token first and tells wanted ids instead of the top; llama-cpp-python keys all logprobs by text, so that tokens
with equal texts vanish, and adds the sampled token; llama.cpp's own server writes ids, in the chat's shape everywhere.
"""

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lensmith.core.endpoint import Answer, Choice
from lensmith.core.errors import ConfigError, LensmithError
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.openai_api import (
    DIALECTS,
    MASKED_LOGPROB,
    SSE_DONE,
    TOKEN_ID_PREFIX,
    BusyError,
    Delta,
    Dialect,
    Kind,
    TokenNames,
    Usage,
    WantedIds,
    WireError,
    WireRequest,
    read_requests,
    sse,
    visible_request,
    write_answers,
    write_chunk,
    write_error,
    write_usage_chunk,
)

Body = dict[str, Any]

_FIELDS_OF = {
    "names_ids": "return_tokens_as_token_ids",
    "returns_ids": "return_token_ids",
    "wanted_in": "logprob_token_ids",
}


def known_fields(body: Mapping[str, Any], kind: Kind, dialect: Dialect) -> Body:
    """What a server of this dialect sees of a body. Raises WireError for a prompt that it cannot read."""
    fields = dict(body)
    for attribute, name in _FIELDS_OF.items():
        if not getattr(dialect, attribute):
            fields.pop(name, None)
    if dialect.vocabulary_count != -1:
        fields.pop("allowed_token_ids", None)
    if dialect.most_choices == 1:
        fields.pop("n", None)
        if kind is Kind.COMPLETION and fields.get("max_tokens") == 0:
            del fields["max_tokens"]
    prompt = fields.get("prompt")
    is_text = isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(each, str) for each in prompt))
    if dialect.name == "llama-cpp-python" and kind is Kind.COMPLETION and not is_text:
        raise WireError("prompt: Input should be a valid string", param="prompt")
    return fields


def as_read(wire: WireRequest, dialect: Dialect) -> WireRequest:
    """The request as this server understands it."""
    request = wire.request
    if dialect.wanted_ids is WantedIds.INSTEAD_OF_TOP and request.wanted_ids:
        request = dataclasses.replace(request, top_logprobs=0)
    return dataclasses.replace(wire, request=request, tokens_as_ids=wire.tokens_as_ids and dialect.names_ids)


def write_in(
    dialect: Dialect, wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage
) -> Body:
    """The response body as this server writes it."""
    write = _WRITERS.get(dialect.name, _write_plain)
    return write(wires, answers, names, usage)


def _write_plain(wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage) -> Body:
    return write_answers(wires, answers, names, answer_id="fake-1", created=0, usage=usage)


def _write_vllm(wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage) -> Body:
    body = _write_plain(wires, answers, names, usage)
    request = wires[0].request
    for choice in body["choices"] if request.top_logprobs and not request.wanted_ids else ():
        logprobs = choice["logprobs"]
        for entry in logprobs.get("content", ()):
            if entry["logprob"] == MASKED_LOGPROB:
                continue
            own = {key: entry[key] for key in ("token", "logprob", "bytes")}
            others = [other for other in entry["top_logprobs"] if other["token"] != own["token"]]
            entry["top_logprobs"] = [own, *others][: request.top_logprobs]
        if "tokens" in logprobs:
            _put_sampled(logprobs, is_first=True)
    return body


def _write_llama_cpp_python(
    wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage
) -> Body:
    asked = [dataclasses.replace(wire, kind=Kind.COMPLETION) for wire in wires]
    body = _write_plain(asked, answers, names, usage)
    for choice in body["choices"]:
        if choice["logprobs"] is not None:
            choice["logprobs"]["top_logprobs"] = choice["logprobs"]["top_logprobs"] or [
                {} for _ in choice["logprobs"]["tokens"]
            ]
            _put_sampled(choice["logprobs"], is_first=False)
        if wires[0].kind is Kind.CHAT:
            choice["message"] = {"role": "assistant", "content": choice.pop("text")}
            choice["logprobs"] = choice["logprobs"] and {"content": _as_content(choice["logprobs"])}
    return body


def _write_llama_server(
    wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage
) -> Body:
    asked = [dataclasses.replace(wire, kind=Kind.CHAT, tokens_as_ids=True) for wire in wires]
    body = _write_plain(asked, answers, names, usage)
    for choice in body["choices"]:
        for entry in (choice["logprobs"] or {}).get("content", ()):
            for each in (entry, *entry["top_logprobs"]):
                each["id"] = int(each["token"].removeprefix(TOKEN_ID_PREFIX))
                each["token"] = names.text(each["id"])
        if wires[0].kind is Kind.COMPLETION:
            choice["text"] = choice.pop("message")["content"]
    return body


def _put_sampled(logprobs: Body, *, is_first: bool) -> None:
    """Adds each position's own token to its top logprobs, before or after the others, unless its own is withheld."""
    tops = logprobs["top_logprobs"]
    for place, (token, value) in enumerate(zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)):
        if value is None:
            tops[place] = None  # an echoed prompt's first token
        elif value != MASKED_LOGPROB:
            own = {token: value}
            others = {name: other for name, other in tops[place].items() if name != token}
            tops[place] = {**own, **others} if is_first else {**tops[place], **own}


def _as_content(logprobs: Body) -> list[Body]:
    return [
        {
            "token": token,
            "logprob": value,
            "bytes": None,
            "top_logprobs": [{"token": name, "logprob": other, "bytes": None} for name, other in top.items()],
        }
        for token, value, top in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        )
    ]


_Writer = Callable[[Sequence[WireRequest], Sequence[Answer], TokenNames, Usage], Body]
_WRITERS: Mapping[str, _Writer] = {
    "vllm": _write_vllm,
    "llama-cpp-python": _write_llama_cpp_python,
    "llama-server": _write_llama_server,
}


_OWNERS = {
    "lensmith": "lensmith",
    "vllm": "vllm",
    "sglang": "sglang",
    "llama-server": "llamacpp",
    "llama-cpp-python": "me",
}
_PRODUCTS = {"lensmith": "lensmith", "llama-server": "llama.cpp"}


class FakeServer:
    """Serves `endpoint` on a free port of 127.0.0.1 while it is entered; entering gives the base URL.

    `dialect` is a name in `openai_api.DIALECTS`. `api_key`, where given, is asked for. A llama.cpp server tells the
    width in its list of models, where the exposure allows metadata, as the real one does.
    """

    def __init__(self, endpoint: FakeEndpoint, *, dialect: str = "lensmith", api_key: str | None = None) -> None:
        if dialect not in DIALECTS:
            raise ConfigError("unknown dialect", expected=", ".join(DIALECTS), actual=dialect)
        self.endpoint, self.dialect, self.api_key = endpoint, DIALECTS[dialect], api_key
        self._server: _Server | None = None

    def __enter__(self) -> str:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    # --- what the handler asks ------------------------------------------------------------------------------------

    @property
    def product(self) -> str:
        return _PRODUCTS.get(self.dialect.name, "uvicorn")

    def models(self) -> dict[str, Any]:
        facts = self.endpoint.metadata()
        entry = {"object": "model", "owned_by": _OWNERS.get(self.dialect.name, "someone"), **facts}
        if self.dialect.name == "llama-server" and self.endpoint.exposes.metadata:
            entry["meta"] = {"n_embd": self.endpoint.config.width, "n_vocab": self.endpoint.config.rows}
        return {"object": "list", "data": [entry]}

    def read(self, kind: Kind, body: Any) -> list[WireRequest]:
        if not isinstance(body, Mapping):
            raise WireError("the body must be a JSON object", expected="an object", actual=type(body).__name__)
        wires = read_requests(kind, known_fields(body, kind, self.dialect))
        return [as_read(wire, self.dialect) for wire in wires]

    def answer(self, wires: list[WireRequest]) -> list[Answer]:
        return self.endpoint.answer([visible_request(wire.request, self.endpoint.exposes) for wire in wires])

    def write(self, wires: list[WireRequest], answers: list[Answer]) -> dict[str, Any]:
        return write_in(self.dialect, wires, answers, self.endpoint.tokens, _usage(answers))

    def chunks(self, wires: list[WireRequest], answers: list[Answer]) -> Iterator[bytes]:
        names = self.endpoint.tokens
        choices = [(wire, choice) for wire, answer in zip(wires, answers, strict=True) for choice in answer.choices]
        for index, (wire, choice) in enumerate(choices):
            for delta in self._deltas(index, choice):
                yield sse(write_chunk(wire, delta, names, answer_id="fake-1", created=0))
        if wires[0].include_usage:
            usage = _usage(answers)
            yield sse(write_usage_chunk(wires[0], answer_id="fake-1", created=0, usage=usage))
        yield SSE_DONE

    def _deltas(self, index: int, choice: Choice) -> Iterator[Delta]:
        start, ids = 0, choice.token_ids_T.tolist()
        for place, token_id in enumerate(ids):
            end = min(start + len(self.endpoint.tokens.text(token_id)), len(choice.text))
            yield Delta(
                index=index,
                text=choice.text[start:end],
                token_ids=(token_id,),
                logprobs=None if choice.logprobs is None else choice.logprobs.part(slice(place, place + 1)),
                finish=choice.finish if place + 1 == len(ids) else None,
                offset=start,
                is_first=place == 0,
            )
            start = end
        if not ids:
            yield Delta(index=index, finish=choice.finish, is_first=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: FakeServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        if self.path == "/v1/models":
            self._send(200, owner.models())
        elif self.path == "/version" and owner.dialect.name == "vllm":
            self._send(200, {"version": "0.20.0"})
        else:
            self._send(404, _not_found(self.path))

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = next((kind for kind in Kind if self.path == f"/v1/{kind.value}"), None)
        if kind is None:
            self._send(404, _not_found(self.path))
            return
        if self.server.owner.api_key not in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
            self._send(401, {"error": {"message": "wrong API key", "type": "authentication_error"}})
            return
        try:
            self._answer(kind, json.loads(data))
        except json.JSONDecodeError:
            self._send(400, write_error(WireError("the body is not JSON"))[1])
        except LensmithError as error:
            self._send_error(error)

    def _answer(self, kind: Kind, body: Any) -> None:
        owner = self.server.owner
        wires = owner.read(kind, body)
        if wires[0].model != owner.endpoint.metadata()["id"]:
            self._send(404, _not_found(f"the model {wires[0].model!r}"))
            return
        answers = owner.answer(wires)
        if not wires[0].stream:
            self._send(200, owner.write(wires, answers))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in owner.chunks(wires, answers):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _send_error(self, error: LensmithError) -> None:
        status, body = write_error(error)
        headers = {}
        if isinstance(error, BusyError) and error.retry_after_s is not None:
            headers = {"Retry-After": str(math.ceil(error.retry_after_s))}
        if self.server.owner.dialect.name != "lensmith":
            body["error"]["code"] = status  # others have no code for what is refused
        self._send(status, body, headers)

    def version_string(self) -> str:
        return self.server.owner.product

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a test's output is the test's."""


def _usage(answers: list[Answer]) -> Usage:
    return Usage(
        prompt_tokens=sum(answer.prompt_tokens or 0 for answer in answers),
        completion_tokens=sum(len(choice.token_ids_T) for answer in answers for choice in answer.choices),
    )


def _not_found(what: str) -> dict[str, Any]:
    return {"error": {"message": f"{what} does not exist", "type": "not_found_error", "param": None, "code": None}}
