"""An upstream may send anything: what is not an answer to this request does not reach the client."""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lensmith.core.exposure import Exposure
from lensmith.guard.config import GuardConfig, ResourceLimits, Timeouts, UpstreamConfig
from lensmith.guard.proxy import Guard
from tests.support.guard_bed import ask, guard_before

PATH = "/v1/chat/completions"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
LOGPROBS = {**CHAT, "logprobs": True, "top_logprobs": 1}
SECRET = "sEcReT"
ENTRY = {"token": "a", "logprob": -0.5, "bytes": [97]}
POSITION = {**ENTRY, "top_logprobs": [ENTRY, {"token": "b", "logprob": -1.5, "bytes": [98]}]}


def choice(**changes: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop", **changes}


def content(*positions: Any) -> dict[str, Any]:
    return choice(logprobs={"content": [*positions]})


def upstream(body: bytes, *, status: int = 200, kind: str = "application/json", **headers: str) -> Starlette:
    async def answer(request: Request) -> Response:
        return Response(body, status, headers=headers, media_type=kind)

    return Starlette(routes=[Route(PATH, answer, methods=["POST"]), Route("/v1/models", answer)])


def reply_to(
    asked: Any, body: bytes, *, guard_options: dict[str, Any] | None = None, **answer: Any
) -> tuple[Any, Guard]:
    guard = guard_before(upstream(body, **answer), Exposure(top_logprobs=5), **(guard_options or {}))
    reply = asyncio.run(ask(guard.app(), PATH, asked))
    return reply, guard


def whole(*choices: Any, **fields: Any) -> bytes:
    return json.dumps({"choices": [*choices], **fields}).encode()


def test_the_answers_below_are_bad_by_one_thing_each():
    reply, _ = reply_to(LOGPROBS, whole(content(POSITION)))
    assert reply.status == 200
    assert reply.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == [ENTRY]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b"\xff\xfe" + whole(choice()),
        whole(choice())[:-1],
        whole(choice()).replace(b'"stop"', b'"stop", "index": 0'),
        whole(choice()) + b"{}",
        whole(choice(), choice()),
        whole(choice(), choice(index=1)),
        whole(choice(index=1)),
        whole(choice(index=True)),
        whole(choice(index=-1)),
        whole(choice(index="0")),
        whole(choice(finish_reason=None)),
        whole(choice(finish_reason="because")),
        whole(choice(message="hi")),
        whole(choice(message={"role": "system", "content": "hi"})),
        whole(choice(message={"content": ["hi"]})),
        whole(choice(message={"tool_calls": [{"function": "f"}]})),
        whole(choice(logprobs=[])),
        whole(choice(logprobs={"content": {}})),
        whole(content("a")),
        whole(content({**POSITION, "logprob": "-0.5"})),
        whole(content({**POSITION, "logprob": None})),
        whole(content({**POSITION, "logprob": True})),
        whole(content({**POSITION, "logprob": 3.5})),
        whole(content({**POSITION, "token": 5})),
        whole(content({**POSITION, "bytes": [256]})),
        whole(content({**POSITION, "bytes": "a"})),
        whole(content({**POSITION, "top_logprobs": {}})),
        whole(content({**POSITION, "top_logprobs": [ENTRY, {**ENTRY, "logprob": 9.0}]})),
        whole(content({**POSITION, "top_logprobs": [{**ENTRY, "logprob": -0.1}] * 3})),
        whole(content(POSITION)).replace(b"-0.5", b"NaN"),
        whole(content(POSITION)).replace(b"-1.5", b"-Infinity"),
        whole(content(POSITION)).replace(b"-1.5", b"-1e999"),
        whole(choice(), usage={"prompt_tokens": -1}),
        whole(choice(), usage=[]),
        whole(choice(message={"content": "\ud800"})),
        b'{"choices":' + b"[" * 100_000,
        b'{"choices":' + b"[" * 40 + b"]" * 40 + b"}",
    ],
)
def test_what_is_no_answer_is_a_502(body, caplog):
    with caplog.at_level(logging.WARNING, "lensmith.guard"):
        reply, guard = reply_to(LOGPROBS, body)
    assert reply.status == 502
    assert reply.body["error"]["code"] == "unparsable_answer"
    assert guard.metrics.value("unparsable_answers_total") == 1
    assert "not passed on" in caplog.text


