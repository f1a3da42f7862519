"""An answer's text goes on from its prompt's, and `text_offset` says where in it each token begins."""

import codecs
import json
from itertools import pairwise

import httpx
import pytest

from lensmith.models.inference.token_table import TokenTable
from tests.support.serve_models import END_ID, spaced_server, spaced_tokenizer, tiny_server, tokenizer

TEXTS = ("The capital", "naïve 😀 日本語", "é", "  The\n\tcapital is 😀😀", "<s>The </s> is", "e\u0301 ﬁ \ufffd x")
WHOLE = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
ECHO = pytest.mark.parametrize("echo", [False, True], ids=["alone", "echo"])


@pytest.fixture(scope="module")
def spaced():
    with spaced_server() as url:
        yield url


@pytest.fixture(scope="module")
def bytewise():
    with tiny_server() as (url, _):
        yield url


def ids_of(*names):
    return spaced_tokenizer().convert_tokens_to_ids(list(names))


def forced(name):
    """Nothing but this token is answered."""
    return {"logit_bias": {str(*ids_of(name)): 100}}


def complete(url, *, stream=False, path="completions", **fields):
    """The choices in order, each with its text and its columns of logprobs; the chunks of a stream put together."""
    body = {"temperature": 0, "logprobs": 0, "stream": stream, **fields}
    response = httpx.post(f"{url}/{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    if not stream:
        return response.json()["choices"]
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    together = {}
    for part in (json.loads(line)["choices"][0] for line in lines):
        choice = together.setdefault(part["index"], {"index": part["index"], "text": "", "logprobs": {}})
        choice["text"] += part["text"]
        choice["finish_reason"] = part["finish_reason"]
        for name, values in (part["logprobs"] or {}).items():
            if values is not None:
                choice["logprobs"].setdefault(name, []).extend(values)
    return [together[index] for index in sorted(together)]


# --- the first space ----------------------------------------------------------------------------------------------


@WHOLE
@ECHO
@pytest.mark.parametrize("by_ids", [False, True], ids=["text", "ids"])
def test_an_answer_keeps_the_space_between_it_and_its_prompt(spaced, stream, echo, by_ids):
    prompt = ids_of("▁The", "▁capital", "▁is") if by_ids else "The capital is"
    shown = (" The capital is" if by_ids else prompt) if echo else ""
    choices = complete(spaced, prompt=prompt, max_tokens=2, n=2, echo=echo, stream=stream, **forced("▁Paris"))
    assert [choice["text"] for choice in choices] == [f"{shown} Paris Paris"] * 2
    for choice in choices:
        assert choice["logprobs"]["tokens"][-2:] == [" Paris", " Paris"]
        assert choice["logprobs"]["text_offset"][-2:] == [len(shown), len(shown) + 6]


@WHOLE
def test_a_stop_string_may_begin_with_the_space(spaced, stream):
    fields = {"prompt": "The capital is", "max_tokens": 3, "stream": stream}
    [choice] = complete(spaced, stop=[" Paris"], **fields, **forced("▁Paris"))
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")


@WHOLE
def test_code_keeps_its_indentation(spaced, stream):
    [choice] = complete(spaced, prompt="The:\n", max_tokens=2, stream=stream, **forced("▁▁"))
    assert choice["text"] == "    "


@WHOLE
@pytest.mark.parametrize(
    ("prompt", "name", "text"),
    [
        (["▁The", "<0xF0>", "<0x9F>"], "▁Paris", " Paris"),  # the prompt ends within a character
        (["▁The", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"], "<0x41>", "A"),  # and behind one of several bytes
        (["▁The", *["<0xE6>", "<0x97>", "<0xA5>"] * 9], "<0x41>", "A"),  # and behind more than are looked at
        (["▁The", "</s>"], "▁Paris", " Paris"),
        (["<s>", "▁"], "▁Paris", " Paris"),
        (["▁The", "▁"], "▁Paris", " Paris"),
        (["<s>"], "▁Paris", "Paris"),  # nothing stands before it
    ],
)
def test_whatever_the_prompt_ends_with(spaced, stream, prompt, name, text):
    [choice] = complete(spaced, prompt=ids_of(*prompt), max_tokens=1, stream=stream, **forced(name))
    assert choice["text"] == text


def test_bytes_that_are_no_character_do_not_take_whole_ones_along(spaced):
    ids = ids_of("▁The", "<0xC3>", "<0xA9>")
    [choice] = complete(spaced, prompt=ids, max_tokens=2, **forced("<0x98>"))
    assert choice["text"] == "\ufffd\ufffd"


def test_an_answer_to_messages_begins_without_a_space(spaced):
    fields = {"messages": [{"role": "user", "content": "The"}], "max_tokens": 1, "temperature": 0}
    response = httpx.post(f"{spaced}/chat/completions", json={**fields, **forced("▁Paris")}, timeout=60)
    assert response.json()["choices"][0]["message"]["content"] == "Paris"


# --- where tokens begin -------------------------------------------------------------------------------------------


def slices(choice):
    offsets = choice["logprobs"]["text_offset"]
    return [choice["text"][first:behind] for first, behind in pairwise([*offsets, len(choice["text"])])]


def expected_offsets(reading, prompt):
    """By the bytes of the tokens, one after another; a special token counts where the prompt spells it."""
    table, decoder = TokenTable(reading), codecs.getincrementaldecoder("utf-8")()
    start, offsets, is_first = 0, [], True
    for token_id in reading(prompt)["input_ids"]:
        offsets.append(start)
        data = table.data(token_id)
        if token_id in reading.all_special_ids and not prompt.startswith(data.decode(), start):
            continue
        if reading is spaced_tokenizer() and is_first:
            data = data[1:]  # the space that it puts before a text
        is_first = False
        start += len(decoder.decode(data))
    return offsets


@pytest.mark.parametrize("prompt", TEXTS[:4])
@pytest.mark.parametrize("reading", [tokenizer, spaced_tokenizer], ids=["bytes", "spaces"])
def test_a_prompts_tokens_begin_where_their_characters_do(bytewise, spaced, reading, prompt):
    url = bytewise if reading is tokenizer else spaced
    [choice] = complete(url, prompt=prompt, max_tokens=0, echo=True)
    assert choice["logprobs"]["text_offset"] == expected_offsets(reading(), prompt)
    assert choice["text"] == prompt


def test_a_token_that_the_text_leaves_out_is_nowhere_in_it(spaced):
    [choice] = complete(spaced, prompt="The", max_tokens=1, echo=True, **forced("▁Paris"))
    assert choice["logprobs"]["tokens"] == ["<s>", " The", " Paris"]
    assert slices(choice) == ["", "The", " Paris"]
    [choice] = complete(spaced, prompt="The", max_tokens=3, logit_bias={str(END_ID): 100})
    assert (choice["text"], choice["logprobs"]["text_offset"]) == ("", [0])


@pytest.mark.parametrize("prompt", [*TEXTS, [70, 71, 72, 198, 200]])
@pytest.mark.parametrize(
    "fields", [{"seed": 1}, {"seed": 2, "n": 3}, {"seed": 3, "stop": ["e", "ab", "\ufffd"]}], ids=str
)
@ECHO
def test_offsets_take_the_text_apart_streamed_or_whole(bytewise, spaced, prompt, fields, echo):
    for url in (bytewise, spaced):
        asked = {"prompt": prompt, "max_tokens": 24, "temperature": 1.5, "echo": echo, **fields}
        whole, streamed = complete(url, **asked), complete(url, **asked, stream=True)
        for choice, same in zip(whole, streamed, strict=True):
            assert "".join(slices(choice)) == choice["text"] == same["text"]
            for name in ("tokens", "text_offset"):
                assert choice["logprobs"][name] == same["logprobs"].get(name, [])
            offsets = choice["logprobs"]["text_offset"]
            assert offsets == sorted(offsets)
            assert offsets[:1] in ([], [0])
        if echo and isinstance(prompt, str):
            first = len(choice["logprobs"]["tokens"]) - sum(offset >= len(prompt) for offset in offsets)
            assert choice["text"].startswith(prompt)
            assert "".join(slices(choice)[:first]) == prompt
