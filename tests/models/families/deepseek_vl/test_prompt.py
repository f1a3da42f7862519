import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import InputError
from lensmith.core.types import Message, Picture
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.prompt import DEFAULT_SYSTEM, Turn, chat_prompt, original_prompt
from lensmith.models.families.deepseek_vl.tokenizer import END, IMAGE

PICTURE = Picture(data=b"some bytes")


def user(*parts):
    return Message(role="user", parts=parts)


def assistant(*parts):
    return Message(role="assistant", parts=parts)


def system(*parts):
    return Message(role="system", parts=parts)


def test_a_question_about_a_picture():
    prompt = chat_prompt([user(PICTURE, "What is it?")])
    assert prompt == f"{DEFAULT_SYSTEM}\n\nUser: <image_placeholder>What is it?\n\nAssistant:"


def test_turns_end_with_newlines_and_the_end_token_by_turns():
    prompt = chat_prompt([user(" a "), assistant(" b\n"), user("c")])
    assert prompt.removeprefix(DEFAULT_SYSTEM) == f"\n\nUser: a\n\nAssistant: b{END}User: c\n\nAssistant:"


def test_a_system_message_takes_the_defaults_place():
    assert chat_prompt([system("Be short."), user("a")]) == "Be short.\n\nUser: a\n\nAssistant:"
    assert chat_prompt([system(""), user("a")]) == "User: a\n\nAssistant:"
    assert chat_prompt([system("One."), system("Two."), user("a")]).startswith("One.\nTwo.\n\nUser: a")


def test_a_system_message_alone_is_answered():
    assert chat_prompt([system("Tell a joke.")]) == "Tell a joke.\n\nAssistant:"
    assert chat_prompt([system("")]) == "Assistant:"
    theirs = chat_prompt([system("Tell a joke.")], Exactness.TRANSFORMERS)
    assert theirs == f"{DEFAULT_SYSTEM}\n\nSystem: Tell a joke.{END}Assistant:"
    assert chat_prompt([system("Tell a joke.")], answers=False) == "Tell a joke."


def test_in_transformers_prompt_it_does_not():
    prompt = chat_prompt([system("Be short."), user("a")], Exactness.TRANSFORMERS)
    assert prompt == f"{DEFAULT_SYSTEM}\n\nSystem: Be short.{END}User: a\n\nAssistant:"


@pytest.mark.parametrize("exact", Exactness)
def test_a_last_answer_is_gone_on_with(exact):
    assert chat_prompt([user("a"), assistant("The ")], exact).endswith("User: a\n\nAssistant: The")
    assert chat_prompt([user("a"), assistant("")], Exactness.ORIGINAL).endswith("User: a\n\nAssistant:")


def test_without_an_answer_to_come_the_last_turn_is_closed():
    assert chat_prompt([user("a"), assistant("b")], answers=False).endswith(f"User: a\n\nAssistant: b{END}")
    assert chat_prompt([user("a")], answers=False).endswith("User: a")


def test_questions_in_a_row_are_one():
    prompt = chat_prompt([user(PICTURE), user("What?"), assistant("x"), assistant("y"), user("b")])
    assert prompt.endswith(f"User: {IMAGE}\nWhat?\n\nAssistant: x\ny{END}User: b\n\nAssistant:")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([user("a"), system("b"), user("c")], "one at place 1"),
        ([assistant("a"), user("b")], "does not begin with the user"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(messages, said):
    with pytest.raises(InputError, match=said):
        chat_prompt(messages)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5), st.booleans())
def test_whatever_is_said_the_prompt_asks_for_an_answer(texts, with_picture):
    messages = [
        (user, assistant)[place % 2](text) for place, text in enumerate(texts[: len(texts) - 1 + len(texts) % 2])
    ]
    if with_picture:
        messages[0] = user(PICTURE, *messages[0].parts)
    prompt = chat_prompt(messages)
    assert prompt == prompt.strip()
    assert prompt.endswith("Assistant:") or messages[-1].role == "assistant"
    assert prompt.count(IMAGE) == with_picture + sum(text.count(IMAGE) for text in texts)


def test_an_empty_turn_is_a_role_and_a_colon_wherever_it_stands():
    assert original_prompt([Turn("User", " "), Turn("Assistant", "b")], system="") == f"User:Assistant: b{END}"
