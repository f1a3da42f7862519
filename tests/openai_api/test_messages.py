"""Messages of histories: assistants that say nothing, called tools or refused, and what the tools answered."""

import pytest

from lensmith.core.types import Message, ToolCall
from lensmith.openai_api import DIALECTS, Kind, WireError, write_request
from tests.support.api import read_one

ASKED = {"role": "user", "content": "weather?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CALLED = ToolCall(name="weather", arguments='{"city": "Rome"}', call_id="c1")


def read(*messages):
    return read_one(Kind.CHAT, {"messages": [*messages]}).request.messages


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "assistant", "content": None}, Message(role="assistant", parts=())),
        ({"role": "assistant", "content": ""}, Message(role="assistant", parts=())),
        ({"role": "assistant", "content": []}, Message(role="assistant", parts=())),
        ({"role": "user", "content": []}, Message(role="user", parts=())),
        ({"role": "developer", "content": "be"}, Message(role="system", parts=("be",))),
        ({"role": "assistant", "content": None, "refusal": "No."}, Message(role="assistant", parts=("No.",))),
        ({"role": "assistant", "refusal": "No."}, Message(role="assistant", parts=("No.",))),
        ({"role": "assistant", "content": "Yes.", "refusal": None}, Message(role="assistant", parts=("Yes.",))),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            Message(role="assistant", parts=("No.",)),
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            Message(role="assistant", parts=(), tool_calls=(CALLED,)),
        ),
        ({"role": "assistant", "tool_calls": [CALL]}, Message(role="assistant", parts=(), tool_calls=(CALLED,))),
        (
            {"role": "assistant", "content": "Look:", "tool_calls": [CALL, CALL]},
            Message(role="assistant", parts=("Look:",), tool_calls=(CALLED, CALLED)),
        ),
        ({"role": "assistant", "content": "a", "tool_calls": None}, Message(role="assistant", parts=("a",))),
        ({"role": "assistant", "content": "a", "tool_calls": []}, Message(role="assistant", parts=("a",))),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": ""}},
            Message(role="assistant", parts=(), tool_calls=(ToolCall(name="now", arguments="{}"),)),
        ),
        (
            {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
            Message(role="tool", parts=("sunny",), tool_call_id="c1"),
        ),
        ({"role": "tool", "content": [{"type": "text", "text": "sunny"}]}, Message(role="tool", parts=("sunny",))),
        ({"role": "function", "name": "now", "content": "noon"}, Message(role="tool", parts=("noon",))),
    ],
)
def test_what_histories_hold_is_read(message, expected):
    assert read(ASKED, message) == (Message(role="user", parts=("weather?",)), expected)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "assistant"}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "system", "content": None}, "content"),
        ({"role": "tool", "content": None}, "content"),
        ({"role": "user", "content": None, "refusal": "No."}, "content"),
        ({"role": "assistant", "content": None, "refusal": 5}, "refusal"),
        ({"role": "assistant", "content": [{"type": "refusal"}]}, "content[0].refusal"),
        ({"role": "assistant", "content": None, "tool_calls": CALL}, "tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": [5]}, "tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "tool_calls[0].function.arguments"),
        (
            {"role": "assistant", "tool_calls": [CALL, {"function": {"name": "f", "arguments": "{"}}]},
            "tool_calls[1].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
            "tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": 5}]}, "tool_calls[0].id"),
        ({"role": "assistant", "function_call": {"arguments": "{}"}}, "function_call.name"),
        ({"role": "tool", "content": "x", "tool_call_id": 5}, "tool_call_id"),
    ],
)
def test_what_cannot_be_read_is_named(message, field):
    with pytest.raises(WireError) as refused:
        read(ASKED, message)
    assert refused.value.param == f"messages[1].{field}"


def test_calls_and_answers_go_out_as_they_came_in():
    history = (ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]})
    history += ({"role": "tool", "content": "sunny", "tool_call_id": "c1"},)
    request = read_one(Kind.CHAT, {"messages": [*history]}).request
    body = write_request(request, kind=Kind.CHAT, model="m", dialect=DIALECTS["openai"])
    assert read(*body["messages"]) == request.messages
    assert body["messages"][1]["tool_calls"] == [CALL]
