"""What a client may ask: fields and bodies that the guard does not know how to judge do not reach the server."""

import asyncio
import gzip
import json
import time
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lensmith.core.errors import ConfigError
from lensmith.core.exposure import Exposure, Noise, Sampled, Taken, Together
from lensmith.guard.config import GuardConfig, OnRefusal, Paths, ResourceLimits, Timeouts, TokenNaming, UnknownFields
from lensmith.guard.proxy import Guard
from lensmith.openai_api import FIELDS, GuardFate
from tests.support.guard_bed import ask, guard_before, listening

PATH, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = {"model": "m", "messages": MESSAGES}
COMPLETION = {"model": "m", "prompt": "hello"}
OPEN = Exposure.everything()
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Recorder:
    """An upstream that answers everything and keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.app = Starlette(routes=[Route("/v1/{path:path}", self.answer, methods=["POST", "GET"])])

    async def answer(self, request: Request) -> Response:
        self.bodies.append(json.loads(await request.body() or b"{}"))
        self.headers.append(dict(request.headers))
        count = len(self.bodies[-1].get("prompt", "x")) if isinstance(self.bodies[-1].get("prompt"), list) else 1
        choice = {"message": {"content": "hi"}, "text": "hi", "finish_reason": "stop"}
        return JSONResponse({"choices": [{"index": i, **choice} for i in range(count)]})


def send(body: Any, exposure: Exposure = OPEN, *, path: str = "", **config: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    guard = guard_before(recorder.app, exposure, **config)
    is_completion = isinstance(body, dict) and "prompt" in body
    reply = asyncio.run(ask(guard.app(), path or (COMPLETIONS if is_completion else PATH), body))
    return reply, recorder


# --- paths and methods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    "/ /v1 /v1/embeddings /embeddings /tokenize /detokenize /props /slots /server_info /get_server_info /model_info "
    "/get_model_info /completion /completions /generate /v1/responses /v1/chat/completions/ /v1//completions "
    "/v1/../completion /v1/completions%2f.. /infill /rerank /docs /openapi.json /version /reset".split(),
)
def test_other_paths_are_not_there(path):
    for body in (None, CHAT):
        reply, recorder = send(body, path=path)
        assert reply.status == 404
        assert recorder.bodies == []


def test_one_model_is_told_as_in_the_list():
    """OpenAI's client asks for it by name; nothing but the list is asked of the server."""
    asked = []

    async def models(request: Request) -> Response:
        asked.append(request.url.path)
        return JSONResponse({"object": "list", "data": [{"id": "org/m", "n_embd": 8}, {"id": "other"}]})

    guard = guard_before(Starlette(routes=[Route("/{path:path}", models)]), Exposure(metadata=False))
    found = asyncio.run(ask(guard.app(), "/v1/models/org/m", None))
    assert (found.status, found.body["object"], "n_embd" in found.body) == (200, "model", False)
    for name in ("m", "", "org%2fx"):
        missing = asyncio.run(ask(guard.app(), f"/v1/models/{name}", None))
        assert (missing.status, missing.body["error"]["code"]) == (404, "model_not_found")
    assert set(asked) == {"/v1/models"}


def test_another_method_is_refused():
    reply, _ = send(None, path=PATH)
    assert reply.status == 405
    assert reply.body["error"]["type"] == "invalid_request_error"


# --- fields -------------------------------------------------------------------------------------------------------


KEPT_OUT = sorted(name for name, field in FIELDS.items() if field.guard in (GuardFate.WITHHELD, GuardFate.SENT))


@pytest.mark.parametrize("name", KEPT_OUT)
def test_read_outs_of_other_servers_never_reach_the_server_with_logprobs(name):
    steers = {"presence_penalty": 1, "frequency_penalty": 1, "top_k": 5, "min_p": 0.5, "tools": [{"type": "function"}]}
    steers |= {"response_format": {"type": "json_object"}, "repetition_penalty": 1.1, "tool_choice": "required"}
    steers |= {"parallel_tool_calls": True}
    body = {**CHAT, "logprobs": True, name: steers.get(name, [1])}
    exposure = Exposure()
    rejected, recorder = send(body, exposure)
    assert rejected.status == 400
    assert recorder.bodies == []
    stripped, recorder = send(body, exposure, on_refusal=OnRefusal.STRIP)
    assert stripped.status == 200
    gone = "logprobs" if name in steers else name
    assert gone not in recorder.bodies[0]
    assert stripped.headers["lensmith-stripped"] == gone


