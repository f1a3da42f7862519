"""The read-outs that need no trick: the whole vocabulary, and chosen token ids.

P1: logprobs of every token (vLLM without a cap), or of so many that every row holds the same columns (llama.cpp, whose
`n_probs` only the vocabulary bounds). P2: logprobs of chosen ids (vLLM's `logprob_token_ids`, SGLang's
`token_ids_logprob`); pieces of a row are joined by one column that all of them hold. Neither stands in the two papers
(arXiv 2403.06634 and 2403.09539), whose interface had a small top-k only; both need no bias, so that the published
defences do not touch them.

Several rows come from one request where the endpoint answers greedily and repeats itself: position t of the answer is
one more context. With P2 the pieces of a row are different requests, so the answers' tokens are compared and what
stands after the first difference is dropped.

Legend: N rows, T positions of one answer, M token ids, C ids of one request, V vocabulary, K top tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lensmith.audit.estimators.noise import FLOAT32_ERROR_NATS, logprob_resolution_nats
from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.readouts.base import (
    Asker,
    Reading,
    checked_ids,
    chunks_of,
    cost_of,
    greedy,
    logprobs_of,
    real_values,
    require_limits,
)
from lensmith.core.arrays import Float64Array, IdArray
from lensmith.core.endpoint import NO_TOKEN, Answer, Endpoint, Logprobs, Request, Reveal
from lensmith.core.errors import InputError, NotExposedError


@dataclass(frozen=True, kw_only=True)
class WholeVocabularyReader:
    """P1. `top` is None for `Reveal.VOCABULARY`, or the `top_logprobs` to ask for where only those are told.

    `positions` rows come from each context. `batch` requests are held in memory at once.
    """

    read_out: ClassVar[ReadOut] = ReadOut.P1
    top: int | None = None
    positions: int = 1
    batch: int = 128
    logprob_error_nats: float = FLOAT32_ERROR_NATS

    def __post_init__(self) -> None:
        require_limits(top=self.top, positions=self.positions, batch=self.batch)

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`. An id that a row does not tell is NaN there."""
        ids_M = checked_ids(token_ids)
        asker = Asker(endpoint=endpoint, batch=self.batch)
        logits_NM = np.full((len(contexts) * self.positions, len(ids_M)), np.nan)
        top_N = np.full(len(logits_NM), np.nan)
        for start in range(0, len(contexts), self.batch):
            for offset, answer in enumerate(
                asker.ask([self._request(each) for each in contexts[start:][: self.batch]])
            ):
                first = (start + offset) * self.positions
                part_TM, part_T = _pick(logprobs_of(answer), ids_M)
                logits_NM[first : first + len(part_TM)] = part_TM[: self.positions]
                top_N[first : first + len(part_T)] = part_T[: self.positions]
        resolution_nats = logprob_resolution_nats(logits_NM, self.logprob_error_nats)
        return asker.reading(logits_NM, ids_M, resolution_nats, top_N)

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """One request a context, whatever the number of columns."""
        return cost_of(math.ceil(rows / self.positions), self.positions, context_tokens)

    def common_ids(self, endpoint: Endpoint, contexts: Sequence[Request]) -> IdArray:
        """The ids that every one of these contexts tells, sorted: the columns where ids cannot be chosen beforehand.

        Raises NotExposedError where there is none.
        """
        common: IdArray | None = None
        for answer in Asker(endpoint=endpoint, batch=self.batch).ask([self._request(each) for each in contexts]):
            for ids in _returned_ids(logprobs_of(answer)):
                common = ids if common is None else np.intersect1d(common, ids)
        if common is None or not len(common):
            raise NotExposedError("no token is told for every context", hint="ask for more top logprobs")
        return common

    def _request(self, context: Request) -> Request:
        if self.top is None:
            return greedy(context, max_tokens=self.positions, reveal=Reveal.VOCABULARY)
        return greedy(context, max_tokens=self.positions, top_logprobs=self.top)


