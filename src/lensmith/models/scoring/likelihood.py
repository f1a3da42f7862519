"""How likely a model finds each of several answers to one question: the picture and the question are read once.

The two published ways need the same numbers. Letter-position perplexity (DeepSeek-VL, arXiv 2403.05525, section 4.1):
image, question and all options are read, and the answer letters are compared at the answer position, which takes one
forward pass. Option text, length-normalised (as LLaVA-type adapters of lmms-eval do) or summed (lm-evaluation-harness):
the options are read behind one copy of what the model remembers of the question.

What was read before is found in the `Prefill`'s store, which is bounded in bytes: pictures by content, prompts by their
longest known beginning. So many questions on one picture, or the rotations of one question, read little more than what
differs. A token that the model never writes (an image placeholder) has probability 0, as it has in generation.

Which tokens an answer has is decided as in lm-evaluation-harness: question and answer are tokenised as one text, and
the answer's tokens are those behind as many as the question alone has; white space at the question's end counts as the
answer's. One case differs: where the seam is not between two tokens (question and answer merge into one), that rule
would drop letters of the answer. Then the answer is tokenised apart, so that its tokens always spell all of it.

Legend: B rows (options), C positions of one chunk, T tokens of an option, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from lensmith.core.errors import InputError, LensmithError
from lensmith.models.inference.prefill import Prefill, Prompt, ReadPrompt

MEMORY_BYTES = 1 << 30
"""What copies of one prompt's keys and values, one an option, may take at once."""
LOGITS_BYTES = 128 << 20
"""What the logits of one chunk of options may take at once."""
_PROMPTS_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class OptionScore:
    """One option behind its prefix: its tokens and the logprob of each, given all before it.

    `is_greedy`: each token is the likeliest at its place.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def total(self) -> float:
        """The logprob of the whole option."""
        return math.fsum(self.logprobs)

    @property
    def mean(self) -> float:
        """The logprob a token; its negative is the loss that a model is trained on."""
        return self.total / len(self.logprobs)

    @property
    def perplexity(self) -> float:
        return math.exp(-self.mean)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A prompt and what may follow it: token ids of each option."""

    prefix: Prompt
    options: tuple[tuple[int, ...], ...]