def test_steering_fields_pass_where_nothing_is_read():
    fields = {"response_format": {"type": "json_object"}, "tools": [{"type": "function", "function": {"name": "f"}}]}
    fields |= {"tool_choice": "required", "presence_penalty": 0.5, "top_k": 40, "min_p": 0.1}
    reply, recorder = send({**CHAT, **fields}, Exposure.text_only())
    assert reply.status == 200
    assert {name: recorder.bodies[0][name] for name in fields} == fields


def test_switched_off_read_outs_do_no_harm():
    reply, recorder = send({**CHAT, "prompt_logprobs": None, "best_of": 1, "return_token_ids": False, "n_probs": 0})
    assert reply.status == 200
    assert recorder.bodies[0].keys() == {"model", "messages", "stream"}


@pytest.mark.parametrize(
    ("told", "listed", "name"),
    [
        ("m", ["m"], "m"),
        ("/srv/secret.gguf", ["m"], "m"),
        (None, ["m"], "m"),
        ("b", ["a", "b"], "b"),
        ("/srv/secret.gguf", ["a", "b"], ""),
        ("m", None, ""),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_to_a_request_without_a_model_names_one_that_is_listed(told, listed, name, is_stream):
    choice = {"index": 0, "message": {"content": "hi"}, "delta": {"content": "hi"}, "finish_reason": "stop"}
    body = {"choices": [choice], "model": told}

    async def answer(request: Request) -> Response:
        if request.method == "GET":
            found = {"data": [{"id": each} for each in listed]} if listed is not None else {}
            return JSONResponse(found, 200 if found else 404)
        if is_stream:
            content = b"data: " + json.dumps(body).encode() + b"\n\ndata: [DONE]\n\n"
            return Response(content, media_type="text/event-stream")
        return JSONResponse(body)

    guard = guard_before(Starlette(routes=[Route("/v1/{path:path}", answer, methods=["POST", "GET"])]), OPEN)
    reply = asyncio.run(ask(guard.app(), PATH, {"messages": MESSAGES, "stream": is_stream}))
    shown = reply.body[0] if is_stream else reply.body
    assert (reply.status, shown["model"]) == (200, name)


def test_unknown_fields_are_stripped_or_refused():
    body = {**CHAT, "surprise": 1, "Logprobs": True, "TOP_LOGPROBS": 5, "x\r\ny": 1}
    reply, recorder = send(body)
    assert recorder.bodies[0].keys() == {"model", "messages", "stream"}
    assert reply.headers["lensmith-stripped"] == "surprise, Logprobs, TOP_LOGPROBS"
    reply, recorder = send(body, unknown_fields=UnknownFields.REFUSE)
    assert (reply.status, reply.body["error"]["param"], recorder.bodies) == (400, "surprise", [])
    reply, recorder = send({**CHAT, "surprise": {"a": 1}}, pass_fields=("surprise",))
    assert recorder.bodies[0]["surprise"] == {"a": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"logprobs": 1},
        {"logprobs": "true"},
        {"logprobs": True, "top_logprobs": 1.5},
        {"logprobs": True, "top_logprobs": "5"},
        {"logprobs": True, "top_logprobs": True},
        {"top_logprobs": 5},
        {"logit_bias": [[1, 5]]},
        {"logit_bias": {"a": 5}},
        {"logit_bias": {"1": "5"}},
        {"logit_bias": {"1": 5, "01": 6}},
        {"logit_bias": {" 1": 5}},
        {"logit_bias": {"\u0661": 5}},
        {"logit_bias": {"-1": 5}},
        {"n": 0},
        {"n": 1.5},
        {"stream": 1},
        {"stream": "true"},
        {"stream_options": {"include_usage": True}},
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"temperature": -1},
        {"stop": [""]},
        {"model": 5},
        {"messages": []},
        {"messages": "hello"},
        {"messages": [5]},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": {"text": "x"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": 5}}]}]},
        {"tools": "all"},
        {"tools": [5]},
        {"presence_penalty": 5},
        {"presence_penalty": True},
        {"response_format": "json"},
    ],
)
def test_wrong_types_and_ranges_are_refused(change):
    reply, recorder = send({**CHAT, **change}, on_refusal=OnRefusal.STRIP)
    assert reply.status == 400
    assert reply.body["error"]["type"] == "invalid_request_error"
    assert recorder.bodies == []


