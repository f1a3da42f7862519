"""The app as a person runs it: the command in a process, a browser by Playwright, and a model behind HTTP."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir
from lensmith.data.packages import PackageName, fetch_package
from lensmith.render.browser import find_chromium
from lensmith.render.process import PICTURE_FLAGS

START_LIMIT_S = 90
AXE = PackageName.parse("npm:axe-core@4.14.1")
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"


class Scribe:
    """A server that speaks as OpenAI's and writes `page` in small pieces, whatever it is asked; `asked` are the texts.

    A context manager; `url` is its base URL.
    """

    def __init__(self, page: str, *, pieces: int = 12, pause_s: float = 0.03) -> None:
        self.page, self.pieces, self.pause_s = page, pieces, pause_s
        self.asked: list[str] = []
        scribe = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send({"object": "list", "data": [{"id": "scribe", "object": "model", "owned_by": "test"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                parts = body["messages"][-1]["content"]
                scribe.asked.append(" ".join(part["text"] for part in parts if part["type"] == "text"))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for chunk in scribe.chunks():
                    self.wfile.write(b"data: " + chunk + b"\n\n")
                    self.wfile.flush()
                    time.sleep(scribe.pause_s)

            def _send(self, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def chunks(self) -> Iterator[bytes]:
        size = max(1, len(self.page) // self.pieces)
        for start in range(0, len(self.page), size):
            yield json.dumps(
                {"choices": [{"index": 0, "delta": {"content": self.page[start : start + size]}}]}
            ).encode()
        yield b"[DONE]"

    def __enter__(self) -> "Scribe":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Trap:
    """A socket that listens, and counts who connects: nobody should."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.callers: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.5)
                with contextlib.suppress(OSError):
                    self.callers.append(connection.recv(200))

    def close(self) -> None:
        self._socket.close()


class App:
    """`lensmith app` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "lensmith.cli", "app", "--no-open", "--folder", str(folder), *arguments]
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        killer = threading.Timer(START_LIMIT_S, self.process.kill)
        killer.start()
        line = self.process.stdout.readline()
        killer.cancel()
        said = re.search(r"http://127\.0\.0\.1:\d+/\S+/", line)
        assert said, line + self.log.read_text()
        self.url = said.group()

    def stop(self) -> int:
        """Ctrl-C, and the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that may reach this machine, unlike our renderer's."""
    arguments = [*(["--no-sandbox"] if os.geteuid() == 0 else []), *PICTURE_FLAGS]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(find_chromium()), args=arguments)
        yield browser
        browser.close()


def axe_script() -> str:
    """axe-core, from npm. Skips, loudly, where it cannot be fetched."""
    try:
        package = fetch_package(AXE, default_cache_dir(), sha256=AXE_SHA256)
    except InputError as error:
        pytest.skip(f"THE APP'S ACCESSIBILITY WAS NOT TESTED: {error}")
    with tarfile.open(package.path) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def faults(page: Page, script: str) -> list[str]:
    """What axe-core finds on a page that is serious or critical. What is in its frames is a stranger's."""
    page.evaluate(script)
    found = page.evaluate("() => axe.run(document, {iframes: false, resultTypes: ['violations']})")
    assert len(found["passes"]) > 10
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:160]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
