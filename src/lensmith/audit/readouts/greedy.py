"""Logits from an interface that honours a bias and tells the greedy token alone (read-out P7).

Carlini et al., arXiv 2403.06634, section 6 and the appendix on logprob-free attacks: binary search (one token a
request), the simultaneous search (all tokens at their centres, "hyperrectangle") and one-of-n. All three are one race
with other numbers: how many tokens run at once, and how many of them are expected to beat the anchor. What is ours
stands in `intervals.py`.

Answers may name tokens by id or by text. Where they are named by text (a chat API without logprobs), the reader is
given the texts, or learns them: one request a column, once for all rows.

Legend: N rows (contexts), M token ids.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.readouts.base import (
    Asker,
    Prior,
    Reading,
    answer_name,
    checked_ids,
    cost_of,
    greedy,
    require_limits,
)
from lensmith.audit.readouts.intervals import ANCHOR, Intervals, Placement
from lensmith.core.arrays import Float64Array, IdArray
from lensmith.core.endpoint import TEXT_IDS_FROM, Endpoint, Request
from lensmith.core.errors import NotExposedError

EXPECTED_OVER = 5.0
"""How many tokens of one race are expected to beat the anchor. From 4 to 8 are alike; 1 and 12 take more requests."""

MOST_AT_ONCE = 1000
"""More gain less than a bit a request, which grows with them."""

MISFITS_FROM = 8
SCATTER_NATS = 3.5
"""The usual standard deviation of a row's logits, for a cost before anything was read."""

Name = int | str