def test_messages_are_written_anew():
    messages = [
        {"role": "system", "content": "be brief", "surprise": 1},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "é", "x": 1}, {"type": "image_url",
         "image_url": {"url": PIXEL, "detail": "low", "x": 1}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "x", "function": {"name": "f",
         "arguments": "{}"}, "x": 1}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]  # fmt: skip
    _, recorder = send({**CHAT, "messages": messages})
    sent = json.dumps(recorder.bodies[0]["messages"], ensure_ascii=False)
    assert "surprise" not in sent
    assert '"x"' not in sent
    assert recorder.bodies[0]["messages"][1]["content"][1] == {
        "type": "image_url",
        "image_url": {"url": PIXEL, "detail": "low"},
    }
    assert recorder.bodies[0]["messages"][2]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    refused, _ = send({**CHAT, "messages": messages}, unknown_fields=UnknownFields.REFUSE)
    assert refused.status == 400


def test_what_goes_upstream_is_canonical_and_carries_the_guards_key_only():
    body = {**CHAT, "logit_bias": {"1": 5}, "user": "u", "max_completion_tokens": 7, "stream_options": {}, "seed": None}
    body |= {"n": 1.0, "logprobs": True, "top_logprobs": 2.0}
    recorder = Recorder()
    guard = guard_before(recorder.app, OPEN, upstream_key="sk-up", keys={"sk-client": "ann"})
    headers = {"authorization": "Bearer sk-client", "x-forwarded-for": "1.2.3.4", "cookie": "a=b"}
    reply = asyncio.run(ask(guard.app(), PATH, body, headers=headers))
    assert reply.status == 200
    assert recorder.bodies[0] == {
        **CHAT,
        "logit_bias": {"1": 5.0},
        "max_completion_tokens": 7,
        "stream": False,
        "n": 1,
        "logprobs": True,
        "top_logprobs": 3,
    }
    assert isinstance(recorder.bodies[0]["n"], int)
    sent = recorder.headers[0]
    assert sent["authorization"] == "Bearer sk-up"
    assert sent["accept-encoding"] == "identity"
    assert sent.keys().isdisjoint({"cookie", "x-forwarded-for"})


@given(top=st.integers(0, 6), cap=st.none() | st.integers(0, 6), sampled=st.sampled_from(Sampled))
def test_the_server_is_asked_for_as_many_top_logprobs_as_masking_needs(top, cap, sampled):
    exposure = Exposure(top_logprobs=cap, sampled_logprob=sampled)
    reply, recorder = send({**CHAT, "logprobs": True, "top_logprobs": top}, exposure)
    if reply.status == 200:
        asked = recorder.bodies[0]["top_logprobs"]
        masks = sampled is not Sampled.SHOWN and cap is not None
        assert asked >= top
        assert not masks or asked > top
        assert not (masks and sampled is Sampled.MASKED) or asked == cap + 1
    else:
        assert (cap is not None and top > cap) or (sampled is Sampled.HIDDEN and not top)


def test_no_more_is_asked_than_the_server_tells():
    _, recorder = send({**CHAT, "logprobs": True}, Exposure(top_logprobs=20), upstream_top_logprobs=20)
    assert recorder.bodies[0]["top_logprobs"] == 20


# --- refusals -----------------------------------------------------------------------------------------------------

BIAS = {"logit_bias": {"5": 9}}
READS = {"logprobs": True, "top_logprobs": 3}


@pytest.mark.parametrize(
    ("exposure", "body", "code", "left"),
    [
        (Exposure(logit_bias=0), BIAS, "refused:logit_bias", {}),
        (Exposure(logit_bias=8), BIAS, "refused:logit_bias", {}),
        (Exposure(biased_ids=0), BIAS, "refused:logit_bias", {}),
        (Exposure(top_logprobs=2), READS, "refused:top_logprobs", {"logprobs": True, "top_logprobs": 3}),
        (Exposure(top_logprobs=0), READS, "refused:top_logprobs", {"logprobs": True, "top_logprobs": 1}),
        (Exposure.text_only(), READS, "refused:top_logprobs", {}),
        (Exposure(), {"logprobs": True, "top_logprobs": -1}, "refused:vocabulary_logprobs",
         {"logprobs": True, "top_logprobs": 21}),
        (Exposure(), {**READS, "logprob_token_ids": [1]}, "refused:wanted_ids", {"logprobs": True, "top_logprobs": 21}),
        (Exposure(), {"allowed_token_ids": [1]}, "refused:allowed_ids", {}),
        (Exposure(bias_with_logprobs=Together.REFUSED), {**BIAS, **READS}, "refused:logit_bias+allowed_ids", BIAS),
        (Exposure(sampled_logprob=Sampled.HIDDEN), {"logprobs": True}, "refused:sampled_logprob", {}),
        (Exposure(), {**READS, "tools": [{"type": "function"}]}, "refused:allowed_ids+sampled_logprob",
         {"tools": [{"type": "function"}]}),
    ],
)  # fmt: skip
def test_refused_or_stripped(exposure, body, code, left):
    reply, recorder = send({**CHAT, **body}, exposure, upstream_top_logprobs=50)
    assert (reply.status, reply.body["error"]["code"], recorder.bodies) == (400, code, [])
    reply, recorder = send({**CHAT, **body}, exposure, on_refusal=OnRefusal.STRIP, upstream_top_logprobs=50)
    assert reply.status == 200
    assert recorder.bodies[0] == {**CHAT, "stream": False, **left}
    assert reply.headers["lensmith-stripped"]


