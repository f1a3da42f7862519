"""Pictures fetched from a real server on this machine: what comes of each address, and that nothing is asked twice."""

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from lensmith.core.errors import InputError
from lensmith.core.images import ImageLimits
from lensmith.data.documents import BadRecordError
from lensmith.data.fetching.addresses import PublicTransport, is_public
from lensmith.data.fetching.fetch import FetchConfig, fetch_pictures
from lensmith.data.fetching.ledger import LEDGER_FILE, Fetched, Outcome, read_ledger
from lensmith.data.sources.stores import PictureStore
from tests.support.picture_server import GOOD, PictureServer

QUICK = FetchConfig(
    allow_private=True,
    timeout_s=2.0,
    first_wait_s=0.01,
    pictures=ImageLimits(max_bytes=50_000, max_pixels=10_000),
)


@pytest.fixture
def server():
    return PictureServer()


def outcomes(folder):
    return {each.url: each.outcome for each in read_ledger(folder)}


PATHS = {
    "good": Outcome.OK,
    "jpeg": Outcome.OK,
    "busy-once": Outcome.OK,
    "to?/good": Outcome.OK,
    "status/404": Outcome.GONE,
    "status/410": Outcome.GONE,
    "status/403": Outcome.DENIED,
    "status/206": Outcome.DENIED,
    "status/503": Outcome.BUSY,
    "status/429": Outcome.BUSY,
    "opted-out": Outcome.OPTED_OUT,
    "page": Outcome.NOT_A_PICTURE,
    "nothing": Outcome.NOT_A_PICTURE,
    "packed": Outcome.NOT_A_PICTURE,
    "long": Outcome.TOO_LARGE,
    "long-unsaid": Outcome.TOO_LARGE,
    "wide": Outcome.TOO_LARGE,
    "cut": Outcome.UNREACHABLE,
    "to?file:///etc/passwd": Outcome.REFUSED,
    "round": Outcome.REFUSED,
}


def test_what_comes_of_each_address(server, tmp_path):
    with server as base:
        report = fetch_pictures([f"{base}/{path}" for path in PATHS], tmp_path, QUICK)
    assert outcomes(tmp_path) == {f"{base}/{path}": outcome for path, outcome in PATHS.items()}
    assert report.outcomes == {name.value: count for name, count in Counter(PATHS.values()).items()}
    assert server.asked["/status/503"] == server.asked["/status/429"] == server.asked["/cut"] == QUICK.tries
    assert server.asked["/status/404"] == server.asked["/page"] == 1


def test_an_address_that_sends_for_ever_is_left(server, tmp_path):
    with server as base:
        start_s = time.monotonic()
        fetch_pictures([f"{base}/never"], tmp_path, FetchConfig(allow_private=True, timeout_s=0.5, tries=1))
    assert outcomes(tmp_path) == {f"{base}/never": Outcome.TIMEOUT}
    assert time.monotonic() - start_s < 5  # it would send for 10 s


def test_what_is_no_http_address_is_not_asked(tmp_path):
    odd = [
        "",
        "ftp://a/b.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "http://",
        "http://[::1",
        "http://a\x00b/",
    ]
    odd += ["http://" + "a" * 70 + ".com/", "http://a/" + "b" * 9_000]
    fetch_pictures(odd, tmp_path, FetchConfig(tries=1))
    assert set(outcomes(tmp_path)) == set(odd)
    assert set(outcomes(tmp_path).values()) <= {Outcome.REFUSED, Outcome.UNREACHABLE}


def test_pictures_are_found_by_their_addresses(server, tmp_path):
    with server as base:
        fetch_pictures([f"{base}/good", f"{base}/jpeg", f"{base}/page"], tmp_path, QUICK)
    store = PictureStore([tmp_path])
    assert len(store) == 2
    assert store.read(f"{base}/good") == GOOD
    (kept,) = [each for each in read_ledger(tmp_path) if each.url == f"{base}/jpeg"]
    assert kept.file.endswith(".jpg")
    (tmp_path / kept.file).write_bytes(GOOD)
    with pytest.raises(BadRecordError):
        store.read(f"{base}/jpeg")
    (tmp_path / kept.file).unlink()
    with pytest.raises(BadRecordError, match="not there any more"):
        store.read(f"{base}/jpeg")


