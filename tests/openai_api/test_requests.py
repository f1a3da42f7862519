"""The server's side inwards: what a body asks, and which field is named where it makes no sense."""

import base64
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.exposure import Exposure, Sampled, check
from lensmith.core.types import Message, Picture
from lensmith.openai_api import (
    FIELDS,
    Kind,
    ServerFate,
    WireError,
    WireRequest,
    read_requests,
    visible_request,
    write_error,
)
from tests.support.api import read_one

HELLO = [{"role": "user", "content": "hello"}]


def test_a_full_chat_request():
    body = {
        "model": "m",
        "messages": [{"role": "developer", "content": "short"}, *HELLO],
        "max_completion_tokens": 7,
        "temperature": 0,
        "top_p": 0.5,
        "n": 2,
        "seed": 9,
        "stop": "end",
        "logit_bias": {"5": -100, "6": 0.5},
        "logprobs": True,
        "top_logprobs": 3,
        "logprob_token_ids": [8, 2],
        "allowed_token_ids": [5, 8],
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
        "user": "someone",
        "metadata": {"unknown": "fields are ignored"},
    }
    request = Request(
        messages=(Message(role="system", parts=("short",)), Message(role="user", parts=("hello",))),
        max_tokens=7,
        temperature=0.0,
        top_p=0.5,
        n=2,
        seed=9,
        stop=("end",),
        logit_bias={5: -100.0, 6: 0.5},
        top_logprobs=3,
        wanted_ids=(8, 2),
        allowed_ids=(5, 8),
        reveal=Reveal.SAMPLED,
    )
    assert read_one(Kind.CHAT, body) == WireRequest(
        kind=Kind.CHAT,
        request=request,
        model="m",
        stream=True,
        include_usage=True,
        tokens_as_ids=True,
        token_ids=True,
        user="someone",
    )


@pytest.mark.parametrize(
    ("fields", "reveal", "top"),
    [
        ({}, Reveal.NOTHING, 0),
        ({"logprobs": None}, Reveal.NOTHING, 0),
        ({"logprobs": 0}, Reveal.SAMPLED, 0),
        ({"logprobs": 5}, Reveal.SAMPLED, 5),
        ({"logprobs": -1}, Reveal.SAMPLED | Reveal.VOCABULARY, 0),
        ({"logprobs": 2, "echo": True}, Reveal.SAMPLED | Reveal.PROMPT, 2),
        ({"echo": True}, Reveal.NOTHING, 0),
    ],
)
def test_logprobs_of_completions(fields, reveal, top):
    wire = read_one(Kind.COMPLETION, {"prompt": "a", **fields})
    assert (wire.request.reveal, wire.request.top_logprobs, wire.echo) == (reveal, top, fields.get("echo", False))


def test_the_whole_vocabulary_in_chat():
    wire = read_one(Kind.CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": -1})
    assert wire.request.reveal == Reveal.SAMPLED | Reveal.VOCABULARY


def test_limits_that_a_body_does_not_name():
    assert read_one(Kind.COMPLETION, {"prompt": "a"}).request.max_tokens == 16
    assert read_one(Kind.CHAT, {"messages": HELLO}, chat_tokens=77).request.max_tokens == 77


def test_pictures_and_text_keep_their_order():
    data = base64.b64encode(b"\x89PNG").decode()
    parts = [
        {"type": "text", "text": "before"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "after"},
    ]
    request = read_one(Kind.CHAT, {"messages": [{"role": "user", "content": parts}]}).request
    pictures = (Picture(data=b"\x89PNG"), Picture(url="https://example.com/a.png"))
    assert request.messages == (Message(role="user", parts=("before", *pictures, "after")),)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a/b", "/etc/passwd", "data:text/html;base64,YQ==", "data:image/png,a",
     "data:image/png;base64,*", "data:image/png;base64,", "memory://a", ""],
)  # fmt: skip
def test_pictures_from_elsewhere_are_refused(url):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(WireError) as caught:
        read_one(Kind.CHAT, {"messages": [{"role": "user", "content": content}]})
    assert caught.value.param == "messages[0].content[0].image_url.url"


