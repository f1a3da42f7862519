"""Assignments after merging two rows: solved from prices or afresh, the costs are the same."""

import numpy as np
import pytest

from lensmith.evaluate.visual.assignment import RowMerges, assigned_costs


@pytest.mark.parametrize("shape", [(30, 30), (30, 37), (41, 30), (2, 30), (30, 2)])
@pytest.mark.parametrize("sparse", [False, True])
def test_prices_give_the_same_costs(shape: tuple[int, int], sparse: bool) -> None:
    random = np.random.default_rng(sum(shape))
    cost = -random.random(shape)
    if sparse:
        cost[random.random(shape) < 0.9] = 0.0
    merged = -random.random((shape[0] - 1, shape[1]))
    afresh = RowMerges(cost)
    by_prices = RowMerges(cost, afresh_up_to=0)
    for first in range(shape[0] - 1):
        table = np.delete(cost, first + 1, axis=0)
        table[first] = merged[first]
        expected = assigned_costs(table)
        assert afresh.costs_after(first, merged[first]) == expected
        got = by_prices.costs_after(first, merged[first])
        assert len(got) == len(expected) == min(shape[0] - 1, shape[1])
        assert np.allclose(sorted(got), sorted(expected), atol=1e-12)


def test_a_small_table() -> None:
    assert assigned_costs(np.array([[-1.0, -0.6], [-0.9, 0.0]])) == [-0.6, -0.9]
