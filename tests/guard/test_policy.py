"""What a client may ask: fields that the guard does not know how to judge do not reach the server."""

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lensmith.core.errors import ConfigError
from lensmith.core.exposure import Exposure, Noise, PenaltyUse, Sampled, Taken, Together, parse_exposure
from lensmith.guard.config import OnRefusal, Paths, PatternConfig, TokenNaming, UnknownFields, UpstreamConfig
from lensmith.openai_api import FIELDS, GuardFate, Kind
from lensmith.openai_api.fields import Purpose
from lensmith.openai_api.requests import read_requests
from tests.support.guard_bed import (
    BASE,
    BIAS,
    CHAT,
    COMPLETION,
    MESSAGES,
    OPEN,
    PATH,
    PIXEL,
    READS,
    Recorder,
    ask,
    guard_before,
    send,
)

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


STEERS = {
    "logit_bias": {"5": 3},
    "allowed_token_ids": [5],
    "presence_penalty": 1,
    "frequency_penalty": 1,
    "repetition_penalty": 1.1,
}
"""What is read and steers, each with a value that does."""


def test_what_is_judged_and_steers_is_known_to_steer():
    """A guard judges these by the request alone: one that did not show there would pass beside logprobs."""
    judged = {name for name, field in FIELDS.items() if field.guard is GuardFate.JUDGED}
    assert STEERS.keys() == {name for name in judged if FIELDS[name].purpose is Purpose.STEERING}
    for name, value in STEERS.items():
        (wire,) = read_requests(Kind.CHAT, {**CHAT, name: value})
        assert wire.request.steers, name


def test_steering_fields_pass_where_nothing_is_read():
    fields = {"response_format": {"type": "json_object"}, "tools": [{"type": "function", "function": {"name": "f"}}]}
    fields |= {"tool_choice": "required", "presence_penalty": 0.5, "top_k": 40, "min_p": 0.1}
    reply, recorder = send({**CHAT, **fields}, replace(Exposure.text_only(), penalties=PenaltyUse.ALLOWED))
    assert reply.status == 200
    assert {name: recorder.bodies[0][name] for name in fields} == fields


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty", "repetition_penalty"])
def test_penalties_are_a_bias_unless_they_are_allowed(name):
    body = {**CHAT, name: 1.2}
    refused, recorder = send(body, Exposure.text_only())
    assert (refused.status, refused.body["error"]["code"]) == (400, f"refused:{name}")
    assert recorder.bodies == []
    stripped, recorder = send(body, Exposure.text_only(), on_refusal=OnRefusal.STRIP)
    assert (stripped.status, stripped.headers["lensmith-stripped"]) == (200, name)
    assert name not in recorder.bodies[0]
    _, recorder = send({**body, **READS}, Exposure(sampled_logprob=Sampled.SHOWN))
    assert recorder.bodies[0][name] == 1.2
    _, recorder = send({**body, **READS}, parse_exposure("no-logit-bias,penalties=allowed"), on_refusal=OnRefusal.STRIP)
    assert recorder.bodies[0][name] == 1.2
    assert "logprobs" not in recorder.bodies[0]


def test_where_the_ids_of_a_bias_are_counted_penalties_must_be_allowed_by_name():
    body, counted = {**CHAT, "presence_penalty": 1}, PatternConfig(bias_per_prompt=5)
    assert send(body, Exposure(), patterns=counted)[0].body["error"]["code"] == "refused:presence_penalty"
    assert send(body, Exposure(penalties=PenaltyUse.ALLOWED), patterns=counted)[0].status == 200
    assert send(body, Exposure())[0].status == 200


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


@pytest.mark.parametrize("unknown", UnknownFields)
def test_a_field_that_asks_for_nothing_is_dropped_whether_or_not_it_is_known(unknown):
    body = {**CHAT, "surprise": None, "chat_template": "", "skip_special_tokens": True, "mirostat": 0}
    reply, recorder = send(body, unknown_fields=unknown)
    assert (reply.status, recorder.bodies[0].keys()) == (200, {"model", "messages", "stream"})
    assert "lensmith-stripped" not in reply.headers


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
    guard = guard_before(recorder.app, OPEN, server=UpstreamConfig(url=BASE, key="sk-up"), keys={"sk-client": "ann"})
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
    _, recorder = send(
        {**CHAT, "logprobs": True}, Exposure(top_logprobs=20), server=UpstreamConfig(url=BASE, top_logprobs=20)
    )
    assert recorder.bodies[0]["top_logprobs"] == 20


# --- messages -------------------------------------------------------------------------------------------------------

CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


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


# --- refusals -------------------------------------------------------------------------------------------------------


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
    reply, recorder = send({**CHAT, **body}, exposure, server=UpstreamConfig(url=BASE, top_logprobs=50))
    assert (reply.status, reply.body["error"]["code"], recorder.bodies) == (400, code, [])
    reply, recorder = send(
        {**CHAT, **body}, exposure, on_refusal=OnRefusal.STRIP, server=UpstreamConfig(url=BASE, top_logprobs=50)
    )
    assert reply.status == 200
    assert recorder.bodies[0] == {**CHAT, "stream": False, **left}
    assert reply.headers["lensmith-stripped"]


def test_logprobs_taken_at_another_time_than_the_exposure_says_do_not_go_with_a_bias():
    both, taken = {**CHAT, **BIAS, **READS}, {"server": UpstreamConfig(url=BASE, logprobs_taken=Taken.AFTER_BIAS)}
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


# --- switches -------------------------------------------------------------------------------------------------------


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


def test_a_field_that_is_judged_on_the_other_route_only_counts_as_steering_where_it_is_passed_on():
    """vLLM's chats take `echo` too."""
    passed = {"pass_fields": ("echo",)}
    assert send({**CHAT, **READS, "echo": True}, Exposure(), **passed)[0].status == 400
    assert send({**CHAT, **READS, "echo": False}, Exposure(), **passed)[0].status == 200
    assert send({**CHAT, "echo": True}, Exposure(), **passed)[1].bodies[0]["echo"] is True


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
