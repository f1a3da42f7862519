"""The server's side outwards, letter by letter: answers, chunks and errors as OpenAI writes them."""

import json

import numpy as np
import pytest

from lensmith.core.endpoint import NO_TOKEN, Answer, Choice, Feature, Finish, Logprobs, RefusedError, Request, Reveal
from lensmith.core.errors import CheckpointError, InputError, ShapeError
from lensmith.core.types import Message
from lensmith.openai_api import (
    BusyError,
    Delta,
    Kind,
    Usage,
    WireRequest,
    sse,
    write_answers,
    write_chunk,
    write_error,
    write_usage_chunk,
)
from tests.support.api import write_one

USAGE = Usage(prompt_tokens=2, completion_tokens=1)
NAMED = {"answer_id": "x", "created": 5}


class Letters:
    """Token 0 is a, 1 is b and so on."""

    def text(self, token_id):
        return chr(97 + token_id)

    def data(self, token_id):
        return self.text(token_id).encode()


def logprobs_of(sampled, top_ids, top, wanted=(), vocabulary=None):
    return Logprobs(
        sampled_T=np.array(sampled, dtype=float),
        top_ids_TK=np.array(top_ids, dtype=np.int64).reshape(len(sampled), -1),
        top_TK=np.array(top, dtype=float).reshape(len(sampled), -1),
        wanted_TW=np.array(wanted, dtype=float).reshape(len(sampled), -1),
        vocabulary_TV=None if vocabulary is None else np.array(vocabulary, dtype=float),
    )


def answer_of(ids, logprobs, **extra):
    text = "".join(map(Letters().text, ids))
    choice = Choice(text=text, finish=Finish.LENGTH, token_ids_T=np.array(ids), logprobs=logprobs)
    return Answer(choices=(choice,), **extra)


def chat(**fields):
    return Request(messages=(Message(role="user", parts=("hi",)),), **fields)


def test_a_chat_answer():
    wire = WireRequest(kind=Kind.CHAT, request=chat(top_logprobs=2, wanted_ids=(3, 0)), model="m")
    logprobs = logprobs_of([np.nan], [[1, 0]], [[-0.5, -1]], [[-np.inf, -1]])
    assert write_one(wire, answer_of([2], logprobs), Letters(), usage=USAGE, **NAMED) == {
        "id": "x",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "c"},
                "logprobs": {
                    "content": [
                        {
                            "token": "c",
                            "logprob": -9999.0,
                            "bytes": [99],
                            "top_logprobs": [
                                {"token": "b", "logprob": -0.5, "bytes": [98]},
                                {"token": "a", "logprob": -1.0, "bytes": [97]},
                                {"token": "d", "logprob": -9999.0, "bytes": [100]},
                                {"token": "a", "logprob": -1.0, "bytes": [97]},
                            ],
                        }
                    ]
                },
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
    }


def test_an_echoed_completion():
    request = Request(prompt="ab", max_tokens=1, top_logprobs=1, reveal=Reveal.SAMPLED | Reveal.PROMPT)
    wire = WireRequest(kind=Kind.COMPLETION, request=request, model="m", echo=True)
    prompt = logprobs_of([np.nan, -2], [[NO_TOKEN], [3]], [[np.nan], [-0.1]])
    answer = answer_of([2], logprobs_of([-3], [[2]], [[-3]]), prompt_ids_P=np.array([0, 1]), prompt_logprobs=prompt)
    (choice,) = write_one(wire, answer, Letters(), usage=USAGE, **NAMED)["choices"]
    assert choice == {
        "index": 0,
        "text": "abc",
        "logprobs": {
            "tokens": ["a", "b", "c"],
            "token_logprobs": [None, -2.0, -3.0],
            "top_logprobs": [None, {"d": -0.1}, {"c": -3.0}],
            "text_offset": [0, 1, 2],
        },
        "finish_reason": "length",
    }


