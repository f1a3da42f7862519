"""A server on this machine that speaks OpenAI's interface and gives answers that a test wrote, one after the other."""

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ScriptedServer:
    """Gives `answers` in turn, the last one for ever; `bodies` are the requests. Entering gives the base URL."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> str:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/v1/models"
                self._send(200 if known else 404, {"object": "list", "data": [{"id": "writer", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.bodies.append(body)
                text = owner.answers[min(len(owner.bodies), len(owner.answers)) - 1]
                if not body.get("stream"):
                    message = {"role": "assistant", "content": text}
                    self._send(200, owner.reply("chat.completion", {"message": message, "finish_reason": "stop"}))
                    return
                half = len(text) // 2
                deltas = [({"content": text[:half]}, None), ({"content": text[half:]}, None), ({}, "stop")]
                chunks = [
                    owner.reply("chat.completion.chunk", {"delta": delta, "finish_reason": reason})
                    for delta, reason in deltas
                ]
                events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
                self._write(200, "text/event-stream", "".join([*events, "data: [DONE]\n\n"]).encode())

            def _send(self, status: int, body: dict[str, Any]) -> None:
                self._write(status, "application/json", json.dumps(body).encode())

            def _write(self, status: int, kind: str, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def reply(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {
            "id": "1",
            "object": kind,
            "created": 0,
            "model": "writer",
            "choices": [{"index": 0, **choice}],
            "usage": usage,
        }
