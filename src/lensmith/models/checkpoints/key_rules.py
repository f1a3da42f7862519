"""Where one of our tensors lies in a checkpoint of another layout, and rules that say so for many names at once."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lensmith.core.errors import CheckpointError


@dataclass(frozen=True)
class Place:
    """The tensor `name` of a checkpoint; its `part`-th part along the first dimension where it holds several of ours.

    `in_front`: stored with one more dimension, of length 1, in front.
    """

    name: str
    part: int = 0
    in_front: bool = False


@dataclass(frozen=True)
class Rule:
    """Names that match `own` lie at `stored`. `*` is one word of a name, `**` all the rest; `{0}`, `{1}` are those."""

    own: str
    stored: str
    part: int = 0
    in_front: bool = False

    def place_of(self, name: str) -> Place | None:
        found = _pattern(self.own).fullmatch(name)
        return found and Place(self.stored.format(*found.groups()), self.part, self.in_front)


@functools.cache
def _pattern(own: str) -> re.Pattern[str]:
    return re.compile(re.escape(own).replace(r"\*\*", "(.+)").replace(r"\*", "([^.]+)"))


def within(own: str, stored: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The same rules for a part whose names begin with these prefixes."""
    return tuple(Rule(own + rule.own, stored + rule.stored, rule.part, rule.in_front) for rule in rules)


def find(rules: Sequence[Rule], name: str) -> Place:
    """The place by the first rule that fits. Raises CheckpointError where none does."""
    for rule in rules:
        if place := rule.place_of(name):
            return place
    raise CheckpointError("this layout has no place for a tensor of the model", actual=name)
