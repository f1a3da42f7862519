"""What a model family is: how its models are recognised, loaded and converted, and which settings only they have.

A family is a folder here with fixed file names (`config`, `processor`, `loading`, `README.md`, and `convert` where its
checkpoints are published in layouts of their own) and one `Family` record, which `registry.FAMILIES` lists. Nothing
outside these folders names a family. Another package adds one through an entry point: see `registry`.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lensmith.core.errors import InputError
from lensmith.models.checkpoints.folder import Loaded
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.processor import VisionLanguageProcessor

Source = str | Path
"""A folder, or a name: of a model that ships, or on the Hub."""
Kind = TypeVar("Kind", bound=enum.Enum)


@dataclass(frozen=True, kw_only=True)
class Option(Generic[Kind]):
    """A setting that models of one family have: one value of `kind`, named by the value's own text.

    `unknown`: the problem with any other text. `absent`: the problem where a model has no such setting. `elsewhere`:
    the value that says what every other model does, so that it may be asked of them too.
    """

    kind: type[Kind]
    unknown: str
    absent: str
    elsewhere: str | None = None

    def read(self, value: Kind | str) -> Kind:
        """Raises InputError for a text that names none of the values."""
        if isinstance(value, self.kind):
            return value
        known = [str(each.value) for each in self.kind]
        if value not in known:
            raise InputError(self.unknown, expected=" or ".join(known), actual=value)
        return self.kind(value)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family. `title`: as its authors write it.

    `recognises` says of a folder or a name whether it is one of the family's models; it reads no weights, and raises
    CheckpointError for a folder whose configuration is damaged. `load(source, dtype=, device=)` loads one of them, and
    takes the family's `options` by their names. `shipped`: models that come with the package, by name; `published`:
    names on the Hub of those that one can talk with; `tiny` makes one of the same make with random weights, which shows
    all but what a model knows. `convert` writes a checkpoint in another of the `layouts`; None where there are no
    foreign ones.
    """

    title: str
    recognises: Callable[[Source], bool]
    load: Callable[..., Loaded]
    options: Mapping[str, Option[Any]] = field(default_factory=dict)
    shipped: Mapping[str, Path] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    tiny: Callable[[], Loaded] | None = None
    convert: Callable[..., Any] | None = None
    layouts: tuple[str, ...] = ()


class TrainableParts(Protocol):
    """What a family's models consist of, as a frozen dataclass: all that a recipe needs to make one of any size."""

    @property
    def max_positions(self) -> int:
        """The longest document that the language model reads."""

    def train_tokenizer(self, texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
        """A tokenizer with the family's special tokens. The same texts give the same one."""

    def config(self, tokenizer: PreTrainedTokenizerBase) -> VisionLanguageConfig:
        """The model's configuration, with the tokenizer's vocabulary and special tokens."""

    def processor(self, tokenizer: PreTrainedTokenizerBase) -> VisionLanguageProcessor:
        """The processor of that model."""
