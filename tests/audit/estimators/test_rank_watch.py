"""What contexts add to one another: where it ends in reading errors, and what it leads to expect of more contexts."""

import numpy as np
import pytest

from lensmith.audit.estimators.rank_watch import RankWatch, expected_rank
from lensmith.audit.estimators.width import estimate_width
from lensmith.audit.stages.width import FIRST_LOOKS, FIRST_ROWS, shown_by
from lensmith.endpoints.fake.endpoint import Norm
from lensmith.endpoints.fake.model import FakeModel, FakeModelConfig

WIDTH, SHARED = 40, 20
CONTEXTS, TOKENS = 96, 160
ERROR_NATS = 1e-4
NOISE_NATS = 1e-3


def test_errors_that_end_in_a_fall_of_their_own_are_no_rank():
    """Such as those of references, each of which the tokens of one request share."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((CONTEXTS, WIDTH)) * np.geomspace(1, 1e-4, WIDTH)
    errors = ERROR_NATS * np.repeat(rng.standard_normal((CONTEXTS, SHARED)), TOKENS // SHARED, axis=1)
    read = states @ rng.standard_normal((WIDTH, TOKENS)) + errors + 1e-8 * rng.standard_normal((CONTEXTS, TOKENS))
    watch = RankWatch()
    for start in range(0, CONTEXTS, 8):
        watch.push(read[start : start + 8])
    resolution_nats = ERROR_NATS * np.sqrt(TOKENS / SHARED)
    found = estimate_width(read, noise_nats=resolution_nats)
    assert watch.reached is not None
    assert (found.rank or found.at_least) <= WIDTH
    # The control: with a resolution taken for nothing, the errors' own directions are a rank.
    if_exact = estimate_width(read, noise_nats=1e-7)
    assert (if_exact.rank or if_exact.at_least) > WIDTH + SHARED / 2


def expected(width, contexts, seed, anisotropy=0.5, norm=Norm.RMS):
    model = FakeModel(FakeModelConfig(vocabulary=200, width=width, seed=seed, anisotropy=anisotropy, norm=norm))
    outputs = model.logits([b"%d" % number for number in range(contexts)])[:, :81]
    errors = np.random.default_rng(seed).standard_normal(outputs.shape)
    return expected_rank(outputs + NOISE_NATS * errors, NOISE_NATS)


@pytest.mark.parametrize("anisotropy", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("norm", [Norm.RMS, Norm.LAYER], ids=str)
def test_no_model_that_the_first_matrix_shows_is_expected_to_be_out_of_its_reach(norm, anisotropy):
    widths = [8, 20, 32, 40, 44, shown_by(FIRST_ROWS)]
    cases = [(width, looked, seed) for width in widths for looked in FIRST_LOOKS for seed in range(12)]
    too_much = [case for case in cases if expected(*case, anisotropy, norm) > shown_by(FIRST_ROWS)]
    assert not too_much


@pytest.mark.parametrize("width", [96, 184, 576])
def test_wide_models_are_expected_to_be_wide(width):
    assert all(expected(width, FIRST_LOOKS[-1], seed) > shown_by(FIRST_ROWS) for seed in range(12))


def test_contexts_that_add_ever_more_lead_to_expect_no_end():
    growing = np.diag(np.arange(1.0, 13.0))
    assert expected_rank(np.concatenate([growing, -growing], axis=1), 0.0) > 12
    assert expected_rank(np.zeros((3, 5)), 0.0) == 3