def test_nothing_is_asked_twice(server, tmp_path):
    with server as base:
        urls = [f"{base}/{path}" for path in ("good", "page", "status/503")]
        fetch_pictures([*urls, *urls], tmp_path, QUICK)
        before = server.asked.copy()
        report = fetch_pictures([*urls, f"{base}/jpeg"], tmp_path, QUICK)
        assert server.asked - before == Counter({"/jpeg": 1})
        assert (report.addresses, report.known) == (4, 3)
        fetch_pictures(urls, tmp_path, FetchConfig(**{**vars(QUICK), "again": True}))
        assert server.asked["/status/503"] == 2 * QUICK.tries, "only what was not for good is tried again"
        assert server.asked["/good"] == 1


def test_no_more_than_so_many_at_a_time(server, tmp_path):
    with server as base:
        config = FetchConfig(**{**vars(QUICK), "concurrency": 3})
        fetch_pictures([f"{base}/slow-good?{number}" for number in range(12)], tmp_path, config)
    assert 2 <= server.most_at_once <= 3


def test_progress_counts_all_addresses(server, tmp_path):
    seen = []
    with server as base:
        fetch_pictures([f"{base}/good"], tmp_path, QUICK)
        urls = [f"{base}/good?{number}" for number in range(3)]
        fetch_pictures([f"{base}/good", *urls], tmp_path, QUICK, on_progress=lambda *done: seen.append(done))
    assert seen == [(2, 4), (3, 4), (4, 4)]


def test_a_ledger_whose_last_line_was_cut_goes_on(server, tmp_path):
    with server as base:
        fetch_pictures([f"{base}/good?{number}" for number in range(3)], tmp_path, QUICK)
        path = tmp_path / LEDGER_FILE
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines)[:-20])
        lost = json.loads(lines[-1])["url"]
        before = server.asked.copy()
        fetch_pictures([f"{base}/good?{number}" for number in range(3)], tmp_path, QUICK)
    assert server.asked - before == Counter({lost.removeprefix(base): 1})
    assert set(outcomes(tmp_path).values()) == {Outcome.OK}
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"x\n", b'{"url": "a", "outcome": "eaten"}\n', b"7\n"])
def test_a_ledger_that_is_damaged_is_refused(tmp_path, line):
    whole = Fetched(url="http://a", outcome=Outcome.GONE).to_line()
    (tmp_path / LEDGER_FILE).write_bytes(whole + line + whole)
    with pytest.raises(InputError, match="line 2: not a line of a ledger"):
        fetch_pictures([], tmp_path)


