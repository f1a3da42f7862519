"""Strict reading: one table of reasons to end, one check of each type, and errors that say as much as they may."""

import pytest

from lensmith.core.endpoint import Finish
from lensmith.openai_api import MalformedAnswerError
from lensmith.openai_api.reading import CLIENT, FINISH_REASONS, AnswerReader

CAREFUL = AnswerReader(show=lambda value: type(value).__name__)
SECRET = "sk-secret"


def test_why_answers_end():
    ended = {said: (reason.word, reason.finish) for said, reason in FINISH_REASONS.items()}
    assert ended == {
        "stop": ("stop", Finish.STOP),
        "length": ("length", Finish.LENGTH),
        "tool_calls": ("tool_calls", Finish.STOP),
        "function_call": ("function_call", Finish.STOP),
        "content_filter": ("content_filter", Finish.STOP),
        "abort": ("abort", Finish.STOP),
        "eos": ("stop", Finish.STOP),
        "eos_token": ("stop", Finish.STOP),
        "stop_sequence": ("stop", Finish.STOP),
        "max_tokens": ("length", Finish.LENGTH),
    }


WRONG = [
    ("as_object", (SECRET, "choices[0]")),
    ("as_list", ({"a": SECRET}, "choices")),
    ("as_text", ([SECRET], "text")),
    ("as_texts", (["a", [SECRET]], "tokens")),
    ("as_count", (True, "index", 5)),
    ("as_count", (6, "index", 5)),
    ("as_count", (-1, "index", 5)),
    ("as_count", (1.0, "index", 5)),
    ("finish_reason", (SECRET, "finish_reason")),
    ("finish_reason", (None, "finish_reason")),
    ("finish_reason", (["stop"], "finish_reason")),
    ("entries", ([{}, SECRET], "content")),
    ("entries", ({}, "content")),
    ("columns", ({"tokens": ["a"], "token_logprobs": []}, "logprobs")),
    ("columns", ({"tokens": [SECRET, 1], "token_logprobs": [0, 0]}, "logprobs")),
    ("columns", ({"tokens": ["a"], "token_logprobs": [0], "top_logprobs": [SECRET]}, "logprobs")),
    ("columns", ({"tokens": ["a"], "token_logprobs": [0], "top_logprobs": {}}, "logprobs")),
    ("columns", ({"token_logprobs": []}, "logprobs")),
]


@pytest.mark.parametrize(("method", "arguments"), WRONG, ids=[f"{name}-{i}" for i, (name, _) in enumerate(WRONG)])
def test_another_type_is_named_with_its_place_and_repeated_by_a_client_only(method, arguments):
    with pytest.raises(MalformedAnswerError, match="malformed: ") as caught:
        getattr(CAREFUL, method)(*arguments)
    assert arguments[1] in caught.value.problem
    assert SECRET not in str(caught.value)
    with pytest.raises(MalformedAnswerError) as caught:
        getattr(CLIENT, method)(*arguments)
    assert arguments[1] in caught.value.problem


def test_a_client_repeats_what_came_in_one_line():
    with pytest.raises(MalformedAnswerError, match=SECRET):
        CLIENT.as_object(SECRET, "choices")
    with pytest.raises(MalformedAnswerError) as caught:
        CLIENT.as_object("x" * 1000, "choices")
    assert len(caught.value.actual) == 120


def test_columns_without_a_top_have_none_at_each_position():
    columns = CLIENT.columns({"tokens": ["a", "b"], "token_logprobs": [None, -1.0]}, "logprobs")
    assert (columns.tokens, columns.logprobs, columns.tops) == (["a", "b"], [None, -1.0], [None, None])


def test_a_list_of_objects_may_be_left_out():
    assert CLIENT.entries(None, "content") == []
