"""Singular values by the Gram route against numpy's own decomposition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.audit.estimators.spectrum import (
    Centring,
    Method,
    Spectra,
    Spectrum,
    WholeLimits,
    context_gram,
    drop_missing,
    token_blocks,
)
from lensmith.core.errors import InputError, ShapeError

_USUAL = WholeLimits()
_TAIL_ALONE = WholeLimits(qr_side=10)
_END_ALONE = WholeLimits(values_side=0, end_share=1.0)


def _spectrum(
    matrix: np.ndarray,
    centring: Centring = Centring.TOKENS,
    *,
    limits: WholeLimits = _USUAL,
    **options: float,
) -> Spectrum:
    return Spectra(matrix, limits=limits).of(centring, **options)


class _WithoutWhole(Spectra):
    """Of which nobody asks for all values."""

    def of(self, *centring: Centring, **options: float) -> Spectrum:
        raise AssertionError("all values were computed")


def _reference(matrix: np.ndarray, centring: Centring) -> np.ndarray:
    centred = matrix - matrix.mean(axis=1, keepdims=True)
    if centring is Centring.TOKENS_AND_CONTEXTS:
        centred = centred - centred.mean(axis=0)
    return np.linalg.svd(centred, compute_uv=False)


@settings(max_examples=40)
@given(
    contexts=st.integers(2, 30),
    tokens=st.integers(2, 30),
    seed=st.integers(0, 2**16),
    centring=st.sampled_from(Centring),
    block=st.integers(1, 9),
)
def test_values_equal_a_full_decomposition(contexts, tokens, seed, centring, block):
    matrix = np.random.default_rng(seed).standard_normal((contexts, tokens)) - 20
    whole = _spectrum(matrix, centring)
    expected = min(contexts - (centring is Centring.TOKENS_AND_CONTEXTS), tokens - 1)
    assert len(whole.values_K) == expected
    reference = _reference(matrix, centring)
    assert whole.values_K == pytest.approx(reference[:expected], abs=1e-6 * reference[0])
    blocked = context_gram(token_blocks(matrix, block)).centred(centring)
    whole_gram = context_gram([matrix]).centred(centring)
    assert np.allclose(blocked, whole_gram, rtol=0, atol=1e-9 * contexts * tokens)


@pytest.mark.parametrize("shape", [(50, 90), (90, 50), (60, 60)])
@pytest.mark.parametrize("limits", [_USUAL, _TAIL_ALONE], ids=["whole", "tail"])
@pytest.mark.parametrize("centring", Centring)
def test_qr_sees_below_the_floor_of_the_gram_matrix(shape, limits, centring):
    rng = np.random.default_rng(0)
    left = rng.standard_normal((shape[0], 24)) * np.repeat([1.0, 1e-9], 12)
    matrix = left @ rng.standard_normal((24, shape[1]))
    found = _spectrum(matrix, centring, limits=limits)
    assert found.method is (Method.TAIL if limits is _TAIL_ALONE else Method.QR)
    reference = _reference(matrix, centring)
    assert found.values_K[:24] == pytest.approx(reference[:24], rel=1e-3)
    assert found.values_K[24] < 1e-3 * found.values_K[23]


def test_the_tail_survives_contexts_that_repeat_one_another():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 8)) @ rng.standard_normal((8, 70))
    matrix[:20] = matrix[0]
    found = _spectrum(matrix, limits=_TAIL_ALONE)
    assert found.values_K[7] / found.values_K[8] > 1e6


def test_the_tail_survives_first_contexts_that_explain_badly():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((260, 200))
    states[199:201] = states[:199].sum(axis=0) + 1e-7 * states[199:201]
    matrix = states @ rng.standard_normal((200, 400)) + 1e-8 * rng.standard_normal((260, 400))
    matrix[:, 0] += 1e5 * rng.standard_normal(260)
    found = _spectrum(matrix, limits=_TAIL_ALONE)
    assert found.method is Method.TAIL
    assert found.values_K == pytest.approx(_reference(matrix, Centring.TOKENS), rel=1e-2)


@pytest.mark.parametrize("shape", [(70, 110), (110, 70)])
@pytest.mark.parametrize("centring", Centring)
def test_the_end_of_a_spectrum_equals_that_of_the_whole(shape, centring):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((shape[0], 50)) @ rng.standard_normal((50, shape[1]))
    matrix += 1e-4 * rng.standard_normal(shape) + 5
    end = _WithoutWhole(matrix, limits=_END_ALONE).end(centring, before=40, down_to=1e-6)
    count = min(shape[0] - (centring is Centring.TOKENS_AND_CONTEXTS), shape[1] - 1)
    assert end == pytest.approx(_reference(matrix, centring)[40:count], rel=1e-3)


def test_values_below_the_floor_are_not_taken_from_the_gram_matrix():
    rng = np.random.default_rng(0)
    left = rng.standard_normal((50, 24)) * np.repeat([1.0, 1e-9], 12)
    matrix = left @ rng.standard_normal((24, 90))
    end = Spectra(matrix, limits=_END_ALONE).end(Centring.TOKENS, before=10, down_to=1e-10)
    assert end[:14] == pytest.approx(_reference(matrix, Centring.TOKENS)[10:24], rel=1e-3)


@pytest.mark.parametrize("left_out", [0, 7, 80])
@pytest.mark.parametrize("large", [1.0, 1e6])
def test_a_part_has_the_values_of_its_own_matrix(left_out, large):
    """Also where a few tokens far larger than all others are left out, which would leave nothing but rounding."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 120)) - 20
    matrix[:, :5] *= large
    whole = Spectra(matrix)
    contexts, tokens = rng.permutation(40)[:33], np.arange(left_out, 120)
    part = whole.part(contexts, tokens)
    for centring in Centring:
        found = part.of(centring).values_K
        expected = _reference(matrix[contexts][:, tokens], centring)[: len(found)]
        # What a Gram matrix keeps, of the part's own largest value.
        assert found == pytest.approx(expected, rel=1e-9, abs=3e-8 * expected[0])


