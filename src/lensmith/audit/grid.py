"""How fine told values are: rounded to decimals, or on the lattice that logits of 16 bits leave in them."""

import numpy as np
from numpy.typing import NDArray


def decimals_of(values: NDArray[np.float64]) -> int | None:
    """How many decimals all values have; None for more than six."""
    for decimals in range(7):
        if np.allclose(values, np.round(values, decimals), rtol=0, atol=1e-9):
            return decimals
    return None


def lattice_step(values: NDArray[np.float64]) -> float:
    """The largest power of two, at most 1, of which all differences are multiples; 0 where that is below 2**-12."""
    differences = np.diff(np.unique(values))
    if len(differences) < 4:
        return 0.0
    for power in range(13):
        step = 2.0**-power
        if np.allclose(differences / step, np.round(differences / step), rtol=0, atol=1e-3):
            return step
    return 0.0