def test_prompts_of_all_four_kinds():
    def prompts(prompt, **options):
        requests = read_requests(Kind.COMPLETION, {"prompt": prompt}, **options)
        return [wire.request.prompt or wire.request.token_ids for wire in requests]

    assert prompts("one") == ["one"]
    assert prompts([3, 4]) == [(3, 4)]
    assert prompts(["one", "two"]) == ["one", "two"]
    assert prompts([[3], "two", [4, 5]]) == [(3,), "two", (4, 5)]
    assert prompts(["ab", [7]], encode=lambda text: tuple(map(ord, text))) == [(97, 98), (7,)]


def test_an_empty_prompt_needs_a_tokenizer_that_begins_with_a_token():
    assert read_one(Kind.COMPLETION, {"prompt": ""}, encode=lambda _: (1,)).request.token_ids == (1,)
    with pytest.raises(WireError, match="prompt: is empty"):
        read_one(Kind.COMPLETION, {"prompt": ""})


WRONG = [
    (Kind.COMPLETION, {"max_tokens": -1}, "max_tokens"),
    (Kind.COMPLETION, {"max_tokens": "3"}, "max_tokens"),
    (Kind.COMPLETION, {"max_tokens": True}, "max_tokens"),
    (Kind.COMPLETION, {"max_tokens": 1.5}, "max_tokens"),
    (Kind.COMPLETION, {"max_tokens": 10**30}, "max_tokens"),
    (Kind.CHAT, {"max_tokens": 0}, "max_tokens"),
    (Kind.COMPLETION, {"temperature": 2.1}, "temperature"),
    (Kind.COMPLETION, {"temperature": float("nan")}, "temperature"),
    (Kind.COMPLETION, {"temperature": 10**400}, "temperature"),
    (Kind.COMPLETION, {"top_p": 0}, "top_p"),
    (Kind.COMPLETION, {"top_p": "1"}, "top_p"),
    (Kind.COMPLETION, {"n": 0}, "n"),
    (Kind.COMPLETION, {"n": 129}, "n"),
    (Kind.COMPLETION, {"seed": 1 << 63}, "seed"),
    (Kind.COMPLETION, {"stop": [""]}, "stop"),
    (Kind.COMPLETION, {"stop": [1]}, "stop"),
    (Kind.COMPLETION, {"stop": list("abcde")}, "stop"),
    (Kind.COMPLETION, {"logit_bias": [1]}, "logit_bias"),
    (Kind.COMPLETION, {"logit_bias": {"a": 1}}, "logit_bias"),
    (Kind.COMPLETION, {"logit_bias": {"-1": 1}}, "logit_bias"),
    (Kind.COMPLETION, {"logit_bias": {"1": True}}, "logit_bias"),
    (Kind.COMPLETION, {"logit_bias": {"1": 10**400}}, "logit_bias"),
    (Kind.COMPLETION, {"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
    (Kind.COMPLETION, {"logit_bias": {"1": 1, "01": 1}}, "logit_bias"),
    (Kind.COMPLETION, {"logprobs": True}, "logprobs"),
    (Kind.COMPLETION, {"logprobs": -2}, "logprobs"),
    (Kind.COMPLETION, {"logprob_token_ids": [1]}, "logprob_token_ids"),
    (Kind.COMPLETION, {"logprobs": 0, "logprob_token_ids": [1, 1]}, "logprob_token_ids"),
    (Kind.COMPLETION, {"logprobs": 0, "logprob_token_ids": [-1]}, "logprob_token_ids"),
    (Kind.COMPLETION, {"allowed_token_ids": []}, "allowed_token_ids"),
    (Kind.COMPLETION, {"allowed_token_ids": 5}, "allowed_token_ids"),
    (Kind.COMPLETION, {"prompt": None}, "prompt"),
    (Kind.COMPLETION, {"prompt": []}, "prompt"),
    (Kind.COMPLETION, {"prompt": [True]}, "prompt"),
    (Kind.COMPLETION, {"prompt": [[1], []]}, "prompt"),
    (Kind.COMPLETION, {"prompt": {"a": 1}}, "prompt"),
    (Kind.COMPLETION, {"prompt": "half \ud800"}, "prompt"),
    (Kind.COMPLETION, {"prompt": ["a"] * 129}, "prompt"),
    (Kind.COMPLETION, {"model": 5}, "model"),
    (Kind.COMPLETION, {"stream": 1}, "stream"),
    (Kind.COMPLETION, {"stream_options": {"include_usage": True}}, "stream_options"),
    (Kind.CHAT, {"messages": None}, "messages"),
    (Kind.CHAT, {"messages": []}, "messages"),
    (Kind.CHAT, {"messages": ["hello"]}, "messages[0]"),
    (Kind.CHAT, {"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
    (Kind.CHAT, {"messages": [{"role": ["user"], "content": "a"}]}, "messages[0].role"),
    (Kind.CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (Kind.CHAT, {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content[0].type"),
    (Kind.CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (Kind.CHAT, {"logprobs": 1}, "logprobs"),
    (Kind.CHAT, {"top_logprobs": 2}, "top_logprobs"),
    (Kind.CHAT, {"logprob_token_ids": [2]}, "logprob_token_ids"),
    (Kind.CHAT, {"echo": True}, "echo"),
]


@pytest.mark.parametrize(
    ("kind", "fields", "param"), WRONG, ids=[f"{param}-{i}" for i, (_, _, param) in enumerate(WRONG)]
)
def test_what_makes_no_sense_is_named(kind, fields, param):
    usual = {"messages": HELLO} if kind is Kind.CHAT else {"prompt": "a"}
    with pytest.raises(WireError) as caught:
        read_one(kind, {**usual, **fields})
    assert caught.value.param == param
    status, body = write_error(pickle.loads(pickle.dumps(caught.value)))  # noqa: S301 (our own)
    assert (status, body["error"]["param"], body["error"]["type"]) == (400, param, "invalid_request_error")


UNDONE = {name: field.off for name, field in FIELDS.items() if field.server is ServerFate.REFUSED}


@pytest.mark.parametrize("name", sorted(UNDONE))
def test_what_would_change_the_answer_and_is_not_done_is_refused(name):
    with pytest.raises(WireError) as caught:
        read_one(Kind.COMPLETION, {"prompt": "a", name: 5})
    assert caught.value.param == name
    read_one(Kind.COMPLETION, {"prompt": "a", name: None})
    for off in UNDONE[name]:
        read_one(Kind.COMPLETION, {"prompt": "a", name: off})


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"stop_token_ids": [3]},
        {"bad_words": ["a"]},
        {"min_p": 0.1},
        {"top_k": 4},
        {"repeat_penalty": 1.1},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"skip_special_tokens": False},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_steering_that_is_not_done_is_a_400_that_names_it(fields):
    (name,) = fields
    with pytest.raises(WireError, match=f"{name}: is not supported") as caught:
        read_one(Kind.CHAT, {"messages": HELLO, **fields})
    assert write_error(caught.value)[0] == 400


@pytest.mark.parametrize("name", ["metadata", "store", "service_tier", "priority", "parallel_tool_calls", "surprise"])
def test_what_changes_nothing_is_ignored(name):
    assert read_one(Kind.CHAT, {"messages": HELLO, name: 5}) == read_one(Kind.CHAT, {"messages": HELLO})


def test_zero_is_not_off_where_it_asks_for_something():
    with pytest.raises(WireError):
        read_one(Kind.COMPLETION, {"prompt": "a", "prompt_logprobs": 0})
    with pytest.raises(WireError):
        read_one(Kind.COMPLETION, {"prompt": "a", "return_hidden_states": 0})


def test_a_hidden_sampled_token_does_not_close_the_top():
    exposure = Exposure(sampled_logprob=Sampled.HIDDEN, top_logprobs=5)
    both = read_one(Kind.CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 5}).request
    check(visible_request(both, exposure), exposure)
    alone = read_one(Kind.CHAT, {"messages": HELLO, "logprobs": True}).request
    assert visible_request(alone, exposure) == alone
    assert visible_request(both, Exposure()) == both


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({param.split("[")[0] for _, _, param in WRONG} | {"return_token_ids", "user", *UNDONE})


@given(kind=st.sampled_from(Kind), body=st.dictionaries(st.sampled_from(NAMES), JSON), usual=st.booleans())
def test_nothing_but_a_wire_error_is_raised(kind, body, usual):
    if usual:
        body = {"messages": HELLO, "prompt": "a", **body}
    try:
        wires = read_requests(kind, body)
    except WireError as error:
        json.dumps(write_error(error), allow_nan=False)
    else:
        assert all(isinstance(wire.request, Request) for wire in wires)


@pytest.mark.parametrize("body", [None, [], "a", 5])
def test_a_body_that_is_no_object(body):
    with pytest.raises(WireError, match="must be a JSON object"):
        read_requests(Kind.CHAT, body)
