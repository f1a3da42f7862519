"""Multiple-choice questions on pictures: what is asked, in which mode, and what came of it.

Two modes, as in DeepSeek-VL (arXiv 2403.05525, section 4.1): LIKELIHOOD compares what a model finds likely, GENERATION
reads the answer out of what it writes. They give different numbers on the same questions, so everything here that
carries a number carries its mode.

The text of a question is VLMEvalKit's (its `ImageMCQDataset.build_prompt`), so that numbers can be compared with those
that were published with it. Circular evaluation is MMBench's (arXiv 2307.06281, section 4.1): a question counts as
right only where it is right under every rotation of its options.
"""

import enum
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lensmith.core.errors import InputError

LETTERS = string.ascii_uppercase
PROMPT_VERSION = 1
"""Counts up where the text of a question changes, so that older results are not taken for newer ones."""


class Mode(enum.Enum):
    """Where a number comes from."""

    LIKELIHOOD = "likelihood"
    GENERATION = "generation"


class Normalise(enum.Enum):
    """What is compared in likelihood mode.

    LETTER: the options are in the question, and the letters are compared at the answer position (the paper's
    multi-choice perplexity). OPTION and SUM: the options are not in the question; their texts are compared, by the
    mean logprob a token or by its sum.
    """

    LETTER = "letter"
    OPTION = "option"
    SUM = "sum"


@dataclass(frozen=True, kw_only=True)
class HowAsked:
    """How numbers come about. `normalise` is None in generation mode, which compares nothing.

    `max_new_tokens` is None in likelihood mode, which writes nothing.
    """

    mode: Mode
    normalise: Normalise | None
    circular: bool = False
    max_new_tokens: int | None = None

    @property
    def label(self) -> str:
        """In words, for every line that tells a number."""
        kind = self.mode.value if self.normalise is None else f"{self.mode.value}, {self.normalise.value}"
        return f"{kind}, circular" if self.circular else kind

    @property
    def shows_options(self) -> bool:
        """Whether the options stand in the question."""
        return self.normalise in (None, Normalise.LETTER)

    def to_dict(self) -> dict[str, Any]:
        return {
            "mode": self.mode.value,
            "normalise": None if self.normalise is None else self.normalise.value,
            "circular": self.circular,
            "max_new_tokens": self.max_new_tokens,
        }


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    """Where a picture's bytes are: a file, or the picture `number` of the record that begins at `offset`."""

    path: Path | None = None
    offset: int = 0
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question. `line`: where it begins in its file, from 1. `answer`: the index of the right option."""

    id: str
    line: int
    question: str
    options: tuple[str, ...]
    answer: int
    pictures: tuple[PictureSource, ...] = ()
    category: str = ""
    hint: str = ""

    def rotated(self, shift: int) -> "Question":
        """The same question with its options moved `shift` places up, the first to the end."""
        count = len(self.options)
        options = tuple(self.options[(place + shift) % count] for place in range(count))
        return replace(self, options=options, answer=(self.answer - shift) % count)

    def rotations(self, how: HowAsked) -> list["Question"]:
        """Each form in which the question is asked; the first is as it stands."""
        return [self.rotated(shift) for shift in range(len(self.options) if how.circular else 1)]

    def prompt(self, how: HowAsked) -> str:
        """What is asked, beside the pictures."""
        lines = [f"Hint: {self.hint}"] if self.hint else []
        lines.append(f"Question: {self.question}")
        if how.shows_options:
            lines.append("Options:")
            lines += [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
            lines.append("Please select the correct answer from the options above.")
        return "\n".join(lines)

    def candidates(self, how: HowAsked) -> tuple[str, ...]:
        """The answers that are compared in likelihood mode."""
        return tuple(LETTERS[: len(self.options)]) if how.shows_options else self.options


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One form of a question, and what was chosen. `chosen` is None where the answer could not be read.

    `scores` (one for each option) in likelihood mode, `text` in generation mode.
    """

    answer: int
    chosen: int | None
    scores: tuple[float, ...] | None = None
    text: str | None = None

    @property
    def is_right(self) -> bool:
        return self.chosen == self.answer


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one question: each form in which it was asked, the first as it stands."""

    id: str
    line: int
    options: int
    category: str
    asked: tuple[Asking, ...]

    @property
    def is_right(self) -> bool:
        """Under all rotations."""
        return all(asking.is_right for asking in self.asked)

    def to_dict(self, how: HowAsked) -> dict[str, Any]:
        """JSON values. The mode stands in every record: records are read, cut and joined without their file's head."""
        return {
            "id": self.id,
            "line": self.line,
            "options": self.options,
            "category": self.category,
            **{name: value for name, value in how.to_dict().items() if name != "max_new_tokens"},
            "right": self.is_right,
            "asked": [
                {
                    "answer": LETTERS[asking.answer],
                    "chosen": None if asking.chosen is None else LETTERS[asking.chosen],
                    **({} if asking.scores is None else {"scores": list(asking.scores)}),
                    **({} if asking.text is None else {"text": asking.text}),
                }
                for asking in self.asked
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """What `to_dict` wrote. Raises InputError where it is something else."""
        try:
            return cls(
                id=str(values["id"]),
                line=int(values["line"]),
                options=int(values["options"]),
                category=str(values["category"]),
                asked=tuple(
                    Asking(
                        answer=LETTERS.index(each["answer"]),
                        chosen=None if each["chosen"] is None else LETTERS.index(each["chosen"]),
                        scores=tuple(map(float, each["scores"])) if "scores" in each else None,
                        text=each.get("text"),
                    )
                    for each in values["asked"]
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("not a record of results", actual=f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that cannot be evaluated, and why."""

    line: int
    id: str | None
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"
