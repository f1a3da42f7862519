"""The layer up to a rotation, where outputs lie on an ellipsoid, and nothing where they do not."""

import numpy as np
import pytest

from lensmith.audit.estimators.layer import recover_layer
from lensmith.audit.estimators.rotation import MAX_RANK, contexts_needed, error_up_to_rotation, recover_up_to_rotation
from lensmith.audit.estimators.spectrum import Centring, token_blocks
from lensmith.core.errors import NotExposedError, ShapeError
from tests.support.last_layers import Norm, make_layer, told

WIDTH, VOCABULARY = 20, 700


def _recover(norm, *, noise_nats=0.0, contexts=400, centring=Centring.TOKENS_AND_CONTEXTS):
    layer = make_layer(WIDTH, VOCABULARY, spectrum="moderate", norm=norm, seed=1)
    rng = np.random.default_rng(2)
    outputs = told(layer.logits(contexts, rng)) + noise_nats * rng.standard_normal((contexts, VOCABULARY))
    rank = WIDTH - 1 if norm.centres else WIDTH
    truth = layer.gained - layer.gained.mean(axis=1, keepdims=True) if norm.centres else layer.gained
    return truth, recover_layer(lambda: token_blocks(outputs), rank, centring=centring)


@pytest.mark.parametrize("norm", Norm)
def test_the_layer_with_its_gain_is_found_up_to_a_rotation(norm):
    truth, recovered = _recover(norm)
    found = recover_up_to_rotation(recovered, width=WIDTH)
    assert error_up_to_rotation(found.layer_VR, truth) < 1e-5
    assert found.misfit < 1e-5
    # The linear map alone does not do it: its columns still need stretching.
    unstretched = recovered.layer_VR * np.linalg.norm(truth) / np.linalg.norm(recovered.layer_VR)
    assert error_up_to_rotation(unstretched, truth) > 0.05


def test_without_a_bias_the_centre_is_known():
    truth, recovered = _recover(Norm.RMS, centring=Centring.TOKENS)
    assert error_up_to_rotation(recover_up_to_rotation(recovered).layer_VR, truth) < 1e-5


def test_noise_costs_in_proportion():
    errors = []
    for noise in (1e-4, 1e-2):
        truth, recovered = _recover(Norm.RMS, noise_nats=noise)
        errors.append(error_up_to_rotation(recover_up_to_rotation(recovered).layer_VR, truth))
    assert errors[0] < 1e-3
    assert 20 < errors[1] / errors[0] < 500


def test_outputs_that_no_norm_put_on_a_sphere_are_refused():
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((600, WIDTH)) @ rng.standard_normal((WIDTH, VOCABULARY))
    recovered = recover_layer(lambda: token_blocks(outputs), WIDTH)
    with pytest.raises(NotExposedError, match="misfit"):
        recover_up_to_rotation(recovered)


def test_too_few_contexts_or_too_great_a_width_are_refused():
    _, recovered = _recover(Norm.RMS, contexts=contexts_needed(WIDTH) - 1)
    with pytest.raises(NotExposedError, match="too few contexts"):
        recover_up_to_rotation(recovered)
    rng = np.random.default_rng(0)
    wide = recover_layer(lambda: [rng.standard_normal((150, 400))], MAX_RANK + 1)
    with pytest.raises(NotExposedError, match="too wide"):
        recover_up_to_rotation(wide)
    with pytest.raises(ShapeError):
        error_up_to_rotation(np.zeros((3, 2)), np.zeros((4, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("norm", [Norm.RMS, Norm.LAYER_NORM_BIAS])
def test_a_width_of_64(norm):
    layer = make_layer(64, 500, spectrum="steep", norm=norm, seed=1)
    outputs = told(layer.logits(contexts_needed(64), np.random.default_rng(2)))
    recovered = recover_layer(lambda: token_blocks(outputs), 63 if norm.centres else 64)
    truth = layer.gained - layer.gained.mean(axis=1, keepdims=True) * norm.centres
    assert error_up_to_rotation(recover_up_to_rotation(recovered, width=64).layer_VR, truth) < 1e-4
