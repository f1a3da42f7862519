"""Accuracy, its interval and chance; negative controls: a random chooser is at chance, a constant one is found out."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from lensmith.core.errors import InputError
from lensmith.evaluate.choice.metrics import UnreadableAnswer, summarise
from lensmith.evaluate.choice.question import Asking, HowAsked, Mode, Normalise, Question, Result
from lensmith.evaluate.stats import Share

LETTER = HowAsked(mode=Mode.LIKELIHOOD, normalise=Normalise.LETTER)
CIRCULAR = HowAsked(mode=Mode.LIKELIHOOD, normalise=Normalise.LETTER, circular=True)
GENERATION = HowAsked(mode=Mode.GENERATION, normalise=None, max_new_tokens=8)


def questions(count, options=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Question(
            id=str(number),
            line=number + 1,
            question="?",
            options=tuple(f"option {place}" for place in range(options)),
            answer=int(rng.integers(options)),
            category="even" if number % 2 == 0 else "odd",
        )
        for number in range(count)
    ]


def results(asked, how, choose):
    """`choose(form)` gives the index of an option in this form of the question, or None."""
    return [
        Result(
            id=question.id,
            line=question.line,
            options=len(question.options),
            category=question.category,
            asked=tuple(Asking(answer=form.answer, chosen=choose(form)) for form in question.rotations(how)),
        )
        for question in asked
    ]


def told(asked, how, choose):
    return summarise(results(asked, how, choose), how, file="f", model="m")


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_intervals_are_wilsons(hits, n, low, high):
    # The last row is Newcombe's example (Statistics in Medicine 17, 1998, table I); the others are the formula by hand.
    share = Share.of(hits, n)
    assert (share.low, share.high) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))
    assert share.low <= share.share <= share.high


def test_no_share_of_nothing():
    with pytest.raises(InputError):
        Share.of(0, 0)
    with pytest.raises(InputError, match="no question"):
        summarise([], LETTER, file="f", model="m")


def test_intervals_hold_what_they_promise():
    # 400 experiments of 50 throws: about 95% of the intervals contain the truth.
    throws = np.random.default_rng(0).binomial(50, 0.3, size=400)
    shares = [Share.of(int(hits), 50) for hits in throws]
    assert 0.92 <= np.mean([share.low <= 0.3 <= share.high for share in shares]) <= 0.98


def test_a_random_chooser_is_at_chance():
    rng = np.random.default_rng(1)
    summary = told(questions(400), LETTER, lambda form: int(rng.integers(len(form.options))))
    assert summary.chance == 0.25
    assert summary.accuracy.low <= summary.chance <= summary.accuracy.high
    circular = told(questions(400, options=2), CIRCULAR, lambda form: int(rng.integers(len(form.options))))
    assert circular.chance == 0.25  # right twice in a row
    assert circular.accuracy.low <= circular.chance <= circular.accuracy.high


def test_one_that_always_says_a_is_found_out_by_rotations():
    asked = [Question(id=str(n), line=n, question="?", options=("x", "y", "z"), answer=0) for n in range(20)]
    plain = told(asked, LETTER, lambda form: 0)
    circular = told(asked, CIRCULAR, lambda form: 0)
    assert plain.accuracy.share == 1.0
    assert circular.accuracy.share == 0.0
    assert circular.as_it_stands.share == 1.0
    assert circular.letters == {"A": 60, "B": 0, "C": 0}
    assert circular.right_letters == {"A": 20, "B": 20, "C": 20}


def test_one_that_knows_is_right_in_every_rotation():
    summary = told(questions(50), CIRCULAR, lambda form: form.answer)
    assert summary.accuracy.share == summary.as_it_stands.share == 1.0


def test_rotations_move_options_and_answer_together():
    question = Question(id="1", line=1, question="?", options=("w", "x", "y"), answer=1)
    forms = question.rotations(CIRCULAR)
    assert [form.options for form in forms] == [("w", "x", "y"), ("x", "y", "w"), ("y", "w", "x")]
    assert [form.options[form.answer] for form in forms] == ["x", "x", "x"]
    assert sorted(form.answer for form in forms) == [0, 1, 2]
    assert question.rotations(LETTER) == [question]


def test_categories_and_what_could_not_be_read():
    summary = told(questions(40), GENERATION, lambda form: None if form.line % 4 == 0 else form.answer)
    assert summary.accuracy.share == 0.75
    assert summary.categories["even"].share == 1.0
    assert summary.categories["odd"].hits == 10
    assert (summary.accuracy.unreadable, summary.accuracy.unreadable_share) == (10, 0.25)
    assert (summary.categories["even"].unreadable, summary.categories["odd"].unreadable_share) == (0, 0.5)
    assert [answer.id for answer in summary.unreadable_answers] == [str(number) for number in range(3, 40, 4)]


def test_the_share_of_unreadable_answers_stands_beside_every_accuracy():
    asked = [
        replace(
            result, asked=tuple(replace(asking, text=f"text of {result.id}\n\n{'x' * 200}") for asking in result.asked)
        )
        for result in results(questions(40), GENERATION, lambda form: None if form.line % 2 == 0 else form.answer)
    ]
    summary = summarise(asked, GENERATION, file="f", model="m")
    assert summary.unreadable_answers[0] == UnreadableAnswer(id="1", text=f"text of 1\n\n{'x' * 200}")
    lines = str(summary).splitlines()
    assert "accuracy 50.0% [35.2%, 64.8%] (20 of 40), unreadable 50.0% (20), chance 25.0%" in lines[0]
    assert [line.rpartition(", unreadable ")[2] for line in lines[1:3]] == ["0.0% (0)", "100.0% (20)"]
    first = next(place for place, line in enumerate(lines) if "could not be read" in line)
    assert "20, counted as wrong, the first 10" in lines[first]
    shown = lines[first + 1 :]
    assert len(shown) == 10
    assert shown[0].startswith('    1 [generation]: "text of 1 xxx')
    assert all(len(line) < 140 for line in shown)


def test_likelihoods_leave_nothing_to_read():
    summary = told(questions(40), LETTER, lambda form: form.answer)
    assert (summary.accuracy.unreadable, summary.accuracy.unreadable_share) == (None, None)
    assert "unreadable" not in str(summary)


def test_a_question_is_unreadable_where_one_of_its_forms_is():
    how = replace(GENERATION, circular=True)
    summary = told(questions(8), how, lambda form: None if form.answer == 0 else form.answer)
    assert (summary.accuracy.hits, summary.accuracy.unreadable) == (0, 8)
    assert summary.as_it_stands.unreadable == sum(question.answer == 0 for question in questions(8))
    assert len(summary.unreadable_answers) == 8


@pytest.mark.parametrize("how", [LETTER, CIRCULAR, GENERATION])
def test_every_line_that_tells_a_number_tells_its_mode(how):
    text = str(told(questions(40), how, lambda form: None))
    for line in text.splitlines():
        if any(char.isdigit() for char in line):
            assert how.mode.value in line, line


def test_modes_are_told_apart():
    kinds = [
        HowAsked(mode=mode, normalise=normalise, circular=circular)
        for mode, normalise in [(Mode.GENERATION, None), *((Mode.LIKELIHOOD, kind) for kind in Normalise)]
        for circular in (False, True)
    ]
    assert len({how.label for how in kinds}) == len(kinds)
    records = [results(questions(1), how, lambda form: 0)[0].to_dict(how) for how in kinds]
    for one, other in itertools.combinations(records, 2):
        assert [one[key] for key in ("mode", "normalise", "circular")] != [
            other[key] for key in ("mode", "normalise", "circular")
        ]


@pytest.mark.parametrize("how", [LETTER, CIRCULAR, GENERATION])
def test_a_record_comes_back_as_it_was(how):
    [result] = results(questions(1), how, lambda form: None)
    assert Result.from_dict(result.to_dict(how)) == result
