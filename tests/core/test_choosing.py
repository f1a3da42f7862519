"""How the next token is drawn from its logits: as often as its probability says, and only among what is allowed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure, apply


def draws(logits, count, *, seed=3, **settings):
    request = Request(prompt="x", **settings)
    rows = np.tile(np.array(logits, dtype=np.float64), (count, 1))
    return apply(rows, request, Exposure(), rng=np.random.default_rng(seed)).token_ids_T


def shares(logits, **settings):
    return np.bincount(draws(logits, 4000, **settings), minlength=len(logits)) / 4000


WITHIN = 4 * 0.5 / 4000**0.5
"""Four standard errors of a share of 4000 draws."""


def test_tokens_come_as_often_as_their_probability():
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    np.testing.assert_allclose(shares(logits, temperature=0.7), expected, atol=WITHIN)


def test_the_nucleus_is_what_reaches_the_mass():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(shares(logits, temperature=1.0, top_p=0.7), [0.625, 0.375, 0, 0], atol=WITHIN)
    assert set(draws(logits, 50, temperature=1.0, top_p=1e-9).tolist()) == {0}


@given(
    logits=st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8),
    temperature=st.floats(0.01, 10),
    top_p=st.floats(0.01, 1),
    banned=st.integers(0, 7),
)
def test_a_choice_is_always_a_token_that_is_allowed(logits, temperature, top_p, banned):
    logits[banned % len(logits)] = -np.inf
    [chosen] = draws(logits, 1, temperature=temperature, top_p=top_p)
    assert 0 <= chosen < len(logits)
    assert chosen != banned % len(logits)


@pytest.mark.parametrize("seed", range(3))
def test_greedy_takes_the_first_of_the_highest_and_draws_nothing(seed):
    rng = np.random.default_rng(seed)
    chosen = apply(np.array([[1.0, 3.0, 3.0]]), Request(prompt="x", temperature=0.0), Exposure(), rng=rng).token_ids_T
    assert chosen.tolist() == [1]
    assert rng.random() == np.random.default_rng(seed).random()
