"""What can be said of a mean, a median or a share from what was scored: an interval, and a mean's standard error.

Of means and medians the interval is the percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap",
chapter 13): scores lie in [0, 1] with many at the ends, so a normal interval would leave the range. Of shares it is
Wilson's score interval (Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science
16, 2001, section 3.1): unlike the bootstrap it has a width where all are hits, and it stays within [0, 1].
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from lensmith.core.arrays import Float64Array
from lensmith.core.errors import InputError, ShapeError

CONFIDENCE = 0.95
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


@dataclass(frozen=True, kw_only=True)
class MedianEstimate:
    """The median of `n` values, and the bootstrap interval [low, high] at the asked confidence."""

    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """`hits` of `n`, and the interval of the share behind it."""

    n: int
    hits: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, n: int, *, confidence: float = CONFIDENCE) -> "Share":
        """Raises InputError where there is nothing to take a share of."""
        if not 0 <= hits <= n or n == 0:
            raise InputError("no share of nothing", expected="0 to n hits of at least one", actual=f"{hits} of {n}")
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        share = hits / n
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        # At the ends the formula is exact up to its last digit.
        low, high = (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)
        return cls(n=n, hits=hits, share=share, low=low, high=high)

    def __str__(self) -> str:
        return f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}] ({self.hits} of {self.n})"


def estimate_mean(
    values: ArrayLike, *, confidence: float = CONFIDENCE, resamples: int = 2000, seed: int = 0
) -> MeanEstimate:
    """Mean of values (n,), with standard error and bootstrap interval. Raises InputError if empty or not finite."""
    sample = _checked(values)
    low, high = _interval(sample, _means, confidence, resamples, seed)
    stderr = float(sample.std(ddof=1) / math.sqrt(len(sample))) if len(sample) > 1 else None
    return MeanEstimate(n=len(sample), mean=float(sample.mean()), stderr=stderr, low=low, high=high)


def estimate_median(
    values: ArrayLike, *, confidence: float = CONFIDENCE, resamples: int = 2000, seed: int = 0
) -> MedianEstimate:
    """Median of values (n,), with bootstrap interval. Raises InputError if empty or not finite."""
    sample = _checked(values)
    low, high = _interval(sample, _medians, confidence, resamples, seed)
    return MedianEstimate(n=len(sample), median=float(np.median(sample)), low=low, high=high)


def _means(samples: Float64Array) -> Float64Array:
    means: Float64Array = samples.mean(axis=1)
    return means


def _medians(samples: Float64Array) -> Float64Array:
    return np.median(samples, axis=1)


def _interval(
    sample: Float64Array,
    statistic: Callable[[Float64Array], Float64Array],
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise InputError("confidence must lie between 0 and 1", expected="for instance 0.95", actual=confidence)
    values = np.concatenate([statistic(drawn) for drawn in _drawn(sample, resamples, seed)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _checked(values: ArrayLike) -> Float64Array:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ShapeError("values must be a plain list", expected="shape (n,)", actual=f"shape {sample.shape}")
    if len(sample) == 0:
        raise InputError("no values to take a mean of", expected="at least one", actual=0)
    if not np.isfinite(sample).all():
        raise InputError("values must be finite", actual=f"{int((~np.isfinite(sample)).sum())} that are not")
    return sample


def _drawn(sample: Float64Array, resamples: int, seed: int) -> Iterator[Float64Array]:
    """Samples of the same size, drawn with replacement: (some, n) at a time."""
    if resamples < 1:
        raise InputError("the bootstrap needs resamples", expected="at least 1", actual=resamples)
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(sample))
    for begin in range(0, resamples, at_once):
        count = min(at_once, resamples - begin)
        yield sample[random.integers(0, len(sample), size=(count, len(sample)))]
