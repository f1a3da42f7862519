"""Reading by id where answers name tokens by text, as OpenAI's interface and every plain compatible server do.

A bias is put on ids, and what comes back are texts. Two requests tell the names of as many ids as there are top
logprobs: both lift the same ids far above all others, the second each of them by an amount of its own more, so that
what a name gained between the two tells which id it is. That needs no order (Carlini et al., arXiv 2403.06634, read
the order of the top tokens), so ids whose logits lie far apart are told from one another all the same.

A text that two ids share names the one that was biased, and where both were it is given up: in the same request no
name can tell them apart, and in another one the first keeps it.

Legend: K ids of one request.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.audit.readouts.base import Asker, LogitReader, Reading, checked_ids, chunks_of, greedy, require_limits
from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import NO_TOKEN, Answer, Capabilities, Endpoint, Logprobs, Request
from lensmith.core.errors import NotExposedError

_STEP_NATS = 2.0
_LEAST_STEPS = 16.0
"""How many times what logprobs are told to a step is at least."""
_FIRST_TRIES = 8
"""Groups of ids of which all must be told, before nothing else is known by which gains could be counted."""

LearnNames = Callable[[Endpoint, Request, IdArray], Mapping[int, int]]
"""The id of each name (a client's number) that one of these ids has; asked after a context, or known."""


@dataclass(frozen=True, kw_only=True)
class BiasNames:
    """Learns names by biases. `top` logprobs are told, of at most `biased_ids` ids with a bias of up to `bias_limit`.

    `error_nats`: how exactly logprobs are told. Once one name is known, every group of ids holds its id too, with a
    gain of 0, against which the others' are counted.
    """

    top: int
    bias_limit: float
    biased_ids: int
    error_nats: float
    anchor: dict[int, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        require_limits(bias_limit=self.bias_limit, error_nats=self.error_nats)
        if self.at_once < 2:
            raise NotExposedError("names cannot be learned", expected="two top logprobs of ids that a bias lifts")

    @property
    def at_once(self) -> int:
        """Ids of one request, whose gains must fit between a lift and the largest bias."""
        return int(min(self.top, self.biased_ids, self.bias_limit / 2 / self.step_nats))

    @property
    def step_nats(self) -> float:
        """Between two gains, so that they are told apart."""
        return max(_LEAST_STEPS * self.error_nats, min(_STEP_NATS, self.bias_limit / 2 / self.top))

    def queries_for(self, ids: int) -> int:
        """Requests that so many ids take."""
        return 2 * -(-ids // (self.at_once - 1))

    def __call__(self, endpoint: Endpoint, context: Request, ids: IdArray) -> Mapping[int, int]:
        """See `LearnNames`. Raises NotExposedError where no names come back that biases explain."""
        asker = Asker(endpoint=endpoint)
        found: dict[int, int] = {}
        tries, left = 0, ids
        while not self.anchor and len(left):
            if tries == _FIRST_TRIES:
                raise NotExposedError("the names of biased tokens do not show which of them they are")
            group, left, tries = left[: self.at_once], left[self.at_once :], tries + 1
            found |= self._first(asker, context, group)
            self.anchor.update([*found.items()][:1])
        for group_ids in self._learn(asker, context, left):
            # A name that another id has already is that id's.
            found = {**group_ids, **found}
        return found

    def _first(self, asker: Asker, context: Request, group: IdArray) -> dict[int, int]:
        """Without an anchor gains are known up to a constant, so that all of the group must be told."""
        (gains,) = self._gains(asker, context, [group.tolist()], first_gain=1)
        ordered = sorted(gains, key=gains.__getitem__)
        steps = np.diff([gains[name] for name in ordered]) / self.step_nats
        if len(ordered) < len(group) or len(ordered) < 2 or (np.abs(steps - 1) > 0.25).any():
            return {}
        return dict(zip(ordered, group.tolist(), strict=True))

    def _learn(self, asker: Asker, context: Request, ids: IdArray) -> list[dict[int, int]]:
        """The names in each group of the ids."""
        if not len(ids):
            return []
        ((anchor_name, anchor_id),) = self.anchor.items()
        groups = [[anchor_id, *part.tolist()] for part in chunks_of(ids[ids != anchor_id], self.at_once - 1)]
        learned = []
        for group, gains in zip(groups, self._gains(asker, context, groups, first_gain=0), strict=True):
            base = gains.pop(anchor_name, np.nan)
            places = {name: (gain - base) / self.step_nats for name, gain in gains.items()}
            near = {name: round(place) for name, place in places.items() if abs(place - np.round(place)) < 0.25}
            shared = Counter(near.values())
            learned.append(
                {name: group[place] for name, place in near.items() if 0 < place < len(group) and shared[place] == 1}
            )
        return learned

    def _gains(
        self, asker: Asker, context: Request, groups: Sequence[Sequence[int]], *, first_gain: int
    ) -> list[dict[int, float]]:
        """By how much each name gained, in each group, where its ids got 0, 1, 2... (from `first_gain`) steps more."""
        lift = self.bias_limit - self.step_nats * self.at_once
        flat = [dict.fromkeys(group, lift) for group in groups]
        graded = [
            {each: lift + self.step_nats * place for place, each in enumerate(group, first_gain)} for group in groups
        ]
        requests = [greedy(context, logit_bias=biases, top_logprobs=self.at_once) for biases in (*flat, *graded)]
        told = [_named_tops(answer) for answer in asker.ask(requests)]
        pairs = zip(told[: len(groups)], told[len(groups) :], strict=True)
        return [{name: after[name] - before[name] for name in before.keys() & after.keys()} for before, after in pairs]


def _named_tops(answer: Answer) -> dict[int, float]:
    """The names at the first position with their logprobs, but those that stand there twice."""
    logprobs = answer.choices[0].logprobs if answer.choices else None
    if logprobs is None or not len(logprobs.top_TK):
        raise NotExposedError("the endpoint answered without the logprobs that were asked for")
    ids_K, values_K = logprobs.top_ids_TK[0], logprobs.top_TK[0]
    counts = Counter(ids_K.tolist())
    pairs = zip(ids_K.tolist(), values_K.tolist(), strict=True)
    return {name: value for name, value in pairs if counts[name] == 1 and name != NO_TOKEN and np.isfinite(value)}


@dataclass(frozen=True, kw_only=True)
class NamedReader:
    """A reader of an endpoint that names tokens by text: what names columns is learned as they are first read.

    A column whose name cannot be learned is NaN. `id_of` holds what is known, and `tried` the ids that were looked for.
    """

    reader: LogitReader
    learn: LearnNames
    queries_to_learn: Callable[[int], int] = lambda ids: 0
    id_of: dict[int, int] = field(default_factory=dict, compare=False)
    tried: set[int] = field(default_factory=set, compare=False)

    @property
    def read_out(self) -> ReadOut:
        return self.reader.read_out

    @property
    def positions(self) -> int:
        """Rows from one context."""
        return int(getattr(self.reader, "positions", 1))

    def known(self, endpoint: Endpoint, context: Request, ids: IdArray) -> IdArray:
        """Those of the ids whose names are known or can be learned, in their order."""
        new = ids[~np.isin(ids, list(self.tried))]
        if len(new):
            learned = self.learn(endpoint, context, new)
            self.id_of.update({name: each for name, each in learned.items() if name not in self.id_of})
            self.tried.update(new.tolist())
        return ids[np.isin(ids, list(self.id_of.values()))]

    def read(self, endpoint: Endpoint, contexts: Sequence[Request], token_ids: IdArray) -> Reading:
        """See `LogitReader.read`."""
        ids_M = checked_ids(token_ids)
        known = self.known(endpoint, contexts[0], ids_M)
        reading = self.reader.read(Renamed(endpoint, self.id_of), contexts, known)
        logits_NM = np.full((len(reading.logits_NM), len(ids_M)), np.nan)
        logits_NM[:, np.isin(ids_M, known)] = reading.logits_NM
        return replace(reading, logits_NM=logits_NM, token_ids_M=ids_M)

    def queries_for(self, rows: int, columns: int, *, context_tokens: int = 0) -> Cost:
        """What the reader takes, and what names of columns take that were not looked for yet."""
        cost = self.reader.queries_for(rows, columns, context_tokens=context_tokens)
        naming = self.queries_to_learn(max(0, columns - len(self.tried)))
        return replace(cost, queries=cost.queries + naming, tokens=cost.tokens + naming * (context_tokens + 1))


class Renamed:
    """An endpoint whose answers name tokens by id where their name's id is known. Satisfies `Endpoint`."""

    def __init__(self, endpoint: Endpoint, id_of: Mapping[int, int]) -> None:
        self._endpoint = endpoint
        self._id_of = id_of

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        return [self._renamed(answer) for answer in self._endpoint.answer(requests)]

    def supports(self) -> Capabilities:
        return self._endpoint.supports()

    def metadata(self) -> Mapping[str, object]:
        return self._endpoint.metadata()

    def _renamed(self, answer: Answer) -> Answer:
        choices = tuple(
            replace(choice, token_ids_T=self._ids(choice.token_ids_T), logprobs=self._logprobs(choice.logprobs))
            for choice in answer.choices
        )
        return replace(answer, choices=choices)

    def _logprobs(self, logprobs: Logprobs | None) -> Logprobs | None:
        return None if logprobs is None else replace(logprobs, top_ids_TK=self._ids(logprobs.top_ids_TK))

    def _ids(self, names: IdArray) -> IdArray:
        flat = [self._id_of.get(name, name) for name in names.ravel().tolist()]
        return np.array(flat, dtype=np.int64).reshape(names.shape)
