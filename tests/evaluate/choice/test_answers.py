"""Reading a chosen option out of free text: what names one option, and what names none or several."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.evaluate.choice.answers import parse_answer
from lensmith.evaluate.choice.question import LETTERS

ANIMALS = ("a dog", "a cat", "a black cat", "two")
TABLE = [
    json.loads(line) for line in Path("tests/golden/choice_answers.jsonl").read_text(encoding="utf-8").splitlines()
]
KINDS = sorted({row["kind"] for row in TABLE})


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_read_as_it_says(kind):
    rows = [row for row in TABLE if row["kind"] == kind]
    found = [parse_answer(row["text"], row["options"]) for row in rows]
    letters = [None if index is None else LETTERS[index] for index in found]
    assert [
        (row["text"], row["answer"], letter)
        for row, letter in zip(rows, letters, strict=True)
        if letter != row["answer"]
    ] == []


def test_the_table_holds_forms_with_their_siblings():
    kinds = Counter(row["kind"] for row in TABLE)
    assert kinds["plain"] >= 300
    assert min(kinds["negated"], kinds["doubled"], kinds["quoted"]) >= 150
    assert all(row["answer"] is None for row in TABLE if row["kind"] in {"negated", "doubled", "doubt", "truncated"})
    assert all(row["answer"] is not None for row in TABLE if row["kind"] in {"plain", "quoted", "last"})
    assert len({(row["text"], tuple(row["options"])) for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b\n", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B.", "B"),
        ("B. a cat", "B"),
        ("B) because of its tail", "B"),
        ("（B）", "B"),
        ("C\nbecause it is dark", "C"),
        ("A because it barks", "A"),
        ("Answer: B", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is **C**. Here is why: it is black.", "C"),
        ("the correct option would be (D)", "D"),
        ("答案是B。", "B"),
        ("I choose option C", "C"),
        ("It must be (D), I think", "D"),
        ("a black cat", "C"),
        ("A black cat.", "C"),
        ("I think it is a black cat, surely", "C"),
        ("The answer is A dog", "A"),  # its words, not the letter
        ("The answer is A cat", "B"),
        ("A. a dog\nB. a cat\nAnswer: B", "B"),
    ],
)
def test_one_option_is_named(text, letter):
    assert parse_answer(text, ANIMALS) == LETTERS.index(letter)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "E",
        "Z.",
        "A or B",
        "A, B",
        "(A) or (B)",
        "Answer: (C) or D?",
        "It shows a cat or a dog",
        "A. a dog\nB. a cat\nC. a black cat",
        "A picture of something",
        "I see nothing",
        "category",  # contains "cat", which is not an option as a word
    ],
)
def test_none_or_several_are_unreadable(text):
    assert parse_answer(text, ANIMALS) is None


def test_a_correction_replaces_what_it_corrects():
    assert parse_answer("Answer: A. No, the answer is B.", ANIMALS) == 1


def test_thoughts_that_do_not_end_are_no_answer():
    assert parse_answer("<think>The answer is B.", ANIMALS) is None
    assert parse_answer("<think>The answer is A.</think>The answer is B.", ANIMALS) == 1


@pytest.mark.parametrize(
    "text",
    ["it is " * 4000 + "B", "{" * 20_000, '"the answer is B" ' * 1000, "<answer>" * 2000, " " * 100_000 + "not"],
    ids=["words", "braces", "quotes", "tags", "blanks"],
)
@pytest.mark.timeout(30)
def test_no_text_takes_long(text):
    found = parse_answer(text, ANIMALS)
    assert found in (None, 1)


def test_characters_that_are_used_as_marks_are_none_in_a_text():
    assert parse_answer("The answer is \ue001.", ANIMALS) is None


def test_a_letter_that_is_an_option_itself_is_the_letter():
    assert parse_answer("B", ("B", "A")) == 1


def test_equal_options_are_not_told_apart_by_words():
    assert parse_answer("yes", ("yes", "yes", "no")) is None
    assert parse_answer("no", ("yes", "yes", "no")) == 2


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("The ratio is 1.5", ("1", "2", "3", "4")),
        ("The result is 2.75.", ("2", "75", "9")),
        ("about 1.5 or so", ("5 kg", "1")),
        ("It weighs 1.5 kg.", ("5 kg", "2 kg")),
        ("It costs $1,500.", ("500", "200", "300")),
        ("It costs $1,500.", ("1", "2")),
        ("-5", ("5", "7")),
        ("\u22125", ("5", "7")),
        ("It is (-5).", ("5", "7")),
        (".5", ("5", "7")),
        ("(.5)", ("5", "7")),
        ("It is .5", ("5", "7")),
        ("-.5", ("5", "7")),
        ("1/2", ("1", "3")),
        ("At 10:30", ("10", "11")),
        ("3-5", ("5", "7")),
        ("3-5", ("3", "5")),
        ("Between 3\u20135.", ("3", "7")),
        ("大约1.5米", ("1", "5")),
        ("15", ("1", "5")),
        ("1,2", ("2", "7")),  # two numbers, or one and two tenths
    ],
)
def test_a_number_is_not_part_of_another(text, options):
    assert parse_answer(text, options) is None


@pytest.mark.parametrize(
    ("text", "options", "option"),
    [
        ("5.", ("5", "7"), "5"),
        ("It is 5.", ("5", "7"), "5"),
        ("There are 5. I counted.", ("5", "7"), "5"),
        ("(5)", ("5", "7"), "5"),
        ("I count five (5), so", ("5", "7"), "5"),
        ("5, because", ("5", "7"), "5"),
        ("5,because", ("5", "7"), "5"),
        ("It costs $5, I think", ("5", "7"), "5"),
        ("- 5", ("5", "7"), "5"),
        ("No.5", ("5", "7"), "5"),
        ("covid-19", ("18", "19"), "19"),
        ("a 5-year-old", ("5", "7"), "5"),
        ("...5", ("5", "7"), "5"),
        ("一共5个", ("5", "7"), "5"),
        ("-5", ("5", "-5"), "-5"),
        ("It is \u22125.", ("5", "-5"), "-5"),
        (".5", ("5", ".5"), ".5"),
        ("3-5", ("3", "3-5", "5"), "3-5"),
        ("about 3-5 metres", ("3", "3-5", "5"), "3-5"),
        ("3.5", ("3", "5", "3.5"), "3.5"),
        ("The ratio is 3.5, no more", ("3", "5", "3.5"), "3.5"),
        ("It costs $1,500.", ("500", "1,500", "1"), "1,500"),
    ],
)
def test_a_whole_number_is_named(text, options, option):
    assert parse_answer(text, options) == options.index(option)


@given(st.integers(-9, 99) | st.decimals(-99, 99, places=1), st.integers(0, 9))
def test_a_number_names_no_other(said, option):
    assert (parse_answer(f"It is {said}, I think", (str(option), "none")) == 0) is (str(said) == str(option))


@given(st.integers(0, 25), st.integers(1, 26))
def test_every_letter_is_read_where_there_is_such_an_option(place, count):
    found = parse_answer(f"Answer: ({LETTERS[place]})", [f"option number {number}" for number in range(count)])
    assert found == (place if place < count else None)


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=5))
def test_any_text_has_an_option_or_none(text, options):
    found = parse_answer(text, options)
    assert found is None or 0 <= found < len(options)
