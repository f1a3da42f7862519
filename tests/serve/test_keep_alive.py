"""A connection that was idle is used again, or not used again: no request meets a reset, and none runs twice."""

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from lensmith.endpoints.http.client import HttpClient, RetryPolicy
from lensmith.guard.config import GuardConfig, UpstreamConfig
from lensmith.guard.run import running_guard
from lensmith.openai_api import DIALECTS, EndpointError
from tests.support.serve_models import tiny_server

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
LONGER_THAN_MOST_CLIENTS_S = 6.0
"""httpx and Node drop a connection that was idle for 5 s."""


class Hasty:
    """A server that gives up a connection after `answers` answers: it resets it when the next request comes.

    Just what a client meets whose request crosses the server's farewell on the way.
    """

    def __init__(self, answers):
        self._answers = answers
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.heard, self.connections = [], 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"

    def close(self):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=[connection], daemon=True).start()

    def _talk(self, connection):
        for _ in range(self._answers.pop(0) if self._answers else 1000):
            request = self._read(connection)
            if request is None:
                return
            self.heard.append(request)
            body = json.dumps({"object": "list", "data": []} if request == "GET" else ANSWER).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
        if self._read(connection) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    @staticmethod
    def _read(connection):
        """The method of a whole request; None where the client closed."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return None
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        while len(rest) < int(lengths[0] if lengths else 0):
            rest += connection.recv(65536)
        return head.split()[0].decode()


@pytest.fixture
def hasty(request):
    server = Hasty(list(request.param))
    yield server
    server.close()


def asked_twice(url):
    """The statuses of two requests on one connection with an idle time between them."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    statuses = []
    for wait_s in (0, LONGER_THAN_MOST_CLIENTS_S):
        time.sleep(wait_s)
        if wait_s:
            connection.auto_open = 0  # a connection that was closed stays closed
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    return statuses


def test_servers_keep_an_idle_connection_longer_than_clients_do():
    config = GuardConfig(upstream=UpstreamConfig(url="http://127.0.0.1:1/v1"))
    with tiny_server() as (served, _), running_guard(config) as guarded, ThreadPoolExecutor() as pool:
        assert list(pool.map(asked_twice, [served, guarded])) == [[200, 200]] * 2


@pytest.mark.parametrize("hasty", [(1,)], indirect=True)
def test_a_guard_asks_on_a_new_connection_after_a_pause(hasty):
    with running_guard(GuardConfig(upstream=UpstreamConfig(url=hasty.url))) as url:
        first = httpx.post(f"{url}/chat/completions", json=CHAT)
        time.sleep(1.2)
        second = httpx.post(f"{url}/chat/completions", json=CHAT)
    assert [first.status_code, second.status_code] == [200, 200]
    assert hasty.heard == ["POST", "POST"]
    assert hasty.connections == 2


@pytest.mark.parametrize("hasty", [(0,)], indirect=True)
def test_a_guard_sends_no_question_twice(hasty):
    """The connection is reset under the question, which may have run."""
    with running_guard(GuardConfig(upstream=UpstreamConfig(url=hasty.url))) as url:
        reply = httpx.post(f"{url}/chat/completions", json=CHAT)
    assert reply.status_code == 502
    assert (hasty.heard, hasty.connections) == ([], 1)


@pytest.mark.parametrize(("hasty", "status"), [((0,), 200), ((0, 0), 502)], indirect=["hasty"])
def test_a_guard_asks_once_more_for_the_models(hasty, status):
    with running_guard(GuardConfig(upstream=UpstreamConfig(url=hasty.url))) as url:
        assert httpx.get(f"{url}/models").status_code == status
    assert hasty.connections == 2


@pytest.mark.parametrize("hasty", [(1,)], indirect=True)
def test_our_client_asks_on_a_new_connection_after_a_pause(hasty):
    with HttpClient(hasty.url, "m", dialect=DIALECTS["compatible"], retries=RetryPolicy(tries=1)) as client:
        client.raw("chat/completions", CHAT)
        time.sleep(1.2)
        client.raw("chat/completions", CHAT)
    assert hasty.connections == 2


@pytest.mark.parametrize("hasty", [(1,)], indirect=True)
def test_the_servers_above_do_reset(hasty):
    """Without a pause the second request meets the reset, as those above would if a pause changed nothing."""
    with HttpClient(hasty.url, "m", dialect=DIALECTS["compatible"], retries=RetryPolicy(tries=1)) as client:
        client.raw("chat/completions", CHAT)
        with pytest.raises(EndpointError):
            client.raw("chat/completions", CHAT)
