"""The server's paths: what they answer, what they refuse, and that their limits hold."""

import asyncio
import base64
import gzip
import io
import json
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import numpy as np
import pytest
from PIL import Image

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.errors import ImageError
from lensmith.core.exposure import Exposure, parse_exposure
from lensmith.core.types import Message, Picture
from lensmith.models.inference.endpoint import LocalEndpoint
from lensmith.serve.config import ServerLimits
from lensmith.serve.fetching import with_pictures
from tests.support.serve_models import (
    CHAT_TEMPLATE,
    END_ID,
    NAME,
    VOCABULARY,
    sightseer_server,
    tiny_engine,
    tiny_server,
    tokenizer,
)


@pytest.fixture(scope="module")
def url():
    with tiny_server() as (url, _):
        yield url


def complete(url, **fields):
    return httpx.post(f"{url}/completions", json={"model": NAME, "temperature": 0, **fields}, timeout=60)


def chat(url, **fields):
    return httpx.post(f"{url}/chat/completions", json={"model": NAME, "temperature": 0, **fields}, timeout=60)


def events(response):
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def local_answers(*requests):
    engine = tiny_engine()
    endpoint = LocalEndpoint(engine.answering.model, tokenizer())
    return endpoint.answer(requests)


def wait_until(holds, timeout_s=30.0):
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


# --- answers ------------------------------------------------------------------------------------------------------


def test_a_completion_is_the_models(url):
    [expected] = local_answers(
        Request(prompt="hello", max_tokens=9, temperature=0, top_logprobs=2, reveal=Reveal.SAMPLED)
    )
    body = complete(url, prompt="hello", max_tokens=9, logprobs=2).json()
    choice = expected.choices[0]
    assert body["choices"][0]["text"] == choice.text
    assert body["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx(
        choice.logprobs.sampled_T.tolist(), abs=1e-5
    )
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}


def test_a_chat_goes_through_the_template(url):
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    body = chat(url, messages=messages, max_tokens=7).json()
    [expected] = local_answers(Request(prompt="<system>be<user>hi<assistant>", max_tokens=7, temperature=0))
    assert body["choices"][0]["message"] == {"role": "assistant", "content": expected.choices[0].text}
    assert CHAT_TEMPLATE.count("assistant") == 1


def test_a_batch_of_prompts_numbers_its_choices_through(url):
    body = complete(url, prompt=["one", "two"], n=2, max_tokens=5, seed=3, temperature=1).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    alone = complete(url, prompt="two", n=2, max_tokens=5, seed=3, temperature=1).json()
    assert [choice["text"] for choice in body["choices"][2:]] == [choice["text"] for choice in alone["choices"]]
    assert alone["choices"][0]["text"] != alone["choices"][1]["text"]


def test_a_stream_says_what_the_whole_answer_says(url):
    fields = {"prompt": ["one", "two"], "n": 2, "max_tokens": 20, "logprobs": 1, "seed": 8, "temperature": 0.7}
    whole = complete(url, **fields).json()
    response = complete(url, **fields, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, usage = events(response)
    for choice in whole["choices"]:
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        told = [value for part in own if part["logprobs"] for value in part["logprobs"]["token_logprobs"]]
        assert told == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-5)
        offsets = [value for part in own if part["logprobs"] for value in part["logprobs"]["text_offset"]]
        assert offsets[0] == 0
        assert [part["finish_reason"] for part in own][-1] == choice["finish_reason"]
        assert all(part["finish_reason"] is None for part in own[:-1])
    assert usage["usage"] == whole["usage"]
    assert usage["choices"] == []


def test_echo_stands_before_the_answer_streamed_or_not(url):
    fields = {"prompt": "echo me", "max_tokens": 4, "echo": True, "logprobs": 0}
    whole = complete(url, **fields).json()["choices"][0]
    assert whole["text"].startswith("echo me")
    assert whole["logprobs"]["token_logprobs"][0] is None
    assert len(whole["logprobs"]["token_logprobs"]) == 7 + 4
    chunks = [chunk["choices"][0] for chunk in events(complete(url, **fields, stream=True))]
    assert "".join(part["text"] for part in chunks) == whole["text"]


