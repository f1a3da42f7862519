"""A server stops as it is told: the first signal lets answers end, the second cuts them off, and neither is a fault."""

import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from lensmith.core.errors import InputError
from lensmith.hosting.run import listen, url_of

SERVER = """
import asyncio, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from lensmith.hosting.run import listen, serve_until_signal

pieces = int(sys.argv[1])

async def answer(request):
    async def body():
        for number in range(pieces):
            yield b"%d\\n" % number
            await asyncio.sleep(0.02)
    return StreamingResponse(body())

config = uvicorn.Config(Starlette(routes=[Route("/v1", answer)]), lifespan="on", log_level="warning", access_log=False)
try:
    serve_until_signal(config, listen("127.0.0.1", 0), on_ready=lambda url: print(url, file=sys.stderr, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


def stopped(pieces, *signals):
    """The exit status, what was said after the address, and the lines of an answer that was under way."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(pieces)], stderr=subprocess.PIPE, text=True)
    lines = []
    has_begun = threading.Event()

    def ask(url):
        try:
            with httpx.stream("GET", url, timeout=60) as response:
                for line in response.iter_lines():
                    lines.append(line)
                    has_begun.set()
        except httpx.RemoteProtocolError:
            lines.append("cut off")

    said = []
    try:
        asking = threading.Thread(target=ask, args=[process.stderr.readline().strip()])
        asking.start()
        assert has_begun.wait(60)
        for each in signals:
            process.send_signal(each)
            said.append(process.stderr.readline() if not said else "")
        asking.join(timeout=60)
        rest = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    return process.returncode, "".join(said) + rest, lines


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_answers_end(how):
    status, said, lines = stopped(50, how)
    assert (status, lines) == (0, [str(number) for number in range(50)])
    assert re.fullmatch(r"stopping: requests in progress: 1; another Ctrl-C .*\n", said)


def test_a_second_ctrl_c_does_not_wait_and_is_no_fault():
    status, said, lines = stopped(10_000, signal.SIGINT, signal.SIGINT)
    assert (status, lines[-1]) == (130, "cut off")
    assert len(lines) < 10_000
    assert said.count("\n") == 1, said


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", None, "another program has this port"),
        ("203.0.113.1", 0, "an address of this machine"),
        ("no..name", 0, "an address of this machine"),
        ("256.0.0.1", 0, "an address of this machine"),
    ],
)
def test_where_one_cannot_listen(host, port, said):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot listen") as caught:
        listen(host, taken.getsockname()[1] if port is None else port)
    assert said in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_where_one_can_listen(host):
    try:
        with listen(host, 0) as listening:
            assert re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):[0-9]+/v1", url_of(listening))
            assert listening.proto == socket.IPPROTO_TCP
    except InputError:
        if host != "::1":
            raise
        pytest.skip("this machine has no IPv6")
