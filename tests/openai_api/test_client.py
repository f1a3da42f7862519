"""The client's side: bodies as servers of each dialect read them, answers with what is wrong in them named."""

import copy
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.core.endpoint import NO_TOKEN, TEXT_IDS_FROM, Feature, Finish, RefusedError, Request, Reveal
from lensmith.core.errors import InputError
from lensmith.core.types import Message, Picture
from lensmith.openai_api import (
    DIALECTS,
    Dialect,
    Kind,
    MalformedAnswerError,
    TextVocabulary,
    read_answer,
    write_request,
)

OPENAI, VLLM, LENSMITH = DIALECTS["openai"], DIALECTS["vllm"], DIALECTS["lensmith"]
LLAMA, LLAMA_SERVER = DIALECTS["llama-cpp-python"], DIALECTS["llama-server"]


def completion(request: Request, dialect: Dialect):
    body = write_request(request, kind=Kind.COMPLETION, model="m", dialect=dialect)
    assert body.pop("model") == "m"
    for name, usual in {"temperature": 1.0, "top_p": 1.0, "max_tokens": 16}.items():
        assert body.pop(name) == usual
    return body


@pytest.mark.parametrize(
    ("dialect", "fields", "body"),
    [
        (OPENAI, {"top_logprobs": 3}, {"logprobs": 3}),
        (OPENAI, {"reveal": Reveal.SAMPLED}, {"logprobs": 0}),
        (OPENAI, {"reveal": Reveal.PROMPT | Reveal.SAMPLED}, {"logprobs": 0, "echo": True}),
        (OPENAI, {"logit_bias": {7: -1.5}, "stop": ("a",), "n": 2, "seed": 0},
         {"logit_bias": {"7": -1.5}, "stop": ["a"], "n": 2, "seed": 0}),
        (VLLM, {"reveal": Reveal.VOCABULARY},
         {"logprobs": -1, "return_tokens_as_token_ids": True, "return_token_ids": True}),
        (LENSMITH, {"wanted_ids": (4, 2), "allowed_ids": (4,)},
         {"logprobs": 0, "logprob_token_ids": [4, 2], "allowed_token_ids": [4],
          "return_tokens_as_token_ids": True, "return_token_ids": True}),
        (LLAMA, {"reveal": Reveal.VOCABULARY}, {"logprobs": 1 << 20}),
        (LLAMA_SERVER, {"reveal": Reveal.SAMPLED}, {"logprobs": 1}),
    ],
)  # fmt: skip
def test_what_each_dialect_is_asked(dialect, fields, body):
    assert completion(Request(prompt="a", **fields), dialect) == {"prompt": "a", **body}


def test_a_chat_with_a_picture():
    message = Message(role="user", parts=("see", Picture(data=b"\xff\xd8\xffjpeg"), Picture(url="http://a/b.png")))
    request = Request(messages=(message,), max_tokens=3, top_logprobs=2, temperature=0)
    assert write_request(request, kind=Kind.CHAT, model="m", dialect=OPENAI, stream=True) == {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/anBlZw=="}},
                    {"type": "image_url", "image_url": {"url": "http://a/b.png"}},
                ],
            }
        ],
        "max_completion_tokens": 3,
        "temperature": 0,
        "top_p": 1.0,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
    }


@pytest.mark.parametrize(
    ("dialect", "fields", "feature"),
    [
        (OPENAI, {"reveal": Reveal.VOCABULARY}, Feature.VOCABULARY_LOGPROBS),
        (OPENAI, {"wanted_ids": (1,)}, Feature.WANTED_IDS),
        (OPENAI, {"allowed_ids": (1,)}, Feature.ALLOWED_IDS),
        (LLAMA_SERVER, {"reveal": Reveal.PROMPT}, Feature.PROMPT_LOGPROBS),
    ],
)
def test_what_has_no_field_is_refused_rather_than_left_out(dialect, fields, feature):
    with pytest.raises(RefusedError) as caught:
        completion(Request(prompt="a", **fields), dialect)
    assert caught.value.feature == feature


def test_a_picture_without_bytes_and_the_wrong_interface():
    message = Message(role="user", parts=(Picture(url="/tmp/a.png"),))  # noqa: S108 (never read)
    with pytest.raises(InputError, match="needs its bytes"):
        write_request(Request(messages=(message,)), kind=Kind.CHAT, model="m", dialect=OPENAI)
    with pytest.raises(InputError, match="other interface"):
        write_request(Request(prompt="a"), kind=Kind.CHAT, model="m", dialect=OPENAI)