@pytest.mark.parametrize(
    ("said", "told"),
    [("stop", "stop"), ("eos_token", "stop"), ("stop_sequence", "stop"), ("abort", "abort"), ("length", "length")],
)
def test_why_an_answer_ended_is_told_in_known_words(said, told):
    reply, _ = reply_to(CHAT, whole(choice(finish_reason=said)))
    assert (reply.status, reply.body["choices"][0]["finish_reason"]) == (200, told)
    reply, _ = stream_of(GOOD + event(delta("b", finish_reason=said)) + DONE)
    assert reply.body[1]["choices"][0]["finish_reason"] == told
    assert reply.body[-1] == "[DONE]"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_pass_whole_and_streamed(name):
    reply, _ = reply_to(CHAT, whole(choice(message={"content": "4", name: "2+2"})))
    assert reply.body["choices"][0]["message"] == {"role": "assistant", "content": "4", name: "2+2"}
    reply, _ = stream_of(event({"index": 0, "delta": {name: "2+2"}, "finish_reason": None}) + LAST + DONE)
    assert reply.body[0]["choices"][0]["delta"] == {name: "2+2"}


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "text/html"},
        {"kind": "text/event-stream"},
        {"content-encoding": "gzip"},
        {"guard_options": {"limits": ResourceLimits(answer_bytes=20)}},
    ],
)
def test_another_type_an_encoding_or_too_much_is_a_502(answer):
    reply, guard = reply_to(CHAT, whole(choice()), **answer)
    assert reply.status == 502
    assert guard.metrics.value("unparsable_answers_total") == 1


def test_unknown_fields_headers_and_logprobs_nobody_asked_for_do_not_pass():
    body = whole(
        {**content(POSITION), "hidden_states": [1.0], "stop_reason": SECRET},
        **{"prompt_logprobs": [SECRET], "model": f"/srv/{SECRET}.gguf", "system_fingerprint": SECRET, "id": SECRET},
        usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "prompt_tokens_details": {SECRET: 1}},
        timings={SECRET: 1},
    )
    guard = guard_before(upstream(body, server=SECRET, **{"x-model": SECRET}), Exposure.text_only())
    reply = asyncio.run(ask(guard.app(), PATH, CHAT))
    assert reply.status == 200
    assert SECRET not in json.dumps(reply.body) + str(reply.headers)
    assert reply.body["choices"][0]["logprobs"] is None
    assert reply.body["usage"] == {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    assert reply.body["model"] == "m"


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (400, b"boom", 400, "upstream_refused"),
        (400, b"This model's maximum context length is 4096", 400, "context_length_exceeded"),
        (400, b"the prompt is longer than the model can read", 400, "context_length_exceeded"),
        (422, b"", 400, "upstream_refused"),
        (401, b"", 502, "upstream_unauthorized"),
        (404, b"", 404, "model_not_found"),
        (429, b"", 429, "upstream_busy"),
        (500, b"", 502, "upstream_failed"),
        (503, b"", 503, "upstream_busy"),
        (504, b"", 504, "upstream_timeout"),
        (302, b"", 502, "upstream_failed"),
        (204, b"", 502, "upstream_failed"),
    ],
)
def test_upstream_errors_tell_their_kind_and_no_more(status, body, expected, code):
    headers = {"location": f"http://{SECRET}/", "x-trace": SECRET, "retry-after": "7"}
    text = f"{SECRET} /srv/models/x vocab_size=50257 ".encode()
    reply, guard = reply_to(CHAT, text + body if body else body, status=status, **headers)
    assert (reply.status, reply.body["error"]["code"]) == (expected, code)
    assert SECRET not in json.dumps(reply.body) + str(reply.headers)
    assert reply.headers.get("retry-after") == ("7" if code == "upstream_busy" else None)
    assert guard.metrics.value("upstream_errors_total", kind=code) == 1