def test_a_streamed_echo_tells_the_logprobs_that_a_whole_one_tells(url):
    fields = {"prompt": ["echo me", "too"], "max_tokens": 4, "echo": True, "logprobs": 2, "n": 2, "seed": 1}
    whole = complete(url, **fields).json()["choices"]
    chunks = [chunk["choices"][0] for chunk in events(complete(url, **fields, stream=True))]
    for choice in whole:
        own = [part["logprobs"] for part in chunks if part["index"] == choice["index"] and part["logprobs"]]
        together = {name: [value for part in own for value in part[name]] for name in own[0]}
        assert [together[name] for name in ("tokens", "text_offset")] == [
            choice["logprobs"][name] for name in ("tokens", "text_offset")
        ]
        assert together["token_logprobs"] == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-5)
        for top, other in zip(together["top_logprobs"], choice["logprobs"]["top_logprobs"], strict=True):
            assert top == (other and pytest.approx(other, abs=1e-5))
        assert own[0]["token_logprobs"][0] is own[0]["top_logprobs"][0] is None


def test_a_forced_end_token_is_told_without_text(url):
    body = complete(url, prompt="x", max_tokens=5, logprobs=0, logit_bias={str(END_ID): 1000}).json()["choices"][0]
    assert (body["text"], body["finish_reason"], len(body["logprobs"]["tokens"])) == ("", "stop", 1)


def test_the_whole_vocabulary_and_chosen_ids(url):
    fields = {"prompt": "x", "max_tokens": 2, "return_tokens_as_token_ids": True}
    whole = complete(url, **fields, logprobs=-1).json()["choices"][0]["logprobs"]["top_logprobs"]
    assert [len(position) for position in whole] == [VOCABULARY, VOCABULARY]
    assert np.exp(list(whole[0].values())).sum() == pytest.approx(1)
    chosen = complete(url, **fields, logprobs=0, logprob_token_ids=[70, 5]).json()["choices"][0]["logprobs"]
    assert chosen["top_logprobs"][0] == {name: pytest.approx(whole[0][name]) for name in ("token_id:70", "token_id:5")}


# --- what a server tells of itself --------------------------------------------------------------------------------


def test_metadata_is_told_or_hidden(url):
    [model] = httpx.get(f"{url}/models").json()["data"]
    assert (model["id"], model["meta"]["width"]) == (NAME, 32)
    assert httpx.get(f"{url}/models/{NAME}").json() == model
    assert httpx.get(f"{url}/models/other").status_code == 404
    with tiny_server(parse_exposure("no-metadata")) as (closed, _):
        [model] = httpx.get(f"{closed}/models").json()["data"]
        assert set(model) == {"id", "object", "created", "owned_by"}
        refusal = complete(closed, prompt="x", logit_bias={str(VOCABULARY): 1})
        assert refusal.status_code == 400
        assert str(VOCABULARY) not in refusal.text
        assert str(VOCABULARY - 1) not in refusal.text


def test_health_and_metrics(url):
    root = url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").json() == {"status": "ok"}
    complete(url, prompt="count me", max_tokens=3)
    text = httpx.get(f"{root}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['lensmith_requests_total{path="/v1/completions",status="200"}']) >= 1
    assert float(values["lensmith_answered_tokens_total"]) >= 3
    assert float(values["lensmith_open_requests"]) == 0


@pytest.mark.parametrize(
    ("expose", "fields", "code"),
    [
        ("top-logprobs=5", {"logprobs": 6}, "refused:top_logprobs"),
        ("top-logprobs=5", {"logprobs": -1}, "refused:vocabulary_logprobs"),
        ("no-logit-bias", {"logit_bias": {"5": 1}}, "refused:logit_bias"),
        ("logit-bias=2", {"logit_bias": {"5": 3}}, "refused:logit_bias"),
        ("no-wanted-ids", {"logprobs": 0, "logprob_token_ids": [5]}, "refused:wanted_ids"),
        ("no-allowed-ids", {"allowed_token_ids": [5]}, "refused:allowed_ids"),
        ("no-echo", {"logprobs": 0, "echo": True}, "refused:prompt_logprobs"),
        ("no-logit-bias", {"presence_penalty": 1}, "refused:presence_penalty"),
        ("biased-ids=5", {"repetition_penalty": 1.5}, "refused:repetition_penalty"),
        ("no-penalties", {"frequency_penalty": -1}, "refused:frequency_penalty"),
        (
            "no-bias-with-logprobs",
            {"logprobs": 0, "frequency_penalty": 1},
            "refused:logit_bias+allowed_ids+frequency_penalty",
        ),
        ("no-bias-with-logprobs", {"logprobs": 0, "logit_bias": {"5": 1}}, "refused:logit_bias+allowed_ids"),
        ("text-only", {"logprobs": 0}, "refused:sampled_logprob"),
    ],
)
def test_what_is_not_exposed_is_refused_and_counted(expose, fields, code):
    with tiny_server(parse_exposure(f"everything,{expose}" if expose != "text-only" else expose)) as (url, _):
        response = complete(url, prompt="x", **fields)
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)
        assert complete(url, prompt="x", max_tokens=1).status_code == 200
        assert "lensmith_refusals_total{" in httpx.get(f"{url.removesuffix('/v1')}/metrics").text


