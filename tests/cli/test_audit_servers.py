"""`lensmith audit` where the server is slow, busy, gone or something else: no silent wait, no traceback."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer

LEAVES_WITHIN_S = 2.0
ANSWERS = 5

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def serving(post: Answer, get: Answer | None = None) -> Iterator[str]:
    """A server whose POSTs are answered by `post`; it lists one model. Gives its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            (get or listing)(self)

        def do_POST(self) -> None:
            self.body = self.rfile.read(int(self.headers["Content-Length"]))
            post(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def listing(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}).encode())


def start(url: str, out: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lensmith.cli", "audit", url, "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(url: str, out: Path, *options: str) -> tuple[int, str]:
    process = start(url, out, *options)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    return process.returncode, said


def interrupted(url: str, out: Path, reached: threading.Event, *, model: str = "m") -> None:
    """Starts an audit, presses Ctrl-C once when the server is `reached`, and sees it leave."""
    process = start(url, out, "--model", model)
    try:
        assert reached.wait(60)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.wait(timeout=20)
        assert time.monotonic() - began < LEAVES_WITHIN_S
    finally:
        process.kill()
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


def test_an_interrupt_ends_an_audit_of_a_server_that_hangs(tmp_path):
    reached, released = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        reached.set()
        released.wait(60)

    with serving(hang) as url:
        interrupted(url, tmp_path, reached)
        released.set()


def test_an_interrupt_ends_an_audit_that_waits_for_a_busy_server(tmp_path):
    reached = threading.Event()

    def busy(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 429, b"{}", Retry_After="30")
        reached.set()

    with serving(busy) as url:
        interrupted(url, tmp_path, reached)


def test_an_interrupt_ends_an_audit_whose_server_hangs_from_the_start(tmp_path):
    reached, released = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        reached.set()
        released.wait(60)

    with serving(hang, hang) as url:
        interrupted(url, tmp_path, reached)
        released.set()


def test_what_was_answered_before_an_interrupt_is_in_the_log(tmp_path):
    """A fake server behind one that passes the first requests on and then hangs."""
    reached, released, passed = threading.Event(), threading.Event(), []

    with FakeServer(FakeEndpoint(vocabulary=97, width=8, seed=1), dialect="vllm") as behind:

        def some(handler: BaseHTTPRequestHandler) -> None:
            if len(passed) >= ANSWERS:
                reached.set()
                released.wait(60)
                return
            passed.append(handler.body)
            path = handler.path.removeprefix("/v1")
            found = httpx.post(behind + path, content=handler.body)
            send(handler, found.status_code, found.content)

        with serving(some) as url:
            interrupted(url, tmp_path, reached, model="fake")
            released.set()
    log = (tmp_path / "events.jsonl").read_text()
    assert log.endswith("\n")
    assert sum(json.loads(line)["event"] == "asked" for line in log.splitlines()) == ANSWERS


# --- a server that is busy, gone or no endpoint -------------------------------------------------------------------


def test_a_server_that_asks_to_wait_an_hour_is_left_at_once(tmp_path):
    began = time.monotonic()
    with serving(lambda handler: send(handler, 429, b"{}", Retry_After="3600")) as url:
        status, said = outcome(url, tmp_path, "--model", "m")
    assert status == 3
    assert "it asks to wait 1 h" in said
    assert time.monotonic() - began < 30


def test_no_server_is_said_at_once(tmp_path):
    status, said = outcome("http://127.0.0.1:9/v1", tmp_path)
    assert status == 3
    assert "a server at http://127.0.0.1:9/v1" in said
    assert "is the server running" in said


@pytest.mark.parametrize("options", [(), ("--model", "m")])
def test_a_site_of_pages_is_bad_usage(tmp_path, options):
    def page(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"<!doctype html><p>hi", Content_Type="text/html")

    with serving(page, page) as url:
        status, said = outcome(url, tmp_path, *options)
    assert status == 2
    assert said.count("no OpenAI-compatible endpoint here; does the URL end in /v1?") == 1


def test_a_wrong_key_and_an_unknown_model_are_bad_usage_said_once(tmp_path):
    with FakeServer(FakeEndpoint(vocabulary=97, width=8), api_key="right") as url:
        status, said = outcome(url, tmp_path / "key", "--api-key", "wrong")
        assert (status, said.count("does not know this API key")) == (2, 1)
        status, said = outcome(url, tmp_path / "model", "--api-key", "right", "--model", "nope")
        assert (status, said.count("no such path or model")) == (2, 1)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_where_the_folder_should_be_is_bad_usage(tmp_path, below):
    file = tmp_path / "audit"
    file.write_text("mine")
    with FakeServer(FakeEndpoint(vocabulary=97, width=8)) as url:
        status, said = outcome(url, file / below if below else file)
    assert status == 2
    assert str(file) in said
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_a_silent_server_is_named_after_ten_seconds(tmp_path):
    reached, released = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        reached.set()
        released.wait(60)

    with serving(hang) as url:
        process = start(url, tmp_path, "--model", "m")
        assert reached.wait(60)
        time.sleep(13)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        released.set()
    assert f"waiting for {url}: no answer for 1" in said
