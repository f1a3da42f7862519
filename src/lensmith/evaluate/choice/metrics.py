"""Accuracy of multiple-choice results: with its interval, beside chance, and with what betrays a biased chooser."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lensmith.core.errors import InputError
from lensmith.evaluate.choice.question import LETTERS, BadLine, HowAsked, Mode, Normalise, Result
from lensmith.evaluate.stats import Share

_ANSWERS_SHOWN = 10
_CHARACTERS_SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class Accuracy(Share):
    """The share of right questions. `unreadable` of them had an answer that could not be read, and count as wrong.

    None in likelihood mode, which reads no answers.
    """

    unreadable: int | None = None
    unreadable_share: float | None = None

    def __str__(self) -> str:
        if self.unreadable is None:
            return super().__str__()
        return f"{super().__str__()}, unreadable {self.unreadable_share:.1%} ({self.unreadable})"


@dataclass(frozen=True, kw_only=True)
class UnreadableAnswer:
    """What was written, where no option could be read out of it; of which question, by its id."""

    id: str
    text: str

    @property
    def beginning(self) -> str:
        """The text in one short line, in quotation marks."""
        text = " ".join(self.text.split())
        shown = text if len(text) <= _CHARACTERS_SHOWN else f"{text[:_CHARACTERS_SHOWN]}..."
        return json.dumps(shown, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class ChoiceSummary:
    """What `lensmith eval choice` reports.

    `chance`: the expected accuracy of guessing a letter anew for each form of each question. `as_it_stands`: accuracy
    without rotations, where there are any. `unreadable_answers`: all that were written and could not be read.
    `letters` counts the chosen letters, `right_letters` the right ones: a model that always says A shows. `bad_lines`
    were not evaluated.
    """

    file: str
    model: str
    mode: Mode
    normalise: Normalise | None
    circular: bool
    accuracy: Accuracy
    chance: float
    as_it_stands: Accuracy | None
    categories: dict[str, Accuracy]
    unreadable_answers: tuple[UnreadableAnswer, ...]
    letters: dict[str, int]
    right_letters: dict[str, int]
    bad_lines: tuple[BadLine, ...] = ()

    @property
    def label(self) -> str:
        return HowAsked(mode=self.mode, normalise=self.normalise, circular=self.circular).label

    def __str__(self) -> str:
        label = f"[{self.label}]"
        lines = [f"{self.file}, {self.model} {label}: accuracy {self.accuracy}, chance {self.chance:.1%}"]
        if self.as_it_stands is not None:
            plain = HowAsked(mode=self.mode, normalise=self.normalise).label
            lines.append(f"  without rotations [{plain}]: {self.as_it_stands}")
        lines += [f"  {name} {label}: {share}" for name, share in self.categories.items()]
        chosen = ", ".join(f"{letter} {self.letters.get(letter, 0)}" for letter in self.right_letters)
        right = ", ".join(f"{letter} {count}" for letter, count in self.right_letters.items())
        lines.append(f"  chosen {label}: {chosen}; right would be: {right}")
        lines += self._unreadable(label)
        if self.bad_lines:
            lines.append(f"  not evaluated: {len(self.bad_lines)} lines")
            lines += [f"    {bad}" for bad in self.bad_lines]
        return "\n".join(lines)

    def _unreadable(self, label: str) -> list[str]:
        if not self.unreadable_answers:
            return []
        shown = self.unreadable_answers[:_ANSWERS_SHOWN]
        more = len(self.unreadable_answers) - len(shown)
        rest = f", the first {len(shown)} (all are in --json)" if more else ""
        head = f"  answers that could not be read {label}: {len(self.unreadable_answers)}, counted as wrong{rest}:"
        return [head, *(f"    {answer.id} {label}: {answer.beginning}" for answer in shown)]


def summarise(
    results: Sequence[Result], how: HowAsked, *, file: str, model: str, bad_lines: Sequence[BadLine] = ()
) -> ChoiceSummary:
    """Results of one mode as one summary. Raises InputError where there are none."""
    if not results:
        raise InputError("no question was evaluated", expected="at least one good line", actual="none")
    named = sorted({result.category for result in results if result.category})
    asked = [asking for result in results for asking in result.asked]
    most = max(result.options for result in results)
    return ChoiceSummary(
        file=file,
        model=model,
        mode=how.mode,
        normalise=how.normalise,
        circular=how.circular,
        accuracy=_accuracy(results, how.mode),
        chance=sum(result.options ** -len(result.asked) for result in results) / len(results),
        as_it_stands=_accuracy([replace(each, asked=each.asked[:1]) for each in results], how.mode)
        if how.circular
        else None,
        categories={
            name: _accuracy([result for result in results if result.category == name], how.mode) for name in named
        },
        unreadable_answers=tuple(
            UnreadableAnswer(id=result.id, text=asking.text or "")
            for result in results
            for asking in result.asked
            if asking.chosen is None
        ),
        letters={letter: sum(each.chosen == place for each in asked) for place, letter in enumerate(LETTERS[:most])},
        right_letters={
            letter: sum(each.answer == place for each in asked) for place, letter in enumerate(LETTERS[:most])
        },
        bad_lines=tuple(bad_lines),
    )


def _accuracy(results: Sequence[Result], mode: Mode) -> Accuracy:
    share = Share.of(sum(result.is_right for result in results), len(results))
    if mode is Mode.LIKELIHOOD:
        return Accuracy(**vars(share))
    unreadable = sum(any(asking.chosen is None for asking in result.asked) for result in results)
    return Accuracy(**vars(share), unreadable=unreadable, unreadable_share=unreadable / len(results))
