"""How many rows of a matrix differ by more than noise: repeated prompts make a rank of their own.

Legend: N rows, M columns, S numbers in a row's sketch.
"""

import numpy as np

from lensmith.audit.spectrum import Float64Array
from lensmith.core.endpoint import FloatArray

_SKETCH = 32
_BLOCK = 1024
_TOLERANCE = 8.0
"""Two copies of one row lie twice the noise energy apart, within a quarter by the sketch; this is four times that."""


def distinct_rows(matrix_NM: FloatArray, noise_energy: float) -> int:
    """Rows that no row before them repeats. `noise_energy`: the expected square sum of one row's noise."""
    sketch_NS = _sketch(matrix_NM)
    tolerance = max(_TOLERANCE * noise_energy, 1e-24 * float((sketch_NS**2).sum(axis=1).mean()))
    energy_N = (sketch_NS**2).sum(axis=1)
    repeats = 0
    for start in range(0, len(sketch_NS), _BLOCK):
        stop = min(start + _BLOCK, len(sketch_NS))
        distance_BN = energy_N[start:stop, None] + energy_N[:stop] - 2 * sketch_NS[start:stop] @ sketch_NS[:stop].T
        distance_BN[np.arange(stop) >= np.arange(start, stop)[:, None]] = np.inf  # only rows before it count
        nearest_B = distance_BN.argmin(axis=1)
        # From the difference itself: the expansion above cancels where rows are close.
        exact_B = ((sketch_NS[start:stop] - sketch_NS[nearest_B]) ** 2).sum(axis=1)
        repeats += int((np.isfinite(distance_BN.min(axis=1)) & (exact_B <= tolerance)).sum())
    return len(sketch_NS) - repeats


def _sketch(matrix_NM: FloatArray) -> Float64Array:
    """Random projections of the centred rows, which keep distances to about a quarter."""
    rng = np.random.default_rng(0)
    directions_MS = rng.standard_normal((matrix_NM.shape[1], _SKETCH)) / np.sqrt(_SKETCH)
    directions_MS -= directions_MS.mean(axis=0)  # centring the projections centres the rows
    blocks = [matrix_NM[start : start + _BLOCK] @ directions_MS for start in range(0, len(matrix_NM), _BLOCK)]
    result: Float64Array = np.concatenate(blocks).astype(np.float64)
    return result
