"""Whole audits: the layer up to a rotation where a norm put the states on a sphere, and no claim elsewhere."""

from dataclasses import replace

import pytest

from lensmith.audit.estimators.rotation import MAX_RANK, contexts_needed
from lensmith.audit.findings.finding import ReadOut, Severity
from lensmith.audit.weights.head import open_weights
from lensmith.core.exposure import Exposure, Noise
from lensmith.endpoints.fake.endpoint import Lattice, Norm
from tests.support.fake_audits import EVERYTHING, VOCABULARY, WIDTH, audited, fake, finding, write_weights


def weights(endpoint, folder, **more):
    gain = {} if more.pop("no_gain", False) else {"model__norm__weight": endpoint.truth.gain_H - more.pop("less", 0)}
    return write_weights(folder / "model.safetensors", lm_head__weight=endpoint.truth.head_VH, **gain)


@pytest.mark.parametrize(
    "switches",
    [{}, {"norm": Norm.LAYER, "norm_bias": True}, {"norm": Norm.LAYER, "head_bias": True}, {"head_bias": True}],
    ids=str,
)
def test_the_layer_is_found_up_to_a_rotation(tmp_path, switches):
    endpoint = fake(**switches)
    report = audited(endpoint, tmp_path, truth=open_weights(weights(endpoint, tmp_path)))
    found = finding(report, "ROTATION")
    assert found.severity is Severity.CRITICAL
    assert found.evidence["error_up_to_rotation"] < 1e-5
    assert found.evidence["error_of_linear_map"] > 0.1
    assert found.evidence["contexts"] == contexts_needed(found.evidence["rank"])
    assert 0 < found.spent.queries <= found.evidence["contexts"]  # the contexts of the width are not read again
    assert found.whole.queries == sum(finding(report, code).spent.queries for code in ("WIDTH", "LAYER", "ROTATION"))


def test_a_gain_that_is_stored_less_one_is_understood(tmp_path):
    endpoint = fake()
    report = audited(endpoint, tmp_path, truth=open_weights(weights(endpoint, tmp_path, less=1)))
    assert finding(report, "ROTATION").evidence["error_up_to_rotation"] < 1e-5


@pytest.mark.parametrize(
    ("exposure", "switches"),
    [
        (replace(EVERYTHING, decimals=2), {}),
        (EVERYTHING, {"lattice": Lattice.BFLOAT16}),
        (EVERYTHING, {"soft_cap": 30.0}),
        (EVERYTHING, {"jitter_nats": 1e-3}),
        (replace(EVERYTHING, noise_nats=0.1, noise=Noise.FROZEN), {}),
        (replace(EVERYTHING, decimals=1), {}),
        (replace(EVERYTHING, decimals=0), {}),
    ],
    ids=str,
)
def test_what_the_fit_says_of_its_error_is_so(tmp_path, exposure, switches):
    """Coarse outputs cost in proportion: the residual on contexts that were left out says how much."""
    endpoint = fake(exposure, **switches)
    report = audited(endpoint, tmp_path, truth=open_weights(weights(endpoint, tmp_path)))
    found = finding(report, "ROTATION")
    if found is not None:
        error, misfit = found.evidence["error_up_to_rotation"], found.evidence["misfit"]
        assert misfit / 5 < error < 5 * misfit
        assert error < found.evidence["error_of_linear_map"] / 2


def test_states_that_no_norm_put_on_a_sphere_give_no_claim(tmp_path):
    endpoint = fake(norm=Norm.NONE)
    report = audited(endpoint, tmp_path, truth=open_weights(weights(endpoint, tmp_path)))
    assert report.width == WIDTH and finding(report, "ROTATION") is None
    assert "no ellipsoid" in finding(report, "LAYER").evidence["up_to_rotation"]


def test_outputs_that_noise_moved_off_the_ellipsoid_give_no_claim(tmp_path):
    endpoint = fake(replace(EVERYTHING, decimals=0), vocabulary=1024, logit_std=4.0)
    report = audited(endpoint, tmp_path, truth=open_weights(weights(endpoint, tmp_path)))
    assert finding(report, "ROTATION") is None


def test_no_more_is_read_than_the_budget_allows(tmp_path):
    endpoint = fake()
    report = audited(endpoint, tmp_path, max_queries=700)
    assert endpoint.queries <= 700
    assert finding(report, "ROTATION") is None
    assert "more queries" in finding(report, "LAYER").evidence["up_to_rotation"]


def test_a_model_too_wide_is_told_why_and_costs_nothing(tmp_path):
    endpoint = fake(width=MAX_RANK + 8, vocabulary=512)
    report = audited(endpoint, tmp_path, max_queries=100_000)
    assert report.width == MAX_RANK + 8 and finding(report, "ROTATION") is None
    assert "sixth power" in finding(report, "LAYER").evidence["up_to_rotation"]
    assert endpoint.queries < 2_000


def test_weights_without_the_norm_score_the_layer_only(tmp_path):
    endpoint = fake()
    report = audited(endpoint, tmp_path, truth=open_weights(weights(endpoint, tmp_path, no_gain=True)))
    assert "rms_seen" in finding(report, "LAYER").evidence
    evidence = finding(report, "ROTATION").evidence
    assert "gain" in evidence["not_scored"] and "error_up_to_rotation" not in evidence


def test_through_a_read_out_that_is_paid_by_the_token_few_tokens_are_read(tmp_path):
    endpoint = fake(replace(Exposure(), wanted_ids=128))
    report = audited(endpoint, tmp_path, truth=open_weights(weights(endpoint, tmp_path)), read_outs=(ReadOut.P2,))
    found = finding(report, "ROTATION")
    assert found.evidence["tokens"] == VOCABULARY - 3
    assert found.evidence["error_up_to_rotation"] < 1e-5
    assert found.spent.queries < contexts_needed(WIDTH)  # one query a context, for the tokens that place it
