"""Columns are drawn as the seed says, and what is kept of a matrix with gaps has none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.audit.columns import choose_columns, complete_part, distinct_texts, keep_complete
from lensmith.audit.findings import Cost
from lensmith.audit.reading import Prior, Reading
from lensmith.core.errors import InputError, ShapeError


def test_columns_are_random_seeded_different_and_skip_what_is_named():
    one = choose_columns(1000, 50, seed=1, skip=range(500))
    assert np.array_equal(one, choose_columns(1000, 50, seed=1, skip=range(500)))
    assert not np.array_equal(one, choose_columns(1000, 50, seed=2, skip=range(500)))
    assert len(set(one.tolist())) == 50 and one.min() >= 500 and one.max() < 1000
    assert choose_columns(np.array([7, 3, 3, 9]), 3, seed=0).tolist() == [3, 7, 9]


@pytest.mark.parametrize("count", [0, 5])
def test_columns_that_do_not_exist_are_an_error(count):
    with pytest.raises(InputError):
        choose_columns(np.arange(4), count, seed=0)


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


def test_the_literal_case():
    n = np.nan
    matrix = np.array([[1, 2, n, 4], [5, 6, n, 8], [n, n, n, n], [9, 10, n, 12], [13, n, 15, 16]])
    kept = keep_complete(matrix)
    assert kept.rows_N.tolist() == [0, 1, 3] and kept.columns_M.tolist() == [0, 1, 3]
    assert kept.logits_NM.tolist() == [[1, 2, 4], [5, 6, 8], [9, 10, 12]]


def test_no_more_is_dropped_than_must_be():
    matrix = np.ones((6, 6))
    matrix[[0, 1, 2], 4] = np.nan
    assert keep_complete(matrix).logits_NM.shape == (6, 5)
    matrix[3, :3] = np.nan
    assert keep_complete(matrix).logits_NM.shape == (5, 5)


@given(st.integers(0, 2**16), st.floats(0, 1), st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=60)
def test_what_is_kept_is_complete_and_a_part_of_the_whole(seed, missing, rows, columns):
    rng = np.random.default_rng(seed)
    whole = rng.normal(size=(rows, columns))
    whole[rng.random(whole.shape) < missing] = np.nan
    kept = keep_complete(whole)
    assert np.isfinite(kept.logits_NM).all()
    assert np.array_equal(kept.logits_NM, whole[np.ix_(kept.rows_N, kept.columns_M)])
    if np.isfinite(whole).all() and whole.size:
        assert kept.logits_NM.shape == whole.shape


def test_a_matrix_is_needed():
    with pytest.raises(ShapeError):
        keep_complete(np.zeros(3))


def reading(logits, top):
    logits = np.array(logits, dtype=np.float64)
    return Reading(
        logits_NM=logits,
        token_ids_M=np.arange(logits.shape[1]) + 7,
        top_N=np.array(top, dtype=np.float64),
        precision_nats=0.1,
        spent=Cost(queries=1),
    )


def test_the_complete_part_of_a_reading_says_what_was_dropped():
    whole = reading([[1, np.nan, 3], [4, 5, 6], [7, np.nan, 9]], [0, 1, 2])
    part = complete_part(whole)
    assert part.token_ids_M.tolist() == [7, 9] and part.top_N.tolist() == [0, 1, 2]
    assert part.notes == ("dropped 0 rows and 1 columns in which a value was missing",)
    assert complete_part(part).notes == part.notes


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