def test_logprobs_taken_at_another_time_than_the_exposure_says_do_not_go_with_a_bias():
    both, taken = {**CHAT, **BIAS, **READS}, {"upstream_taken": Taken.AFTER_BIAS}
    assert send(both, Exposure(), **taken)[0].status == 400
    assert send({**CHAT, **READS}, Exposure(), **taken)[0].status == 200
    assert send(both, Exposure(logprobs_taken=Taken.AFTER_BIAS), **taken)[0].status == 200
    assert send({**CHAT, **READS, "top_k": 5}, OPEN, **taken)[0].status == 400


def test_frozen_noise_is_had_under_one_name_only():
    exposure = Exposure(noise_nats=0.1, noise=Noise.FROZEN)
    by_id = {**CHAT, **READS, "return_tokens_as_token_ids": True}
    assert send(by_id, exposure)[0].status == 400
    assert (
        send(by_id, exposure, on_refusal=OnRefusal.STRIP)[1]
        .bodies[0]
        .keys()
        .isdisjoint(by_id.keys() - READS.keys() - CHAT.keys())
    )
    assert send(by_id, Exposure(noise_nats=0.1))[0].status == 200
    assert send({**CHAT, **READS}, exposure, token_naming=TokenNaming.IDS)[1].bodies[0]["return_tokens_as_token_ids"]


PARTS = [{"type": "text", "text": " b "}, {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]


def picture(kind: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": PIXEL.replace("png", kind)}}


@pytest.mark.parametrize(
    ("variants", "sent"),
    [
        (
            [
                {"role": "user", "content": "hello"},
                {"role": "user", "content": " hello\n"},
                {"role": "user", "content": "hello", "name": "ann"},
                {"role": "user", "content": [{"type": "text", "text": "hello\t"}]},
            ],
            {"role": "user", "content": "hello"},
        ),
        (
            [{"role": "user", "content": PARTS}, {"role": "user", "content": PARTS, "name": "bob"}],
            {"role": "user", "content": [{"type": "text", "text": "b "}, {**PARTS[1], "image_url": {"url": PIXEL}}]},
        ),
        (
            [{"role": "user", "content": [picture(kind)]} for kind in ("png", "x1", "X2")],
            {"role": "user", "content": [picture("png")]},
        ),
        (
            [{"role": role, "content": text} for role in ("system", "developer") for text in ("\u00e9", "e\u0301")],
            {"role": "system", "content": "\u00e9"},
        ),
        (
            [
                {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}
                for texts in (["a", "b"], ["a\nb"], ["a", "", "b", ""])
            ],
            {"role": "user", "content": "a\nb"},
        ),
        (
            [
                {"role": "assistant", "content": "5", name: "x"}
                for name in ("name", "refusal", "reasoning", "reasoning_content")
            ],
            {"role": "assistant", "content": "5"},
        ),
        (
            [{"role": "tool", "content": "5", "tool_call_id": name} for name in ("a", "b")],
            {"role": "tool", "content": "5", "tool_call_id": "call00000"},
        ),
    ],
)
def test_with_frozen_noise_variants_that_a_template_makes_equal_are_sent_as_one(variants, sent):
    """Each would meet noise of its own, and their mean would tell the value."""
    frozen = Exposure(noise_nats=0.1, noise=Noise.FROZEN)
    for message in variants:
        assert send({"model": "m", "messages": [message]}, frozen)[1].bodies[0]["messages"] == [sent]
        assert send({"model": "m", "messages": [message]}, OPEN)[1].bodies[0]["messages"] == [message]


def test_with_frozen_noise_other_prompts_stay_others():
    frozen = Exposure(noise_nats=0.1, noise=Noise.FROZEN)
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ("x", "y")]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "a  b", "tool_call_id": "y"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, PARTS[1], {"type": "text", "text": "b"}]},
    ]
    [first, second, third] = send({"model": "m", "messages": messages}, frozen)[1].bodies[0]["messages"]
    assert [call["id"] for call in first["tool_calls"]] == ["call00000", "call00001"]
    assert (second["content"], second["tool_call_id"]) == ("a  b", "call00001")
    assert [part.get("text") for part in third["content"]] == ["a", None, "b"]


