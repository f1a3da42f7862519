"""CIDEr: against the reference implementation's own numbers, and what no implementation may do."""

import numpy as np
import pytest

from lensmith.core.errors import InputError
from lensmith.evaluate.captions import cider, words

# What pycocoevalcap 1.2 gives for these, scored together (`cider/cider_scorer.py`, n = 4, sigma = 6).
GOLDEN = (
    ("a red apple", ["a red apple"], 7.5),
    ("red apple", ["a red apple", "a green apple on a table"], 2.3170518318295876),
    ("the cat sat on the mat", ["a cat on a mat", "the cat sat on the mat with a dog"], 4.322902068520142),
    ("dog", ["dog"], 2.5),
    ("dog dog dog dog", ["a dog runs over the green grass in a park"], 0.06983387483634479),
    ("grinning face with smiling eyes", ["grinning face with big eyes"], 4.020833333333334),
    ("nothing alike", ["some other words here"], 0.0),
    ("", ["an empty answer"], 0.0),
)


def test_scores_are_those_of_the_reference_implementation():
    scores = cider([written for written, _, _ in GOLDEN], [references for _, references, _ in GOLDEN])
    # Sums of a few products in double precision, in another order.
    np.testing.assert_allclose(scores, [score for _, _, score in GOLDEN], rtol=1e-12, atol=1e-12)


def test_a_copy_scores_most_and_another_order_of_captions_changes_nothing():
    references = [
        ["a red apple on a table"],
        ["the green bird sings loudly"],
        ["two dogs run"],
        ["a small house by the sea"],
    ]
    copies = [each[0] for each in references]
    scores = cider(copies, references)
    assert scores[0] == scores[1] == scores[3] == pytest.approx(10)
    assert scores[2] == pytest.approx(7.5), "three words have no run of four"
    order = [2, 0, 3, 1]
    again = cider([copies[place] for place in order], [references[place] for place in order])
    np.testing.assert_allclose(again, scores[order])


def test_captions_of_other_pictures_score_nothing_and_rare_words_more_than_common_ones():
    references = [["a red bird"], ["a red house"], ["a red boat"], ["a green tree"]]
    assert cider(["grey fish swim"] * 4, references).tolist() == [0, 0, 0, 0]
    rare, common = cider(["bird", "red", "boat", "tree"], references)[:2]
    assert rare > common > 0


def test_repeating_a_word_gains_nothing():
    references = [["a dog in the park"], ["the cat on a mat"], ["birds fly south"]]
    once = cider(["dog", "x", "x"], references)[0]
    many = cider(["dog dog dog dog dog dog", "x", "x"], references)[0]
    assert many < once


def test_words_are_small_letters_without_punctuation():
    assert words("A man's well-known Dog, at 10 o’clock!") == ["a", "man's", "well-known", "dog", "at", "10", "o’clock"]
    assert words(" … ") == []


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(InputError, match="do not belong together"):
        cider(["a"], [["a"], ["b"]])
    with pytest.raises(InputError, match="do not belong together"):
        cider(["a", "b"], [["a"], []])
    assert cider([], []).shape == (0,)