@pytest.mark.parametrize(
    "fields",
    [
        lambda token_id: {"logit_bias": {str(token_id): 1}},
        lambda token_id: {"allowed_token_ids": [token_id]},
        lambda token_id: {"logprobs": 0, "logprob_token_ids": [token_id]},
    ],
)
def test_ids_that_may_not_be_named_do_not_tell_how_many_there_are(fields):
    """Where they may be named, they tell by what they do whether they exist; an error is then the better answer."""
    inside, outside = (fields(token_id) for token_id in (VOCABULARY - 1, VOCABULARY))
    with tiny_server(parse_exposure("no-logit-bias,no-wanted-ids,no-allowed-ids,no-metadata")) as (url, _):
        answers = [complete(url, prompt="x", max_tokens=1, **each) for each in (inside, outside)]
        assert [answer.status_code for answer in answers] == [400, 400]
        assert answers[0].content == answers[1].content
    with tiny_server(parse_exposure("everything,no-metadata")) as (url, _):
        answers = [complete(url, prompt="x", max_tokens=1, **each) for each in (inside, outside)]
        assert [answer.status_code for answer in answers] == [200, 400]
        assert "outside the vocabulary" in answers[1].json()["error"]["message"]
        assert str(VOCABULARY) not in answers[1].text


def test_a_masked_token_outside_the_cap_is_told_as_openai_does():
    with tiny_server(Exposure()) as (url, _):
        bias = {str(100): 100}
        shown = complete(url, prompt="x", max_tokens=1, logprobs=1, logit_bias=bias).json()["choices"][0]["logprobs"]
        assert shown["token_logprobs"] == [-9999.0]


# --- bad requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"prompt": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"prompt": "x", "temperature": 1e999}', 400),
        (b'{"prompt": "x", "max_tokens": 1.5}', 400),
        (b'{"prompt": "x", "seed": 1e400}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": [0, 99999999]}', 400),
        (b'{"prompt": "x", "model": "other"}', 404),
        (b'{"prompt": "' + b"long " * 50_000 + b'"}', 400),
        (b'{"prompt": "x", "max_tokens": 1000000, "n": 128, "logprobs": -1}', 400),
        (b'{"prompt": "x", "tools": [{}]}', 400),
        (b'{"prompt": "x", "repetition_penalty": 0}', 400),
        (b'{"prompt": "x", "presence_penalty": 2.5}', 400),
        (b'{"prompt": "x", "frequency_penalty": "1"}', 400),
    ],
)
def test_what_makes_no_sense_gets_an_error_as_openai_words_it(url, body, status):
    response = httpx.post(f"{url}/completions", content=body, timeout=60)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_unknown_paths_methods_and_models_say_which_there_are(url):
    for path in (f"{url}/nowhere", url.removesuffix("/v1") + "/chat/completions"):
        response = httpx.post(path, json={})
        assert response.status_code == 404
        assert "/v1/chat/completions" in response.json()["error"]["message"]
    response = httpx.get(f"{url}/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert "POST" in response.json()["error"]["message"]
    for response in (complete(url, prompt="x", model="gpt"), httpx.get(f"{url}/models/gpt")):
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (404, "model_not_found")
        assert "'gpt'" in error["message"]
        assert f"'{NAME}'" in error["message"]


def test_pictures_to_a_model_that_reads_none(url):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    remote = {"type": "image_url", "image_url": {"url": "http://nowhere.example/a.png"}}
    for each in (part, remote):  # it is no help to be told that the picture must come in another way
        error = chat(url, messages=[{"role": "user", "content": [each]}]).json()["error"]
        assert "no pictures" in error["message"]
        assert (error["code"], error["param"]) == ("refused:pictures", "messages")


def test_a_long_answer_ends_where_the_model_ends(url):
    body = complete(url, prompt="y" * 500, max_tokens=100, logit_bias={str(END_ID): -1000}).json()
    assert body["usage"]["completion_tokens"] == 12
    assert body["choices"][0]["finish_reason"] == "length"


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_key_is_needed_where_there_are_keys():
    with tiny_server(keys=["secret", "other"]) as (url, _):
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}, {"Authorization": ""}):
            response = httpx.get(f"{url}/models", headers=header)
            assert (response.status_code, response.json()["error"]["type"]) == (401, "authentication_error")
        assert httpx.post(f"{url}/completions", content=b"{").status_code == 401
        for key in ("secret", "other"):
            assert httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert httpx.get(f"{url.removesuffix('/v1')}/health").status_code == 200


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_says_what_it_says_plainly(url, coding):
    body = {"prompt": "hello", "max_tokens": 3, "temperature": 0}
    sent = CODINGS[coding](json.dumps(body).encode())
    answer = httpx.post(f"{url}/completions", content=sent, headers={"content-encoding": coding})
    assert answer.status_code == 200
    assert answer.json()["choices"] == complete(url, **body).json()["choices"]


