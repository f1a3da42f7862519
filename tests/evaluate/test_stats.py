"""Means with their uncertainty: against closed forms, and the coverage that the interval promises."""

import math

import numpy as np
import pytest

from lensmith.core.errors import InputError, ShapeError
from lensmith.evaluate.stats import estimate_mean, estimate_median


def test_a_small_sample_by_hand() -> None:
    estimate = estimate_mean([0.0, 1.0, 1.0, 0.0])
    assert (estimate.n, estimate.mean) == (4, 0.5)
    assert estimate.stderr == pytest.approx(math.sqrt(1 / 3) / 2)
    assert 0 <= estimate.low < 0.5 < estimate.high <= 1


def test_one_value_tells_nothing_of_its_spread() -> None:
    estimate = estimate_mean([0.7])
    assert (estimate.mean, estimate.stderr, estimate.low, estimate.high) == (0.7, None, 0.7, 0.7)


def test_the_interval_covers_as_promised() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        estimate = estimate_mean(random.beta(5, 2, size=60), confidence=0.9, resamples=400, seed=trial)
        inside += estimate.low <= 5 / 7 <= estimate.high
    assert 165 <= inside <= 195  # 180 expected, 4 apart by chance


def test_the_seed_decides_everything() -> None:
    values = np.random.default_rng(1).random(30)
    assert estimate_mean(values, seed=3) == estimate_mean(values, seed=3)
    assert estimate_mean(values, seed=3) != estimate_mean(values, seed=4)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(InputError, match="no values"):
        estimate_mean([])
    with pytest.raises(InputError, match="finite"):
        estimate_mean([0.1, float("nan")])
    with pytest.raises(InputError, match="confidence"):
        estimate_mean([0.1], confidence=95)
    with pytest.raises(InputError, match="resamples"):
        estimate_mean([0.1], resamples=0)
    with pytest.raises(ShapeError, match="plain list"):
        estimate_mean([[0.1]])


def test_a_median_bears_one_that_is_far_off() -> None:
    estimate = estimate_median([1.0, 2.0, 1000.0])
    assert (estimate.median, estimate.n) == (2.0, 3)
    assert 1 <= estimate.low <= 2 <= estimate.high <= 1000
    even = estimate_median([1.0, 2.0, 4.0, 9.0])
    assert even.median == 3.0
    assert estimate_median([5.0] * 8) == estimate_median([5.0] * 8, seed=9)
    with pytest.raises(InputError, match="no values"):
        estimate_median([])


def test_the_median_s_interval_covers_as_promised() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        estimate = estimate_median(random.exponential(size=60), confidence=0.9, resamples=400, seed=trial)
        covered += estimate.low <= np.log(2) <= estimate.high
    assert 0.84 < covered / 200 < 0.96
