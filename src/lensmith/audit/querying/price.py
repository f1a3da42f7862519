"""What an attack costs: a price list that a person can edit, and a whole attack worked out from what a part took.

An audit proves a read-out on a block of a few thousand logits and does not run the millions of calls behind it. The
rest is arithmetic: the width h shows in a matrix of 1.25h contexts, and the last layer needs all tokens of the same
contexts (Carlini et al., arXiv 2403.06634, sections 4 and 5; Finlayson et al., arXiv 2403.09539). That is more than the
papers' least, which is just above h, because under bf16 or rounded logprobs the least does not resolve.
"""

import fnmatch
import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from lensmith.audit.findings.finding import Cost
from lensmith.core.config import from_dict
from lensmith.core.errors import ConfigError

CONTEXTS_PER_WIDTH = 1.25


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

    def usd(self, queries: int, input_tokens: int, output_tokens: int) -> float:
        """What so many queries cost in USD that sent and wrote these tokens in all."""
        tokens = input_tokens * self.usd_per_million_input_tokens + output_tokens * self.usd_per_million_output_tokens
        return tokens / 1e6 + queries * self.usd_per_request


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
    return replace(cost, usd=price.usd(cost.queries, cost.tokens - written, written))


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