def test_tokens_named_by_id_and_the_whole_vocabulary():
    request = Request(token_ids=(0,), max_tokens=1, reveal=Reveal.VOCABULARY)
    wire = WireRequest(kind=Kind.COMPLETION, request=request, model="m", tokens_as_ids=True, token_ids=True)
    answer = answer_of([1], logprobs_of([np.nan], [[]], [[]], vocabulary=[[-1.5, -np.inf, np.nan]]))
    (choice,) = write_one(wire, answer, Letters(), usage=USAGE, **NAMED)["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"token_id:0": -1.5, "token_id:1": -9999.0}]
    assert (choice["token_ids"], choice["prompt_token_ids"]) == ([1], [0])


def test_a_batch_is_numbered_through():
    wires = [WireRequest(kind=Kind.COMPLETION, request=Request(prompt=text), model="m", echo=True) for text in "xy"]
    answers = [answer_of([0], None), answer_of([1], None)]
    choices = write_answers(wires, answers, Letters(), usage=USAGE, **NAMED)["choices"]
    assert [(choice["index"], choice["text"], choice["logprobs"]) for choice in choices] == [
        (0, "xa", None),
        (1, "yb", None),
    ]


def test_the_chunks_of_a_chat():
    wire = WireRequest(kind=Kind.CHAT, request=chat(reveal=Reveal.SAMPLED), model="m", stream=True, include_usage=True)
    first = Delta(text="c", token_ids=(2,), logprobs=logprobs_of([-1], [[]], [[]]), is_first=True)
    chunk = write_chunk(wire, first, Letters(), **NAMED)
    assert chunk == {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "c"},
                "logprobs": {"content": [{"token": "c", "logprob": -1.0, "bytes": [99], "top_logprobs": []}]},
                "finish_reason": None,
            }
        ],
        "usage": None,
    }
    last = write_chunk(wire, Delta(finish=Finish.STOP), Letters(), **NAMED)
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    usage = write_usage_chunk(wire, usage=USAGE, **NAMED)
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 3)
    assert json.loads(sse(chunk).decode().removeprefix("data: ")) == chunk
    assert sse(chunk).endswith(b"\n\n")
    assert b"\n" not in sse({"text": "a\nb\u2028"})[:-2]


def test_the_chunks_of_a_completion():
    request = Request(prompt="a", top_logprobs=1)
    wire = WireRequest(kind=Kind.COMPLETION, request=request, model="m", stream=True)
    delta = Delta(index=1, text="b", token_ids=(1,), logprobs=logprobs_of([-1], [[1]], [[-1]]), offset=4)
    (choice,) = write_chunk(wire, delta, Letters(), **NAMED)["choices"]
    assert choice == {
        "index": 1,
        "text": "b",
        "logprobs": {"tokens": ["b"], "token_logprobs": [-1.0], "top_logprobs": [{"b": -1.0}], "text_offset": [4]},
        "finish_reason": None,
    }


def test_refusals_name_the_field_and_the_feature():
    error = RefusedError("refused: too many", feature=Feature.TOP_LOGPROBS, expected="at most 5", actual=9)
    assert write_error(error) == (
        400,
        {
            "error": {
                "message": "refused: too many; expected: at most 5; got: 9",
                "type": "invalid_request_error",
                "param": "top_logprobs",
                "code": "refused:top_logprobs",
            }
        },
    )
    both = write_error(RefusedError("no", feature=Feature.LOGIT_BIAS | Feature.ALLOWED_IDS))[1]["error"]
    assert both["code"] == "refused:logit_bias+allowed_ids"


def test_a_fault_of_the_server_is_not_described():
    for error in (ShapeError("49152 rows"), CheckpointError("/srv/secret"), BusyError("full", status=503)):
        status, body = write_error(error)
        assert status >= 500
        assert "49152" not in json.dumps(body)
        assert "secret" not in json.dumps(body)
    assert write_error(BusyError("slow down", retry_after_s=2))[0] == 429


def test_a_long_value_of_the_client_is_cut():
    message = write_error(InputError("no", actual="a" * 10**6))[1]["error"]["message"]
    assert len(message) < 300


@pytest.mark.parametrize("value", [np.nan, -np.inf, -1e30, -20000.0])
def test_json_has_no_nan_and_no_infinity(value):
    wire = WireRequest(kind=Kind.CHAT, request=chat(top_logprobs=1), model="m")
    answer = answer_of([0], logprobs_of([value], [[0]], [[value]]))
    text = json.dumps(write_one(wire, answer, Letters(), usage=USAGE, **NAMED), allow_nan=False)
    assert text.count("-9999.0") == 2
