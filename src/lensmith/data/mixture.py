"""A mixture: a tree of weighted sources, which can be printed, hashed and saved.

Weights count packed sequences, as MM1's 45/45/10 do (arXiv 2403.09611, section 3.3), or tokens. Which source fills a
training sequence follows from the seed and what was drawn before, never from the number of workers or ranks.

Language alone may have a share of its own that changes with the steps, and steps of its own (`LanguageSchedule`).
"""

import enum
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
        return cls(parts=_flat(weights), unit=unit)

    @property
    def shares(self) -> dict[str, float]:
        """Each source's share of the whole."""
        return dict(_leaves(self.parts, 1.0))

    @property
    def hash(self) -> str:
        return content_hash(self)

    def filled(self, **places: str | Mapping[str, float]) -> Self:
        """The same with sources of one's own in the places of its leaves: one by its name, or several with weights.

        Leaves that are not filled go, and what is left of the mixture keeps its proportions. Raises ConfigError where
        there is no such leaf, or none is filled.
        """
        if unknown := [name for name in places if name not in self.shares]:
            raise ConfigError("the mixture has no such leaf", expected=", ".join(self.shares), actual=unknown[0])
        return type(self)(parts=_whole(_filled(self.parts, places)), unit=self.unit)

    def below(self, *nodes: str) -> frozenset[str]:
        """The sources of these nodes, groups or sources. Raises ConfigError where the mixture has no such node."""
        found = {name: frozenset(shares) for name, shares in _nodes(self.parts)}
        if unknown := [name for name in nodes if name not in found]:
            raise ConfigError("the mixture has no such node", expected=", ".join(found), actual=unknown[0])
        return frozenset[str]().union(*(found[name] for name in nodes))

    def only(self, sources: Iterable[str]) -> Self:
        """These sources alone, flat, in the proportions that they have here."""
        shares = {name: self.shares[name] for name in self.shares if name in set(sources)}
        total = math.fsum(shares.values())
        return type(self)(parts=_flat({name: share / total for name, share in shares.items()}), unit=self.unit)

    def __str__(self) -> str:
        return "\n".join([f"mixture by {self.unit.value} ({self.hash[:12]})", *_drawn(self.parts, 1.0, "  ")])


@dataclass(frozen=True, kw_only=True)
class LanguageSchedule:
    """How often sequences are of language alone: a share that goes from `start` to the mixture's own within `steps`.

    After DeepSeek-VL (arXiv 2403.05525, sections 3.2.2 and 4.3), which begins with language and lowers its share to
    70 %, and takes each step from one modality, so that no rank waits for another's pictures (`pure_steps`). Where we
    differ: it tells neither the fall's shape nor how long it takes; here it is a straight line. And where it draws at
    random, this keeps to the share at every moment, as closely as whole sequences, or whole steps, allow.

    `parts`: the nodes of the mixture that hold no pictures.
    """

    parts: tuple[str, ...] = ("text",)
    start: float = 1.0
    steps: int = 0
    pure_steps: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1:
            raise ConfigError("language.start is no share", expected="0 to 1", actual=self.start)
        if self.steps < 0:
            raise ConfigError("language.steps: too few", expected="0 or more", actual=self.steps)

    def target(self, mixture: Mixture) -> float:
        """The mixture's own share of language alone."""
        shares = mixture.shares
        return math.fsum(shares[name] for name in mixture.below(*self.parts))

    def share_at(self, step: int, target: float) -> float:
        """The share that is wanted in step `step` (from 0) of the stage; `target` is the mixture's own."""
        return target if step >= self.steps else self.start + (target - self.start) * step / self.steps

    def check(self, mixture: Mixture) -> None:
        """Raises ConfigError where a mixture cannot be scheduled so."""
        language = mixture.below(*self.parts)
        if not language or language == mixture.shares.keys():
            raise ConfigError(
                "a language schedule needs sources with and without pictures",
                expected=f"some of {', '.join(mixture.shares)}",
                actual=", ".join(sorted(language)) or "none",
            )
        if mixture.unit is not Unit.SEQUENCES:
            raise ConfigError("a language schedule counts sequences", expected="unit SEQUENCES", actual=mixture.unit)


def scheduled_choices(
    mixture: Mixture, schedule: LanguageSchedule, seed: int, *, sequences_per_step: int
) -> Iterator[str]:
    """Which source fills sequence 0, 1, 2 and so on: language when it would else be behind by half a turn or more.

    A turn is a step where steps are pure, else a sequence. Within a modality sources are drawn as `choices` does.
    """
    language = mixture.below(*schedule.parts)
    own = choices(mixture.only(language), _apart(seed, 1), {})
    others = choices(mixture.only(mixture.shares.keys() - language), _apart(seed, 2), {})
    turn = sequences_per_step if schedule.pure_steps else 1
    target, behind = schedule.target(mixture), 0.0
    for step in range(2**62):
        share = schedule.share_at(step, target)
        for _ in range(sequences_per_step // turn):
            behind += share
            is_language = behind >= 0.5
            behind -= is_language
            for _ in range(turn):
                yield next(own if is_language else others)


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


def _flat(weights: Mapping[str, float]) -> tuple[Weighted, ...]:
    return tuple(Weighted(name=name, weight=weight) for name, weight in weights.items())


def _apart(seed: int, stream: int) -> int:
    """A key for a stream of its own: those of one seed have nothing in common."""
    return seed + (stream << 64)


def _filled(parts: Sequence[Weighted], places: Mapping[str, str | Mapping[str, float]]) -> Iterator[Weighted]:
    for part in parts:
        if part.parts:
            within = list(_filled(part.parts, places))
            if within:
                left = math.fsum(each.weight for each in within)
                yield replace(part, weight=min(1.0, part.weight * left), parts=_whole(within))
        elif isinstance(place := places.get(part.name), str):
            yield replace(part, name=place)
        elif place is not None:
            yield replace(part, parts=_flat(place))


def _whole(parts: Iterable[Weighted]) -> tuple[Weighted, ...]:
    """Weights that sum to 1, in the same proportions. As they were where they do."""
    found = tuple(parts)
    total = math.fsum(part.weight for part in found)
    if abs(total - 1) <= _SUM_TOLERANCE:
        return found
    return tuple(replace(part, weight=part.weight / total) for part in found)


def _nodes(parts: Sequence[Weighted]) -> Iterator[tuple[str, list[str]]]:
    """Each node's name, and the sources below it."""
    for part in parts:
        yield part.name, [name for name, _ in _leaves([part], 1.0)]
        yield from _nodes(part.parts)


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