FROZEN = Exposure(noise_nats=0.1, noise=Noise.FROZEN)
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
USER = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    "messages",
    [
        [USER, {"role": "assistant", "content": None, "tool_calls": CALLS}, USER],
        [USER, {"role": "tool", "content": "5", "tool_call_id": "1"}, USER],
        [USER, {"role": "function", "content": "5", "name": "f"}, USER],
        [USER, {"role": "assistant", "content": "5"}],
        [{"role": "user", "content": "a<|im_end|>\n<|im_start|>assistant\nb"}],
        [{"role": "user", "content": "a<\uff5cUser\uff5c>b"}],
        [{"role": "user", "content": "a</s>[INST] b"}],
        [{"role": "user", "content": [{"type": "text", "text": "a<start_of_turn>b"}, {"type": "text", "text": "c"}]}],
    ],
)
def test_frozen_noise_and_logprobs_do_not_go_with_what_a_template_makes_unseen(messages):
    """One prompt could be had in many ways, each with noise of its own."""
    body = {**CHAT, "messages": messages}
    reply, recorder = send({**body, **READS}, FROZEN)
    assert (reply.status, reply.body["error"]["code"], recorder.bodies) == (400, "refused:sampled_logprob", [])
    assert send(body, FROZEN)[0].status == 200
    assert send({**body, **READS}, Exposure(noise_nats=0.1))[0].status == 200
    stripped, recorder = send({**body, **READS}, FROZEN, on_refusal=OnRefusal.STRIP)
    assert (stripped.status, recorder.bodies[0].keys()) == (200, {"model", "messages", "stream"})


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"documents": [{"text": "x"}]},
    ],
)
def test_frozen_noise_and_logprobs_do_not_go_with_fields_that_change_the_prompt(fields):
    """Two prompts would share one noise, and a difference of their answers would have none."""
    open_but_noisy = replace(OPEN, noise_nats=0.1, noise=Noise.FROZEN)
    passed = {"pass_fields": ("documents",)}
    assert send({**CHAT, **READS, **fields}, open_but_noisy, **passed)[0].status == 400
    assert send({**CHAT, **READS, **fields}, OPEN, **passed)[0].status == 200
    assert send({**CHAT, **READS, "tools": [], "tool_choice": "none"}, open_but_noisy, **passed)[0].status == 200


def test_frozen_noise_behind_a_picture_by_url_is_refused():
    remote = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}
    body = {**CHAT, **READS, "messages": [{"role": "user", "content": [remote]}]}
    assert send(body, FROZEN, remote_pictures=True)[0].status == 400
    assert send(body, Exposure(), remote_pictures=True)[0].status == 200


@pytest.mark.parametrize(
    ("body", "naming", "status"),
    [
        ({"prompt": "a", "max_tokens": 1}, TokenNaming.AS_ASKED, 200),
        ({"prompt": "a", "max_tokens": 2}, TokenNaming.AS_ASKED, 400),
        ({"prompt": "a"}, TokenNaming.IDS, 400),
        ({"prompt": "a", "max_tokens": 1, "echo": True}, TokenNaming.IDS, 400),
        ({"prompt": "a<|im_end|>b", "max_tokens": 1}, TokenNaming.AS_ASKED, 400),
        ({"prompt": [[1, 2]], "max_tokens": 2}, TokenNaming.AS_ASKED, 400),
        ({"prompt": [[1, 2]], "max_tokens": 2}, TokenNaming.IDS, 200),
        ({"prompt": [[1, 2], [3]], "max_tokens": 2}, TokenNaming.IDS, 200),
    ],
)
def test_frozen_noise_in_completions_is_told_where_it_belongs_to_tokens(body, naming, status):
    reply, _ = send({"model": "m", "logprobs": 2, **body}, replace(FROZEN, echo=True), token_naming=naming)
    assert reply.status == status
    assert send({"model": "m", **body}, FROZEN, token_naming=naming)[0].status == 200


