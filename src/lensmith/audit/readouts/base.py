"""What every read-out gives: a matrix of logits, how exact it is, and what it took.

A reader asks an endpoint about n contexts and m token ids and returns logits up to one constant a row, whatever the
interface made it do to get them. What could not be read is NaN, never a guess (mean filling, which the emulator of
Carlini et al., arXiv 2403.06634, does, breaks an exact rank).

Legend: N rows (a context, or a position after it), M token ids (columns). All logits and logprobs are natural.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.estimators.noise import logprob_resolution_nats
from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.core.arrays import Float64Array, IdArray
from lensmith.core.endpoint import Answer, Endpoint, Logprobs, Request
from lensmith.core.errors import InputError, NotExposedError, ShapeError

_LOOKED_AT = 64
"""Answers that show how many decimals are told."""

MASKED_BELOW = -9000.0
"""OpenAI writes -9999.0 for a sampled token outside the top; no real logprob is that low."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What is expected of each column before a row is read: its logit minus that of the row's most likely token.

    `mean_M` and `spread_M` (one standard deviation) in nats. It saves first steps, and is never part of an answer.
    """

    mean_M: Float64Array
    spread_M: Float64Array

    def __post_init__(self) -> None:
        if self.mean_M.shape != self.spread_M.shape or self.mean_M.ndim != 1:
            raise ShapeError("a prior has one mean and one spread a column", expected=self.mean_M.shape)
        if not (np.isfinite(self.mean_M).all() and (self.spread_M > 0).all()):
            raise InputError("a prior must be finite, with spreads over 0")

    def require_columns(self, ids_M: IdArray) -> None:
        """Raises ShapeError unless it is of as many columns."""
        if len(self.mean_M) != len(ids_M):
            raise ShapeError("the prior has other columns", expected=len(ids_M), actual=len(self.mean_M))

    @classmethod
    def from_rows(cls, reading: "Reading", *, floor_nats: float = 0.5) -> "Prior":
        """From rows that were read before. A column's spread is drawn towards that of all columns, by two rows' weight.

        Raises InputError where no row has its most likely token.
        """
        gaps_NM = reading.logits_NM - reading.top_N[:, None]
        gaps_NM = gaps_NM[np.isfinite(gaps_NM).any(axis=1)]
        if not len(gaps_NM):
            raise InputError("no row to learn from", expected="a row whose most likely token is known")
        known_NM = np.isfinite(gaps_NM)
        count_M = known_NM.sum(axis=0)
        total_M = np.where(known_NM, gaps_NM, 0.0).sum(axis=0)
        overall = float(gaps_NM[known_NM].mean())
        mean_M = np.where(count_M > 0, total_M / np.maximum(count_M, 1), overall)
        off_NM = np.where(known_NM, gaps_NM - mean_M, 0.0)
        pooled = float((off_NM**2).sum() / max(int(count_M.sum()) - gaps_NM.shape[1], 1))
        if len(gaps_NM) == 1:
            pooled = float(gaps_NM[known_NM].var()) / 2
        spread_M = np.sqrt(((off_NM**2).sum(axis=0) + 2 * pooled) / (np.maximum(count_M - 1, 0) + 2))
        return cls(mean_M=mean_M, spread_M=np.maximum(spread_M, floor_nats))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Logits of N rows and M columns, up to one constant a row; NaN where a value could not be read.

    Row `i * positions + t` is context i with t tokens of its answer after it, where a reader takes several positions.
    `top_N` is the logit of the row's most likely token on that row's scale (NaN: not told). `resolution_nats`: the root
    mean square by which a value may miss what the endpoint computed, whether or not it comes out the same again; an
    error that several values of a row share counts times the square root of their number, since it weighs as much in a
    matrix.
    """

    logits_NM: Float64Array
    token_ids_M: IdArray
    top_N: Float64Array
    resolution_nats: float
    spent: Cost
    notes: tuple[str, ...] = ()

    @property
    def read_fraction(self) -> float:
        """The part of all values that was read."""
        return float(np.isfinite(self.logits_NM).mean()) if self.logits_NM.size else 0.0


class LogitReader(Protocol):
    """One way to read logits."""

    @property
    def read_out(self) -> ReadOut:
        """Which of the read-outs it is."""

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """Reads the logits of `token_ids` after each context, which is a request that asks for nothing yet.

        Raises RefusedError where the endpoint refuses what the read-out needs, NotExposedError where it answers and
        the answers do not tell logits, InputError for contexts or ids that cannot be used.
        """

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """The requests and tokens that a matrix takes: exact, or marked extrapolated where answers decide it."""