class Scorer:
    """Scores options with a `Prefill`'s model and store. Not for several threads."""

    def __init__(
        self,
        prefill: Prefill,
        *,
        max_length: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
        logits_bytes: int = LOGITS_BYTES,
    ) -> None:
        self.prefill, self.max_length = prefill, max_length
        self.memory_bytes, self.logits_bytes = memory_bytes, logits_bytes
        self.option_tokens = 0
        generation = prefill.model.generation_config
        self._suppressed = list((generation.suppress_tokens if generation else None) or ())

    def score(self, prefix: Prompt, options: Sequence[Sequence[int]]) -> list[OptionScore]:
        """One score for each option, in order. In float32 it is what the option would have alone, within 1e-5.

        Raises InputError where there is no option, one is empty, or one is longer than the model can read.
        """
        return self.score_many([Scored(prefix=prefix, options=tuple(map(tuple, options)))])[0]

    def score_many(self, asked: Sequence[Scored]) -> list[list[OptionScore]]:
        """As `score`; prompts that have little in common are read together."""
        for each in asked:
            self.check(each)
        scores: list[list[OptionScore]] = []
        for first in range(0, len(asked), _PROMPTS_AT_ONCE):
            group = asked[first : first + _PROMPTS_AT_ONCE]
            read = self.prefill.read([each.prefix for each in group])
            scores += [self._score(each.options, prompt) for each, prompt in zip(group, read, strict=True)]
        return scores

    def check(self, asked: Scored) -> None:
        """Raises InputError for what `score` cannot do, before anything is computed."""
        if not asked.options or not all(asked.options):
            raise InputError("there is nothing to score", expected="options of at least one token", actual="none")
        # The last token of an option is predicted, not read.
        longest = asked.prefix.length + max(map(len, asked.options)) - 1
        if self.max_length is not None and longest > self.max_length:
            raise InputError(
                "question and answer are longer than the model can read",
                expected=f"at most {self.max_length} tokens",
                actual=f"{longest} tokens",
            )

    @torch.inference_mode()
    def _score(self, options: Sequence[tuple[int, ...]], read: ReadPrompt) -> list[OptionScore]:
        first = _Logprobs.of(torch.from_numpy(read.logits_V)[None, None], [[option[0] for option in options]])
        parts = [[(first.logprobs[0][row], first.is_greedy[0][row])] for row in range(len(options))]
        longer = sorted(
            (row for row, option in enumerate(options) if len(option) > 1), key=lambda row: len(options[row])
        )
        for rows in self._groups(longer, options, read):
            for row, place in zip(rows, self._continue(read, [options[row] for row in rows]), strict=True):
                parts[row] += place
        return [
            OptionScore(
                token_ids=option,
                logprobs=tuple(logprob for logprob, _ in part),
                is_greedy=all(is_greedy for _, is_greedy in part),
            )
            for option, part in zip(options, parts, strict=True)
        ]

    def _groups(self, rows: list[int], options: Sequence[tuple[int, ...]], read: ReadPrompt) -> Iterator[list[int]]:
        """Rows, the shortest options first, such that a batch's keys and values fit in `memory_bytes`."""
        token_bytes = read.memory.num_bytes / read.memory.length
        while rows:
            count = 1
            while count < len(rows):
                length = read.memory.length + len(options[rows[count]])
                if (count + 1) * length * token_bytes > self.memory_bytes:
                    break
                count += 1
            yield rows[:count]
            rows = rows[count:]

    def _continue(self, read: ReadPrompt, options: list[tuple[int, ...]]) -> list[list[tuple[float, bool]]]:
        """Logprob and greediness of every token but the first. Padding is on the right, where nothing looks at it."""
        model = self.prefill.model
        inputs_BT = _padded([option[:-1] for option in options])
        targets_BT = _padded([option[1:] for option in options])
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(read.memory.keys, read.memory.values, strict=True)):
            cache.update(*(part[None].expand(len(options), -1, -1, -1) for part in (keys, values)), layer)
        parts: list[list[tuple[float, bool]]] = [[] for _ in options]
        step = max(1, self.logits_bytes // (4 * len(options) * len(read.logits_V)))
        for begin in range(0, inputs_BT.shape[1], step):
            chunk = slice(begin, begin + step)
            ids_BC = torch.from_numpy(inputs_BT[:, chunk].copy()).to(model.device)
            logits_BCV = model(input_ids=ids_BC, past_key_values=cache, use_cache=True).logits.float().cpu()
            logits_BCV[..., self._suppressed] = -torch.inf
            found = _Logprobs.of(logits_BCV, targets_BT[:, chunk].tolist())
            for row, part in enumerate(parts):
                part.extend(zip(found.logprobs[row], found.is_greedy[row], strict=True))
        self.option_tokens += sum(len(option) - 1 for option in options)
        return [part[: len(option) - 1] for part, option in zip(parts, options, strict=True)]


@dataclass(frozen=True, kw_only=True)
class _Logprobs:
    logprobs: list[list[float]]
    is_greedy: list[list[bool]]

    @classmethod
    def of(cls, logits_BCV: Tensor, targets: list[list[int]]) -> "_Logprobs":
        """Of targets (B, C); a single place (1, 1, V) serves all targets of its row."""
        targets_BC = torch.tensor(targets)
        logits_BCV = logits_BCV.double()
        totals_BC = torch.logsumexp(logits_BCV, dim=2)
        if not totals_BC.isfinite().all():
            raise LensmithError("the model computed something that is not a number", expected="finite logits")
        vocabulary = logits_BCV.shape[2]
        if int(targets_BC.max()) >= vocabulary:
            raise InputError("an option has a token outside the vocabulary", expected=f"ids below {vocabulary}")
        best_BC = logits_BCV.argmax(dim=2)
        wide = logits_BCV.expand(-1, targets_BC.shape[1], -1)
        chosen_BC = wide.gather(2, targets_BC[:, :, None])[:, :, 0]
        return cls(logprobs=(chosen_BC - totals_BC).tolist(), is_greedy=(best_BC == targets_BC).tolist())


def _padded(rows: list[tuple[int, ...]]) -> NDArray[np.int64]:
    padded = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for row, ids in enumerate(rows):
        padded[row, : len(ids)] = ids
    return padded


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