def test_blocks_in_any_order_of_memory_and_precision_give_the_same():
    matrix = np.random.default_rng(1).standard_normal((20, 50)).astype(np.float32)
    assert _spectrum(np.asfortranarray(matrix)).values_K == pytest.approx(_spectrum(matrix).values_K)
    assert _spectrum(matrix.astype(np.float64)).values_K == pytest.approx(_spectrum(matrix).values_K)


def test_centring_takes_the_normaliser_out():
    rng = np.random.default_rng(2)
    matrix = rng.standard_normal((30, 5)) @ rng.standard_normal((5, 60))
    shifted = matrix + 100 * rng.standard_normal((30, 1))
    assert _spectrum(shifted).values_K[:5] == pytest.approx(_spectrum(matrix).values_K[:5], rel=1e-9)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16), share=st.floats(0, 0.3))
def test_missing_values_go_with_their_rows_or_columns_and_nothing_is_changed(seed, share):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((12, 20))
    matrix[rng.random(matrix.shape) < share] = np.nan
    part = drop_missing(matrix)
    assert np.isfinite(part.matrix_NM).all()
    assert np.array_equal(part.matrix_NM, matrix[np.ix_(part.contexts_N, part.tokens_M)])


def test_one_empty_row_and_one_empty_column_cost_no_more():
    matrix = np.ones((10, 30))
    matrix[3], matrix[:, 7], matrix[4, 8] = np.nan, -np.inf, np.nan
    part = drop_missing(matrix)
    assert part.matrix_NM.shape in {(9, 28), (8, 29)}
    assert 3 not in part.contexts_N
    assert 7 not in part.tokens_M


def test_impossible_input_is_refused():
    with pytest.raises(ShapeError):
        _spectrum(np.zeros((1, 9)))
    with pytest.raises(ShapeError):
        drop_missing(np.zeros(9))
    with pytest.raises(InputError, match="missing"):
        _spectrum(np.full((4, 9), np.nan))
    with pytest.raises(InputError, match="no outputs"):
        context_gram([])
    with pytest.raises(InputError, match="missing"):
        context_gram([np.full((4, 9), np.nan)])
    with pytest.raises(ShapeError, match="contexts"):
        context_gram([np.zeros((4, 9)), np.zeros((5, 9))])


def test_no_decomposition_is_made_for_values_that_nobody_asks_for():
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((20, 6)) @ rng.standard_normal((6, 30))
    assert _spectrum(matrix).method is Method.QR
    shallow = _spectrum(matrix, down_to=1e-3)
    assert shallow.method is Method.GRAM
    assert shallow.values_K[:6] == pytest.approx(_spectrum(matrix).values_K[:6])
    assert shallow.values_K[6] < 1e-6 * shallow.values_K[5]