@dataclass(frozen=True, kw_only=True)
class ChosenIdsReader:
    """P2. `cap` is how many ids one request may name; `positions` rows come from each context.

    Pieces of a row are shifted so that their shared column agrees, where it differs by more than `logprob_error_nats`
    explains: that makes a row one row even where the pieces came from replicas that differ. It is noted.
    """

    read_out: ClassVar[ReadOut] = ReadOut.P2
    cap: int = 128
    positions: int = 1
    batch: int = 256
    logprob_error_nats: float = FLOAT32_ERROR_NATS

    def __post_init__(self) -> None:
        require_limits(cap=self.cap, positions=self.positions, batch=self.batch)

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`. Raises InputError where a row takes several requests that `cap` keeps apart."""
        ids_M = checked_ids(token_ids)
        chunks = self._chunks(ids_M)
        asker = Asker(endpoint=endpoint, batch=self.batch)
        answers = asker.ask([self._request(context, chunk) for context in contexts for chunk in chunks])
        rows = [
            self._row(answers[start : start + len(chunks)], len(ids_M), asker)
            for start in range(0, len(answers), len(chunks))
        ]
        logits_NM = np.concatenate(rows) if rows else np.empty((0, len(ids_M)))
        shared = math.sqrt(len(chunks[0])) if asker.notes else 1.0  # the error of a shift is that of all it shifted
        resolution_nats = logprob_resolution_nats(logits_NM, self.logprob_error_nats) * shared
        return asker.reading(logits_NM, ids_M, resolution_nats)

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """One request a context and piece of a row."""
        pieces = len(self._chunks(np.arange(columns, dtype=np.int64)))
        return cost_of(math.ceil(rows / self.positions) * pieces, self.positions, context_tokens)

    def _chunks(self, ids_M: IdArray) -> list[IdArray]:
        """Pieces of at most `cap` ids that all begin with the first id."""
        if len(ids_M) <= self.cap:
            return [ids_M]
        if self.cap < 2:
            raise InputError("pieces of a row need a shared column", expected="a cap of 2 or more", actual=self.cap)
        return [np.concatenate([ids_M[:1], part]) for part in chunks_of(ids_M[1:], self.cap - 1)]

    def _request(self, context: Request, ids_C: IdArray) -> Request:
        return greedy(context, max_tokens=self.positions, wanted_ids=tuple(ids_C.tolist()))

    def _row(self, pieces: Sequence[Answer], columns: int, asker: Asker) -> Float64Array:
        """The rows (positions, columns) of one context from the answers to its pieces."""
        row_TM = np.full((self.positions, columns), np.nan)
        column, agreed = 0, self._agreed_positions(pieces, asker)
        for piece in pieces:
            wanted_TC = real_values(logprobs_of(piece).wanted_TW)[:agreed]
            if column == 0:
                row_TM[:agreed, : wanted_TC.shape[1]] = wanted_TC
                column = wanted_TC.shape[1]
                continue
            shift_T = row_TM[:agreed, 0] - wanted_TC[:, 0]
            differs_T = np.abs(shift_T) > 4 * self.logprob_error_nats
            if differs_T.any():
                asker.note("pieces of one row disagree on their shared column: the endpoint does not repeat itself")
            shift_T = np.where(differs_T | np.isnan(shift_T), shift_T, 0.0)
            row_TM[:agreed, column : column + wanted_TC.shape[1] - 1] = wanted_TC[:, 1:] + shift_T[:, None]
            column += wanted_TC.shape[1] - 1
        return row_TM

    def _agreed_positions(self, pieces: Sequence[Answer], asker: Asker) -> int:
        """Up to which position all pieces wrote the same tokens; a position's context is what stands before it."""
        agreed = min(self.positions, *(len(logprobs_of(piece).wanted_TW) for piece in pieces))
        first = pieces[0].choices[0].token_ids_T
        for piece in pieces[1:]:
            other = piece.choices[0].token_ids_T
            same = min(len(first), len(other))
            different = np.flatnonzero(first[:same] != other[:same])
            before = int(different[0]) if len(different) else same
            if before + 1 < agreed:
                asker.note("a greedy answer did not repeat itself: what stands after the difference was dropped")
                agreed = before + 1
        return agreed


def _pick(logprobs: Logprobs, ids_M: IdArray) -> tuple[Float64Array, Float64Array]:
    """The logprobs of `ids_M` and of the most likely token at each position."""
    if logprobs.vocabulary_TV is not None:
        # Picked first: a whole vocabulary is not worth converting, for thousands of contexts, where a part is wanted.
        values_TV = np.asarray(logprobs.vocabulary_TV)
        inside_M = ids_M < values_TV.shape[1]
        picked_TM = np.full((len(values_TV), len(ids_M)), np.nan)
        picked_TM[:, inside_M] = real_values(values_TV[:, ids_M[inside_M]])
        return picked_TM, real_values(np.fmax.reduce(values_TV, axis=1))
    top_TK = real_values(np.asarray(logprobs.top_TK, dtype=np.float64))
    if not top_TK.shape[1]:
        raise NotExposedError("the endpoint told no logprobs beside the sampled token's")
    order_M = np.argsort(ids_M)
    picked_TM = np.full((len(top_TK), len(ids_M)), np.nan)
    for position, (ids_K, values_K) in enumerate(zip(logprobs.top_ids_TK, top_TK, strict=True)):
        positions_K = np.minimum(np.searchsorted(ids_M, ids_K, sorter=order_M), len(ids_M) - 1)
        columns_K = order_M[positions_K]
        found_K = ids_M[columns_K] == ids_K
        picked_TM[position, columns_K[found_K]] = values_K[found_K]
    return picked_TM, np.fmax.reduce(top_TK, axis=1)


def _returned_ids(logprobs: Logprobs) -> list[IdArray]:
    """The ids that each position tells."""
    if logprobs.vocabulary_TV is not None:
        return [np.flatnonzero(np.isfinite(row_V)) for row_V in real_values(np.asarray(logprobs.vocabulary_TV))]
    finite_TK = np.isfinite(real_values(np.asarray(logprobs.top_TK)))
    returned_TK = finite_TK & (logprobs.top_ids_TK != NO_TOKEN)
    return [np.unique(ids_K[returned_K]) for ids_K, returned_K in zip(logprobs.top_ids_TK, returned_TK, strict=True)]
