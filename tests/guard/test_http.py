"""Bodies that have two readings, or none, are refused before anything is asked of the server."""

import asyncio
import gzip
import json
import time
import zlib
from typing import Any

import pytest

from lensmith.guard.config import GuardConfig, ResourceLimits, Timeouts, UpstreamConfig
from lensmith.guard.proxy import Guard
from tests.support.guard_bed import CHAT, OPEN, PATH, Recorder, ask, guard_before, listening, send

GOOD = json.dumps(CHAT).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        GOOD + b"{}",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.replace(b"hello", b"\xff"),
        GOOD.replace(b"hello", b"\\ud800"),
        GOOD[:-1] + b', "model": "n"}',
        GOOD.replace(b'"content"', b'"content": "y", "content"'),
        GOOD[:-1] + b', "logit_bias": {"1": 1, "1": 2}}',
        GOOD[:-1] + b', "temperature": NaN}',
        GOOD[:-1] + b', "temperature": Infinity}',
        GOOD[:-1] + b', "temperature": 1e999}',
        GOOD[:-1] + b', "seed": 99999999999999999999}',
        GOOD[:-1] + b', "seed": ' + b"9" * 5000 + b"}",
        GOOD[:-1] + b', "tools": ' + b"[" * 50 + b"]" * 50 + b"}",
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        GOOD.replace(b'"', b"'"),
        GOOD[:-1] + b",}",
        GOOD + b"\x00",
    ],
)
def test_bodies_with_no_or_two_readings_are_refused(body):
    reply, recorder = send(body)
    assert reply.status == 400
    assert recorder.bodies == []


@pytest.mark.parametrize("value", [b"0", b"{}", b'""', b"[]", b'{"":0}', b"1e1", b"null", b'[{"a":[0]}]'])
def test_a_body_of_many_small_values_is_refused_before_it_is_read(value):
    body = GOOD[:-1] + b', "x": [' + b",".join([value] * 1_000_000) + b"]}"
    start = time.process_time()
    reply, recorder = send(body, limits=ResourceLimits(body_bytes=1 << 30))
    assert time.process_time() - start < 1.5  # to parse one takes three times as long and more
    assert (reply.status, recorder.bodies) == (400, [])
    assert "too many values" in reply.body["error"]["message"]


def test_text_is_one_value_whatever_stands_in_it():
    text = '[{,"\\,' * 100_000 + "\\"
    body = {**CHAT, "messages": [{"role": "user", "content": text}]}
    reply, recorder = send(body, limits=ResourceLimits(body_values=100))
    assert (reply.status, recorder.bodies[0]["messages"][0]["content"]) == (200, text)
    assert send({**body, "stop": ["x"] * 200}, limits=ResourceLimits(body_values=100))[0].status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "application/json, text/plain"}, 415),
        ({"content-type": "application/json; charset=UTF-8"}, 200),
        ({"content-encoding": "br"}, 415),
        ({"content-encoding": "gzip, gzip"}, 415),
        ({"content-encoding": "gzip"}, 400),
        ({"content-encoding": "identity"}, 200),
    ],
)
def test_other_types_and_encodings_are_refused(headers, status):
    reply, recorder = send_with(headers)
    assert reply.status == status
    assert bool(recorder.bodies) == (status == 200)


def send_with(headers: dict[str, str], body: bytes = GOOD, **config: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    return asyncio.run(ask(guard_before(recorder.app, OPEN, **config).app(), PATH, body, headers=headers)), recorder


@pytest.mark.parametrize(("coding", "write"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_read_as_what_it_expands_to(coding, write):
    """Some clients compress large pictures."""
    headers = {"content-encoding": coding}
    reply, recorder = send_with(headers, write(GOOD))
    assert (reply.status, recorder.bodies) == (200, [{**CHAT, "stream": False}])
    assert "content-encoding" not in recorder.headers[0]
    reply, recorder = send_with(headers, write(GOOD)[:-1])
    assert (reply.status, reply.body["error"]["code"], recorder.bodies) == (400, "content_encoding", [])


def test_the_limit_on_a_body_is_on_what_it_expands_to():
    padded = GOOD[:-1] + b" " * 100_000 + b"}"
    small = gzip.compress(padded)
    assert len(small) < 1000
    for most, status in ((len(padded), 200), (len(padded) - 1, 413)):
        reply, recorder = send_with({"content-encoding": "gzip"}, small, limits=ResourceLimits(body_bytes=most))
        assert (reply.status, len(recorder.bodies)) == (status, int(status == 200))
    assert reply.body["error"]["code"] == "body_too_large"


def test_another_coding_is_answered_with_those_that_are_read():
    reply, _ = send_with({"content-encoding": "br"})
    assert reply.headers["accept-encoding"] == "gzip, deflate"


def raw(request: bytes, **config: Any) -> tuple[bytes, Recorder]:
    """Sends bytes to a guard that listens, and reads until it closes."""
    recorder = Recorder()

    async def talk(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(65536), 20)
        writer.close()
        return answer

    with listening(recorder.app) as upstream:
        guard = Guard(GuardConfig(upstream=UpstreamConfig(url=f"{upstream}/v1"), **config))
        with listening(guard.app()) as address:
            return asyncio.run(talk(int(address.rpartition(":")[2]))), recorder


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD), b"411"),
        (HEAD + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + GOOD, b"400"),
        (HEAD + b"Content-Length: +5\r\n\r\n" + GOOD, b"400"),
        (HEAD + b"Content-Length: 2000000\r\n\r\n", b"413"),
        (HEAD + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", b"415"),
        (HEAD + b"\r\n", b"411"),
        (HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(GOOD) + 5, GOOD), b"408"),
        (HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00", b"400"),
    ],
)
def test_requests_that_two_servers_could_read_differently_are_refused(request_bytes, status):
    answer, recorder = raw(request_bytes, limits=ResourceLimits(body_bytes=1_000_000), timeouts=Timeouts(body_s=0.5))
    assert answer.split()[1] == status
    assert recorder.bodies == []
