"""Which field an error body is about, as servers write them, and nothing else of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.openai_api.refusals import read_refusal, refused_field

SENT = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}],
    "max_tokens": 5,
    "n": 1,
    "stop": ["a"],
    "temperature": 0.5,
    "top_logprobs": 3,
    "logprobs": True,
    "tools": [{"type": "function"}],
    "seed": 1,
}


def error(**fields):
    return {"error": {"type": "BadRequestError", "code": 400, **fields}}


def detail(*places):
    entry = {"type": "missing", "loc": ["body", *places], "msg": "Field required", "input": {"secret": "SECRET"}}
    return {"detail": [entry, {**entry, "loc": ["body", "seed"]}]}


CASES = [
    # OpenAI and vLLM: a path in `param`.
    (error(message="no", param="top_logprobs"), "top_logprobs"),
    (error(message="no", param="messages[1].content[0].text"), "messages[1].content[0].text"),
    (error(message="no", param="messages.1.content"), "messages[1].content"),
    (error(message="no", param="messages[7].content"), "messages"),
    (error(message="no", param="messages[0].SECRET"), "messages[0]"),
    # FastAPI: a location, with the names of unions in it.
    (detail("max_tokens"), "max_tokens"),
    (detail("messages", 1, "content"), "messages[1].content"),
    (detail("messages", 0, "ChatCompletionContentPart", "content"), "messages[0]"),
    (error(message="", detail=[{"loc": ["body", "stop"], "msg": "SECRET"}]), "stop"),
    # vLLM and llama-cpp-python: the details as Python, in a message.
    (error(message="[{'type': 'int_parsing', 'loc': ('body', 'max_tokens'), 'msg': 'SECRET'}]"), "max_tokens"),
    (error(message="1 validation error:\n  {'loc': ('body', 'messages', 1, 'role'), 'msg': '/SECRET'}"),
     "messages[1].role"),
    # SGLang and vLLM: a sentence that begins with the field.
    (error(message="temperature must be non-negative, got -1"), "temperature"),
    (error(message="max_tokens must be at least 1, got -1."), "max_tokens"),
    (error(message="n must be 1 when using greedy sampling"), "n"),
    (error(message="stop cannot contain an empty string"), "stop"),
    # TGI: text and no object.
    ({"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"},
     "temperature"),
    ({"error": "`stop` is too long", "error_type": "validation"}, "stop"),
    # llama.cpp: sentences that quote a field.
    (error(message='"tools" param requires --jinja flag'), "tools"),
    (error(message="top_logprobs requires logprobs to be set to true"), "top_logprobs"),
    (error(message="Unsupported param: stop"), "stop"),
    ({"code": 400, "message": "Failed to parse 'seed': expected a number"}, "seed"),
    # What names nothing that was sent.
    (error(message="no", param="logit_bias"), None),
    (error(message="/srv/SECRET is 5 GB"), None),
    (error(message="the prompt, the model and the stop of the user are wrong", param=None), None),
    (error(message="please stop sending n requests"), None),
    (error(message="no", param=["messages"]), None),
    ({"error": {"param": ["messages"]}}, None),
    (error(message="x_max_tokens and max_tokens_y are SECRET"), None),
    (detail("SECRET"), None),
    ({"detail": "SECRET"}, None),
    ([], None),
    ("SECRET", None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "field"), CASES, ids=[f"{field}-{i}" for i, (_, field) in enumerate(CASES)])
def test_the_field_that_a_refusal_names(body, field):
    assert refused_field(read_refusal(json.dumps(body).encode()), SENT) == field


def test_details_that_were_cut_off_still_name_their_field():
    """Pydantic repeats the input, and a picture is longer than what is read of an error."""
    body = json.dumps(detail("messages", 1, "content")).encode()
    assert refused_field(read_refusal(body[:80]), SENT) == "messages[1].content"
    assert refused_field(read_refusal(b"`max_tokens` is too large"), SENT) == "max_tokens"


def test_only_what_was_sent_is_named():
    body = error(message="max_tokens must be small", param="")
    assert refused_field(read_refusal(json.dumps(body).encode()), {"model": "m"}) is None
    assert refused_field(read_refusal(json.dumps(body).encode()), {}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["body", "messages", "1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "detail", "loc", "param", "message", "msg", "code"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON | st.binary(max_size=40))
def test_any_body_is_read_and_nothing_is_invented(body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = refused_field(read_refusal(content), SENT)
    assert named is None or named.split("[")[0].split(".")[0] in SENT


@pytest.mark.parametrize("text", [b"[" * 50_000, b"9" * 20_000, b"'loc': (" * 8000, b"'" * 65_000])
def test_a_hostile_body_is_read_in_no_time(text):
    assert refused_field(read_refusal(text), SENT) is None
