"""Which dialect an audit speaks with a server that says nothing of itself, and what it says of one that takes none."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lensmith.core.errors import AccessError, InputError
from lensmith.workflows.audit import curious_client


@pytest.fixture
def serving():
    """Serves POSTs by a function of path and body, which gives status, content type and body; lists one model."""
    servers = []

    def start(answer):
        posts = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(200, "application/json", b'{"data": [{"id": "m"}]}')

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                posts.append(self.path)
                self.reply(*answer(self.path, body))

            def reply(self, status, kind, body):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/v1", posts

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "b"}, "finish_reason": "length"}]}


def as_json(status, body):
    return status, "application/json", json.dumps(body).encode()


def test_a_wrong_key_is_said_at_once_and_not_taken_for_a_dialect_that_is_refused(serving):
    url, posts = serving(lambda path, body: as_json(401, {"error": {"message": "no such key"}}))
    with pytest.raises(AccessError, match="does not know this API key"), curious_client(url, "m"):
        pass
    assert len(posts) == 2  # by either route, in one dialect


def test_a_site_of_pages_is_no_endpoint_that_refuses_a_dialect(serving):
    url, posts = serving(lambda path, body: (200, "text/html", b"<!doctype html><p>hi"))
    with pytest.raises(InputError, match="no OpenAI-compatible endpoint here"), curious_client(url, "m"):
        pass
    assert len(posts) == 2


def test_a_server_that_refuses_unknown_fields_is_asked_plainly(serving):
    plain = {"model", "prompt", "messages", "max_tokens", "temperature", "top_logprobs", "logprobs", "stream", "n"}
    refusal = as_json(400, {"error": {"message": "unknown field"}})
    url, posts = serving(lambda path, body: as_json(200, CHAT) if set(body) <= plain else refusal)
    with curious_client(url, "m") as client:
        assert client.dialect.name == "compatible"
    assert len(posts) == 6


def test_a_page_where_completions_would_be_closes_no_chat(serving):
    """A gateway that has chat alone, with a page for every path that it does not know."""
    url, _ = serving(
        lambda path, body: as_json(200, CHAT) if path.endswith("/chat/completions") else (404, "text/html", b"<html>")
    )
    with curious_client(url, "m") as client:
        assert client.dialect.name == "unknown"