# --- answers ------------------------------------------------------------------------------------------------------

CHAT = Request(messages=(Message(role="user", parts=("hi",)),), top_logprobs=2, reveal=Reveal.SAMPLED)
TEXT = Request(prompt="hi", top_logprobs=2, reveal=Reveal.SAMPLED)


def chat_body():
    top = [{"token": "b", "logprob": -0.5, "bytes": [98]}, {"token": "a", "logprob": -1, "bytes": [97]}]
    entry = {"token": "b", "logprob": -0.5, "bytes": [98], "top_logprobs": top}
    return {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "b"},
                "finish_reason": "length",
                "logprobs": {"content": [entry]},
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }


def text_body():
    logprobs = {"tokens": ["b"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -1.0, "b": -0.5}]}
    return {"choices": [{"index": 0, "text": "b", "finish_reason": "stop", "logprobs": logprobs}]}


def test_tokens_known_by_text_get_numbers():
    vocabulary = TextVocabulary()
    answer = read_answer(Kind.CHAT, chat_body(), CHAT, OPENAI, vocabulary)
    (choice,) = answer.choices
    assert (choice.text, choice.finish, answer.prompt_tokens) == ("b", Finish.LENGTH, 3)
    assert choice.token_ids_T.tolist() == [TEXT_IDS_FROM]
    assert choice.logprobs.top_ids_TK.tolist() == [[TEXT_IDS_FROM, TEXT_IDS_FROM + 1]]
    assert choice.logprobs.top_TK.tolist() == [[-0.5, -1.0]]
    assert [vocabulary.data(TEXT_IDS_FROM + number) for number in range(len(vocabulary))] == [b"b", b"a"]
    again = read_answer(Kind.COMPLETION, text_body(), TEXT, OPENAI, vocabulary).choices[0]
    assert again.logprobs.top_ids_TK.tolist() == [[TEXT_IDS_FROM, TEXT_IDS_FROM + 1]], "sorted, with equal numbers"
    with pytest.raises(InputError):
        vocabulary.data(7)


def test_bytes_tell_apart_what_text_does_not():
    body = chat_body()
    top = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    top[0] |= {"token": "\ufffd", "bytes": [0xE2]}
    top[1] |= {"token": "\ufffd", "bytes": [0xC3]}
    logprobs = read_answer(Kind.CHAT, body, CHAT, OPENAI, TextVocabulary()).choices[0].logprobs
    assert len(set(logprobs.top_ids_TK[0].tolist())) == 2


def test_a_withheld_logprob_is_nan_and_an_impossible_one_minus_infinity():
    body = text_body()
    body["choices"][0]["logprobs"] |= {
        "token_logprobs": [-9999.0],
        "top_logprobs": [{"token_id:4": -0.1, "token_id:5": -9999.0, "token_id:3": -3.4e38}],
    }
    request = Request(prompt="hi", reveal=Reveal.VOCABULARY | Reveal.SAMPLED, top_logprobs=2)
    logprobs = read_answer(Kind.COMPLETION, body, request, VLLM, TextVocabulary()).choices[0].logprobs
    assert np.isnan(logprobs.sampled_T).all()
    assert np.array_equal(logprobs.vocabulary_TV, [[np.nan, np.nan, np.nan, -np.inf, -0.1, -np.inf]], equal_nan=True)
    assert logprobs.top_ids_TK.tolist() == [[4, NO_TOKEN]]


def test_wanted_ids_stand_behind_the_top_and_are_none_of_it():
    """Even where noise lifts a wanted token over the top, which was ranked before the noise."""
    body = text_body()
    top = {"token_id:4": -0.5, "token_id:5": -1.0, "token_id:9": -0.1, "token_id:8": -3.0}
    body["choices"][0]["logprobs"] |= {"tokens": ["token_id:4"], "top_logprobs": [top]}
    request = Request(prompt="hi", top_logprobs=2, wanted_ids=(9, 4, 8, 7))
    logprobs = read_answer(Kind.COMPLETION, body, request, LENSMITH, TextVocabulary()).choices[0].logprobs
    assert logprobs.top_ids_TK.tolist() == [[4, 5]]
    assert np.array_equal(logprobs.wanted_TW, [[-0.1, -0.5, -3.0, np.nan]], equal_nan=True)
    only_wanted = read_answer(Kind.COMPLETION, body, request, VLLM, TextVocabulary()).choices[0].logprobs
    assert only_wanted.top_ids_TK.tolist() == [[NO_TOKEN, NO_TOKEN]]


