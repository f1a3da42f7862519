"""Reading a chosen option out of free text: what names one option, and what names none or several."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.evaluate.choice.answers import parse_answer
from lensmith.evaluate.choice.question import LETTERS

ANIMALS = ("a dog", "a cat", "a black cat", "two")


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
        "Answer: A. No, the answer is B.",
        "It shows a cat or a dog",
        "A. a dog\nB. a cat\nC. a black cat",
        "A picture of something",
        "I see nothing",
        "category",  # contains "cat", which is not an option as a word
    ],
)
def test_none_or_several_are_unparsable(text):
    assert parse_answer(text, ANIMALS) is None


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
