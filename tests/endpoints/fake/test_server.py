"""The fake behind HTTP: what the contract suite does not ask about."""

import json
import socket

import httpx
import pytest

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.exposure import Exposure
from lensmith.core.types import Message
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.endpoints.http.client import HttpClient, RetryPolicy
from lensmith.openai_api import DIALECTS, BusyError


def fake(**switches):
    return FakeEndpoint(vocabulary=31, width=4, **switches)


@pytest.fixture
def url():
    with FakeServer(fake()) as base:
        yield base


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("messages", [False, True])
def test_a_stream_says_what_the_answer_says(dialect, messages):
    prompt = {"messages": (Message(role="user", parts=("hi",)),)} if messages else {"prompt": "hi"}
    request = Request(**prompt, temperature=0.0, max_tokens=6)
    with FakeServer(fake(), dialect=dialect) as url, HttpClient.named(url, "fake", dialect) as client:
        whole = client.answer([request])[0].choices[0].text
        stop = Request(**prompt, temperature=0.0, max_tokens=6, stop=(whole[5:7],))
        assert [*client.stream(request)] == [f" {word}" for word in whole.split()]
        assert "".join(client.stream(stop)) == client.answer([stop])[0].choices[0].text == whole[:5]


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"openai", "compatible"}))
def test_each_server_is_recognised(dialect):
    with FakeServer(fake(), dialect=dialect) as url, HttpClient(url, "fake") as client:
        assert client.dialect.name == dialect


def test_metadata_of_llama_cpp_tells_the_width_unless_hidden():
    with FakeServer(fake(), dialect="llama-server") as url, HttpClient(url, "fake") as client:
        assert client.metadata()["meta"] == {"n_embd": 4, "n_vocab": 31}
    with (
        FakeServer(fake(exposes=Exposure.text_only()), dialect="llama-server") as url,
        HttpClient(url, "fake") as client,
    ):
        assert "meta" not in client.metadata()


def test_an_api_key():
    with FakeServer(fake(), api_key="k") as url:
        with HttpClient(url, "fake", api_key="k") as client:
            assert client.answer([Request(prompt="a")])
        with HttpClient(url, "fake", api_key="wrong") as client, pytest.raises(InputError, match="API key"):
            client.answer([Request(prompt="a")])


def test_a_rate_limit_is_waited_for():
    now, waits = [0.0], []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    with FakeServer(fake(requests_per_s=2.0, clock=lambda: now[0])) as url:
        with HttpClient(url, "fake", concurrency=1, sleep=sleep) as client:
            assert len(client.answer([Request(prompt=str(each)) for each in range(6)])) == 6
        assert waits == [1.0, 1.0]
        hasty = HttpClient(url, "fake", sleep=lambda _: None, retries=RetryPolicy(tries=2))
        with hasty as client, pytest.raises(BusyError):
            client.answer([Request(prompt=str(each)) for each in range(20)])


def test_connections_are_kept(url):
    port = int(url.split(":")[2].split("/")[0])
    body = json.dumps({"model": "fake", "prompt": "a"}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as file:
        for _ in range(3):
            connection.sendall(head + body)
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := file.readline()) != b"\r\n":
                length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else length
            assert json.loads(file.read(length))["choices"]


def test_a_batch_of_prompts(url):
    body = {"model": "fake", "prompt": ["a", [1, 2]], "temperature": 0, "n": 2}
    answer = httpx.post(f"{url}/completions", json=body, trust_env=False).json()
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert texts[0] == texts[1] != texts[2] == texts[3]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("completions", b"{", 400),
        ("completions", b"[]", 400),
        ("completions", b'{"model": "fake"}', 400),
        ("completions", b'{"model": "other", "prompt": "a"}', 404),
        ("embeddings", b"{}", 404),
        ("chat/completions", b'{"model": "fake", "messages": [{"role": "user", "content": 5}]}', 400),
        ("completions", b'{"model": "fake", "prompt": "a", "logprobs": 1, "prompt_logprobs": 5}', 400),
    ],
)
def test_errors_have_openais_shape(url, path, content, status):
    response = httpx.post(f"{url}/{path}", content=content, trust_env=False)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_the_stream_has_logprobs_and_usage(url):
    body = {"model": "fake", "messages": [{"role": "user", "content": "a"}], "stream": True, "logprobs": True,
            "top_logprobs": 2, "stream_options": {"include_usage": True}, "max_tokens": 3}  # fmt: skip
    response = httpx.post(f"{url}/chat/completions", json=body, trust_env=False)
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert [len(chunk["choices"]) for chunk in chunks] == [1, 1, 1, 0]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(len(chunk["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2 for chunk in chunks[:3])
    assert chunks[2]["choices"][0]["finish_reason"] == "length"
    assert chunks[3]["usage"]["completion_tokens"] == 3


def test_equal_texts_vanish_where_logprobs_are_keyed_by_text():
    request = Request(prompt="a", max_tokens=1, temperature=0.0, reveal=Reveal.VOCABULARY)
    widths = {}
    for dialect in ("llama-cpp-python", "llama-server"):
        with FakeServer(fake(duplicate_texts=3), dialect=dialect) as url, HttpClient(url, "fake") as client:
            widths[dialect] = client.answer([request])[0].choices[0].logprobs.vocabulary_TV.shape[1]
    assert widths == {"llama-cpp-python": 28, "llama-server": 31}


def test_vllm_tells_wanted_ids_instead_of_the_top_and_else_the_sampled_token_first():
    asked = {"model": "fake", "messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 3,
             "return_tokens_as_token_ids": True, "max_tokens": 1, "logit_bias": {"7": 50}}  # fmt: skip
    with FakeServer(fake(), dialect="vllm") as url:
        tops = []
        for fields in ({}, {"logprob_token_ids": [9, 4]}):
            body = httpx.post(f"{url}/chat/completions", json={**asked, **fields}, trust_env=False).json()
            (entry,) = body["choices"][0]["logprobs"]["content"]
            tops.append([top["token"] for top in entry["top_logprobs"]])
    assert (len(tops[0]), tops[0][0]) == (3, "token_id:7")
    assert tops[1] == ["token_id:9", "token_id:4"]


def test_an_unknown_dialect():
    with pytest.raises(ConfigError, match="unknown dialect"):
        FakeServer(fake(), dialect="klingon")
