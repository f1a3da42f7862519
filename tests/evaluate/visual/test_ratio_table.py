"""The table of ratios is difflib's, to the last bit."""

from difflib import SequenceMatcher

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.evaluate.visual.matching import RatioTable

# Few letters make many ties; the long texts cross the length at which difflib leaves out popular characters.
TEXTS = st.lists(
    st.one_of(
        st.text("ab", max_size=12),
        st.text("abc ", max_size=40),
        st.text(max_size=10),
        st.builds(lambda piece, times: (piece * times)[:260], st.text("abcdefgh ", min_size=1), st.integers(1, 60)),
    ),
    max_size=6,
)


def difflib_ratios(a_texts: list[str], b_texts: list[str]) -> np.ndarray:
    ratios = [[SequenceMatcher(None, a, b).ratio() for b in b_texts] for a in a_texts]
    return np.array(ratios).reshape(len(a_texts), len(b_texts))


@settings(max_examples=150)
@given(TEXTS, TEXTS)
def test_equals_difflib_exactly(a_texts: list[str], b_texts: list[str]) -> None:
    assert (RatioTable().ratios(a_texts, b_texts) == difflib_ratios(a_texts, b_texts)).all()


def test_equals_difflib_on_a_page_of_sentences() -> None:
    random = np.random.default_rng(1)
    words = "river lantern market price garden home contact about fresh bread daily since visit our shop".split()
    pages = [[" ".join(random.choice(words, size)) for size in random.choice([1, 2, 5, 12, 60], 25)] for _ in range(2)]
    assert (RatioTable().ratios(*pages) == difflib_ratios(*pages)).all()


def test_a_table_grows_and_remembers() -> None:
    table = RatioTable()
    first = table.ratios(["one", "two"], ["one"])
    many = [f"text number {n}" for n in range(150)]
    assert (table.ratios(many, many[:90]) == difflib_ratios(many, many[:90])).all()
    assert (table.ratios(["two", "one"], ["one"]) == first[::-1]).all()


def test_small_cases() -> None:
    assert RatioTable().ratios(["", "a", "abcd", "ab"], ["", "bcde"]).tolist() == [
        [1, 0],
        [0, 0],
        [0, 0.75],
        [0, 1 / 3],
    ]
    assert RatioTable().ratios([], ["a"]).shape == (0, 1)
