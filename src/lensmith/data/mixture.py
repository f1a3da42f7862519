"""A mixture: a tree of weighted sources, which can be printed, hashed and saved.

Weights count packed sequences, as MM1's 45/45/10 do (arXiv 2403.09611, section 3.3), or tokens. Which source fills a
training sequence follows from the seed and what was drawn before, never from the number of workers or ranks.
"""

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lensmith.core.config import content_hash
from lensmith.core.errors import ConfigError

_SUM_TOLERANCE = 1e-6
_DRAWN_AT_ONCE = 4096


class Unit(enum.Enum):
    """What weights are shares of: packed sequences (each drawn at random), or tokens (kept to, at every moment)."""

    SEQUENCES = "sequences"
    TOKENS = "tokens"


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A node: a source by its name, or a group with `parts` of its own. Weights within a group sum to 1."""

    name: str
    weight: float
    parts: "tuple[Weighted, ...]" = ()

    def __post_init__(self) -> None:
        if not (0 < self.weight <= 1):
            raise ConfigError(f"weight of {self.name!r} is no share", expected="above 0, at most 1", actual=self.weight)
        if self.parts:
            _require_whole(self.parts, f"the parts of {self.name!r}")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The whole tree. Raises ConfigError where weights do not sum to 1, or two sources have one name."""

    parts: tuple[Weighted, ...]
    unit: Unit = Unit.SEQUENCES

    def __post_init__(self) -> None:
        _require_whole(self.parts, "the mixture's parts")
        names = [name for name, _ in _leaves(self.parts, 1.0)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError("a source stands twice in a mixture", expected="one place each", actual=", ".join(twice))

    @classmethod
    def of(cls, *, unit: Unit = Unit.SEQUENCES, **weights: float) -> Self:
        """A flat mixture: sources by name with their weights."""
        return cls(parts=tuple(Weighted(name=name, weight=weight) for name, weight in weights.items()), unit=unit)

    @property
    def shares(self) -> dict[str, float]:
        """Each source's share of the whole."""
        return dict(_leaves(self.parts, 1.0))

    @property
    def hash(self) -> str:
        return content_hash(self)

    def __str__(self) -> str:
        return "\n".join([f"mixture by {self.unit.value} ({self.hash[:12]})", *_drawn(self.parts, 1.0, "  ")])


def choices(mixture: Mixture, seed: int, tokens: Mapping[str, int]) -> Iterator[str]:
    """Which source fills sequence 0, 1, 2 and so on, without end.

    `tokens`: how many each source has given so far, kept by the caller between one choice and the next; read only where
    weights count tokens. Then the source that is furthest behind its share is next.
    """
    names, shares = list(mixture.shares), np.array(list(mixture.shares.values()))
    if mixture.unit is Unit.TOKENS:
        while True:
            given = np.array([tokens[name] for name in names], dtype=np.float64)
            yield names[int(np.argmax(shares * (given.sum() + 1) - given))]
    ends = np.cumsum(shares)
    for block in range(2**62):
        # A generator of its own a block: any sequence's source can be told without drawing all before it.
        drawn = np.random.Generator(np.random.Philox(key=seed, counter=block << 64)).random(_DRAWN_AT_ONCE)
        for index in np.searchsorted(ends, drawn * ends[-1], side="right"):
            yield names[min(int(index), len(names) - 1)]


def _require_whole(parts: Sequence[Weighted], what: str) -> None:
    total = math.fsum(part.weight for part in parts)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise ConfigError(
            f"weights of {what} do not sum to 1",
            expected="1",
            actual=f"{' + '.join(f'{part.name} {part.weight:g}' for part in parts) or 'no parts'} = {total:g}",
        )


def _leaves(parts: Sequence[Weighted], share: float) -> Iterator[tuple[str, float]]:
    for part in parts:
        own = share * part.weight
        yield from _leaves(part.parts, own) if part.parts else [(part.name, own)]


def _drawn(parts: Sequence[Weighted], share: float, indent: str) -> Iterator[str]:
    for part in parts:
        yield f"{indent}{part.name:<24} {part.weight:7.1%}" + (
            f"  ({share * part.weight:.1%} of all)" if share < 1 else ""
        )
        yield from _drawn(part.parts, share * part.weight, f"{indent}  ")