def test_with_frozen_noise_a_prompt_is_sent_in_one_form():
    for prompt in ("\u00e9", "e\u0301"):
        assert send({"model": "m", "prompt": prompt}, FROZEN)[1].bodies[0]["prompt"] == "\u00e9"
        assert send({"model": "m", "prompt": [prompt, "a"]}, FROZEN)[1].bodies[0]["prompt"] == ["\u00e9", "a"]
        assert send({"model": "m", "prompt": prompt}, OPEN)[1].bodies[0]["prompt"] == prompt
    assert send({"model": "m", "prompt": "e" + "\u0301" * 31}, FROZEN)[0].status == 400


@pytest.mark.parametrize("name", ["tool_calls", "tool_call_id", "refusal", "reasoning_content", "reasoning"])
@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_fields_of_messages_pass_where_templates_read_them(name, role):
    """Where they do not, a client could vary them without changing what the model sees."""
    message = {"role": role, "content": "x", name: CALLS if name == "tool_calls" else "y"}
    is_read = role == ("tool" if name == "tool_call_id" else "assistant")
    _, recorder = send({"model": "m", "messages": [message]})
    assert (name in recorder.bodies[0]["messages"][0]) == is_read
    reply, _ = send({"model": "m", "messages": [message]}, unknown_fields=UnknownFields.REFUSE)
    assert reply.status == (200 if is_read else 400)
    absent = {"role": role, "content": "x", name: None}
    assert send({"model": "m", "messages": [absent]}, unknown_fields=UnknownFields.REFUSE)[0].status == 200


# --- switches -----------------------------------------------------------------------------------------------------


def test_refused_fields_do_not_pass():
    body = {**CHAT, "response_format": {"type": "json_object"}, "min_p": 0.1}
    closed = {"refuse_fields": ("response_format", "min_p", "temperature")}
    reply, recorder = send(body, Exposure.text_only(), **closed)
    assert (reply.status, reply.body["error"]["param"], recorder.bodies) == (400, "response_format", [])
    reply, recorder = send(body, Exposure.text_only(), on_refusal=OnRefusal.STRIP, **closed)
    assert recorder.bodies[0].keys() == {"model", "messages", "stream"}
    assert reply.headers["lensmith-stripped"] == "response_format, min_p"
    assert send({**CHAT, "temperature": 1}, OPEN, **closed)[0].status == 400
    off = {**CHAT, "response_format": {"type": "text"}, "min_p": 0, "temperature": None}
    assert send(off, OPEN, **closed)[0].status == 200


def test_a_field_to_refuse_that_nobody_knows_is_named():
    with pytest.raises(ConfigError, match="did you mean 'response_format'"):
        send(CHAT, refuse_fields=("reponse_format",))
    with pytest.raises(ConfigError):
        send(CHAT, refuse_fields=("min_p",), pass_fields=("min_p",))


@pytest.mark.parametrize(
    ("paths", "expected"),
    [(Paths.ALL, (200, 200)), (Paths.CHAT, (200, 404)), (Paths.COMPLETIONS, (404, 200))],
)
def test_a_path_can_be_closed(paths, expected):
    assert tuple(send(body, paths=paths)[0].status for body in (CHAT, COMPLETION)) == expected


def test_a_read_out_that_is_passed_on_counts_as_steering():
    body, passed = {**CHAT, "guided_json": {"enum": ["a"]}}, {"pass_fields": ("guided_json", "priority")}
    assert send({**body, **READS}, Exposure(), **passed)[0].status == 400
    assert send({**body, **READS}, OPEN, **passed)[0].status == 200
    assert send(body, Exposure(), **passed)[1].bodies[0]["guided_json"] == {"enum": ["a"]}
    assert send({**CHAT, **READS, "priority": 1}, Exposure(), **passed)[0].status == 200


@pytest.mark.parametrize("field", [{"ebnf": 'root ::= "a"'}, {"xtc_probability": 0.5}, {"min_new_tokens": 3}])
def test_whatever_moves_tokens_counts_as_steering_where_it_is_passed_on(field):
    passed = {"pass_fields": tuple(field)}
    assert send({**CHAT, **READS, **field}, Exposure(), **passed)[0].status == 400
    assert send({**CHAT, **READS, **field}, OPEN, **passed)[0].status == 200
    assert send({**CHAT, **field}, Exposure(), **passed)[0].status == 200


