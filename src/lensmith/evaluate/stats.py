"""What can be said of a mean from the pages that were scored: its standard error and an interval.

The interval is the percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13): scores
lie in [0, 1] with many at the ends, so a normal interval would leave the range.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lensmith.core.arrays import Float64Array
from lensmith.core.errors import InputError, ShapeError

_DRAWS_AT_ONCE = 4_000_000  # numbers drawn at a time: 32 MB


@dataclass(frozen=True, kw_only=True)
class MeanEstimate:
    """A mean of `n` values, its standard error (None for a single value, which tells nothing of its spread), and the
    bootstrap interval [low, high] at the asked confidence."""

    n: int
    mean: float
    stderr: float | None
    low: float
    high: float


def estimate_mean(values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> MeanEstimate:
    """Mean of values (n,), with standard error and bootstrap interval. Raises InputError if empty or not finite."""
    sample = _checked(values)
    if not 0 < confidence < 1:
        raise InputError("confidence must lie between 0 and 1", expected="for instance 0.95", actual=confidence)
    means = np.concatenate(list(_bootstrap_means(sample, resamples, seed)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    stderr = float(sample.std(ddof=1) / math.sqrt(len(sample))) if len(sample) > 1 else None
    return MeanEstimate(n=len(sample), mean=float(sample.mean()), stderr=stderr, low=float(low), high=float(high))


def _checked(values: ArrayLike) -> Float64Array:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ShapeError("values must be a plain list", expected="shape (n,)", actual=f"shape {sample.shape}")
    if len(sample) == 0:
        raise InputError("no values to take a mean of", expected="at least one", actual=0)
    if not np.isfinite(sample).all():
        raise InputError("values must be finite", actual=f"{int((~np.isfinite(sample)).sum())} that are not")
    return sample


def _bootstrap_means(sample: Float64Array, resamples: int, seed: int) -> Iterator[Float64Array]:
    if resamples < 1:
        raise InputError("the bootstrap needs resamples", expected="at least 1", actual=resamples)
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(sample))
    for begin in range(0, resamples, at_once):
        count = min(at_once, resamples - begin)
        yield sample[random.integers(0, len(sample), size=(count, len(sample)))].mean(axis=1)
