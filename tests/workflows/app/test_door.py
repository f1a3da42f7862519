"""Nobody comes in but the person who has the address, from the app's own page."""

import asyncio

import pytest

from lensmith.workflows.app.door import PAGE_HEADERS, Door

PATH = "/a-key/"
HOST = "127.0.0.1:8123"


async def inside(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [(b"content-security-policy", b"its own")] if scope["path"].endswith("own") else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"inside"})


def asked(path=PATH, *, kind="http", **headers):
    """What the door sends; `headers` with _ for -, a list for one that stands twice, None for none."""
    given = {"host": HOST, **({"origin": f"http://{HOST}"} if kind == "websocket" else {}), **headers}
    listed = [
        (name.replace("_", "-").encode(), each.encode())
        for name, value in given.items()
        for each in ([] if value is None else value if isinstance(value, list) else [value])
    ]
    scope = {"type": kind, "method": "GET", "path": path, "raw_path": path.encode(), "headers": listed}
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    asyncio.run(Door(inside, port=8123, path=PATH)(scope, receive, send))
    return sent


def is_let_in(*arguments, **headers):
    sent = asked(*arguments, **headers)
    return sent[0].get("status") == 200 or sent[0]["type"] == "websocket.accept"


OWN = {"origin": f"http://{HOST}", "sec_fetch_site": "same-origin", "sec_fetch_mode": "cors"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        OWN,
        {"host": "localhost:8123"},
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},  # a link in a terminal that is a web page
    ],
)
def test_the_person_comes_in(headers):
    assert is_let_in(**headers)
    assert is_let_in(PATH + "projects/1", **headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8123"},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:8124"},
        {"host": [HOST, "evil.example"]},
        {"host": None},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8123"},
        {"origin": f"https://{HOST}"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_others_do_not(headers, kind):
    sent = asked(kind=kind, **headers)
    if kind == "http":
        assert sent[0]["status"] == 403
    else:
        assert [message["type"] for message in sent] == ["websocket.close"]
    assert b"inside" not in repr(sent).encode()


@pytest.mark.parametrize("path", ["/", "/projects", "/a-key-too/", "/A-KEY/", "", "//a-key/"])
def test_without_the_key_there_is_nothing(path):
    assert not is_let_in(path)
    assert not is_let_in(path, kind="websocket")


def test_a_socket_says_where_it_comes_from():
    assert is_let_in(kind="websocket")
    assert not is_let_in(kind="websocket", origin=None)


def test_every_answer_has_a_policy_and_a_made_page_its_own():
    def headers(*arguments, **given):
        return {name.decode(): value.decode() for name, value in asked(*arguments, **given)[0]["headers"]}

    policy = headers()["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"connect-src 'self' ws://{HOST};" in policy
    assert "http:" not in policy and "*" not in policy
    assert headers(PATH + "own")["content-security-policy"] == "its own"
    assert headers(host="evil.example")["x-content-type-options"] == "nosniff"
    assert PAGE_HEADERS["Content-Security-Policy"].startswith("sandbox; default-src 'none';")