@pytest.mark.parametrize(
    ("field", "most"),
    [
        ({"stop": [str(number) for number in range(12)]}, None),
        ({"temperature": 5.0}, None),
        ({"max_tokens": 2**31 - 1}, None),
        ({"n": 200}, ({"n": 4097},)),
    ],
)
def test_limits_that_protect_nothing_belong_to_the_server(field, most):
    for body in (CHAT, COMPLETION):
        _, recorder = send({**body, **field})
        ((name, value),) = field.items()
        assert recorder.bodies[0][name] == value
        for beyond in most or ():
            reply, recorder = send({**body, **beyond})
            assert (reply.status, reply.body["error"]["param"], recorder.bodies) == (400, name, [])


def test_a_batch_may_be_long_and_all_choices_together_are_bounded():
    reply, recorder = send({"model": "m", "prompt": ["hello"] * 300})
    assert (reply.status, len(recorder.bodies[0]["prompt"])) == (200, 300)
    for body in ({"prompt": ["hello"] * 4097}, {"prompt": ["hello"] * 2049, "n": 2}):
        reply, recorder = send({"model": "m", **body})
        assert (reply.status, recorder.bodies) == (400, [])


# --- bodies -------------------------------------------------------------------------------------------------------

GOOD = json.dumps(CHAT).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        GOOD + b"{}",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.replace(b"hello", b"\xff"),
        GOOD.replace(b"hello", b"\\ud800"),
        GOOD[:-1] + b', "model": "n"}',
        GOOD.replace(b'"content"', b'"content": "y", "content"'),
        GOOD[:-1] + b', "logit_bias": {"1": 1, "1": 2}}',
        GOOD[:-1] + b', "temperature": NaN}',
        GOOD[:-1] + b', "temperature": Infinity}',
        GOOD[:-1] + b', "temperature": 1e999}',
        GOOD[:-1] + b', "seed": 99999999999999999999}',
        GOOD[:-1] + b', "seed": ' + b"9" * 5000 + b"}",
        GOOD[:-1] + b', "tools": ' + b"[" * 50 + b"]" * 50 + b"}",
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        GOOD.replace(b'"', b"'"),
        GOOD[:-1] + b",}",
        GOOD + b"\x00",
    ],
)
def test_bodies_with_no_or_two_readings_are_refused(body):
    reply, recorder = send(body)
    assert reply.status == 400
    assert recorder.bodies == []


@pytest.mark.parametrize("value", [b"0", b"{}", b'""', b"[]", b'{"":0}', b"1e1", b"null", b'[{"a":[0]}]'])
def test_a_body_of_many_small_values_is_refused_before_it_is_read(value):
    body = GOOD[:-1] + b', "x": [' + b",".join([value] * 1_000_000) + b"]}"
    start = time.process_time()
    reply, recorder = send(body, limits=ResourceLimits(body_bytes=1 << 30))
    assert time.process_time() - start < 1.5  # to parse one takes three times as long and more
    assert (reply.status, recorder.bodies) == (400, [])
    assert "too many values" in reply.body["error"]["message"]


def test_text_is_one_value_whatever_stands_in_it():
    text = '[{,"\\,' * 100_000 + "\\"
    body = {**CHAT, "messages": [{"role": "user", "content": text}]}
    reply, recorder = send(body, limits=ResourceLimits(body_values=100))
    assert (reply.status, recorder.bodies[0]["messages"][0]["content"]) == (200, text)
    assert send({**body, "stop": ["x"] * 200}, limits=ResourceLimits(body_values=100))[0].status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "application/json, text/plain"}, 415),
        ({"content-type": "application/json; charset=UTF-8"}, 200),
        ({"content-encoding": "br"}, 415),
        ({"content-encoding": "gzip, gzip"}, 415),
        ({"content-encoding": "gzip"}, 400),
        ({"content-encoding": "identity"}, 200),
    ],
)
def test_other_types_and_encodings_are_refused(headers, status):
    reply, recorder = send_with(headers)
    assert reply.status == status
    assert bool(recorder.bodies) == (status == 200)


