"""`lensmith guard` as a person types it: it listens, guards, stops when told to, and says what is wrong."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lensmith.core.errors import ConfigError, InputError
from lensmith.core.exposure import Sampled
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.guard.run import guard_exposure, read_keys
from tests.support.guard_bed import listening, until

UPSTREAM = "http://127.0.0.1:1/v1"

# Runs the command with modules that it must do without.
WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "fastapi"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from lensmith.cli import main
main()
"""


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WITHOUT, "guard", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def test_it_guards_without_torch_and_stops_when_told_to():
    endpoint = FakeEndpoint(vocabulary=61, width=8, metadata={"n_embd": 8})
    with FakeServer(endpoint, dialect="llama-server", api_key="sk-up") as url:
        process = start("--upstream", url, "--expose", "top-logprobs=3", "--port", "0", LENSMITH_UPSTREAM_KEY="sk-up")
        try:
            line = process.stderr.readline()
            address = re.search(r"guard on (http://\S+)/v1 for", line)[1]
            assert "exposes top-logprobs=3,no-metadata" in line
            body = {"model": "fake", "messages": [{"role": "user", "content": "x"}], "logprobs": True}
            for top, status in ((3, 200), (4, 400)):
                asked = {**body, "top_logprobs": top}
                assert httpx.post(f"{address}/v1/chat/completions", json=asked).status_code == status
            listing = httpx.get(f"{address}/v1/models")
            assert "n_embd" not in listing.text
            assert "server" not in listing.headers
            assert 'refused_total{reason="refused:top_logprobs"} 1' in httpx.get(f"{address}/metrics").text
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            rest = process.communicate()[1]
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--expose", "top-logprobs=5"], "--upstream"),
        (["--upstream", "localhost:8000"], "upstream: not a base URL"),
        (["--upstream", "http://user:pass@host/v1"], "upstream: not a base URL"),
        (["--upstream", UPSTREAM, "--expose", "top-logprob=5"], "did you mean"),
        (["--upstream", UPSTREAM, "--on-refusal", "maybe"], "reject, strip"),
        (["--upstream", UPSTREAM, "--keys-file", "/nowhere/keys"], "no such file"),
        (["--upstream", UPSTREAM, "--host", "203.0.113.1"], "cannot listen"),
    ],
)
def test_mistakes_end_as_a_message(arguments, problem):
    process = start(*arguments)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert problem in stderr
    assert "Traceback" not in stderr


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start("--upstream", UPSTREAM, "--port", port)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert f"127.0.0.1:{port}" in stderr
    assert "another program has this port" in stderr


def test_a_clients_own_key_does_not_close_the_guard_and_that_is_said():
    """The one who set it may think that it does."""
    own = {"LENSMITH_API_KEY": "sk-own"}
    for environment, is_said in ((own, True), ({**own, "LENSMITH_GUARD_KEYS": "sk-a sk-b"}, False)):
        process = start("--upstream", UPSTREAM, "--port", "0", **environment)
        try:
            said = ""
            while "guard on" not in said:
                said += process.stderr.readline()
            assert ("everybody may ask" in said) == ("LENSMITH_GUARD_KEYS" in said) == is_said
            url = re.search(r"guard on (http://\S+/v1) for", said)[1]
            statuses = [
                httpx.get(f"{url}/models", headers={"authorization": f"Bearer {key}"}).status_code
                for key in ("sk-own", "sk-a", "sk-b")
            ]
            assert statuses == ([502] * 3 if is_said else [401, 502, 502])
        finally:
            process.kill()
            process.communicate()


class Upstream:
    """A server that keeps what it was sent, and never answers to the model `slow`."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.keys: set[str] = set()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        self.keys.add(request.headers["authorization"])
        self.bodies.append(await request.json())
        if self.bodies[-1]["model"] == "slow":
            await asyncio.sleep(60)
        return JSONResponse({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})


ALL_OPTIONS = """
    --expose top-logprobs=5 --api-key sk-a --upstream-key sk-up --metrics-key sk-m --on-refusal strip --paths chat
    --unknown-fields refuse --pass-field top_a --refuse-field min_p --remote-pictures --upstream-taken after-bias
    --upstream-top-logprobs 3 --naming ids --requests-per-minute 20 --bias-per-prompt 1 --concurrent-per-client 1
    --body-mib 1 --timeout-s 1 --window-s 60 --on-extraction block --port 0