FETCH = """
import sys
from pathlib import Path
from lensmith.data.fetching.fetch import FetchConfig, fetch_pictures
urls = [f"{sys.argv[1]}/slow-good?{number}" for number in range(60)]
fetch_pictures(urls, Path(sys.argv[2]), FetchConfig(allow_private=True, concurrency=4))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_that_was_ended_goes_on_where_it_was(server, tmp_path, how):
    with server as base:
        started = subprocess.Popen([sys.executable, "-c", FETCH, base, str(tmp_path)], stderr=subprocess.DEVNULL)
        ledger = tmp_path / LEDGER_FILE
        end_s = time.monotonic() + 60
        while time.monotonic() < end_s and (not ledger.exists() or len(ledger.read_bytes().splitlines()) < 8):
            time.sleep(0.02)
        os.kill(started.pid, how)
        assert started.wait(30) != 0
        known = set(outcomes(tmp_path))
        assert 8 <= len(known) < 60
        before = server.asked.copy()
        fetch_pictures([f"{base}/slow-good?{number}" for number in range(60)], tmp_path, QUICK)
        again = {f"{base}{path}" for path in server.asked - before}
    assert not again & known
    assert len(outcomes(tmp_path)) == 60
    assert set(outcomes(tmp_path).values()) == {Outcome.OK}


def test_two_runs_do_not_share_a_folder(server, tmp_path):
    with server as base:
        caught = []

        def second(done, total):
            with pytest.raises(InputError, match="another run") as error:
                fetch_pictures([f"{base}/good"], tmp_path, QUICK)
            caught.append(error)

        fetch_pictures([f"{base}/good"], tmp_path, QUICK, on_progress=second)
    assert caught


# --- what is not asked --------------------------------------------------------------------------------------------

PRIVATE = """127.0.0.1 127.1.2.3 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1
255.255.255.255 ::1 :: fe80::1 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::7f00:1
64:ff9b::a00:1 2001:db8::1 192.0.2.1""".split()
PUBLIC = "93.184.216.34 8.8.8.8 2606:2800:220:1:248:1893:25c8:1946 ::ffff:8.8.8.8 64:ff9b::808:808".split()


def test_which_addresses_are_public():
    assert [name for name in PRIVATE if is_public(ipaddress.ip_address(name))] == []
    assert [name for name in PUBLIC if not is_public(ipaddress.ip_address(name))] == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0", "127.1", "[::1]", "[::ffff:7f00:1]"]
)
def test_this_machine_is_not_asked_however_it_is_spelt(server, tmp_path, host):
    with server as base:
        port = base.rpartition(":")[2]
        fetch_pictures([f"http://{host}:{port}/good"], tmp_path, FetchConfig(tries=1))
        assert not server.asked
        assert set(outcomes(tmp_path).values()) <= {Outcome.REFUSED, Outcome.UNREACHABLE}


def resolved(monkeypatch, **names):
    """Answers of a name server, in turn, the last one for ever; asked names are counted."""
    asked = Counter()

    def getaddrinfo(host, port, *_, **__):
        asked[host] += 1
        answers = names.get(host.partition(".")[0], [[host]])
        answer = answers[min(asked[host], len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_of_this_machine_is_refused(server, tmp_path, monkeypatch):
    resolved(monkeypatch, inside=[["127.0.0.1"]], both=[["8.8.8.8", "127.0.0.1"]])
    with server as base:
        port = base.rpartition(":")[2]
        urls = [f"http://{name}.example.com:{port}/good" for name in ("inside", "both")]
        fetch_pictures(urls, tmp_path, FetchConfig(tries=1))
        assert not server.asked
    assert set(outcomes(tmp_path).values()) == {Outcome.REFUSED}


def test_the_address_that_was_checked_is_the_one_that_is_asked(server, monkeypatch):
    """A name server that answers with a public address first and this machine's then: the name is asked once."""
    asked = resolved(monkeypatch, rebinding=[["93.184.216.34"], ["127.0.0.1"]])
    connected = []

    def create_connection(address, *_, **__):
        connected.append(address[0])
        raise OSError("no network here")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    with server as base, PublicTransport() as transport, httpx.Client(transport=transport) as client:
        with pytest.raises(httpx.ConnectError):
            client.get(f"http://rebinding.example.com:{base.rpartition(':')[2]}/good", timeout=1)
        assert not server.asked
    assert asked["rebinding.example.com"] == 1
    assert connected == ["93.184.216.34"]


def test_a_redirect_is_checked_as_a_first_request_is(server, tmp_path, monkeypatch):
    """The first hop is let through (its address is taken for public), the second one leads to this machine by name."""
    resolved(monkeypatch, inside=[["127.0.0.2"]], outside=[["127.0.0.1"]])
    monkeypatch.setattr(ipaddress.IPv4Address, "is_global", property(lambda each: str(each) == "127.0.0.1"))
    with server as base:
        port = base.rpartition(":")[2]
        url = f"http://outside.example.com:{port}/to?http://inside.example.com:{port}/good"
        direct = f"http://outside.example.com:{port}/good"
        fetch_pictures([url, direct], tmp_path, FetchConfig(tries=1))
        assert server.asked == {f"/to?http://inside.example.com:{port}/good": 1, "/good": 1}
    assert outcomes(tmp_path) == {url: Outcome.REFUSED, direct: Outcome.OK}


def test_a_server_is_told_the_name_that_was_asked_for(monkeypatch):
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    resolved(monkeypatch, named=[["127.0.0.1"]])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    port = server.server_address[1]
    with PublicTransport(allow_private=True) as transport, httpx.Client(transport=transport) as client:
        client.get(f"http://named.example.com:{port}/")
    server.server_close()
    assert heard == [f"named.example.com:{port}"]