def send_with(headers: dict[str, str], body: bytes = GOOD, **config: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    return asyncio.run(ask(guard_before(recorder.app, OPEN, **config).app(), PATH, body, headers=headers)), recorder


@pytest.mark.parametrize(("coding", "write"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_read_as_what_it_expands_to(coding, write):
    """Some clients compress large pictures."""
    headers = {"content-encoding": coding}
    reply, recorder = send_with(headers, write(GOOD))
    assert (reply.status, recorder.bodies) == (200, [{**CHAT, "stream": False}])
    assert "content-encoding" not in recorder.headers[0]
    reply, recorder = send_with(headers, write(GOOD)[:-1])
    assert (reply.status, reply.body["error"]["code"], recorder.bodies) == (400, "content_encoding", [])


def test_the_limit_on_a_body_is_on_what_it_expands_to():
    padded = GOOD[:-1] + b" " * 100_000 + b"}"
    small = gzip.compress(padded)
    assert len(small) < 1000
    for most, status in ((len(padded), 200), (len(padded) - 1, 413)):
        reply, recorder = send_with({"content-encoding": "gzip"}, small, limits=ResourceLimits(body_bytes=most))
        assert (reply.status, len(recorder.bodies)) == (status, int(status == 200))
    assert reply.body["error"]["code"] == "body_too_large"


def test_another_coding_is_answered_with_those_that_are_read():
    reply, _ = send_with({"content-encoding": "br"})
    assert reply.headers["accept-encoding"] == "gzip, deflate"


def raw(request: bytes, **config: Any) -> tuple[bytes, Recorder]:
    """Sends bytes to a guard that listens, and reads until it closes."""
    recorder = Recorder()

    async def talk(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(65536), 20)
        writer.close()
        return answer

    with listening(recorder.app) as upstream:
        guard = Guard(GuardConfig(upstream=f"{upstream}/v1", **config))
        with listening(guard.app()) as address:
            return asyncio.run(talk(int(address.rpartition(":")[2]))), recorder


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD), b"411"),
        (HEAD + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + GOOD, b"400"),
        (HEAD + b"Content-Length: +5\r\n\r\n" + GOOD, b"400"),
        (HEAD + b"Content-Length: 2000000\r\n\r\n", b"413"),
        (HEAD + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", b"415"),
        (HEAD + b"\r\n", b"411"),
        (HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(GOOD) + 5, GOOD), b"408"),
        (HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00", b"400"),
    ],
)
def test_requests_that_two_servers_could_read_differently_are_refused(request_bytes, status):
    answer, recorder = raw(request_bytes, limits=ResourceLimits(body_bytes=1_000_000), timeouts=Timeouts(body_s=0.5))
    assert answer.split()[1] == status
    assert recorder.bodies == []


def test_only_known_keys_may_ask_and_nobody_else_reads_the_metrics():
    recorder = Recorder()
    guard = guard_before(recorder.app, OPEN, keys={"sk-a": "ann"}, metrics_key="sk-m")

    async def run(path: str, body: Any, key: str | None) -> int:
        headers = {} if key is None else {"authorization": key}
        return (await ask(guard.app(), path, body, headers=headers)).status

    for key in (None, "", "Bearer", "Bearer sk-b", "sk-a", "Basic sk-a", "Bearer sk-m"):
        assert asyncio.run(run(PATH, CHAT, key)) == 401
        assert asyncio.run(run("/v1/models", None, key)) == 401
    assert recorder.bodies == []
    assert asyncio.run(run(PATH, CHAT, "Bearer sk-a")) == 200
    assert asyncio.run(run("/metrics", None, "Bearer sk-a")) == 404
    assert asyncio.run(run("/metrics", None, "Bearer sk-m")) == 200
    assert asyncio.run(run("/health", None, None)) == 200


def test_metrics_tell_what_was_refused_and_name_no_key():
    guard = guard_before(Recorder().app, Exposure(), keys={"sk-a": "ann"})

    async def run() -> str:
        app, headers = guard.app(), {"authorization": "Bearer sk-a"}
        await ask(app, PATH, {**CHAT, **READS, "prompt_logprobs": 1}, headers=headers)
        await ask(app, PATH, {**CHAT, "logit_bias": {"1": 1000}}, headers=headers)
        await ask(app, PATH, {**CHAT, "surprise": 1}, headers=headers)
        return (await ask(app, "/metrics", None)).body

    text = asyncio.run(run())
    assert 'lensmith_guard_refused_total{reason="refused:logit_bias"} 1' in text
    assert 'lensmith_guard_refused_total{reason="invalid_value"} 1' in text
    assert 'lensmith_guard_stripped_total{field="other"} 1' in text
    assert 'lensmith_guard_requests_total{path="chat/completions",status="200"} 1' in text
    assert "ann" not in text.replace("cannot", "")
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ", "lensmith_guard_"))