@dataclass(frozen=True, kw_only=True)
class GreedyReader:
    """P7. `bias_limit` caps a bias, `biased_ids` how many ids it may name (None: no cap; then `MOST_AT_ONCE` are used).

    A row is done when its root-mean-square error is `target_nats`, or after `most_queries` requests a logit.
    `expected_over` of the tokens of one request are expected to beat the row's anchor. `texts` names the tokens where
    the endpoint tells texts. `exact_nats` is how exactly the endpoint compares scores (float32: about 2e-6).
    """

    read_out: ClassVar[ReadOut] = ReadOut.P7
    bias_limit: float = 100.0
    biased_ids: int | None = 300
    expected_over: float = EXPECTED_OVER
    target_nats: float = 1e-3
    most_queries: float = 12.0
    prior: Prior | None = None
    texts: Mapping[int, str] | None = None
    exact_nats: float = 2e-6
    batch: int = 256

    def __post_init__(self) -> None:
        require_limits(
            bias_limit=self.bias_limit,
            biased_ids=self.biased_ids,
            expected_over=self.expected_over,
            target_nats=self.target_nats,
            most_queries=self.most_queries,
            exact_nats=self.exact_nats,
            batch=self.batch,
        )

    @property
    def at_once(self) -> int:
        """How many ids a race biases."""
        return MOST_AT_ONCE if self.biased_ids is None else min(self.biased_ids, MOST_AT_ONCE)

    @classmethod
    def binary(cls, *, target_nats: float = 1e-3, bias_limit: float = 100.0) -> "GreedyReader":
        """The paper's baseline: one token a request, its interval halved."""
        return cls(biased_ids=1, expected_over=0.5, target_nats=target_nats, bias_limit=bias_limit, most_queries=60.0)

    @classmethod
    def simultaneous(
        cls, *, biased_ids: int = 300, target_nats: float = 1e-3, bias_limit: float = 100.0
    ) -> "GreedyReader":
        """The paper's hyperrectangle: every token at the middle of its interval."""
        over = biased_ids / 2
        return cls(
            biased_ids=biased_ids, expected_over=over, target_nats=target_nats, bias_limit=bias_limit, most_queries=30.0
        )

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`. Rows are relative to their anchor, the likeliest token. NaN for a token that no bias
        within the limit brought to the top, or whose answers contradict each other.

        Raises NotExposedError where a bias does not change the token.
        """
        ids_M = checked_ids(token_ids)
        if self.prior is not None:
            self.prior.require_columns(ids_M)
        asker = Asker(endpoint=endpoint, batch=self.batch)
        anchors = [answer_name(answer) for answer in asker.ask([greedy(context) for context in contexts])]
        names_M = self._names(asker, contexts, anchors, ids_M)
        rows = [
            _Row(reader=self, context=context, anchor=anchor, ids_M=ids_M, names_M=names_M)
            for context, anchor in zip(contexts, anchors, strict=True)
        ]
        while running := [row for row in rows if not row.is_done]:
            placements = [row.place() for row in running]
            requests = [row.request(each) for row, each in zip(running, placements, strict=True)]
            for row, placement, answer in zip(running, placements, asker.ask(requests), strict=True):
                row.update(placement, answer_name(answer))
        self._check(asker, rows)
        for row in rows:
            row.explain(asker)
        return self._reading(rows, ids_M, asker)

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """What the information in a race comes to, with the share of it that races were measured to gain."""
        bits = math.log2(4.13 * SCATTER_NATS / (math.sqrt(12.0) * self.target_nats))
        a_race = 0.7 * math.log2(1 + min(self.at_once, columns))
        logits = rows * columns
        searching = math.ceil(logits * min(bits / a_race + 0.2, self.most_queries))
        naming = 0 if self.texts is not None else 1
        return cost_of(searching + 2 * rows + naming, 1, context_tokens, extrapolated=True)

    def _check(self, asker: Asker, rows: Sequence["_Row"]) -> None:
        """One more race a row, of which the winner is known if what was found holds."""
        checked = [row for row in rows if row.intervals.readable.any() and not row.is_broken]
        placements = [row.place_known() for row in checked]
        requests = [row.request(each) for row, each in zip(checked, placements, strict=True)]
        for row, placement, answer in zip(checked, placements, asker.ask(requests), strict=True):
            row.failed_check = row.column_by_name.get(answer_name(answer)) != placement.columns_C[0]

    def _names(
        self, asker: Asker, contexts: Sequence[Request], anchors: Sequence[Name], ids_M: IdArray
    ) -> list[Name | None]:
        """What answers call each column; None where that is not known, or two columns share it."""
        if not contexts:
            return []
        if self.texts is not None and isinstance(anchors[0], str):
            return _unshared([self.texts.get(token_id) for token_id in ids_M.tolist()])
        by_id = isinstance(anchors[0], int) and anchors[0] < TEXT_IDS_FROM
        others = [each for each in ids_M.tolist() if each != anchors[0]]
        forced = [others[: self.at_once]] * bool(others) if by_id else [[each] for each in ids_M.tolist()]
        requests = [greedy(contexts[0], logit_bias=dict.fromkeys(ids, self.bias_limit)) for ids in forced]
        names = [answer_name(answer) for answer in asker.ask(requests)]
        if names and all(name == anchors[0] for name in names):
            raise NotExposedError(
                "a bias does not change the token that is chosen",
                expected=f"another token with a bias of {self.bias_limit:g}",
                hint="the largest bias may be too small, or ignored",
            )
        if by_id:
            return list(ids_M.tolist())
        return _unshared([name if name != anchors[0] else None for name in names])

    def _reading(self, rows: Sequence["_Row"], ids_M: IdArray, asker: Asker) -> Reading:
        errors = [row.intervals.errors[row.intervals.readable] for row in rows]
        squares = np.concatenate([each**2 for each in errors]) if errors else np.empty(0)
        logits_NM = np.array([row.logits() for row in rows]).reshape(len(rows), len(ids_M))
        resolution_nats = float(np.sqrt(squares.mean())) if len(squares) else math.inf
        return asker.reading(logits_NM, ids_M, resolution_nats, np.zeros(len(rows)))


@dataclass(kw_only=True)
class _Row:
    """One context's search."""

    reader: GreedyReader
    context: Request
    anchor: Name
    ids_M: IdArray
    names_M: list[Name | None]
    intervals: Intervals = field(init=False)
    running: IdArray = field(init=False)
    column_by_name: dict[Name, int] = field(init=False)
    failed_check: bool = False

    def __post_init__(self) -> None:
        running = [at for at, name in enumerate(self.names_M) if name is not None and name != self.anchor]
        self.running = np.array(running, dtype=np.int64)
        self.column_by_name = {
            name: place for place, at in enumerate(running) if (name := self.names_M[at]) is not None
        }
        prior = self.reader.prior
        if prior is not None:
            prior = Prior(mean_M=prior.mean_M[self.running], spread_M=prior.spread_M[self.running])
        self.intervals = Intervals(
            count=len(running), lowest=-self.reader.bias_limit, exact_nats=self.reader.exact_nats, prior=prior
        )

    @property
    def is_done(self) -> bool:
        known = self.intervals
        if not known.count or known.races >= self.reader.most_queries * known.count or self.is_broken:
            return True
        error_M = known.errors[~known.contradicted_M]
        return bool(math.sqrt(float((error_M**2).mean())) <= self.reader.target_nats) if len(error_M) else True

    @property
    def is_broken(self) -> bool:
        """Too many answers do not fit: the endpoint does not repeat itself, or compares less exactly than expected."""
        known = self.intervals
        misfits = known.strangers + int(known.contradicted_M.sum())
        return self.failed_check or misfits > min(MISFITS_FROM + known.races / 50, max(known.count / 4, 1))

    def place(self) -> Placement:
        return self.intervals.place(self.reader.at_once, self.reader.expected_over)

    def place_known(self) -> Placement:
        known = self.intervals
        error = math.sqrt(float((known.errors[known.readable] ** 2).mean()))
        return known.place_known(self.reader.at_once, max(2 * error, 4 * self.reader.exact_nats), seed=known.races)

    def request(self, placement: Placement) -> Request:
        ids = self.ids_M[self.running[placement.columns_C]].tolist()
        return greedy(self.context, logit_bias=dict(zip(ids, placement.biases_C.tolist(), strict=True)))

    def update(self, placement: Placement, winner: Name) -> None:
        if winner == self.anchor:
            self.intervals.update(placement, ANCHOR)
            return
        place = np.flatnonzero(placement.columns_C == self.column_by_name.get(winner, ANCHOR))
        if len(place):
            self.intervals.update(placement, int(place[0]))
        else:
            self.intervals.races += 1
            self.intervals.strangers += 1

    def logits(self) -> Float64Array:
        """The row (M,), relative to the anchor."""
        logits_M = np.full(len(self.ids_M), np.nan)
        if not self.is_broken:
            logits_M[self.running] = np.where(self.intervals.readable, self.intervals.centres, np.nan)
        logits_M[[name == self.anchor for name in self.names_M]] = 0.0
        return logits_M

    def explain(self, asker: Asker) -> None:
        """Notes for the report."""
        if self.is_broken:
            asker.note("answers contradict each other or the bias that was sent: rows were given up")
        if len(self.running) and not self.intervals.readable.all():
            asker.note("some tokens were never brought to the top, or contradicted themselves")


def _unshared(names: Sequence[Name | None]) -> list[Name | None]:
    """The names, with None for those that stand more than once."""
    return [name if name is not None and list(names).count(name) == 1 else None for name in names]
