"""The tokenizer of small Sightseer models: any text comes back, markup is whole, text is in short pieces."""

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import UTILITIES
from lensmith.models.families.sightseer.processor import (
    BEGIN,
    END,
    IMAGE,
    MAX_PIECE_CHARACTERS,
    PAD,
    markup_pieces,
    train_tokenizer,
)

VOCABULARY = 1200
PAGES = [generate_page(5, index).html for index in range(150)]
TAGS = set(re.findall(r"</?([a-z0-9]+)", " ".join(PAGES)))
TEXTS = [html.unescape(text) for page in PAGES for text in re.findall(r">([^<]+)<", page)]


def trained() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, markup=markup_pieces(TAGS, UTILITIES), vocabulary_size=VOCABULARY)


@pytest.fixture(scope="module")
def tokenizer():
    return trained()


def pieces_of(tokenizer, text):
    encoding = tokenizer(text, return_offsets_mapping=True)
    return [text[start:stop] for start, stop in encoding["offset_mapping"]]


@given(text=st.text(max_size=60))
@example(text="  two  spaces\n\tand a tab ")
@example(text="naïve 漢字 👩‍🔬 \u0000 e\u0301 \u202e")
@example(text='<div class="pad-4"><b>unclosed &amp; <p class="">')
@example(text=" pad-4 text-sm")
@example(text="n't 's 'll ... ?!")
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert all(0 <= token < VOCABULARY for token in ids)


def test_whole_pages_come_back(tokenizer):
    for page in PAGES[:50]:
        ids = tokenizer(page)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == page


def test_markup_is_in_whole_tokens(tokenizer):
    page = '<p class="text-sm ink-muted top-1">We 42</p><a href="#">x</a><input placeholder="y"><main></main>'
    assert pieces_of(tokenizer, page) == [
        '<p class="',
        "text-sm",
        " ink-muted",
        " top-1",
        '">',
        "We",
        " ",
        "4",
        "2",
        "</p>",
        "<a",
        ' href="#">',
        "x",
        "</a>",
        '<input placeholder="',
        "y",
        '">',
        "<main>",
        "</main>",
    ]


def test_every_tag_and_class_of_generated_pages_is_one_token_each(tokenizer):
    opening = re.compile(r'<[a-z0-9]+(?: class="[^"]*")?(?: href="#")?>|</[a-z0-9]+>')
    for page in PAGES[:50]:
        for tag in set(opening.findall(page)):
            classes = (re.search(r'class="([^"]*)"', tag) or [None, ""])[1].split()
            parts = 1 if ">" in tag and " " not in tag else len(classes) + 2
            assert len(tokenizer(tag)["input_ids"]) == parts, (tag, pieces_of(tokenizer, tag))


def test_pieces_of_text_are_short(tokenizer):
    own = set(markup_pieces(TAGS, UTILITIES)) | {PAD, IMAGE, BEGIN, END}
    learned = [piece for piece in tokenizer.get_vocab() if piece not in own]
    assert len(learned) > 400
    assert max(map(len, learned)) == MAX_PIECE_CHARACTERS == 3
    for text in TEXTS[:300]:
        assert all(len(piece) <= MAX_PIECE_CHARACTERS for piece in pieces_of(tokenizer, text))


def test_digits_stand_alone(tokenizer):
    assert pieces_of(tokenizer, "2026") == ["2", "0", "2", "6"]


def test_the_vocabulary_has_the_size_asked_for(tokenizer):
    assert len(tokenizer) == VOCABULARY
    ids = tokenizer.convert_tokens_to_ids([PAD, IMAGE, BEGIN, END])
    assert ids == [0, 1, 2, 3]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2, 3)
    assert tokenizer.tokenize(IMAGE) == [IMAGE]
    # What tells markup from text while training: markup tokens come last.
    text_ids = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    markup = tokenizer.convert_tokens_to_ids(markup_pieces(TAGS, UTILITIES))
    assert min(markup) == text_ids
    assert max(tokenizer("Quick 12 €©“”")["input_ids"]) < text_ids


def test_the_same_input_gives_the_same_tokenizer(tokenizer):
    assert trained().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_it_is_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*PAGES[:5], "漢字 👩‍🔬", " pad-4"]:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.decode(again(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert again.padding_side == "left"
    assert (again.pad_token, again.bos_token, again.eos_token) == (PAD, BEGIN, END)
