"""What a probe found of an interface, and which read-outs follow from it."""

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lensmith.audit.estimators.noise import FLOAT32_ERROR_NATS, rounding_nats
from lensmith.audit.findings.finding import ReadOut
from lensmith.core.endpoint import Request
from lensmith.core.exposure import Taken

LARGE_TOP = 1024
"""So many top logprobs are read as a whole vocabulary is."""


class Telling(enum.Enum):
    """How an answer tells a token's logprob."""

    ITSELF = "as it is"
    DIFFERENCE = "through a difference of two that are told"
    SEARCH = "through a search over many answers"


class AQuery(enum.Enum):
    """How many logits of one context a query tells."""

    ONE = "one, or a part of one"
    SEVERAL = "as many as there are top logprobs"
    MANY = "a hundred or more"


@dataclass(frozen=True, kw_only=True)
class Yield:
    """What a read-out gives for what it asks."""

    telling: Telling
    a_query: AQuery = AQuery.ONE

    @property
    def is_watched(self) -> bool:
        """Whether a matrix may be watched as it grows, to stop where its rank shows: rows come whole, to the precision
        of a float32."""
        return self.a_query is not AQuery.ONE


YIELDS = {
    ReadOut.P1: Yield(telling=Telling.ITSELF, a_query=AQuery.MANY),
    ReadOut.P2: Yield(telling=Telling.ITSELF, a_query=AQuery.MANY),
    ReadOut.P5: Yield(telling=Telling.ITSELF),
    ReadOut.P3: Yield(telling=Telling.DIFFERENCE, a_query=AQuery.SEVERAL),
    ReadOut.P4A: Yield(telling=Telling.ITSELF),
    ReadOut.P4B: Yield(telling=Telling.ITSELF),
    ReadOut.P6: Yield(telling=Telling.SEARCH),
    ReadOut.P7: Yield(telling=Telling.SEARCH),
}
"""The read-outs that tell logits, from the cheapest to the dearest, as a reader pays."""

CHEAPEST_FIRST = tuple(YIELDS)


SHOWS: Mapping[str, tuple[ReadOut, ...]] = {
    "more top logprobs": (ReadOut.P1,),
    "whole vocabulary": (ReadOut.P1,),
    "more chosen ids": (ReadOut.P2,),
    "bias": (ReadOut.P7,),
    "bias with logprobs": (ReadOut.P3, ReadOut.P4A, ReadOut.P6),
    "bias with top logprobs": (ReadOut.P3, ReadOut.P4A, ReadOut.P6),
    "allow-list": (ReadOut.P4B,),
    "echo": (ReadOut.P5,),
}
"""What each question of the probe can show; others show none by themselves."""


class SampledFound(enum.Enum):
    """What is told of a sampled token that is not among the top."""

    TRUE_VALUE = "its true logprob"
    AFTER_BIAS = "its logprob after the bias"
    MASKED = "nothing"
    UNKNOWN = "could not be tested"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What was found. Counts are the largest that were answered; 0 is none. `spread_nats`: between equal requests.

    `decimals`: how many are told, None where values are finer than six. `step_nats`: the lattice that all differences
    within an answer lie on (bf16 or fp16 logits leave one), 0 where there is none. `facts`: what the interface says of
    the model's size by itself. `notes`: each question with its outcome, in order. `failed`: questions that got neither
    an answer nor a refusal, with what went wrong.
    """

    context: Request
    returns_ids: bool = False
    top_logprobs: int = 0
    whole_vocabulary: bool = False
    wanted_ids: int = 0
    sampled: SampledFound = SampledFound.UNKNOWN
    bias_steers: bool = False
    largest_bias: float = 0.0
    biased_ids: int = 0
    bias_with_logprobs: bool = False
    taken: Taken | None = None
    allow_list: bool = False
    allow_list_true_value: bool = False
    echo: bool = False
    takes_token_ids: bool = False
    deterministic: bool = True
    spread_nats: float = 0.0
    decimals: int | None = None
    step_nats: float = 0.0
    vocabulary_size: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_precise(self) -> bool:
        """Whether values are told as a float32 holds them: not rounded, not on a lattice, and the same again."""
        return self.decimals is None and self.step_nats == 0 and self.deterministic

    @property
    def logprob_error_nats(self) -> float:
        """The standard deviation by which a logprob that is told misses the one that was computed."""
        return math.hypot(FLOAT32_ERROR_NATS, rounding_nats(self.decimals), self.spread_nats)

    def undecided(self, besides: Iterable[ReadOut] = ()) -> dict[str, str]:
        """The questions that failed and might have shown what the others did not, with what went wrong.

        `besides`: read-outs that are known to be open anyway.
        """
        there = {*self.read_outs(), *besides}
        return {
            question: problem
            for question, problem in self.failed.items()
            if question in SHOWS and there.isdisjoint(SHOWS[question])
        }

    def read_outs(self) -> tuple[ReadOut, ...]:
        """Those that exist, by their names."""
        steers_and_returns = self.bias_steers and self.bias_with_logprobs
        after = self.taken is Taken.AFTER_BIAS
        exists = {
            ReadOut.P0: bool(self.facts),
            ReadOut.P1: self.whole_vocabulary or self.top_logprobs >= LARGE_TOP,
            ReadOut.P2: self.wanted_ids > 0,
            ReadOut.P3: steers_and_returns and after and self.top_logprobs >= 2,
            ReadOut.P4A: steers_and_returns and self.sampled is SampledFound.TRUE_VALUE,
            ReadOut.P4B: self.allow_list and self.allow_list_true_value,
            ReadOut.P5: self.echo,
            ReadOut.P6: steers_and_returns and after and self.top_logprobs == 1,
            ReadOut.P7: self.bias_steers,
            ReadOut.P8: self.top_logprobs >= 2,
            ReadOut.P9: True,
        }
        return tuple(read_out for read_out, there in exists.items() if there)

    def readable(self) -> tuple[ReadOut, ...]:
        """Those that exist and tell logits, the cheapest first."""
        there = self.read_outs()
        return tuple(read_out for read_out in CHEAPEST_FIRST if read_out in there)

    def as_json(self) -> dict[str, Any]:
        """For reports: everything but the context."""
        values = asdict(replace(self, context=Request(prompt="x")))
        del values["context"]
        values["tells_ids"] = values.pop("returns_ids")  # its name in reports since the schema's first version
        return {
            **values,
            "sampled": self.sampled.value,
            "taken": None if self.taken is None else self.taken.value,
            "read_outs": [read_out.value for read_out in self.read_outs()],
        }