@dataclass(kw_only=True)
class Asker:
    """An endpoint with a counter: how many requests were sent, how many tokens they read and wrote, the largest
    bias among them, and some of the top logprobs that came back."""

    endpoint: Endpoint
    batch: int = 256
    queries: int = 0
    tokens: int = 0
    largest_bias: float = 0.0
    told: list[Float64Array] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers in order, asked `batch` at a time."""
        answers: list[Answer] = []
        for start in range(0, len(requests), self.batch):
            part = self.endpoint.answer(requests[start : start + self.batch])
            answers += part
            self.queries += len(part)
            biases = [bias for request in requests[start : start + self.batch] for bias in request.logit_bias.values()]
            self.largest_bias = max([self.largest_bias, *map(abs, biases)])
            self.tokens += sum(map(_tokens_of, part))
            for answer in part[: max(0, _LOOKED_AT - len(self.told))]:
                logprobs = answer.choices[0].logprobs if answer.choices else None
                self.told += [] if logprobs is None else [np.asarray(logprobs.top_TK, dtype=np.float64).ravel()]
        return answers

    @property
    def spent(self) -> Cost:
        return Cost(queries=self.queries, tokens=self.tokens)

    def resolution_nats(self, error_nats: float) -> float:
        """To how many nats the top logprobs are exact: `error_nats`, or what their decimals leave of them."""
        return logprob_resolution_nats(np.concatenate(self.told), error_nats) if self.told else error_nats

    def reading(
        self, logits_NM: Float64Array, token_ids_M: IdArray, resolution_nats: float, top_N: Float64Array | None = None
    ) -> Reading:
        """What was read, with what it took. `top_N` None: no row's is told."""
        return Reading(
            logits_NM=logits_NM,
            token_ids_M=token_ids_M,
            top_N=np.full(len(logits_NM), np.nan) if top_N is None else top_N,
            resolution_nats=resolution_nats,
            spent=self.spent,
            notes=tuple(self.notes),
        )

    def note(self, text: str) -> None:
        """Keeps a sentence for the report, once."""
        if text not in self.notes:
            self.notes.append(text)


def _tokens_of(answer: Answer) -> int:
    written = sum(len(choice.token_ids_T) for choice in answer.choices)
    return written + (answer.prompt_tokens or 0)


def greedy(context: Request, **changes: Any) -> Request:
    """The context as a greedy request for one token, with `changes`."""
    return replace(context, **{"max_tokens": 1, "temperature": 0.0, **changes})


def logprobs_of(answer: Answer) -> Logprobs:
    """The first choice's logprobs. Raises NotExposedError where the endpoint left them out."""
    logprobs = answer.choices[0].logprobs if answer.choices else None
    if logprobs is None:
        raise NotExposedError("the endpoint answered without the logprobs that were asked for")
    return logprobs


def biased_logprob(logprob: float, bias: float) -> float:
    """What a bias makes of a token's logprob, where logprobs are taken after it."""
    return float(logprob + bias - np.log1p(np.exp(min(logprob, 0.0)) * np.expm1(bias)))


def answer_name(answer: Answer) -> int | str:
    """What tells one greedy answer from another: its first token's id, or its text where no id is told."""
    choice = answer.choices[0]
    return int(choice.token_ids_T[0]) if len(choice.token_ids_T) else choice.text


def real_values(values: NDArray[np.floating[Any]]) -> Float64Array:
    """NaN for what is no logprob: not told, masked, or minus infinity (a token that does not exist)."""
    values = np.asarray(values, dtype=np.float64)
    result: Float64Array = np.where(np.isfinite(values) & (values > MASKED_BELOW), values, np.nan)
    return result


def checked_ids(token_ids: IdArray) -> IdArray:
    """Raises InputError unless `token_ids` is a list of different ids."""
    ids = np.asarray(token_ids, dtype=np.int64)
    if ids.ndim != 1 or not len(ids) or len(np.unique(ids)) != len(ids) or ids.min() < 0:
        raise InputError("columns must be different token ids, at least one", actual=ids.shape)
    return ids


def chunks_of(ids: IdArray, size: int) -> list[IdArray]:
    """`ids` in pieces of at most `size`."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def cost_of(requests: int, written: int, context_tokens: int, *, extrapolated: bool = False) -> Cost:
    """`requests` that each send a context and write `written` tokens."""
    return Cost(queries=requests, tokens=requests * (context_tokens + written), extrapolated=extrapolated)


def require_limits(**limits: float | None) -> None:
    """Raises InputError unless each limit is None or over 0."""
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise InputError(f"{name}: must be over 0", actual=value)
