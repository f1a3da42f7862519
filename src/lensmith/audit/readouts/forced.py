"""The read-outs that give one logit a request: a token that is made to stand there, and its true logprob.

P4a: a bias forces the token, and the endpoint tells the sampled token's logprob as it was before the bias (vLLM's and
llama.cpp's default), so "the bias does not move logprobs" does not close the leak. P4b: the same with an allow-list or
a grammar of one token. P5: the token is placed at the end of the prompt, and the prompt's logprobs are told (echo,
teacher forcing). Published defences (arXiv 2403.06634, section 8) name none of the three.

What was read is checked before it is believed: the token must stand there, the logprobs of one row must be those of a
distribution (their sum at most 1), and a bias on the likeliest token must leave its logprob alone.

Legend: N rows (contexts), M token ids, P prompt positions.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lensmith.audit.estimators.noise import FLOAT32_ERROR_NATS, logprob_resolution_nats
from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.readouts.base import (
    Asker,
    Reading,
    biased_logprob,
    checked_ids,
    cost_of,
    greedy,
    logprobs_of,
    real_values,
    require_limits,
)
from lensmith.core.arrays import BoolArray, Float64Array, IdArray
from lensmith.core.endpoint import NO_TOKEN, TEXT_IDS_FROM, Answer, Endpoint, Request, Reveal
from lensmith.core.errors import InputError, NotExposedError

SUM_SLACK = 0.01
"""How far the probabilities of one row may exceed 1: rounding to two decimals does no more."""

CHECK_BIAS_NATS = 3.0


class Force(enum.Enum):
    """How a token is made to be chosen."""

    BIAS = "bias"
    ALLOW_LIST = "allow-list"


@dataclass(frozen=True, kw_only=True)
class ForcedTokenReader:
    """P4a or P4b. `bias` is the largest that the endpoint takes; an allow-list does not use it."""

    force: Force = Force.BIAS
    bias: float = 100.0
    batch: int = 256
    logprob_error_nats: float = FLOAT32_ERROR_NATS

    def __post_init__(self) -> None:
        require_limits(bias=self.bias, batch=self.batch)

    @property
    def read_out(self) -> ReadOut:
        return ReadOut.P4A if self.force is Force.BIAS else ReadOut.P4B

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`. NaN where another token stood there, or where its logprob was masked.

        Raises NotExposedError where the logprobs that are told moved with the bias.
        """
        ids_M = checked_ids(token_ids)
        asker = Asker(endpoint=endpoint, batch=self.batch)
        if self.force is Force.BIAS and contexts:
            _require_unmoved(asker, contexts[0], min(self.bias, CHECK_BIAS_NATS))
        answers = asker.ask([self._request(context, int(each)) for context in contexts for each in ids_M])
        sampled = [_sampled(answer) for answer in answers]
        shape_NM = (len(contexts), len(ids_M))
        values_NM = real_values(np.array([value for _, value in sampled])).reshape(shape_NM)
        returned_ids_NM = np.array([token_id for token_id, _ in sampled], dtype=np.int64).reshape(shape_NM)
        values_NM = np.where(_stands_there(returned_ids_NM, ids_M), values_NM, np.nan)
        _require_distribution(values_NM)
        return asker.reading(values_NM, ids_M, logprob_resolution_nats(values_NM, self.logprob_error_nats))

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """One request a logit, and two that check what a bias does."""
        checks = 2 if self.force is Force.BIAS else 0
        return cost_of(rows * columns + checks, 1, context_tokens)

    def _request(self, context: Request, token_id: int) -> Request:
        if self.force is Force.ALLOW_LIST:
            return greedy(context, allowed_ids=(token_id,), reveal=Reveal.SAMPLED)
        return greedy(context, logit_bias={token_id: self.bias}, reveal=Reveal.SAMPLED)


