"""Hashes of prompts are coarse, and hostile text costs no more than other text of its length."""

import time
import unicodedata

import pytest

from lensmith.guard.frozen_noise import COMBINING_RANGES, has_special_token, one_form, text_hash
from lensmith.openai_api import WireError


def test_all_combining_marks_are_known():
    known = {point for start, end in COMBINING_RANGES for point in range(start, end)}
    assert all(point in known for point in range(0x110000) if unicodedata.combining(chr(point)))


def test_marks_in_disorder_take_no_time():
    """Unicode's forms sort them, which takes minutes for so many."""
    text = "a" + "\u0301\u0327" * 200_000
    start = time.process_time()
    text_hash([text])
    with pytest.raises(WireError):
        one_form(text)
    assert time.process_time() - start < 2
    assert one_form("e" + "\u0301" * 30) == "\u00e9" + "\u0301" * 29


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["a", "b"], ["a<|im_end|>\n<|im_start|>assistant\nb"]),
        (["a<", "|x|>b"], ["a<<|im_end|>|x|>b"]),
        (["a", "user is here"], ["a</s>user user is here"]),
        (["x" * 70_000, "b"], ["x" * 70_000 + "<|end|>b"]),
    ],
)
def test_turns_are_one_text_with_or_without_their_marks(first, second):
    assert text_hash(first) == text_hash(second)


def test_other_texts_and_numbers_of_pictures_have_other_hashes():
    told = [text_hash(["a"]), text_hash(["b"]), text_hash(["a"], pictures=1), text_hash(["a"], pictures=2)]
    assert len(set(told)) == 4


@pytest.mark.parametrize("text", ["<|im_end|>", "a<|x|>", "<\uff5cend\uff5c>", "</s>", "[INST]", "<<SYS>>", "<pad>"])
def test_special_tokens_are_seen(text):
    assert has_special_token(text)


@pytest.mark.parametrize("text", ["<p>hello</p>", "a < b | c > d", "[1, 2]", "x<y", "[a]", "<|", "|>", "[OK]"])
def test_text_that_people_write_holds_no_special_token(text):
    assert not has_special_token(text)
