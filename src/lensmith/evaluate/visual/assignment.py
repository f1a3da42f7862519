"""The best assignment of one table of costs, and again after two neighbouring rows have become one, for every such two.

Pages with hundreds of blocks need hundreds of these. All but two rows stay, so the dual prices of the first solution
fit almost everywhere: subtracted, they leave a table of which scipy solves the rest twelve times faster. The sum is the
same; of assignments with equal sums another may be found. So tables with up to 64 rows or columns, which is what most
pages have, are solved afresh, and fall exactly as in Design2Code.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from lensmith.core.arrays import Float64Array

SOLVE_AFRESH_UP_TO = 64
"""Rows or columns up to which a table is solved anew for less than its prices cost."""


def assigned_costs(cost: Float64Array) -> list[float]:
    """The costs of the pairs of the cheapest assignment of a table (rows, columns), in the order of rows."""
    rows, columns = linear_sum_assignment(cost)
    costs: list[float] = cost[rows, columns].tolist()
    return costs


class RowMerges:
    """Cheapest assignments of a table (rows, columns) of costs <= 0 in which rows `first` and `first + 1` are one.

    A table of up to `afresh_up_to` rows or columns is solved anew each time, a larger one from its prices.
    """

    def __init__(self, cost: Float64Array, *, afresh_up_to: int = SOLVE_AFRESH_UP_TO) -> None:
        self._cost = cost
        self._afresh = min(cost.shape) <= afresh_up_to
        if not self._afresh:
            self._set_prices()

    def costs_after(self, first: int, merged_cost: Float64Array) -> list[float]:
        """The costs of the pairs when the two rows give way to one with costs `merged_cost`, (columns,)."""
        if self._afresh:
            shorter = np.delete(self._cost, first + 1, axis=0)
            shorter[first] = merged_cost
            return assigned_costs(shorter)
        return self._costs_by_prices(first, merged_cost)

    def _set_prices(self) -> None:
        """Pad the table to a square, solve it, and find column prices at which no row would rather swap.

        Prices are the shortest ways through the table's exchanges (Bellman and Ford); the best assignment has no
        exchange that gains, so they settle.
        """
        rows, columns = self._cost.shape
        side = max(rows, columns)
        self._square = np.zeros((side, side))
        self._square[:rows, :columns] = self._cost
        _, partner = linear_sum_assignment(self._square)
        paid = self._square[np.arange(side), partner]
        exchange = self._square - paid[:, None]
        prices = np.zeros(side)
        for _ in range(side):
            better = np.minimum(prices, (exchange + prices[partner][:, None]).min(axis=0))
            settled = np.abs(better - prices).max() < 1e-12
            prices = better
            if settled:
                break
        self._prices = prices
        self._reduced = exchange + (prices[partner][:, None] - prices)

    def _costs_by_prices(self, first: int, merged_cost: Float64Array) -> list[float]:
        rows, columns = self._cost.shape
        side = len(self._prices)
        merged = np.zeros(side)
        merged[:columns] = merged_cost
        reduced = self._reduced.copy()
        reduced[first] = merged - self._prices
        reduced[first + 1] = -self._prices  # an empty row keeps the square
        reduced[first : first + 2] -= reduced[first : first + 2].min(axis=1, keepdims=True)
        _, partner = linear_sum_assignment(reduced)
        paid = self._square[np.arange(side), partner]
        paid[first] = merged[partner[first]]
        real = partner < columns
        real[first + 1] = False
        real[rows:] = False
        costs: list[float] = paid[real].tolist()
        # A column that is worth nothing to any row may have gone to an empty one.
        return costs + [0.0] * (min(rows - 1, columns) - len(costs))