@dataclass(frozen=True, kw_only=True)
class PromptReader:
    """P5. Contexts are `token_ids`; or a `prompt`, and then `texts` says what to write for each id.

    `max_tokens` is what a request asks for besides: servers differ on whether 0 means none.
    """

    read_out: ClassVar[ReadOut] = ReadOut.P5
    texts: Mapping[int, str] | None = None
    max_tokens: int = 1
    batch: int = 256
    logprob_error_nats: float = FLOAT32_ERROR_NATS

    def __post_init__(self) -> None:
        require_limits(batch=self.batch)

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`. NaN where the text of a token was read as other tokens than that one.

        Raises InputError for contexts of messages, whose end is not the answer's beginning.
        """
        ids_M = checked_ids(token_ids)
        asker = Asker(endpoint=endpoint, batch=self.batch)
        lengths = self._prompt_lengths(asker, contexts)
        answers = asker.ask([self._request(context, int(each)) for context in contexts for each in ids_M])
        values_NM = np.full((len(contexts), len(ids_M)), np.nan)
        returned_ids_NM = np.full(values_NM.shape, NO_TOKEN, dtype=np.int64)
        for number, answer in enumerate(answers):
            row, column = divmod(number, len(ids_M))
            if answer.prompt_logprobs is None or answer.prompt_ids_P is None:
                raise NotExposedError("the endpoint answered without the prompt's logprobs that were asked for")
            if len(answer.prompt_ids_P) == lengths[row] + 1:
                returned_ids_NM[row, column] = answer.prompt_ids_P[-1]
                values_NM[row, column] = answer.prompt_logprobs.sampled_T[-1]
        values_NM = np.where(_stands_there(returned_ids_NM, ids_M), real_values(values_NM), np.nan)
        _require_distribution(values_NM)
        return asker.reading(values_NM, ids_M, logprob_resolution_nats(values_NM, self.logprob_error_nats))

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """One request a logit; with texts one more a row, which counts the context's tokens."""
        requests = rows * (columns + (1 if self.texts is not None else 0))
        return cost_of(requests, 1 + self.max_tokens, context_tokens)

    def _prompt_lengths(self, asker: Asker, contexts: Sequence[Request]) -> list[int]:
        """How many tokens each context has; asked only where it is text."""
        if any(context.messages for context in contexts):
            raise InputError("prompt logprobs need contexts without a chat template", expected="token_ids or a prompt")
        if all(context.token_ids for context in contexts):
            return [len(context.token_ids) for context in contexts]
        if self.texts is None:
            raise InputError(
                "contexts are text, so the texts of the tokens are needed", hint="give texts, or token ids"
            )
        answers = asker.ask([self._echo(context) for context in contexts])
        return [0 if answer.prompt_ids_P is None else len(answer.prompt_ids_P) for answer in answers]

    def _request(self, context: Request, token_id: int) -> Request:
        if context.token_ids:
            return self._echo(replace(context, token_ids=(*context.token_ids, token_id)))
        assert self.texts is not None
        if token_id not in self.texts:
            raise InputError("a column has no text", actual=token_id)
        return self._echo(replace(context, prompt=context.prompt + self.texts[token_id]))

    def _echo(self, context: Request) -> Request:
        return greedy(context, max_tokens=self.max_tokens, reveal=Reveal.PROMPT | Reveal.SAMPLED)


def _sampled(answer: Answer) -> tuple[int, float]:
    """The first token of an answer and its logprob."""
    ids_T, sampled_T = answer.choices[0].token_ids_T, logprobs_of(answer).sampled_T
    return (int(ids_T[0]) if len(ids_T) else NO_TOKEN, float(sampled_T[0]) if len(sampled_T) else np.nan)


def _stands_there(returned_ids_NM: IdArray, ids_M: IdArray) -> BoolArray:
    """Where the token that was asked for stands.

    A server that tells texts names tokens by numbers of its client's (`TEXT_IDS_FROM`). Such a column is believed
    where all rows agree on its name and no other column has that name.
    """
    right_NM: BoolArray = returned_ids_NM == ids_M
    by_text_NM = returned_ids_NM >= TEXT_IDS_FROM
    if not by_text_NM.any():
        return right_NM
    names_M = returned_ids_NM.max(axis=0)
    names, counts = np.unique(names_M, return_counts=True)
    own_M = np.isin(names_M, names[counts == 1]) & (by_text_NM & (returned_ids_NM == names_M)).all(axis=0)
    result: BoolArray = right_NM | own_M
    return result


def _require_unmoved(asker: Asker, context: Request, bias: float) -> None:
    """Asks for the likeliest token as it is and with a bias. Raises NotExposedError where its logprob moved."""
    (plain,) = asker.ask([greedy(context, reveal=Reveal.SAMPLED)])
    name, before = _sampled(plain)
    if not 0 <= name < TEXT_IDS_FROM:
        return  # its id is not known, so it cannot be biased; the sum over a row still is a check
    (biased,) = asker.ask([greedy(context, logit_bias={name: bias}, reveal=Reveal.SAMPLED)])
    if_moved = biased_logprob(before, bias)
    after = _sampled(biased)[1]
    if abs(after - if_moved) < abs(after - before) and abs(if_moved - before) > 1e-4:
        raise NotExposedError(
            "logprobs move with the bias, so a forced token's logprob is not its own",
            expected=f"{before:.6f}, as without the bias",
            actual=f"{after:.6f}",
            hint="read the top logprobs with a bias instead (P3 or P6)",
        )


def _require_distribution(values_NM: Float64Array) -> None:
    """Raises NotExposedError where different tokens of one row have probabilities that sum to over 1."""
    sums_N = np.exp(np.where(np.isfinite(values_NM), values_NM, -np.inf)).sum(axis=1)
    if (sums_N > 1 + SUM_SLACK).any():
        raise NotExposedError(
            "what is told is not the model's distribution: it was taken after the token was forced",
            expected="probabilities of different tokens that sum to at most 1",
            actual=f"{sums_N.max():.3g}",
        )
