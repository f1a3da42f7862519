"""The HTTP client: order, patience, and errors that say what happened. No server: httpx's own transport seam."""

import json
import socket
import threading
import time
from concurrent.futures import CancelledError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from lensmith.core.endpoint import Endpoint, Feature, RefusedError, Request, Reveal
from lensmith.core.errors import AccessError, ConfigError, InputError
from lensmith.core.types import Message, Picture
from lensmith.endpoints.http.client import HttpClient, RetryPolicy, is_loopback
from lensmith.endpoints.http.errors import DoubtfulRefusalError
from lensmith.endpoints.http.retries import SilenceMonitor, log_wait, spoken_s
from lensmith.openai_api import DIALECTS, BusyError, EndpointError, MalformedAnswerError

URL = "http://127.0.0.1:1/v1"


def answer_json(text="b"):
    return {"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]}


def client_of(handler, **options):
    waits = []
    usual = {"dialect": DIALECTS["compatible"], "sleep": waits.append, "transport": httpx.MockTransport(handler)}
    client = HttpClient(URL, "m", **{**usual, **options})
    client.waits = waits
    return client


def ask(client, *texts, **fields):
    return [answer.choices[0].text for answer in client.answer([Request(prompt=text, **fields) for text in texts])]


def test_it_is_an_endpoint():
    assert isinstance(client_of(lambda _: httpx.Response(200)), Endpoint)


def test_order_is_kept_and_concurrency_is_bounded_and_used():
    now, most, lock = 0, 0, threading.Lock()

    def handler(request):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        text = json.loads(request.content)["prompt"]
        time.sleep(0.02 if int(text) % 3 else 0.05)
        with lock:
            now -= 1
        return httpx.Response(200, json=answer_json(text))

    texts = [str(number) for number in range(30)]
    with client_of(handler, concurrency=4) as client:
        assert ask(client, *texts) == texts
    assert most == 4


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_when_it_says(status):
    responses = [httpx.Response(status, headers={"Retry-After": "7"}), httpx.Response(status)]
    responses.append(httpx.Response(200, json=answer_json()))
    with client_of(lambda _: responses.pop(0)) as client:
        assert ask(client, "a") == ["b"]
        assert client.waits[0] == 7
        assert 1.0 <= client.waits[1] <= 1.25


def test_patience_ends():
    with client_of(lambda _: httpx.Response(429, headers={"Retry-After": "3"}), retries=RetryPolicy(tries=3)) as client:
        with pytest.raises(BusyError) as caught:
            ask(client, "a")
        assert (client.waits, caught.value.status, caught.value.retry_after_s) == ([3, 3], 429, 3)


def test_waits_double_and_have_an_end():
    policy = RetryPolicy()
    assert all(0.5 * 2**attempt <= policy.wait_s(attempt, None) <= 0.625 * 2**attempt for attempt in range(5))
    assert policy.wait_s(30, None) == 60
    assert policy.wait_s(0, 1e9) == 60


@pytest.mark.parametrize("named", ["-1", "inf", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
def test_a_strange_retry_after_counts_as_none(named):
    responses = [httpx.Response(429, headers={"Retry-After": named}), httpx.Response(200, json=answer_json())]
    with client_of(lambda _: responses.pop(0)) as client:
        ask(client, "a")
        assert 0.5 <= client.waits[0] <= 0.625


def refuse(request):
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize("dialect", [DIALECTS["compatible"], None], ids=["known", "found out"])
def test_no_connection_from_the_start_is_said_at_once(dialect):
    with client_of(refuse, dialect=dialect) as client:
        with pytest.raises(EndpointError, match=r"cannot be reached(.|\n)*127\.0\.0\.1:1(.|\n)*server running"):
            ask(client, "a")
        assert client.waits == []


def test_a_connection_that_was_there_is_tried_again():
    responses = [httpx.Response(200, json=answer_json())]

    def handler(request):
        return responses.pop() if responses else refuse(request)

    with client_of(handler, retries=RetryPolicy(tries=2)) as client:
        ask(client, "a")
        with pytest.raises(EndpointError, match=r"cannot be reached") as caught:
            ask(client, "b")
        assert caught.value.hint is None
        assert len(client.waits) == 1


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for():
    with client_of(lambda _: httpx.Response(429, headers={"Retry-After": "3600"})) as client:
        with pytest.raises(BusyError, match="it asks to wait 1 h") as caught:
            ask(client, "a")
        assert (client.waits, caught.value.retry_after_s) == ([], 3600)


@pytest.mark.parametrize(("seconds", "said"), [(3, "3 s"), (150, "2.5 min"), (3600, "1 h"), (86400, "24 h")])
def test_lengths_of_time_are_said_as_people_do(seconds, said):
    assert spoken_s(seconds) == said


def test_silence_is_told_and_why():
    told = []
    monitor = SilenceMonitor("the server", told.append, quiet_s=0.05)
    with monitor.request():
        time.sleep(0.2)
        monitor.busy("it is busy")
        time.sleep(0.3)
    assert told[0].startswith("waiting for the server: no answer for")
    assert "it is busy" in told[-1]
    assert len(told) <= 4, "ever more rarely"


def test_a_server_that_answers_now_and_then_is_not_called_silent():
    told = []
    monitor = SilenceMonitor("the server", told.append, quiet_s=0.4)
    with monitor.request():
        for _ in range(30):
            time.sleep(0.02)
            monitor.received()
    time.sleep(0.5)  # nothing is under way
    assert told == []


def test_by_default_silence_is_logged(caplog):
    monitor = SilenceMonitor("the server", log_wait, quiet_s=0.02)
    with monitor.request():
        time.sleep(0.2)
    assert "waiting for the server" in caplog.text


def test_a_closed_client_says_so():
    client = client_of(lambda _: httpx.Response(200, json=answer_json()))
    client.close()
    with pytest.raises(EndpointError, match="client was closed"):
        ask(client, "a")


def test_closing_ends_waits_and_reads_of_other_threads():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = HttpClient(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "m", dialect=DIALECTS["compatible"])
        failures = []

        def wait():
            try:
                ask(client, "a", "b")
            except (EndpointError, CancelledError) as error:
                failures.append(error)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        client.close()
        thread.join(5)
        assert time.monotonic() - began < 2
        assert len(failures) == 1


def test_a_timeout_is_not_tried_again():
    def handler(request):
        raise httpx.ReadTimeout("slow", request=request)

    with client_of(handler) as client:
        with pytest.raises(EndpointError, match="ReadTimeout"):
            ask(client, "a")
        assert client.waits == []


def openai_error(message, param=None, code=None):
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


FASTAPI = {"detail": [{"loc": ["body", "logit_bias", "1"], "msg": "should be a number", "type": "float_type"}]}
REFUSALS = [
    (400, openai_error("no", param="logit_bias"), {"logit_bias": {1: 1.0}}, Feature.LOGIT_BIAS),
    (400, openai_error("no", param="logprobs"), {"top_logprobs": 5}, Feature.TOP_LOGPROBS),
    (400, openai_error("no", param="logprobs"), {"reveal": Reveal.SAMPLED}, Feature.SAMPLED_LOGPROB),
    (400, openai_error("no", param="top_logprobs"), {"top_logprobs": 5}, Feature.TOP_LOGPROBS),
    (400, openai_error("Requested sample logprobs of 50, max is 20"), {"top_logprobs": 50}, Feature.TOP_LOGPROBS),
    (422, FASTAPI, {"logit_bias": {1: 1.0}}, Feature.LOGIT_BIAS),
    (
        400,
        {"message": "echo and logprobs clash"},
        {"reveal": Reveal.PROMPT},
        Feature.PROMPT_LOGPROBS,
    ),
    (400, openai_error("no", code="refused:logit_bias+allowed_ids"), {}, Feature.LOGIT_BIAS | Feature.ALLOWED_IDS),
    (400, openai_error("context length exceeded"), {}, Feature.NOTHING),
    (400, {"error": "logprobs is not supported"}, {"reveal": Reveal.SAMPLED}, Feature.SAMPLED_LOGPROB),
    (413, "too large", {}, Feature.NOTHING),
    (404, openai_error("no such model"), {}, Feature.NOTHING),
    (400, openai_error("no such model", param="model"), {}, Feature.NOTHING),
    (500, openai_error("logprobs needs logits_all=True"), {"top_logprobs": 1}, Feature.TOP_LOGPROBS),
]


@pytest.mark.parametrize(("status", "said", "fields", "feature"), REFUSALS, ids=range(len(REFUSALS)))
def test_a_refusal_names_its_feature(status, said, fields, feature):
    response = {"text": said} if isinstance(said, str) else {"json": said}
    with client_of(lambda _: httpx.Response(status, **response)) as client:
        with pytest.raises(RefusedError) as caught:
            ask(client, "a", **fields)
        assert caught.value.feature == feature
        assert client.waits == []


@pytest.mark.parametrize("words", ["could not process the prompt: out of memory", "stop: messages lost, seed unknown"])
def test_a_failure_that_uses_ordinary_words_is_no_refusal(words):
    failing = httpx.Response(500, json=openai_error(words))
    with client_of(lambda _: failing) as client, pytest.raises(EndpointError, match=words[:10]):
        ask(client, "a", stop=("x",), seed=1)


def test_a_refusal_whose_status_means_other_things_too_is_in_doubt():
    for status, words in ((403, "not allowed"), (500, "logit_bias cannot be applied")):
        with (
            client_of(lambda _, status=status, words=words: httpx.Response(status, json=openai_error(words))) as client,
            pytest.raises(DoubtfulRefusalError),
        ):
            ask(client, "a", logit_bias={1: 1.0})


def test_a_failure_and_a_wrong_key():
    failing, locked = (httpx.Response(status, json=openai_error("boom")) for status in (500, 401))
    with client_of(lambda _: failing) as client, pytest.raises(EndpointError, match="boom"):
        ask(client, "a")
    with client_of(lambda _: locked) as client, pytest.raises(AccessError, match="API key"):
        ask(client, "a")


@pytest.mark.parametrize("status", [400, 404])
def test_an_unknown_model_is_bad_usage(status):
    said = openai_error("no such model", code="model_not_found")
    with client_of(lambda _: httpx.Response(status, json=said)) as client:
        with pytest.raises(RefusedError, match="no such path or model: no such model") as caught:
            ask(client, "a")
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("status", [200, 404, 405, 501])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_site_of_pages_is_no_endpoint(status, is_named):
    response = {"html": "<!doctype html><p>hi"} if is_named else {"text": "\n<HTML><p>hi"}
    with client_of(lambda _: httpx.Response(status, **response)) as client:
        calls = (
            lambda: ask(client, "a"),
            lambda: client.raw("models"),
            lambda: [*client.stream(Request(prompt="a"))],
        )
        for call in calls:
            with pytest.raises(InputError, match=r"no OpenAI-compatible endpoint here; .* end in /v1") as caught:
                call()
            assert caught.value.exit_code == 2


def test_a_page_from_an_endpoint_that_has_answered_is_a_failure():
    responses = [httpx.Response(200, json=answer_json()), httpx.Response(200, html="<html>log in")]
    with client_of(lambda _: responses.pop(0)) as client:
        ask(client, "a")
        with pytest.raises(MalformedAnswerError, match="not JSON"):
            ask(client, "b")


@pytest.mark.parametrize(
    "content",
    [b"", b"oops", b"[]", b'{"choices": [NaN]}', b'{"choices": ' + b"[" * 100_000, b"\xff\xfe", b"{}"],
    ids=range(7),
)
def test_what_is_no_answer_is_an_error(content):
    with client_of(lambda _: httpx.Response(200, content=content)) as client, pytest.raises(MalformedAnswerError):
        ask(client, "a")


def test_nan_is_no_logprob():
    text = json.dumps({"choices": [{"index": 0, "text": "b", "finish_reason": "stop", "logprobs": {
        "tokens": ["b"], "token_logprobs": [float("nan")], "top_logprobs": None}}]})  # fmt: skip
    with (
        client_of(lambda _: httpx.Response(200, text=text)) as client,
        pytest.raises(MalformedAnswerError, match="NaN"),
    ):
        ask(client, "a", reveal=Reveal.SAMPLED)


def test_the_first_error_stops_the_rest():
    asked = []

    def handler(request):
        asked.append(json.loads(request.content)["prompt"])
        return httpx.Response(400, json=openai_error("no"))

    with client_of(handler, concurrency=1) as client, pytest.raises(RefusedError):
        ask(client, *map(str, range(100)))
    assert len(asked) < 10


def test_several_choices_where_a_server_gives_one():
    def handler(request):
        body = json.loads(request.content)
        assert "n" not in body
        return httpx.Response(200, json=answer_json(str(body["seed"])))

    with client_of(handler, dialect=DIALECTS["llama-server"]) as client:
        (answer,) = client.answer([Request(prompt="a", n=3, seed=5)])
    assert [choice.text for choice in answer.choices] == ["5", "6", "7"]


def models(owner, **extra):
    return {"data": [{"id": "other"}, {"id": "m", "owned_by": owner, **extra}][::-1]}


FOUND = [
    ({"/v1/models": models("vllm")}, {}, "vllm"),
    ({"/v1/models": models("sglang")}, {}, "sglang"),
    ({"/v1/models": models("llamacpp")}, {}, "llama-server"),
    ({"/v1/models": models("me")}, {}, "llama-cpp-python"),
    ({"/v1/models": models("lensmith")}, {}, "lensmith"),
    ({"/v1/models": {"data": [{"id": "m"}]}}, {"Server": "llama.cpp"}, "llama-server"),
    ({"/v1/models": {"data": [{"id": "m"}]}}, {"Server": "lensmith/0.1"}, "lensmith"),
    ({"/version": {"version": "0.20"}}, {}, "vllm"),
    ({"/v1/models": {"data": "nonsense"}}, {}, "compatible"),
    ({}, {}, "compatible"),
]


@pytest.mark.parametrize(("paths", "headers", "dialect"), FOUND, ids=range(len(FOUND)))
def test_the_dialect_is_found_out_once(paths, headers, dialect):
    asked = []

    def handler(request):
        asked.append(request.url.path)
        if request.method == "POST":
            return httpx.Response(200, json=answer_json())
        path = request.url.path
        return httpx.Response(200, json=paths[path], headers=headers) if path in paths else httpx.Response(404)

    with client_of(handler, dialect=None) as client:
        ask(client, "a")
        ask(client, "b")
        assert client.dialect.name == dialect
        assert client.supports().features == DIALECTS[dialect].features
    assert asked.count("/v1/models") == 1


def test_metadata_is_the_entry_of_this_model_and_raw_reaches_any_path():
    def handler(request):
        if request.method == "POST":
            return httpx.Response(200, json={"asked": json.loads(request.content), "path": request.url.path})
        return httpx.Response(200, json=models("llamacpp", meta={"n_embd": 576}))

    with client_of(handler) as client:
        assert client.metadata()["meta"] == {"n_embd": 576}
        assert client.raw("/tokenize", {"content": "a"}) == {"asked": {"content": "a"}, "path": "/v1/tokenize"}


def test_the_key_is_sent_and_pictures_are_read(tmp_path):
    seen = []

    def handler(request):
        seen.append((request.headers["authorization"], json.loads(request.content)))
        return httpx.Response(
            200, json={"choices": [{"index": 0, "message": {"content": "b"}, "finish_reason": "stop"}]}
        )

    (tmp_path / "a.png").write_bytes(b"\x89PNG1")
    with client_of(handler, api_key="k") as client:
        parts = (Picture(url=str(tmp_path / "a.png")), Picture(url="https://example.com/a.png"))
        client.answer([Request(messages=(Message(role="user", parts=parts),))])
        with pytest.raises(InputError, match="cannot be read"):
            client.answer([Request(messages=(Message(role="user", parts=(Picture(url=str(tmp_path / "b.png")),)),))])
    ((key, body),) = seen
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"]]
    assert (key, urls) == ("Bearer k", ["data:image/png;base64,iVBORzE=", "https://example.com/a.png"])


STREAMS = [
    ('data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n: ping\n\ndata: {"choices":[{"delta":'
     '{"content":"a"}}]}\n\ndata:{"choices":[{"delta":{"content":"b"}}]}\n\ndata: {"choices":[],"usage":{}}\n\n'
     "data: [DONE]\n\n", ["a", "b"], None),
    ('data: {"choices":[{"delta":{"content":"a"}}]}\n\n', ["a"], "broke off"),
    ('data: {"choices":[{"delta"\n\ndata: [DONE]\n\n', [], "malformed"),
    ('data: {"choices":[5]}\n\ndata: [DONE]\n\n', [], "malformed"),
    ('data: {"error":{"message":"out of memory"}}\n\n', [], "out of memory"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "pieces", "said"), STREAMS, ids=range(len(STREAMS)))
def test_streams(text, pieces, said):
    got = []
    with client_of(lambda _: httpx.Response(200, text=text)) as client:
        stream = client.stream(Request(messages=(Message(role="user", parts=("hi",)),)))
        if said is None:
            got.extend(stream)
        else:
            with pytest.raises(EndpointError, match=said):
                got.extend(stream)
    assert got == pieces


def test_a_stream_waits_for_a_busy_server():
    responses = [httpx.Response(503, headers={"Retry-After": "2"}), httpx.Response(200, text=STREAMS[0][0])]
    with client_of(lambda _: responses.pop(0)) as client:
        assert "".join(client.stream(Request(messages=(Message(role="user", parts=("hi",)),)))) == "ab"
        assert client.waits == [2]


def test_a_refused_stream():
    with client_of(lambda _: httpx.Response(400, json=openai_error("no", param="seed"))) as client:
        with pytest.raises(RefusedError) as caught:
            list(client.stream(Request(prompt="a", seed=1)))
        assert caught.value.feature is Feature.SEED


@pytest.fixture
def listener():
    """A real server: its address, and the targets of the requests that reach it; a proxy is asked for whole URLs."""
    targets = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            targets.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", targets
        server.shutdown()


def test_proxies_of_the_environment_are_for_other_hosts(monkeypatch, listener):
    address, targets = listener
    monkeypatch.setenv("HTTP_PROXY", address)
    monkeypatch.setenv("ALL_PROXY", address)
    for url in (f"{address}/v1", "http://example.invalid/v1"):
        with HttpClient(url, "m") as client:
            assert client.raw("models") == {}
    assert targets == ["/v1/models", "http://example.invalid/v1/models"]


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.8.8", True),
        ("http://localhost:1", True),
        ("http://[::1]:8000/v1", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("nonsense", False),
    ],
)
def test_loopback(url, is_local):
    assert is_loopback(url) is is_local


def test_impossible_clients():
    with pytest.raises(ConfigError, match="http://"):
        HttpClient("127.0.0.1:8000", "m")
    with pytest.raises(ConfigError, match="concurrency"):
        HttpClient(URL, "m", concurrency=0)
    with pytest.raises(ConfigError, match="unknown dialect"):
        HttpClient.named(URL, "m", "klingon")
