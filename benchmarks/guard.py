"""What the guard costs: latency that it adds and throughput beside the bare upstream server, in one run.

The server, the guard and the client are processes of their own on this machine. Requests go to the bare server and
through the guard in turn, so that both meet the same machine; the client keeps its connections, as clients do. Without
`--upstream`, the server is lensmith's fake one, which answers at once: what is then added is all that the guard does,
and the throughput is the guard's own limit. In front of a real model the same milliseconds stand beside its seconds.

    python -m benchmarks.guard [--quick | --requests 24 --rounds 2] [--json] [--upstream URL --model NAME | --llama]
"""

import argparse
import contextlib
import http.client
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from benchmarks.real_models import llama_server, smollm2_gguf

EXPOSE = "top-logprobs=5"
CLIENTS = 8
WARM_UP = 5
FAKE = """
import sys
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
with FakeServer(FakeEndpoint(vocabulary=997, width=16), dialect="vllm") as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds: median and 99th percentile."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of request: bare and guarded, what the guard adds, and requests a second with 8 clients."""

    name: str
    bare: Times
    guarded: Times
    added: Times
    bare_per_s: float
    guarded_per_s: float
    throughput_ratio: float
    ratio_lowest: float
    ratio_highest: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run."""

    upstream: str
    requests: int
    rounds: int
    rows: tuple[Row, ...]


Body = dict[str, object]
Ask = Callable[[http.client.HTTPConnection, str, Body], float]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 requests and 2 rounds instead of 1000 and 5")
    parser.add_argument("--requests", type=int, help="of each kind, in each round; few for a server that is slow")
    parser.add_argument("--rounds", type=int, help="of throughput")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--upstream", help="base URL of a server that runs already, e.g. http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="fake", help="its model's name")
    parser.add_argument("--llama", action="store_true", help="llama-cpp-python's server with SmolLM2 as the upstream")
    options = parser.parse_args(arguments)
    requests, rounds = (100, 2) if options.quick else (1000, 5)
    requests, rounds = options.requests or requests, options.rounds or rounds
    if requests < CLIENTS or rounds < 1:
        parser.error(f"expected at least {CLIENTS} requests (one a client) and 1 round")
    with contextlib.ExitStack() as stack:
        upstream = options.upstream or stack.enter_context(
            llama_server(smollm2_gguf()) if options.llama else fake_server()
        )
        guarded = stack.enter_context(guard_before(upstream))
        rows = tuple(measure(name, upstream, guarded, requests, rounds) for name in workloads(options.model).items())
    shown = options.upstream or ("llama-cpp-python's server" if options.llama else "lensmith's fake server")
    report = Report(upstream=shown, requests=requests, rounds=rounds, rows=rows)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0


def workloads(model: str) -> dict[str, tuple[Body, Ask]]:
    chat = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16, "temperature": 0}
    logprobs = {"logprobs": True, "top_logprobs": 5}
    return {
        "chat, 16 tokens": (chat, whole),
        "the same, top 5 logprobs": ({**chat, **logprobs}, whole),
        "stream, first event": ({**chat, "stream": True}, first_event),
        "stream, 16 events, top 5": ({**chat, **logprobs, "stream": True}, whole),
    }


def measure(workload: tuple[str, tuple[Body, Ask]], bare: str, guarded: str, requests: int, rounds: int) -> Row:
    """Latencies one by one, in turn; then throughput, round by round."""
    name, (body, ask) = workload
    print(name, file=sys.stderr, flush=True)
    times = {url: [] for url in (bare, guarded)}
    connections = {url: connect(url) for url in times}
    for number in range(requests + WARM_UP):
        for url, connection in connections.items():
            seconds = ask(connection, url, body)
            times[url] += [seconds] if number >= WARM_UP else []
    speeds = [(throughput(bare, body, requests), throughput(guarded, body, requests)) for _ in range(rounds)]
    ratios = [through_guard / alone for alone, through_guard in speeds]
    alone, through = _times(times[bare]), _times(times[guarded])
    return Row(
        name=name,
        bare=alone,
        guarded=through,
        added=Times(p50_ms=through.p50_ms - alone.p50_ms, p99_ms=through.p99_ms - alone.p99_ms),
        bare_per_s=statistics.median(speed for speed, _ in speeds),
        guarded_per_s=statistics.median(speed for _, speed in speeds),
        throughput_ratio=statistics.median(ratios),
        ratio_lowest=min(ratios),
        ratio_highest=max(ratios),
    )


def throughput(url: str, body: Body, requests: int) -> float:
    """Requests a second with `CLIENTS` clients at once."""

    def client(count: int) -> None:
        connection = connect(url)
        for _ in range(count):
            whole(connection, url, body)
        connection.close()

    counts = [requests // CLIENTS] * CLIENTS
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, counts))
    return sum(counts) / (time.perf_counter() - started)


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=300)


def whole(connection: http.client.HTTPConnection, url: str, body: Body) -> float:
    """Seconds to the end of the answer."""
    started = time.perf_counter()
    response = _post(connection, url, body)
    data = response.read()
    seconds = time.perf_counter() - started
    if b"[DONE]" not in data and '"choices"' not in data.decode():
        sys.exit(f"{url} did not answer: {data[:200]!r}")
    return seconds


def first_event(connection: http.client.HTTPConnection, url: str, body: Body) -> float:
    """Seconds to the first event; the rest is read, but not counted."""
    started = time.perf_counter()
    response = _post(connection, url, body)
    response.readline()
    seconds = time.perf_counter() - started
    response.read()
    return seconds


def _post(connection: http.client.HTTPConnection, url: str, body: Body) -> http.client.HTTPResponse:
    path = f"{urlsplit(url).path}/chat/completions"
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"{url} answered {response.status}: {response.read(200)!r}")
    return response


@contextlib.contextmanager
def fake_server() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", FAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        try:
            yield run.stdout.readline().strip()
        finally:
            run.terminate()


@contextlib.contextmanager
def guard_before(upstream: str) -> Iterator[str]:
    command = [sys.executable, "-m", "lensmith.cli", "guard", "--upstream", upstream, "--expose", EXPOSE, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        line = run.stderr.readline()
        found = re.search(r"guard on (\S+)", line)
        try:
            if found is None:
                sys.exit(f"the guard did not start: {line}{run.stderr.read()}")
            yield found[1]
        finally:
            run.terminate()


def _times(seconds: Sequence[float]) -> Times:
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return Times(p50_ms=1000 * statistics.median(seconds), p99_ms=1000 * percentiles[98])


def as_table(report: Report) -> str:
    lines = [
        f"upstream: {report.upstream}; {report.requests} requests one by one, then {report.rounds} rounds "
        f"with {CLIENTS} clients",
        f"{'':26}{'bare p50/p99':>18}{'guarded p50/p99':>18}{'added p50/p99':>18}"
        f"{'bare/s':>9}{'guarded/s':>11}{'ratio (range)':>20}",
    ]
    for row in report.rows:
        pairs = [f"{times.p50_ms:.2f}/{times.p99_ms:.2f} ms" for times in (row.bare, row.guarded, row.added)]
        ratio = f"{row.throughput_ratio:.2f} ({row.ratio_lowest:.2f}-{row.ratio_highest:.2f})"
        lines.append(
            f"{row.name:26}{pairs[0]:>18}{pairs[1]:>18}{pairs[2]:>18}"
            f"{row.bare_per_s:9.1f}{row.guarded_per_s:11.1f}{ratio:>20}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
