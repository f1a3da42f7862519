"""What an attack costs: a price list that a person can edit, and the whole attack worked out from a small block.

An audit proves a read-out on a block of a few thousand logits and does not run the millions of calls behind it. The
rest is arithmetic (Carlini et al., arXiv 2403.06634, sections 4 and 5; Finlayson et al., arXiv 2403.09539): the width
h shows in a matrix of n = 1.25h contexts and m = 2h tokens, the last layer needs all v tokens of the same contexts, and
each read-out tells a known number of logits a call. Here n and m are larger than the papers' least (n just above h),
because under bf16 or rounded logprobs the least does not resolve.

Legend: h hidden width, v vocabulary, n contexts, m tokens.
"""

import enum
import fnmatch
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from lensmith.audit.findings.finding import Cost, ReadOut
from lensmith.core.config import from_dict
from lensmith.core.errors import ConfigError, InputError

CONTEXTS_PER_WIDTH = 1.25
TOKENS_PER_WIDTH = 2.0

QUERIES_PER_LOGIT: Mapping[ReadOut, float] = MappingProxyType(
    {
        ReadOut.P4A: 1.0,
        ReadOut.P4B: 1.0,
        ReadOut.P5: 1.0,
        ReadOut.P6: 2.0,  # two adaptive steps, which bring the bias near a tie; the published single step reads 6 bits
        ReadOut.P7: 3.0,  # one-of-n to about 16 bits; a plain bisection takes ten or more
    }
)
"""Calls that one logit takes where an answer does not tell several, unless the audit measured its own figure."""


class Target(enum.Enum):
    """What the attack is after."""

    WIDTH = "the width"
    LAYER = "the whole last layer"


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one model costs. `model` is a pattern over model names (`*`, `?`, `[...]`; case does not matter)."""

    model: str
    usd_per_million_input_tokens: float
    usd_per_million_output_tokens: float
    usd_per_request: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model: empty", expected="a model's name, or a pattern such as 'llama-*'")
        for name in ("usd_per_million_input_tokens", "usd_per_million_output_tokens", "usd_per_request"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: not a price", expected="0 or more", actual=getattr(self, name))

    def usd(self, usage: "Usage") -> float:
        """What this usage costs in USD."""
        tokens = (
            usage.input_tokens * self.usd_per_million_input_tokens
            + usage.output_tokens * self.usd_per_million_output_tokens
        )
        return tokens / 1e6 + usage.queries * self.usd_per_request


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """Prices in order: the first that fits a model's name counts, else `fallback`."""

    fallback: Price
    prices: tuple[Price, ...] = ()
    updated: str = ""
    source: str = ""

    def of(self, model: str) -> Price:
        """The price of `model`."""
        name = model.lower()
        fitting = (price for price in self.prices if fnmatch.fnmatchcase(name, price.model.lower()))
        return next(fitting, self.fallback)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What calls used: their number, the tokens sent and written, and the time they took."""

    queries: int
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise InputError(f"{name}: not possible", expected="0 or more", actual=value)


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """How much one answer of a read-out tells.

    `top_logprobs` is the largest k that the endpoint grants, `wanted_ids` the most chosen ids a request may name;
    `positions` answer positions of one request are usable for it (1: one token a request). `queries_per_logit`, where
    the audit measured it, stands instead of the table's figure.
    """

    top_logprobs: int = 0
    wanted_ids: int = 0
    positions: int = 1
    queries_per_logit: float | None = None

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise InputError("positions: not possible", expected="1 or more", actual=self.positions)
        if self.queries_per_logit is not None and not 0 < self.queries_per_logit < math.inf:
            raise InputError("queries_per_logit: not possible", expected="over 0", actual=self.queries_per_logit)


def load_prices(path: Path | None = None) -> PriceList:
    """The price list in a TOML file, or the one that ships with lensmith.

    Raises ConfigError, naming the file and the key, for anything that is not a price list.
    """
    name = "prices.toml" if path is None else str(path)
    try:
        text = resources.files("lensmith.audit").joinpath(name).read_bytes() if path is None else path.read_bytes()
        values = tomllib.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read the price list {name}", actual=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not valid TOML", actual=error) from error
    try:
        return from_dict(PriceList, values)
    except ConfigError as error:
        problem = f"{name}: {error.problem}"
        raise ConfigError(problem, expected=error.expected, actual=error.actual, hint=error.hint) from error


def with_price(cost: Cost, price: Price) -> Cost:
    """The same cost with its money. A read asks for one token, so one a query counts as written, the rest as sent."""
    written = min(cost.queries, cost.tokens)
    usage = Usage(queries=cost.queries, input_tokens=cost.tokens - written, output_tokens=written)
    return Cost(
        queries=cost.queries,
        tokens=cost.tokens,
        seconds=cost.seconds,
        usd=price.usd(usage),
        extrapolated=cost.extrapolated,
    )


def extrapolated(spent: Cost, queries: int, price: Price) -> Cost:
    """What so many queries would cost, at the tokens and seconds a query that `spent` measured."""
    share = queries / max(1, spent.queries)
    cost = Cost(queries=queries, tokens=round(spent.tokens * share), seconds=spent.seconds * share, extrapolated=True)
    return with_price(cost, price)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum; extrapolated where any part is."""
    parts = tuple(costs)
    return Cost(
        queries=sum(part.queries for part in parts),
        tokens=sum(part.tokens for part in parts),
        seconds=math.fsum(part.seconds for part in parts),
        usd=math.fsum(part.usd for part in parts),
        extrapolated=any(part.extrapolated for part in parts),
    )


def whole_queries(
    read_out: ReadOut,
    *,
    width: int,
    vocabulary: int,
    target: Target,
    abilities: Abilities,
    contexts: int | None = None,
    tokens: int | None = None,
) -> int | None:
    """Requests that the whole attack takes, or None where the read-out cannot reach the target (P8, P9; P0 the layer).

    `contexts` stands instead of 1.25h, and `tokens` instead of 2h, where a width showed with others. Raises InputError
    for an impossible size.
    """
    if width < 1 or vocabulary < 1:
        raise InputError("impossible size of a model", expected="1 or more", actual=f"{width} x {vocabulary}")
    num_contexts = math.ceil(CONTEXTS_PER_WIDTH * width) if contexts is None else contexts
    for_width = math.ceil(TOKENS_PER_WIDTH * width) if tokens is None else tokens
    num_tokens = vocabulary if target is Target.LAYER else min(for_width, vocabulary)
    if read_out in (ReadOut.P8, ReadOut.P9):
        return None
    if read_out is ReadOut.P0:
        return 1 if target is Target.WIDTH else None
    calls = num_contexts * _calls_per_context(read_out, num_tokens, abilities)
    return math.ceil(calls / abilities.positions)


def _calls_per_context(read_out: ReadOut, num_tokens: int, abilities: Abilities) -> int:
    """Answer positions that one context takes until `num_tokens` of its logits are known."""
    if abilities.queries_per_logit is not None:
        return max(1, math.ceil(num_tokens * abilities.queries_per_logit))
    if read_out is ReadOut.P1:
        return 1
    if read_out is ReadOut.P2:
        return math.ceil(num_tokens / max(1, abilities.wanted_ids))
    if read_out is ReadOut.P3:
        return math.ceil(num_tokens / max(1, abilities.top_logprobs - 1))  # one place is the reference token's
    return math.ceil(num_tokens * QUERIES_PER_LOGIT[read_out])
