"""Calls of tools reach the chat templates that know them; where one leaves them out, the request is refused."""

import copy

import pytest

from lensmith.core.endpoint import Feature, RefusedError, Request
from lensmith.core.types import Message, ToolCall
from lensmith.models.inference.prompts import PicturePrompts, TextPrompts
from tests.support.tiny_vlm import tiny_chat_model

ASKED = Message(role="user", parts=("weather?",))
CALLING = Message(
    role="assistant",
    parts=(),
    tool_calls=(ToolCall(name="weather", arguments='{"city": "Rome", "days": [1, 2]}', call_id="c1"),),
)
ANSWERED = Message(role="tool", parts=('"sunny", 20°',), tool_call_id="c1")
HISTORY = (ASKED, CALLING, ANSWERED)

# As Qwen's, Hermes's and Llama 3.1's do it: arguments are an object, an answer may be written as JSON.
KNOWING = (
    "{% for message in messages %}<{{ message.role }}>{% if message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls %}[{{ call.function.name }} {{ call.function.arguments | tojson }}]{% endfor %}"
    "{% endfor %}"
)
AS_JSON = KNOWING.replace("{{ message.content }}", "{{ message.content | tojson }}")
ANY_ROLE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
TWO_ROLES = (
    "{% for message in messages %}{% if message.role == 'user' %}Q: {{ message.content }}"
    "{% elif message.role == 'assistant' %}A: {{ message.content }}{% endif %}{% endfor %}"
)


@pytest.fixture
def prompts(tokenizer):
    def make(template):
        own = copy.deepcopy(tokenizer)
        own.chat_template = template
        return TextPrompts(own)

    return make


def text_of(prompts, messages):
    return prompts.tokenizer.decode(prompts.prompt(Request(messages=messages)).token_ids_P)


def test_a_template_that_knows_calls_gets_them(prompts):
    expected = '<user>weather?<assistant>[weather {"city": "Rome", "days": [1, 2]}]<tool>"sunny", 20°'
    assert text_of(prompts(KNOWING), HISTORY) == expected
    assert text_of(prompts(AS_JSON), HISTORY).endswith('<tool>"\\"sunny\\", 20°"')


def test_an_assistant_that_said_nothing_is_no_word(prompts):
    silent = Message(role="assistant", parts=())
    assert text_of(prompts(ANY_ROLE), (ASKED, silent, ASKED)) == "<user>weather?<assistant><user>weather?"


@pytest.mark.parametrize(
    ("template", "messages", "named"),
    [
        (ANY_ROLE, HISTORY, "messages[1].tool_calls"),
        (TWO_ROLES, HISTORY, "messages[1].tool_calls"),
        (TWO_ROLES, (ASKED, ANSWERED), "messages[1].role"),
    ],
)
def test_what_a_template_leaves_out_is_refused(prompts, template, messages, named):
    with pytest.raises(RefusedError) as refused:
        text_of(prompts(template), messages)
    assert refused.value.feature == Feature.MESSAGES
    assert named in str(refused.value)


def test_a_vision_language_model_without_a_template_refuses_calls():
    _, processor = tiny_chat_model()
    prompts = PicturePrompts(processor)
    with pytest.raises(RefusedError, match="tool_calls"):
        prompts.prompt(Request(messages=HISTORY))
    processor.chat_template = None
    for messages in (HISTORY, (ASKED, ANSWERED)):
        with pytest.raises(RefusedError, match="knows no calls"):
            prompts.prompt(Request(messages=messages))