"""
URL_PART = [{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}]
# What is asked beside a plain question; the status; a part of what reaches the server, or None; what is left out.
ASKED = [
    ({"logprobs": True, "top_logprobs": 2}, 200, {"top_logprobs": 3, "return_tokens_as_token_ids": True}, None),
    ({"top_a": 0.5}, 200, {"top_a": 0.5}, None),
    ({"min_p": 0.5}, 200, {}, "min_p"),
    ({"surprise": 1}, 400, None, None),
    ({"messages": [{"role": "user", "content": URL_PART}]}, 200, {}, None),
    ({"logit_bias": {"1": 5}, "logprobs": True}, 200, {"logit_bias": {"1": 5.0}}, "logprobs"),
    ({"logit_bias": {"2": 5}}, 400, None, None),  # a second id on one prompt
    ({"user": "x" * (1 << 20)}, 413, None, None),
]


def test_every_option_reaches_the_guard():
    upstream, mine = Upstream(), {"authorization": "Bearer sk-a"}
    plain = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    with listening(upstream.app) as address:
        process = start("--upstream", f"{address}/v1", *ALL_OPTIONS.split())
        try:
            url = re.search(r"guard on (http://\S+)/v1 for", process.stderr.readline())[1]
            with httpx.Client(base_url=url, headers=mine, timeout=30) as client, ThreadPoolExecutor() as pool:
                for fields, status, sent, stripped in ASKED:
                    upstream.bodies.clear()
                    reply = client.post("/v1/chat/completions", json={**plain, **fields})
                    assert (reply.status_code, reply.headers.get("lensmith-stripped")) == (status, stripped), fields
                    assert len(upstream.bodies) == (sent is not None)
                    assert sent is None or upstream.bodies[0].items() >= sent.items()
                assert client.post("/v1/completions", json={"model": "m", "prompt": "x"}).status_code == 404
                assert httpx.post(f"{url}/v1/chat/completions", json=plain).status_code == 401
                assert client.get("/metrics").status_code == 404
                assert client.get("/metrics", headers={"authorization": "Bearer sk-m"}).status_code == 200
                slow = pool.submit(client.post, "/v1/chat/completions", json={**plain, "model": "slow"})
                until(lambda: upstream.bodies and upstream.bodies[-1]["model"] == "slow")
                assert client.post("/v1/chat/completions", json=plain).status_code == 429  # one at a time
                assert slow.result().status_code == 504  # after a second
                left = [client.post("/v1/chat/completions", json=plain).status_code for _ in range(20)]
                assert set(left) == {200, 429}  # so many a minute
        finally:
            process.kill()
            process.communicate()
    assert upstream.keys == {"Bearer sk-up"}


def test_metadata_is_told_only_where_it_is_named():
    assert not guard_exposure("top-logprobs=5").metadata
    assert not guard_exposure("everything").metadata
    assert guard_exposure("top-logprobs=5, metadata").metadata
    assert guard_exposure("sampled-logprob=hidden").sampled_logprob is Sampled.HIDDEN


def test_frozen_noise_has_a_secret_seed():
    first, second = (guard_exposure("noise-nats=0.1,noise=frozen").noise_seed for _ in range(2))
    assert first != second
    assert min(first, second) > 2**32
    assert guard_exposure("noise-nats=0.1,noise=frozen,noise-seed=7").noise_seed == 7
    assert guard_exposure("noise-nats=0.1").noise_seed == 0


def test_keys_come_from_options_and_a_file(tmp_path: Path):
    path = tmp_path / "keys"
    path.write_text("# customers\nann sk-a\n\nsk-b\n")
    keys = read_keys(["sk-c"], path)
    assert keys["sk-a"] == "ann"
    assert keys.keys() == {"sk-a", "sk-b", "sk-c"}
    assert all(key not in name for key, name in keys.items())
    for content in (b"ann sk-a more\n", b"ann sk-a\nbob sk-a\n", b"# nobody\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises((InputError, ConfigError)):
            read_keys([], path)
    with pytest.raises(InputError, match="not a file of keys"):
        read_keys([], tmp_path)