def test_what_was_not_asked_for_is_not_told():
    answer = read_answer(Kind.CHAT, chat_body(), Request(messages=CHAT.messages), OPENAI, TextVocabulary())
    assert answer.choices[0].logprobs is None
    top_only = Request(messages=CHAT.messages, top_logprobs=1)
    logprobs = read_answer(Kind.CHAT, chat_body(), top_only, OPENAI, TextVocabulary()).choices[0].logprobs
    assert np.isnan(logprobs.sampled_T).all()
    assert logprobs.top_TK.shape == (1, 1)


def test_choices_in_the_order_of_their_index():
    body = text_body()
    second = copy.deepcopy(body["choices"][0]) | {"index": 1, "text": "second"}
    body["choices"] = [second, body["choices"][0]]
    request = Request(prompt="hi", n=2)
    answer = read_answer(Kind.COMPLETION, body, request, OPENAI, TextVocabulary())
    assert [choice.text for choice in answer.choices] == ["b", "second"]


def broken(body, *path, to):
    value = body
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = to
    return body


ENTRY = ("choices", 0, "logprobs", "content", 0)
COLUMNS = ("choices", 0, "logprobs")
BAD_CHATS = [
    (("choices",), None, "choices"),
    (("choices",), [], "choices"),
    (("choices", 0), 5, r"choices\[0\]"),
    (("choices", 0, "index"), "0", r"choices\[0\]"),
    (("choices", 0, "finish_reason"), "tired", "finish_reason"),
    (("choices", 0, "finish_reason"), ["stop"], "finish_reason"),
    (("choices", 0, "message"), None, "content"),
    (("choices", 0, "message", "content"), 5, "content"),
    (("choices", 0, "logprobs"), None, "logprobs"),
    (("choices", 0, "logprobs", "content"), None, "content"),
    (ENTRY, 5, "objects with token and logprob"),
    ((*ENTRY, "logprob"), None, "numbers"),
    ((*ENTRY, "logprob"), "-1", "numbers"),
    ((*ENTRY, "logprob"), True, "numbers"),
    ((*ENTRY, "logprob"), float("nan"), "finite"),
    ((*ENTRY, "logprob"), float("-inf"), "finite"),
    ((*ENTRY, "logprob"), 10**400, "numbers"),
    ((*ENTRY, "token"), None, "token"),
    ((*ENTRY, "bytes"), [300], "bytes"),
    ((*ENTRY, "bytes"), 10**12, "bytes"),
    ((*ENTRY, "top_logprobs"), {"a": 1}, "a list"),
    ((*ENTRY, "top_logprobs", 0, "logprob"), "-1", "numbers"),
    ((*ENTRY, "id"), -4, "token ids"),
    (("choices", 0, "token_ids"), [1, 2], "token_ids"),
    (("choices", 0, "token_ids"), ["1"], "token_ids"),
]
BAD_TEXTS = [
    (("choices", 0, "text"), None, "text"),
    ((*COLUMNS, "tokens"), None, "tokens"),
    ((*COLUMNS, "tokens"), [5], "tokens"),
    ((*COLUMNS, "token_logprobs"), [None], "numbers"),
    ((*COLUMNS, "token_logprobs"), [-1, -1], "one length"),
    ((*COLUMNS, "top_logprobs"), [], "one length"),
    ((*COLUMNS, "top_logprobs"), [[1]], "an object"),
    ((*COLUMNS, "top_logprobs", 0, "a"), "-1", "numbers"),
    ((*COLUMNS, "top_logprobs", 0, "a"), float("inf"), "finite"),
]


@pytest.mark.parametrize(("path", "to", "said"), BAD_CHATS, ids=range(len(BAD_CHATS)))
def test_malformed_chats_are_errors(path, to, said):
    with pytest.raises(MalformedAnswerError, match=said):
        read_answer(Kind.CHAT, broken(chat_body(), *path, to=to), CHAT, OPENAI, TextVocabulary())


