"""Where our tensors lie in a checkpoint of another layout: rules for many names at once, and a plan for a whole model.

The plan starts from our own names and shapes, so what a checkpoint must hold, what it may hold and what shape each
tensor must have are known before a weight is read, and all that is wrong is said at once.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lensmith.core.errors import CheckpointError
from lensmith.models.checkpoints.shards import Shape


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


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of a checkpoint: its shape, and our tensors in it, one behind the other along the first dimension."""

    shape: Shape
    pieces: tuple[str, ...]
    in_front: bool = False

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Our tensors, as views."""
        whole = tensor.squeeze(0) if self.in_front else tensor
        if len(self.pieces) == 1:
            return {self.pieces[0]: whole}
        return dict(zip(self.pieces, whole.chunk(len(self.pieces)), strict=True))

    def join(self, read: Callable[[str], Tensor]) -> Tensor:
        """The reverse of `split`; `read` gives one of our tensors."""
        whole = read(self.pieces[0]) if len(self.pieces) == 1 else torch.cat([read(piece) for piece in self.pieces])
        return whole.unsqueeze(0) if self.in_front else whole


@dataclass(frozen=True, kw_only=True)
class KeyPlan:
    """What a checkpoint of a layout holds, by its own keys. `may_be_there`: keys that nothing reads."""

    layout: str
    stored: Mapping[str, Stored]
    may_be_there: tuple[re.Pattern[str], ...] = ()

    def unused(self, names: Iterable[str]) -> list[str]:
        """Those keys that nothing reads and that may be there."""
        return sorted(
            name
            for name in names
            if name not in self.stored and any(pattern.fullmatch(name) for pattern in self.may_be_there)
        )

    def check(self, found: Mapping[str, Shape], *, optional: Iterable[str] = (), source: object = None) -> None:
        """Raises CheckpointError with all missing, unexpected and mis-shaped keys. `source` is named in it."""
        may_lack = set(optional)
        unused = set(self.unused(found))
        missing = [name for name in self.stored if name not in found and name not in may_lack]
        unexpected = [name for name in found if name not in self.stored and name not in unused]
        misshapen = [
            f"{name}: {list(found[name])} instead of {list(stored.shape)}"
            for name, stored in self.stored.items()
            if name in found and tuple(found[name]) != stored.shape
        ]
        problems = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen}
        if any(problems.values()):
            counts = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items() if names)
            lines = [f"{kind}: {name}" for kind, names in problems.items() for name in sorted(names)]
            raise CheckpointError(
                f"the weights do not fit: {counts}" if source is None else f"{source}: weights do not fit: {counts}",
                expected=f"{len(self.stored)} tensors of the {self.layout} layout",
                actual="\n    ".join([f"{len(found)} tensors", *lines]),
            )


def key_plan(
    shapes: Mapping[str, Shape],
    rules: Sequence[Rule],
    *,
    layout: str,
    unused: Iterable[re.Pattern[str]] = (),
) -> KeyPlan:
    """The plan for a model whose state dict has these names and shapes, of which the `rules` say where each lies.

    `layout` names it in errors. Raises CheckpointError for a name that has no place.
    """
    parts: dict[str, dict[int, str]] = {}
    places = {own: find(rules, own) for own in shapes}
    for own, place in places.items():
        parts.setdefault(place.name, {})[place.part] = own
    stored = {}
    for name, pieces in parts.items():
        owns = tuple(pieces[part] for part in sorted(pieces))
        first = tuple(shapes[owns[0]])
        joined = first if len(owns) == 1 else (sum(shapes[own][0] for own in owns), *first[1:])
        in_front = places[owns[0]].in_front
        stored[name] = Stored(shape=(1, *joined) if in_front else joined, pieces=owns, in_front=in_front)
    return KeyPlan(layout=layout, stored=stored, may_be_there=tuple(unused))
