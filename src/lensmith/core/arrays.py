"""Names for arrays of numbers, which say how precise these are. Shapes stand in variable names (`logits_NV`)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
"""Of any precision."""
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
IdArray = NDArray[np.int64]
"""Token ids, or other whole numbers that name something."""
BoolArray = NDArray[np.bool_]
