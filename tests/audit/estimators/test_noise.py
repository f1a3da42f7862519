"""What cannot be seen by reading twice is found in the values: decimals, and the lattice of 16-bit logits."""

import numpy as np
import pytest

from lensmith.audit.estimators.noise import decimals_of, float32_nats, lattice_nats, noise_edge, rounding_nats
from lensmith.core.endpoint import Request
from lensmith.endpoints.fake.endpoint import FakeEndpoint, Lattice

CONTEXTS = [Request(token_ids=(5, number)) for number in range(64)]


def logits(lattice, **switches):
    endpoint = FakeEndpoint(vocabulary=1500, width=48, seed=1, lattice=lattice, **switches)
    return np.array([endpoint.true_logits(context) for context in CONTEXTS], dtype=np.float64)


@pytest.mark.parametrize("columns", [80, 1500])
@pytest.mark.parametrize("logit_std", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("lattice", [Lattice.FLOAT16, Lattice.BFLOAT16])
def test_the_lattice_is_found_through_what_is_left_of_it(lattice, logit_std, columns):
    exact_NM, coarse_NM = (logits(each, logit_std=logit_std)[:, :columns] for each in (Lattice.FLOAT32, lattice))
    error_nats = float((coarse_NM - exact_NM).std())
    told_NM = coarse_NM - coarse_NM[:, :1]
    for resolution_nats in (0.0, error_nats / 8):
        noise_NM = np.random.default_rng(0).normal(0, resolution_nats, told_NM.shape)
        assert 0.9 < lattice_nats(told_NM + noise_NM, resolution_nats) / error_nats < 2


@pytest.mark.parametrize("columns", [16, 80, 1500])
def test_no_lattice_is_seen_where_there_is_none(columns):
    told_NM = logits(Lattice.FLOAT32)[:, :columns]
    assert lattice_nats(told_NM) == 0
    assert lattice_nats(told_NM, 1e-3) == 0
    assert lattice_nats(np.zeros((64, columns))) == 0
    assert lattice_nats(told_NM[:3, :4]) == 0


def test_decimals_are_those_that_all_values_have():
    values = np.random.default_rng(0).standard_normal(10_000)
    assert [decimals_of(np.round(values, decimals)) for decimals in range(7)] == list(range(7))
    assert decimals_of(values) is None
    assert decimals_of(np.array([np.nan])) is None
    assert decimals_of(np.append(np.round(values, 2), np.nan)) == 2


def test_errors_of_known_causes_have_the_size_that_is_stated():
    rng = np.random.default_rng(0)
    values = rng.uniform(64, 128, 100_000)
    assert rounding_nats(2) == pytest.approx((values - np.round(values, 2)).std(), rel=0.02)
    assert float32_nats(100.0) == pytest.approx((values - values.astype(np.float32)).std(), rel=0.02)
    noise_NM = 0.1 * rng.standard_normal((300, 500))
    assert noise_edge(300, 500, 0.1) == pytest.approx(np.linalg.norm(noise_NM, 2), rel=0.05)
