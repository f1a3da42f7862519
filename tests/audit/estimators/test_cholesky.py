"""The smallest eigenvalues of Gram matrices, and the triangular systems under them, against numpy's own solvers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.linalg import LinAlgError

from lensmith.audit.estimators.cholesky import Factor, Triangle, smallest_space, smallest_values


def _products(values: np.ndarray, seed: int = 0) -> np.ndarray:
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return (basis * values**2) @ basis.T


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_triangle_that_grows_solves_as_numpy_does(sizes, seed):
    rng = np.random.default_rng(seed)
    side = sum(sizes)
    lower = np.tril(rng.standard_normal((side, side))) / max(side, 1) + np.eye(side)
    triangle = Triangle()
    for size in sizes:
        rows = slice(triangle.size, triangle.size + size)
        triangle.extend(lower[rows, : rows.start], lower[rows, rows])
    right = rng.standard_normal((side, 3))
    assert np.allclose(triangle.forward(right), np.linalg.solve(lower, right), rtol=0, atol=1e-10)


def test_a_factor_solves_as_numpy_does():
    products = _products(np.linspace(3, 1, 700))
    right = np.random.default_rng(1).standard_normal((700, 4))
    assert np.allclose(Factor(products).solve(right), np.linalg.solve(products, right), rtol=0, atol=1e-9)


def test_a_factor_bears_what_rounding_makes_of_a_singular_matrix_and_nothing_else():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((600, 200))
    products = rows @ rows.T  # 400 eigenvalues are zero, some of them a little below
    space = smallest_space(Factor(products), 600, 400, steps=2)
    assert np.abs(rows.T @ space).max() < 1e-6
    with pytest.raises(LinAlgError):
        Factor(-products)


@pytest.mark.parametrize("after", [1e-1, 1e-4])
def test_values_equal_those_of_all_eigenvalues(after):
    rng = np.random.default_rng(0)
    values = np.concatenate([np.geomspace(20, 1, 500), after * np.linspace(0.2, 0.1, 60)])
    found = smallest_values(_products(rng.permutation(values)), 90)
    # Far below the largest the Gram matrix itself knows an eigenvalue to a thousandth.
    assert found == pytest.approx(values[-90:], rel=1e-3)


def test_zeros_are_clamped_where_rounding_ends():
    values = np.concatenate([np.geomspace(20, 1, 300), np.zeros(40)])
    found = smallest_values(_products(values), 50)
    assert found[:10] == pytest.approx(values[-50:-40], rel=1e-3)
    assert (found[10:] > 0).all()
    assert found[10:].max() < 3e-7 * values[0]


def test_nothing_is_claimed_of_a_matrix_that_is_none_of_products():
    assert smallest_values(-np.eye(300), 10) is None


@pytest.mark.parametrize("spread", [1.0, 1e-2])
def test_values_of_an_even_spectrum_are_right_or_none(spread):
    """Steps are small there long before the values are right."""
    values = np.linspace(1 + spread, 1, 600)
    found = smallest_values(_products(values), 20)
    assert found is None or found == pytest.approx(values[-20:], rel=1e-4)