@pytest.mark.parametrize(("path", "to", "said"), BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_malformed_completions_are_errors(path, to, said):
    with pytest.raises(MalformedAnswerError, match=said):
        read_answer(Kind.COMPLETION, broken(text_body(), *path, to=to), TEXT, OPENAI, TextVocabulary())


@pytest.mark.parametrize("name", ["token_id:", "token_id:x", "token_id:-1", "b", "token_id:" + "9" * 40])
def test_a_name_that_should_be_an_id_is_an_error(name):
    body = text_body()
    body["choices"][0]["logprobs"]["top_logprobs"] = [{"token_id:1": -1.0, name: -2.0}]
    with pytest.raises(MalformedAnswerError, match="a token's name"):
        read_answer(Kind.COMPLETION, body, TEXT, VLLM, TextVocabulary())


def test_an_id_that_no_vocabulary_has_is_an_error_rather_than_an_allocation():
    body = text_body()
    body["choices"][0]["logprobs"]["top_logprobs"] = [{"token_id:99999999999": -1.0}]
    request = Request(prompt="hi", reveal=Reveal.VOCABULARY)
    with pytest.raises(MalformedAnswerError, match="ids below"):
        read_answer(Kind.COMPLETION, body, request, VLLM, TextVocabulary())


def test_an_echo_that_does_not_say_where_the_prompt_ends_is_an_error():
    body = text_body()
    body["choices"][0]["text"] = "something else"
    request = Request(prompt="hi", reveal=Reveal.PROMPT | Reveal.SAMPLED)
    with pytest.raises(MalformedAnswerError):
        read_answer(Kind.COMPLETION, body, request, OPENAI, TextVocabulary())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 1 << 70)
    | st.floats()
    | st.sampled_from(["", "b", "token_id:3", "stop"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "token"]), inner, max_size=2),
    max_leaves=4,
)


def paths_of(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


REVEALS = [Reveal.SAMPLED, Reveal.SAMPLED | Reveal.VOCABULARY, Reveal.SAMPLED | Reveal.PROMPT]


@settings(max_examples=400)
@given(st.data(), st.sampled_from(Kind), st.sampled_from(sorted(DIALECTS)), st.sampled_from(REVEALS))
def test_any_damage_is_a_clear_error_or_no_damage(data, kind, name, reveal):
    body, request = (chat_body(), CHAT) if kind is Kind.CHAT else (text_body(), TEXT)
    damaged = broken(body, *data.draw(st.sampled_from([*paths_of(body)][1:])), to=data.draw(JSON))
    request = dataclasses.replace(request, reveal=reveal)
    try:
        answer = read_answer(kind, damaged, request, DIALECTS[name], TextVocabulary())
    except MalformedAnswerError:
        return
    assert all(isinstance(choice.text, str) for choice in answer.choices)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_is_thought_aloud_is_no_text_of_the_answer(name):
    request = Request(messages=(Message(role="user", parts=("a",)),), max_tokens=1)

    def read(**message):
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "length"}
        return read_answer(Kind.CHAT, {"choices": [choice]}, request, OPENAI, TextVocabulary()).choices[0]

    thought = read(**{"content": None, name: "Hm"})
    assert (thought.text, thought.reasoning) == ("", "Hm")
    said = read(**{"content": "Yes", name: "Hm"})
    assert (said.text, said.reasoning) == ("Yes", "Hm")
    for nothing in (None, "", 3, {"a": 1}):
        assert read(**{"content": "Yes", name: nothing}).reasoning == ""


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (None, None),
        ({}, None),
        ({"completion_tokens": 2000}, 2000),
        ({"completion_tokens": 0}, 0),
        ({"completion_tokens": -5}, None),
        ({"completion_tokens": True}, None),
        ({"completion_tokens": "7"}, None),
        ("7", None),
    ],
)
def test_what_an_answer_took_is_what_the_server_says(usage, told):
    choice = {"index": 0, "text": "b", "finish_reason": "length"}
    body = {"choices": [choice], "usage": usage}
    answer = read_answer(Kind.COMPLETION, body, Request(prompt="a", max_tokens=1), OPENAI, TextVocabulary())
    assert answer.completion_tokens == told
    assert answer.prompt_tokens is None
