"""A recovered last layer against the weights it came from, beside one that has nothing to do with it."""

import numpy as np
import pytest

from lensmith.audit.estimators.layer import PUBLISHED_RMS, recover_layer, score_layer
from lensmith.audit.estimators.spectrum import Centring, token_blocks
from lensmith.core.errors import InputError, ShapeError
from tests.support.last_layers import Norm, make_layer, told

WIDTH, VOCABULARY = 48, 1500


def _recover(norm, *, precision="float32", contexts=120, block=700):
    layer = make_layer(WIDTH, VOCABULARY, spectrum="moderate", norm=norm, seed=1)
    outputs = told(layer.logits(contexts, np.random.default_rng(2)), precision).astype(np.float32)
    rank = WIDTH - 1 if norm.centres else WIDTH
    return layer, recover_layer(lambda: token_blocks(outputs, block), rank)


@pytest.mark.parametrize("norm", Norm)
def test_the_layer_is_found_up_to_a_linear_map(norm):
    layer, recovered = _recover(norm)
    lost = WIDTH - recovered.layer_VR.shape[1]
    score = score_layer(recovered.layer_VR, layer.head_VH, lost=lost)
    assert recovered.layer_VR.dtype == np.float32
    assert score.rms_seen < 1e-6 * score.truth_rms
    assert score.rms_unrelated == pytest.approx(score.truth_rms * np.sqrt(1 - WIDTH / VOCABULARY), rel=0.02)
    if lost:  # one direction of 48 holds about a 48th of the energy
        assert score.rms == pytest.approx(score.truth_rms / np.sqrt(WIDTH), rel=0.4)
    else:
        assert score.rms == score.rms_seen


def test_coordinates_and_layer_give_the_outputs_back():
    _, recovered = _recover(Norm.RMS)
    layer = make_layer(WIDTH, VOCABULARY, spectrum="moderate", norm=Norm.RMS, seed=1)
    outputs = told(layer.logits(120, np.random.default_rng(2)))
    outputs -= outputs.mean(axis=1, keepdims=True)
    outputs -= outputs.mean(axis=0)
    assert np.allclose(recovered.coordinates_NR @ recovered.layer_VR.T, outputs, rtol=0, atol=1e-4)
    gram = recovered.layer_VR.T @ recovered.layer_VR
    assert np.allclose(gram, np.eye(WIDTH), rtol=0, atol=1e-5)


def test_blocks_of_any_size_give_the_same_layer():
    _, one = _recover(Norm.RMS, block=VOCABULARY)
    _, many = _recover(Norm.RMS, block=77)
    assert np.abs(one.layer_VR.T @ many.layer_VR).diagonal() == pytest.approx(np.ones(WIDTH), abs=1e-4)


def test_precision_of_the_outputs_decides_and_all_beat_the_unrelated_layer():
    errors = []
    for precision in ("float32", "4 decimals", "fp16", "2 decimals", "bf16"):
        layer, recovered = _recover(Norm.RMS, precision=precision)
        score = score_layer(recovered.layer_VR, layer.head_VH)
        errors.append(score.rms / score.truth_rms)
        assert score.rms < score.rms_unrelated / 20
    assert errors == sorted(errors)
    # The paper's range is for heads of about 0.02: the same relative to the scale.
    assert errors[0] * 0.02 < PUBLISHED_RMS[0]


def test_an_unrelated_model_scores_as_an_unrelated_layer():
    _, recovered = _recover(Norm.RMS)
    other = make_layer(WIDTH, VOCABULARY, spectrum="flat", norm=Norm.RMS, seed=9)
    score = score_layer(recovered.layer_VR, other.head_VH)
    assert score.rms == pytest.approx(score.rms_unrelated, rel=0.05)


def test_a_wrong_rank_or_shape_is_refused():
    outputs = told(make_layer(8, 90, spectrum="flat", norm=Norm.RMS, seed=0).logits(40, np.random.default_rng(0)))
    with pytest.raises(InputError, match="more outputs"):
        recover_layer(lambda: token_blocks(outputs), 40)
    with pytest.raises(InputError, match="more outputs"):
        recover_layer(lambda: token_blocks(outputs), 0)
    exact = np.random.default_rng(0).standard_normal((30, 5)) @ np.random.default_rng(1).standard_normal((5, 60))
    with pytest.raises(InputError, match="lower rank"):
        recover_layer(lambda: token_blocks(exact), 12, centring=Centring.TOKENS)
    with pytest.raises(ShapeError):
        score_layer(np.zeros((90, 8)), np.zeros((91, 8)))
