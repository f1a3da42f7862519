"""The image of a model: whole outputs from a few tokens, and a signature that others do not have."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.audit.estimators.image import (
    choose_tokens,
    learn_image,
    load_image,
    off_image,
    predict,
    prediction_error,
    save_image,
)
from lensmith.core.errors import InputError, ShapeError
from lensmith.core.exposure import log_softmax
from tests.support.last_layers import Norm, make_layer, told

WIDTH, VOCABULARY = 32, 900
LAYER = make_layer(WIDTH, VOCABULARY, spectrum="moderate", norm=Norm.RMS, seed=1)
OUTPUTS = told(LAYER.logits(110, np.random.default_rng(2)))
KNOWN, NEW = OUTPUTS[:80], OUTPUTS[80:]


@pytest.fixture(scope="module")
def image():
    return learn_image(KNOWN, WIDTH)


def test_whole_outputs_follow_from_a_few_tokens_to_the_noise_floor(image):
    tokens = choose_tokens(image, 2 * WIDTH)
    assert len(set(tokens.tolist())) == 2 * WIDTH
    assert prediction_error(image, NEW, tokens) < 2e-6
    whole = log_softmax(predict(image, tokens, NEW[:, tokens]))
    assert np.allclose(whole, NEW, rtol=0, atol=2e-5)


def test_the_constant_that_all_values_share_does_not_matter(image):
    tokens = choose_tokens(image, 48)
    values = NEW[:, tokens]
    shifted = values + np.linspace(-50, 50, len(values))[:, None]
    assert np.allclose(predict(image, tokens, shifted), predict(image, tokens, values), rtol=0, atol=1e-9)


def test_pivoted_tokens_beat_random_ones_where_tokens_are_few(image):
    rng = np.random.default_rng(3)
    chosen = prediction_error(image, NEW, choose_tokens(image, WIDTH + 1))
    random = [prediction_error(image, NEW, rng.permutation(VOCABULARY)[: WIDTH + 1]) for _ in range(5)]
    assert chosen < min(random)
    assert chosen < 3 * prediction_error(image, NEW, choose_tokens(image, 2 * WIDTH))


@settings(max_examples=15)
@given(count=st.integers(WIDTH + 1, 300), seed=st.integers(0, 2**16))
def test_any_number_of_tokens_can_be_chosen_each_once(count, seed):
    tokens = choose_tokens(learn_image(KNOWN, WIDTH), count, seed=seed)
    assert len(tokens) == len(set(tokens.tolist())) == count


def test_outputs_of_the_model_lie_in_its_image_as_noise_allows(image):
    off = off_image(image, NEW)
    assert off.rms_K / off.expected_K == pytest.approx(np.ones(len(NEW)), abs=0.3)


@pytest.mark.parametrize("precision", ["bf16", "2 decimals"])
def test_the_noise_of_coarse_outputs_is_told_about_right(precision):
    logits = LAYER.logits(110, np.random.default_rng(2))
    coarse = told(logits, precision)
    image = learn_image(coarse[:80], WIDTH)
    true_noise = np.std(coarse - told(logits) - (coarse - told(logits)).mean(axis=1, keepdims=True))
    assert image.noise_nats == pytest.approx(true_noise, rel=0.15)
    off = off_image(image, coarse[80:])
    assert (off.rms_K / off.expected_K).mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("change", ["another model", "one weight in a thousand"])
def test_outputs_of_another_model_lie_far_outside(image, change):
    if change == "another model":
        other = make_layer(WIDTH, VOCABULARY, spectrum="moderate", norm=Norm.RMS, seed=7)
    else:
        nudged = LAYER.head_VH.copy()
        nudged[::1000] *= 1.01
        other = replace(LAYER, head_VH=nudged)
    off = off_image(image, told(other.logits(20, np.random.default_rng(3))))
    assert (off.rms_K > 10 * off.expected_K).all()


def test_an_image_of_some_tokens_knows_their_ids():
    ids = np.random.default_rng(0).permutation(VOCABULARY)[:300]
    image = learn_image(KNOWN[:, ids], WIDTH, token_ids_M=ids)
    tokens = choose_tokens(image, 60)
    assert set(tokens.tolist()) <= set(ids.tolist())
    predicted = predict(image, tokens, NEW[:, tokens])
    truth = NEW[:, ids] - NEW[:, ids].mean(axis=1, keepdims=True)
    assert np.allclose(predicted, truth, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="not in the image"):
        absent = np.setdiff1d(np.arange(VOCABULARY), ids)[:40]
        predict(image, absent, NEW[:, absent])


def test_a_signature_is_saved_and_loaded_and_damage_is_noticed(image, tmp_path):
    path = tmp_path / "model.npz"
    content_hash = save_image(image, path)
    loaded = load_image(path)
    assert loaded.content_hash == image.content_hash == content_hash
    assert off_image(loaded, NEW).rms_K == pytest.approx(off_image(image, NEW).rms_K)
    other = learn_image(KNOWN[:60], WIDTH)
    assert other.content_hash != content_hash
    content = path.read_bytes()
    for damaged in (b"", b"PK", content[: len(content) // 2], content[:200] + b"\xff" + content[201:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.npz"):
            load_image(path)
    with np.load(_saved(image, tmp_path)) as stored:
        arrays = dict(stored)
    arrays["noise_nats"] = np.array(1.0)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="damaged"):
        load_image(path)
    np.savez(path, basis_MR=np.zeros(3))
    with pytest.raises(InputError, match="no image"):
        load_image(path)


def _saved(image, folder):
    save_image(image, folder / "again.npz")
    return folder / "again.npz"


def test_impossible_requests_are_refused(image):
    with pytest.raises(InputError, match="number of tokens"):
        choose_tokens(image, WIDTH)
    with pytest.raises(InputError, match="number of tokens"):
        choose_tokens(image, VOCABULARY + 1)
    with pytest.raises(InputError, match="too few tokens"):
        predict(image, np.arange(WIDTH), NEW[:, :WIDTH])
    with pytest.raises(ShapeError):
        predict(image, np.arange(50), NEW[:, :49])
    with pytest.raises(ShapeError):
        off_image(image, NEW[:, :-1])
    with pytest.raises(ShapeError):
        learn_image(KNOWN, WIDTH, token_ids_M=np.zeros(VOCABULARY, dtype=np.int64))
    with pytest.raises(InputError):
        learn_image(KNOWN, 80)