@pytest.mark.parametrize(
    ("error", "param"),
    [
        ({"param": "messages"}, "messages"),
        ({"param": "messages[0].content"}, "messages[0].content"),
        ({"param": "messages[5].secret"}, "messages"),
        ({"param": "model.weights"}, "model"),
        ({"param": SECRET}, None),
        ({"param": "logit_bias"}, None),
        ({"param": ["messages"]}, None),
        (SECRET, None),
    ],
)
def test_a_refused_field_is_named_if_the_client_sent_it(error, param):
    reply, _ = reply_to(CHAT, json.dumps({"error": error, "detail": SECRET}).encode(), status=400)
    assert (reply.status, reply.body["error"]["param"]) == (400, param)
    said = f" because of {param}" if param else ""
    assert reply.body["error"]["message"] == "the upstream server refused this request" + said
    assert SECRET not in json.dumps(reply.body)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (
            {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": SECRET, "input": SECRET}]},
            "messages[0].content",
        ),
        ({"detail": [{"loc": ["body", "top_logprobs"], "msg": SECRET}]}, None),  # the guard's own, not the client's
        ({"error": {"message": f"max_tokens must be at least 1, {SECRET}", "param": None}}, "max_tokens"),
        ({"error": f"`temperature` is {SECRET}", "error_type": "validation"}, None),
        ({"detail": SECRET}, None),
    ],
)
def test_whichever_way_a_server_names_a_field_the_client_reads_which_it_was(body, param, status):
    asked = {**CHAT, "max_tokens": 5, "logprobs": True}
    reply, _ = reply_to(asked, json.dumps(body).encode(), status=status)
    assert (reply.status, reply.body["error"]["param"]) == (400, param)
    assert SECRET not in json.dumps(reply.body)


# --- streams ------------------------------------------------------------------------------------------------------


def event(*choices: Any, **fields: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [*choices], **fields}).encode() + b"\n\n"


def delta(text: str, **changes: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": None, **changes}


GOOD = event(delta("a"))
LAST = event(delta("b", finish_reason="stop"))
DONE = b"data: [DONE]\n\n"


def stream_of(body: bytes, **options: Any) -> tuple[Any, Guard]:
    return reply_to({**LOGPROBS, "stream": True}, body, kind="text/event-stream", **options)


def test_a_good_stream_in_any_framing():
    for body in (
        GOOD + LAST + DONE,
        (GOOD + LAST + DONE).replace(b"\n", b"\r\n"),
        b": hello\n\nevent: message\nid: 7\nretry: 3\n" + GOOD + b"\n\n\n" + LAST.replace(b"data: ", b"data:") + DONE,
        GOOD.replace(b', "finish', b'\ndata: , "finish') + LAST + DONE,
        GOOD + LAST + DONE + b"what comes after the end is not read",
    ):
        reply, guard = stream_of(body)
        assert reply.status == 200
        assert [each["choices"][0]["delta"]["content"] for each in reply.body[:-1]] == ["a", "b"]
        assert reply.body[-1] == "[DONE]"
        assert guard.metrics.value("unparsable_answers_total") == 0


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"data: {",
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: null\n\n",
        b"data: {}\n\n",
        b"hello\n\n",
        b'{"choices": []}\n\n',
        DONE,
        LAST[:-20],
        LAST[:-1],
        LAST,
        event(delta("b", index=1)),
        event(delta("b", finish_reason="because")),
        event({"index": 0, "delta": None}),
        event(delta("b", logprobs={"content": [{**POSITION, "logprob": 2.0}]})),
        event(delta("b", logprobs={"content": 5})),
        event(delta("b")).replace(b'"index": 0', b'"index": 0, "index": 0'),
        b"data: " + b"x" * 100_000,
        (b"data: " + b"x" * 1000 + b"\n") * 100,
    ],
)
@pytest.mark.parametrize("before", [b"", GOOD], ids=["at once", "later"])
def test_a_bad_stream_ends_with_an_error_and_without_its_end(bad, before):
    reply, guard = stream_of(before + bad, guard_options={"limits": ResourceLimits(event_bytes=50_000)})
    if bad == LAST:
        assert [each.keys() >= {"choices"} for each in reply.body[:-1]] == [True] * (len(reply.body) - 1)
    error = reply.body if reply.status == 502 else reply.body[-1]
    assert error["error"]["code"] == "unparsable_answer"
    assert "[DONE]" not in reply.body
    assert guard.metrics.value("unparsable_answers_total") == 1
    if before:
        assert reply.body[0]["choices"][0]["delta"] == {"content": "a"}