def test_a_compressed_body_that_is_not_read_says_why():
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    with tiny_server(body_bytes=2000) as (url, _):
        for coding, sent, status, why in (
            ("br", body, 415, "gzip, deflate"),
            ("gzip, gzip", gzip.compress(gzip.compress(body)), 415, "gzip, deflate"),
            ("gzip", body, 400, "not gzip"),
            ("gzip", gzip.compress(body)[:-3], 400, "cut off"),
            ("gzip", gzip.compress(body) + b"more", 400, "more than one"),
            ("gzip", gzip.compress(json.dumps({"prompt": "x" * 2000}).encode()), 413, "expands"),
            ("deflate", zlib.compress(b" " * 100_000_000, 1)[:2001], 413, "2,000"),
        ):
            response = httpx.post(f"{url}/completions", content=sent, headers={"content-encoding": coding})
            error = response.json()["error"]
            assert (response.status_code, error["type"]) == (status, "invalid_request_error"), coding
            assert why in error["message"] + response.headers.get("accept-encoding", "")
        assert httpx.post(f"{url}/completions", content=body).status_code == 200


ORIGIN = "https://page.example"
ASKING = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,x-own"}


def test_a_page_may_ask_where_its_origin_is_allowed():
    with tiny_server(keys=["key"], origins=[ORIGIN]) as (url, _):
        path, headers = f"{url}/chat/completions", {"Origin": ORIGIN, "Authorization": "Bearer key"}
        before = httpx.options(path, headers={"Origin": ORIGIN, **ASKING})  # a browser asks it without a key
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in before.headers["access-control-allow-methods"]
        assert "x-own" in before.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in before.headers
        for response, status in (
            (httpx.get(f"{url}/models", headers=headers), 200),
            (httpx.post(path, headers=headers, content=b"{"), 400),
            (httpx.get(f"{url}/models", headers={"Origin": ORIGIN}), 401),
        ):
            assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, ORIGIN)
            assert "origin" in response.headers["vary"].lower()
        other = httpx.options(path, headers={"Origin": "https://other.example", **ASKING})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers
        answer = httpx.get(f"{url}/models", headers={**headers, "Origin": "https://other.example"})
        assert "access-control-allow-origin" not in answer.headers


def test_pages_may_not_ask_unless_an_operator_says_so(url):
    asked = httpx.options(f"{url}/chat/completions", headers={"Origin": ORIGIN, **ASKING})
    assert asked.status_code == 405
    answered = httpx.get(f"{url}/models", headers={"Origin": ORIGIN})
    assert not [name for response in (asked, answered) for name in response.headers if "access-control" in name]


def test_a_body_that_is_too_large():
    with tiny_server(body_bytes=1000) as (url, _):
        assert complete(url, prompt="x" * 2000).status_code == 413
        chunks = (b"x" * 100 for _ in range(50))  # no length is announced
        assert httpx.post(f"{url}/completions", content=chunks).status_code == 413
        assert complete(url, prompt="x", max_tokens=1).status_code == 200


def slow(engine, seconds=0.05):
    step = engine.decoder.step

    def slower():
        time.sleep(seconds)
        step()

    engine.decoder.step = slower


def test_a_full_queue_is_429_with_retry_after():
    with tiny_server(slots=1, waiting_requests=2) as (url, engine):
        slow(engine)
        fields = {"prompt": "x", "max_tokens": 12, "logit_bias": {str(END_ID): -1000}}
        waiting = [threading.Thread(target=complete, args=(url,), kwargs=fields) for _ in range(3)]
        for thread in waiting:
            thread.start()
        wait_until(lambda: engine.open_requests == 3)
        response = complete(url, prompt="x")
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        for thread in waiting:
            thread.join()
        assert complete(url, prompt="x", max_tokens=1).status_code == 200


