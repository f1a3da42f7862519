"""Which tokens an answer has behind a question: both are tokenised together, as a reader would meet them.

The rule is that of lm-evaluation-harness: tokenise question and answer as one text, and the answer's tokens are those
behind as many as the question alone has; white space at the question's end counts as the answer's. One case differs:
where the seam is not between two tokens (question and answer merge into one), that rule would drop letters of the
answer. Then the answer is tokenised apart, so that its tokens always spell all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

_TAIL_TOKENS = 16
"""Tokenisers look at no more than the word at the seam; so much of the question is taken apart again."""


@dataclass(frozen=True, kw_only=True)
class Seam:
    """A question's tokens and those of an answer behind it."""

    context_ids: tuple[int, ...]
    option_ids: tuple[int, ...]


def split_texts(
    tokenizer: PreTrainedTokenizerBase, context: str, option: str, *, add_special_tokens: bool = True
) -> Seam:
    """Tokens of two texts that follow each other. An empty context has only the special tokens that begin a text."""
    stripped = context.rstrip()
    option, context = context[len(stripped) :] + option, stripped
    alone = _ids(tokenizer, context, add_special_tokens)
    whole = _ids(tokenizer, context + option, add_special_tokens)
    return Seam(context_ids=alone, option_ids=_behind(alone, whole) or _ids(tokenizer, option, False))


def option_tokens(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], option: str) -> tuple[int, ...]:
    """Tokens of an answer behind a prompt that is token ids already (a chat template's, with pictures)."""
    tail = _tail_text(tokenizer, prompt_ids)
    alone, whole = (_ids(tokenizer, text, False) for text in (tail, tail + option))
    return (_behind(alone, whole) if tail else ()) or _ids(tokenizer, option, False)


def space_before_answer(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> str:
    """What separates an answer from its prompt: nothing behind white space or a special token, else a space.

    A template that ends with `Assistant:` was trained on `Assistant: B`, one that ends with a line break was not.
    """
    tail = _tail_text(tokenizer, prompt_ids)
    return " " if tail and not tail[-1].isspace() else ""


def _behind(alone: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...]:
    """What the whole has behind the part; nothing where it does not begin with the part."""
    return whole[len(alone) :] if whole[: len(alone)] == alone else ()


def _tail_text(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> str:
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    tail: list[int] = []
    for token_id in reversed(prompt_ids[-_TAIL_TOKENS:]):
        if token_id in special:
            break
        tail.insert(0, int(token_id))
    text: str = tokenizer.decode(tail, skip_special_tokens=False, clean_up_tokenization_spaces=False) if tail else ""
    return text


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, add_special_tokens: bool) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
