"""Where a question ends and its answer begins, in tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lensmith.models.scoring.likelihood import option_tokens, space_before_answer, split_texts


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, four merges, and a begin token that is put in front of every text."""
    vocabulary = {"<s>": 0, "<image>": 1}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    merges = [("Ġ", "A"), ("a", "b"), ("ab", "c"), ("Ġ", "t"), ("i", "s")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"bos_token": "<s>", "additional_special_tokens": ["<image>"]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415  # beside what uses it

    tokenizer = fast.backend_tokenizer
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return fast


TOKENIZER = merging_tokenizer()


def ids(text, **options):
    return tuple(TOKENIZER(text, **{"add_special_tokens": False} | options)["input_ids"])


def words(token_ids):
    return [TOKENIZER.decode([token_id]) for token_id in token_ids]


def test_question_and_answer_are_tokenised_together():
    seam = split_texts(TOKENIZER, "The answer:", " A")
    assert seam.context_ids == (0, *ids("The answer:"))
    assert words(seam.option_ids) == [" A"]  # one token, as in the whole text
    assert len(ids("A")) == 1
    assert ids("A") != seam.option_ids


def test_white_space_at_the_questions_end_is_the_answers():
    spaced, plain = split_texts(TOKENIZER, "The answer: ", "A"), split_texts(TOKENIZER, "The answer:", " A")
    assert spaced == plain


def test_special_tokens_are_added_once_or_not_at_all():
    assert split_texts(TOKENIZER, "The", " A", add_special_tokens=False).context_ids == ids("The")
    assert split_texts(TOKENIZER, "", "A").context_ids == (0,)


def test_where_question_and_answer_merge_the_answer_is_tokenised_apart():
    # "ab" + "c" is one token. The rule by counting tokens would leave nothing of the answer.
    assert len(ids("abc")) == 1
    whole, alone = ids("xabc"), ids("xab")
    assert whole[len(alone) :] == ()
    assert split_texts(TOKENIZER, "xab", "c").option_ids == ids("c")
    assert split_texts(TOKENIZER, "xa", "bcd").option_ids == ids("bcd")


TEXTS = st.text("abcisA t.", max_size=12)


@given(TEXTS, TEXTS.filter(bool))
def test_an_answers_tokens_spell_all_of_it_behind_the_question(context, option):
    seam = split_texts(TOKENIZER, context, option)
    spelled = TOKENIZER.decode([*seam.context_ids[1:], *seam.option_ids])
    assert spelled == context + option


@given(TEXTS, TEXTS.filter(bool))
def test_behind_token_ids_it_is_as_behind_the_text(context, option):
    context = context.rstrip() + ":"
    assert option_tokens(TOKENIZER, ids(context), option) == split_texts(TOKENIZER, context, option).option_ids


def test_behind_special_tokens_an_answer_stands_alone():
    assert option_tokens(TOKENIZER, [*ids("ab"), 1], "c") == ids("c")
    assert option_tokens(TOKENIZER, [*ids("abis"), 1, *ids("ab:")], " A") == ids(" A")


@pytest.mark.parametrize(
    ("prompt", "space"),
    [(ids("Assistant:"), " "), (ids("assistant\n"), ""), (ids("Answer: "), ""), ((*ids("user"), 0), ""), ((), "")],
)
def test_a_space_goes_before_the_answer_where_there_is_none(prompt, space):
    assert space_before_answer(TOKENIZER, list(prompt)) == space