def test_a_time_limit_ends_what_takes_too_long_and_frees_its_slot():
    with tiny_server(slots=1, timeout_s=0.5) as (url, engine):
        slow(engine)
        fields = {"prompt": "x", "max_tokens": 100, "logit_bias": {str(END_ID): -1000}}
        assert complete(url, **fields).status_code == 503
        streamed = complete(url, **fields, stream=True).text
        assert "longer than the server allows" in streamed
        assert "[DONE]" not in streamed
        wait_until(lambda: engine.decoder.is_idle)
        assert engine.open_requests == 0


@pytest.mark.parametrize("streaming", [True, False])
def test_a_client_that_goes_away_frees_its_slot(streaming):
    with tiny_server(slots=1) as (url, engine):
        slow(engine, 0.02)
        fields = {"prompt": "x", "max_tokens": 400, "logit_bias": {str(END_ID): -1000}, "stream": streaming}

        async def leave_early():
            async with httpx.AsyncClient() as client:
                asking = asyncio.create_task(client.post(f"{url}/completions", json=fields, timeout=60))
                await asyncio.to_thread(wait_until, lambda: engine.decoder.num_running)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

        asyncio.run(leave_early())
        wait_until(lambda: engine.open_requests == 0 and engine.decoder.is_idle, timeout_s=4)
        assert engine.decoder.generated_tokens < 300
        wait_until(lambda: "lensmith_disconnects_total 1.0" in httpx.get(f"{url.removesuffix('/v1')}/metrics").text)


def test_a_stop_finishes_what_was_accepted():
    answers = []
    with tiny_server(slots=2) as (url, engine):
        slow(engine, 0.02)
        fields = {"prompt": "x", "max_tokens": 30, "logit_bias": {str(END_ID): -1000}}
        asking = [threading.Thread(target=lambda: answers.append(complete(url, **fields))) for _ in range(4)]
        for thread in asking:
            thread.start()
        wait_until(lambda: engine.open_requests == 4)
    for thread in asking:
        thread.join()
    assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [30] * 4
    assert not engine.is_alive
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models")


def test_a_failure_of_the_model_is_told_and_the_next_request_answered():
    with tiny_server() as (url, engine):
        prefill, step = engine.decoder.prefill, engine.decoder.prefill.step
        prefill.step = lambda *_: 1 / 0
        response = complete(url, prompt="x", max_tokens=5)
        assert response.status_code == 500
        assert "division" not in response.text
        prefill.step = step
        assert complete(url, prompt="x", max_tokens=5).status_code == 200


# --- pictures -----------------------------------------------------------------------------------------------------


def png(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path == "/page.png"
        self.send_response(200 if found else 302)
        self.send_header("Location", "/page.png")
        self.end_headers()
        self.wfile.write(png() if found else b"")

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def picture_host():
    server = HTTPServer(("127.0.0.1", 0), _Pictures)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pictures_are_fetched_only_from_named_hosts(picture_host):
    def fetched(address, **limits):
        request = Request(messages=(Message(role="user", parts=("see", Picture(url=address))),))
        return asyncio.run(with_pictures(request, ServerLimits(**limits))).messages[0].parts

    hosts = {"picture_hosts": (picture_host,)}
    assert fetched(f"http://{picture_host}/page.png", **hosts) == ("see", Picture(data=png()))
    for address in (
        f"http://{picture_host}/elsewhere.png",  # a redirection is not followed
        f"http://user@other:80@{picture_host}.example/page.png",
        "http://169.254.169.254/page.png",
        "http://[broken/page.png",
    ):
        with pytest.raises(ImageError):
            fetched(address, **hosts)
    with pytest.raises(ImageError, match="not fetched"):
        fetched(f"http://{picture_host}/page.png")


def test_a_damaged_picture_is_a_bad_request_that_names_its_field():
    with sightseer_server() as url:
        for data in (b"not a picture", png()[:80]):
            address = "data:image/png;base64," + base64.b64encode(data).decode()
            part = {"type": "image_url", "image_url": {"url": address}}
            response = httpx.post(f"{url}/chat/completions", json={"messages": [{"role": "user", "content": [part]}]})
            assert response.status_code == 400, response.text
            assert response.json()["error"]["param"] == "messages"
