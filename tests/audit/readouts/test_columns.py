"""Tokens that can be told apart by their text, and what is expected of each column."""

import numpy as np
import pytest

from lensmith.audit.findings.finding import Cost
from lensmith.audit.readouts.base import Prior, Reading
from lensmith.audit.readouts.choose import distinct_texts, lasting_ids
from lensmith.core.endpoint import TEXT_IDS_FROM
from lensmith.core.errors import InputError, ShapeError


def test_texts_that_may_collide_are_left_out():
    texts = {
        0: " the",
        1: "the",
        2: "ab",
        3: "�",
        4: "same",
        5: "same",
        6: "naïve",
        7: "a1b2",
        8: "\nword",
        9: "",
        10: "  abc",
    }
    assert distinct_texts(texts).tolist() == [0, 1, 8]


class Texts:
    """A client's numbers for texts, in the order in which it met them."""

    def __init__(self, *names):
        self.names = names

    def data(self, token_id):
        return self.names[token_id - TEXT_IDS_FROM]


def test_tokens_that_are_known_by_text_have_numbers_that_last():
    ids = TEXT_IDS_FROM + np.arange(3)
    one, two = Texts(b"red", b"green", b"blue"), Texts(b"blue", b"red", b"green")
    assert lasting_ids(ids, one).tolist() == lasting_ids(ids[[1, 2, 0]], two).tolist()
    assert len(set(lasting_ids(ids, one).tolist())) == 3
    assert lasting_ids(np.array([4, 9]), one).tolist() == [4, 9] == lasting_ids(np.array([4, 9]), None).tolist()


def reading(logits, top):
    logits = np.array(logits, dtype=np.float64)
    return Reading(
        logits_NM=logits,
        token_ids_M=np.arange(logits.shape[1]) + 7,
        top_N=np.array(top, dtype=np.float64),
        resolution_nats=0.1,
        spent=Cost(queries=1),
    )


def test_a_prior_is_learned_from_rows_relative_to_their_top():
    rng = np.random.default_rng(0)
    mean_M, shift_N = np.linspace(-20, -2, 30), rng.normal(size=(400, 1)) * 9
    rows = mean_M + rng.normal(size=(400, 30)) * 2 + shift_N
    rows[::7, 3] = np.nan
    prior = Prior.from_rows(reading(rows, shift_N[:, 0]))
    np.testing.assert_allclose(prior.mean_M, mean_M, atol=0.5)
    np.testing.assert_allclose(prior.spread_M, 2, rtol=0.2)


def test_a_prior_needs_a_row_with_its_top_and_sensible_numbers():
    with pytest.raises(InputError):
        Prior.from_rows(reading([[1.0, 2.0]], [np.nan]))
    with pytest.raises(InputError):
        Prior(mean_M=np.zeros(2), spread_M=np.zeros(2))
    with pytest.raises(ShapeError):
        Prior(mean_M=np.zeros(2), spread_M=np.ones(3))
    one = Prior.from_rows(reading([[1.0, 2.0, 9.0]], [9.0]))
    assert (one.spread_M >= 0.5).all()