def test_an_error_inside_a_stream_is_told_by_its_kind():
    body = GOOD + b'data: {"error": {"message": "' + SECRET.encode() + b'"}}\n\n' + LAST + DONE
    reply, guard = stream_of(body)
    assert reply.body[-1]["error"]["code"] == "upstream_failed"
    assert SECRET not in json.dumps(reply.body)
    assert guard.metrics.value("upstream_errors_total", kind="upstream_failed") == 1


def test_a_usage_nobody_asked_for_and_chunks_of_nothing_are_dropped():
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    body = event(prompt_filter_results=[SECRET]) + GOOD + LAST + event(usage=usage) + DONE
    reply, _ = stream_of(body)
    assert len(reply.body) == 3
    assert "usage" not in reply.body[0]


# --- sockets ------------------------------------------------------------------------------------------------------


def raw_server(answer: bytes | None) -> Iterator[str]:
    """Sends these bytes to whoever connects, and closes; None: says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(65536)
            held.append(connection)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    for connection in held:
        connection.close()
    listener.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "asked", "status", "code"),
    [
        (b"", CHAT, 502, "unparsable_answer"),
        (b"SSH-2.0-OpenSSH\r\n", CHAT, 502, "unparsable_answer"),
        (HEAD + b'{"choices', CHAT, 502, "unparsable_answer"),
        (STREAM_HEAD + b"%x\r\n%b\r\n" % (len(GOOD), GOOD), {**CHAT, "stream": True}, 200, "unparsable_answer"),
        (None, CHAT, 504, "upstream_timeout"),
        (None, {**CHAT, "stream": True}, 504, "upstream_timeout"),
    ],
)
def test_broken_connections_and_silence(answer, asked, status, code):
    async def run(url: str) -> Any:
        guard = Guard(GuardConfig(upstream=UpstreamConfig(url=url), timeouts=Timeouts(silence_s=0.3)))
        reply = await ask(guard.app(), PATH, asked)
        await guard.upstream.close()
        return reply

    servers = raw_server(answer)
    reply = asyncio.run(run(next(servers)))
    next(servers, None)
    assert reply.status == status
    assert (reply.body[-1] if isinstance(reply.body, list) else reply.body)["error"]["code"] == code


def test_an_upstream_that_drips_for_ever_meets_the_total_limit():
    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                await asyncio.sleep(0.01)
                yield GOOD

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Drip())

    config = GuardConfig(upstream=UpstreamConfig(url="http://upstream/v1"), timeouts=Timeouts(total_s=0.3))
    guard = Guard(config, transport=httpx.MockTransport(answer))
    reply = asyncio.run(ask(guard.app(), PATH, {**CHAT, "stream": True}))
    assert reply.body[-1]["error"]["code"] == "upstream_timeout"
    assert len(reply.body) > 2


@pytest.mark.parametrize("body", [b"{}", b'{"data": [5]}', b'{"data": [{"id": 5}]}', b"[]", b"nope"])
def test_a_listing_that_is_none_is_a_502(body):
    guard = guard_before(upstream(body), Exposure())
    reply = asyncio.run(ask(guard.app(), "/v1/models", None))
    assert reply.status == 502
    assert guard.metrics.value("unparsable_answers_total") == 1
