"""The fake model: each switch does what its name says, and the truth is the truth."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from lensmith.core.endpoint import Endpoint, Feature, RefusedError, Request, Reveal
from lensmith.core.errors import ConfigError, InputError, ShapeError
from lensmith.core.exposure import Exposure, Noise, Sampled, Taken, apply, log_softmax
from lensmith.core.types import Message, Picture
from lensmith.endpoints.fake.endpoint import FakeEndpoint, Lattice, Norm
from lensmith.endpoints.fake.model import FakeModel, FakeModelConfig
from lensmith.endpoints.fake.tokens import FakeTokens
from lensmith.openai_api import BusyError

VOCABULARY, WIDTH = 97, 12


def fake(**switches) -> FakeEndpoint:
    return FakeEndpoint(**{"vocabulary": VOCABULARY, "width": WIDTH, "seed": 3, **switches})


def one(**fields) -> Request:
    return Request(**{"token_ids": (1, 2), "max_tokens": 1, "temperature": 0.0, **fields})


def whole(endpoint, contexts=60):
    requests = [one(token_ids=(1, number % 90, number // 90), reveal=Reveal.VOCABULARY) for number in range(contexts)]
    return np.concatenate([answer.choices[0].logprobs.vocabulary_TV for answer in endpoint.answer(requests)])


def rank(matrix, threshold=1e-5):
    values = np.linalg.svd(matrix, compute_uv=False)
    return int((values > threshold * values[0]).sum())


def centred(matrix):
    return matrix - matrix.mean(axis=1, keepdims=True)


# What the two leak papers say of the rank of returned logprobs, minus the width: centred over tokens, and over
# contexts too, and not at all, and over contexts only.
RANKS = {
    (Norm.RMS, False, False): (0, 0, 1, 1),
    (Norm.RMS, True, False): (0, 0, 1, 1),
    (Norm.RMS, False, True): (1, 0, 2, 1),
    (Norm.RMS, True, True): (1, 0, 2, 1),
    (Norm.LAYER, False, False): (-1, -1, 0, 0),
    (Norm.LAYER, False, True): (0, -1, 1, 0),
    (Norm.LAYER, True, False): (0, -1, 1, 0),
    (Norm.LAYER, True, True): (0, -1, 1, 0),
}


@pytest.mark.parametrize(("switches", "excess"), RANKS.items())
def test_the_rank_of_logprobs_for_each_norm_and_bias(switches, excess):
    norm, norm_bias, head_bias = switches
    told = whole(fake(norm=norm, norm_bias=norm_bias, head_bias=head_bias))
    tokens = centred(told)
    ranks = (rank(tokens), rank(tokens - tokens.mean(axis=0)), rank(told), rank(told - told.mean(axis=0)))
    assert tuple(value - WIDTH for value in ranks) == excess


@pytest.mark.parametrize("norm", Norm)
def test_the_truth_spans_what_is_told(norm):
    endpoint = fake(norm=norm)
    told, head_VH = centred(whole(endpoint)), centred(endpoint.truth.head_VH.T)
    _, _, basis = np.linalg.svd(head_VH, full_matrices=False)
    assert np.abs(told - told @ basis.T @ basis).max() < 1e-5
    _, _, wrong = np.linalg.svd(centred(fake(seed=4).truth.head_VH.T), full_matrices=False)
    assert np.abs(told - told @ wrong.T @ wrong).max() > 1


def test_true_logits_are_what_logprobs_come_from():
    endpoint = fake()
    told = endpoint.answer([one(reveal=Reveal.VOCABULARY)])[0].choices[0].logprobs.vocabulary_TV
    assert np.array_equal(told[0], log_softmax(endpoint.true_logits(one()).astype(np.float64)))


def test_hidden_states_lie_on_a_sphere_before_the_gain():
    endpoint = fake()
    logits = np.array([endpoint.true_logits(one(token_ids=(number,))) for number in range(9)], dtype=np.float64)
    states, *_ = np.linalg.lstsq(endpoint.truth.head_VH.astype(np.float64), logits.T, rcond=None)
    plain = states / endpoint.truth.gain_H[:, None]
    assert np.linalg.norm(plain, axis=0) == pytest.approx(np.full(9, np.sqrt(WIDTH)), rel=1e-5)


def test_hidden_states_without_a_norm_have_any_length_and_the_same_rank():
    endpoint = fake(norm=Norm.NONE)
    logits = np.array([endpoint.true_logits(one(token_ids=(number,))) for number in range(40)], dtype=np.float64)
    states, *_ = np.linalg.lstsq(endpoint.truth.head_VH.astype(np.float64), logits.T, rcond=None)
    lengths = np.linalg.norm(states / endpoint.truth.gain_H[:, None], axis=0)
    assert lengths.max() > 1.5 * lengths.min()
    assert rank(logits) == WIDTH


def test_a_head_that_is_given_takes_the_place_of_the_drawn_one_and_nothing_else_changes():
    drawn = fake()
    given = fake(head_VH=2 * drawn.truth.head_VH)
    assert np.array_equal(given.truth.head_VH, 2 * drawn.truth.head_VH)
    assert given.true_logits(one()) == pytest.approx(2 * drawn.true_logits(one()), rel=1e-5)
    with pytest.raises(ShapeError, match=r"\(97, 12\)"):
        fake(head_VH=drawn.truth.head_VH.T)


def test_padding_of_the_width_shows_and_leaves_a_second_gap():
    told = centred(whole(fake(padded_width=5, padding_amplitude=1e-3)))
    values = np.linalg.svd(told, compute_uv=False)
    assert rank(told) == WIDTH + 5
    assert values[WIDTH - 1] / values[WIDTH] > 10


def test_padding_of_the_vocabulary_is_rows_of_zeros():
    endpoint = fake(padded_vocabulary=3)
    assert endpoint.true_logits(one())[VOCABULARY:].tolist() == [0, 0, 0]
    assert whole(endpoint).shape == (60, VOCABULARY + 3)


def test_the_soft_cap_bounds_logits_and_raises_the_rank():
    endpoint = fake(soft_cap=4.0)
    assert np.abs(endpoint.true_logits(one())).max() < 4
    assert rank(centred(whole(endpoint))) > WIDTH


@pytest.mark.parametrize(("lattice", "bits"), [(Lattice.FLOAT16, 10), (Lattice.BFLOAT16, 7)])
def test_logits_are_on_the_lattice(lattice, bits):
    logits = np.concatenate([fake(lattice=lattice).true_logits(one(token_ids=(each,))) for each in range(20)])
    exact = np.concatenate([fake().true_logits(one(token_ids=(each,))) for each in range(20)])
    mantissa, _ = np.frexp(logits)
    assert np.array_equal(mantissa * 2 ** (bits + 1), np.round(mantissa * 2 ** (bits + 1)))
    assert np.abs(logits - exact).max() <= np.abs(exact).max() * 2.0 ** -(bits + 1)
    assert not np.array_equal(logits, exact)


def test_anisotropy_spreads_the_spectrum():
    flat, steep = (np.linalg.svd(centred(whole(fake(anisotropy=each))), compute_uv=False) for each in (0.0, 1.5))
    assert steep[WIDTH - 1] / steep[0] < 0.3 * flat[WIDTH - 1] / flat[0]


# --- the service --------------------------------------------------------------------------------------------------


def test_it_follows_from_its_seed():
    request = one(temperature=1.0, max_tokens=5)
    texts = [[fake(seed=seed).answer([request])[0].choices[0].text for _ in range(2)] for seed in (1, 2)]
    assert texts[0][0] == texts[0][1] != texts[1][0]
    endpoint = fake()
    assert len({endpoint.answer([request])[0].choices[0].text for _ in range(5)}) > 1, "no seed: a new draw each time"


def test_batches_change_nothing():
    requests = [one(token_ids=(each,), reveal=Reveal.VOCABULARY, max_tokens=1 + each % 3) for each in range(40)]
    together = fake().answer(requests)
    for request, answer in zip(requests, together, strict=True):
        alone = fake().answer([request])[0]
        assert np.array_equal(alone.choices[0].logprobs.vocabulary_TV, answer.choices[0].logprobs.vocabulary_TV)


def test_greedy_answers_can_be_continued():
    endpoint = fake()
    whole_answer = endpoint.answer([one(token_ids=(), prompt="some words", max_tokens=6)])[0].choices[0]
    for cut in range(1, 6):
        text = "some words" + "".join(map(endpoint.tokens.text, whole_answer.token_ids_T[:cut]))
        rest = endpoint.answer([one(token_ids=(), prompt=text, max_tokens=6 - cut)])[0].choices[0]
        assert np.array_equal(rest.token_ids_T, whole_answer.token_ids_T[cut:])


def test_the_first_hidden_state_depends_on_everything_before():
    endpoint = fake()
    message = Message(role="user", parts=("a", Picture(data=b"1")))
    others = [
        Message(role="system", parts=("a", Picture(data=b"1"))),
        Message(role="user", parts=("a", Picture(data=b"2"))),
        Message(role="user", parts=("b", Picture(data=b"1"))),
    ]
    logits = [endpoint.true_logits(Request(messages=(each,))) for each in (message, *others)]
    assert all(not np.array_equal(left, right) for left, right in itertools.combinations(logits, 2))


def test_replicas_and_jitter_make_repeats_differ():
    def repeats(endpoint):
        values = [endpoint.answer([one(reveal=Reveal.SAMPLED)])[0].choices[0].logprobs.sampled_T[0] for _ in range(20)]
        return len(set(values))

    assert repeats(fake()) == 1
    assert repeats(fake(replicas=3)) == 3
    assert repeats(fake(jitter_nats=1e-3)) == 20


def test_frozen_noise_is_the_same_however_many_tokens_come():
    exposes = Exposure(top_logprobs=None, noise_nats=0.5, noise=Noise.FROZEN)
    long = fake(exposes=exposes).answer([one(max_tokens=3, reveal=Reveal.VOCABULARY)])[0].choices[0]
    short = fake(exposes=exposes).answer([one(max_tokens=1, reveal=Reveal.VOCABULARY)])[0].choices[0]
    assert np.array_equal(long.logprobs.vocabulary_TV[:1], short.logprobs.vocabulary_TV)
    exact = fake().answer([one(max_tokens=3, reveal=Reveal.VOCABULARY)])[0].choices[0].logprobs.vocabulary_TV
    noise_TV = long.logprobs.vocabulary_TV - exact
    assert np.abs(noise_TV[0] - noise_TV[1]).max() > 0.1, "each position has its own"


def test_the_end_token_ends():
    endpoint = fake(end_id=7)
    (choice,) = endpoint.answer([one(max_tokens=5, logit_bias={7: 100.0})])[0].choices
    assert (choice.text, choice.finish.value, choice.token_ids_T.tolist()) == ("", "stop", [7])


def test_a_rate_limit_says_how_long_to_wait():
    now = [0.0]
    endpoint = fake(requests_per_s=2.0, clock=lambda: now[0])
    endpoint.answer([one(), one()])
    with pytest.raises(BusyError) as caught:
        endpoint.answer([one()])
    now[0] += caught.value.retry_after_s
    endpoint.answer([one()])
    assert endpoint.queries == 3


def test_duplicate_texts():
    tokens = fake(duplicate_texts=4).tokens
    assert [tokens.text(VOCABULARY - 4 + each) for each in range(4)] == [tokens.text(each) for each in range(4)]
    assert len({tokens.text(each) for each in range(VOCABULARY)}) == VOCABULARY - 4


@pytest.mark.parametrize("size", [2, 23, 97, 300, 2000])
def test_text_and_tokens(size):
    tokens = FakeTokens(size)
    ids = tuple(np.random.default_rng(0).integers(0, size, 50).tolist())
    assert tokens.encode(tokens.decode(ids)) == ids
    assert tokens.encode("hello") != tokens.encode("hellp")
    assert max(tokens.encode("\ud800 é hello")) < size


def test_what_it_supports_follows_the_exposure():
    assert isinstance(fake(), Endpoint)
    everything, nothing = fake().supports(), fake(exposes=Exposure.text_only()).supports()
    assert everything.features == ~Feature.NOTHING
    closed = Feature.LOGIT_BIAS | Feature.TOP_LOGPROBS | Feature.SAMPLED_LOGPROB | Feature.WANTED_IDS
    assert not nothing.features & (closed | Feature.ALLOWED_IDS | Feature.VOCABULARY_LOGPROBS | Feature.PROMPT_LOGPROBS)
    assert (everything.vocabulary_size, nothing.vocabulary_size) == (VOCABULARY, None)
    assert fake(metadata={"n_embd": 12}).metadata() == {"id": "fake", "n_embd": 12}
    assert fake(metadata={"n_embd": 12}, exposes=Exposure.text_only()).metadata() == {"id": "fake"}


def test_impossible_requests_and_models():
    with pytest.raises(InputError, match="outside the vocabulary"):
        fake().answer([one(token_ids=(VOCABULARY,))])
    with pytest.raises(RefusedError, match="too long"):
        fake(context_tokens=5).answer([one(max_tokens=4)])
    with pytest.raises(ConfigError):
        fake(width=0)


# --- a wide vocabulary --------------------------------------------------------------------------------------------

WIDE = 5000
STEERED = [{}, {"logit_bias": {9: 30.0, 11: -2.0}}, {"allowed_ids": (4, 4000, 17)}]


@pytest.mark.parametrize("taken", Taken)
@pytest.mark.parametrize("fields", STEERED, ids=range(len(STEERED)))
def test_a_few_columns_tell_what_all_columns_would(fields, taken):
    exposes = Exposure(
        top_logprobs=None, wanted_ids=None, allowed_ids=None, sampled_logprob=Sampled.SHOWN, logprobs_taken=taken
    )
    endpoint = FakeEndpoint(vocabulary=WIDE, width=8, exposes=exposes)
    request = one(wanted_ids=(3, 4999, 4, 9), reveal=Reveal.SAMPLED, max_tokens=3, **fields)
    few = endpoint.answer([request])[0].choices[0]
    for place in range(3):
        now = replace(request, token_ids=(*request.token_ids, *map(int, few.token_ids_T[:place])))
        full = apply(endpoint.true_logits(now)[None], now, exposes)
        assert few.token_ids_T[place] == full.token_ids_T[0]
        assert np.allclose(few.logprobs.sampled_T[place], full.logprobs.sampled_T[0], rtol=0, atol=1e-6)
        told_W, expected_W = few.logprobs.wanted_TW[place], full.logprobs.wanted_TW[0]
        finite = np.isfinite(expected_W)
        assert np.array_equal(np.isfinite(told_W), finite)
        # Float32 sums: what differs is the normaliser, by the same amount for each token.
        assert np.abs(told_W[finite] - expected_W[finite]).max() < 1e-6


def test_a_large_head_is_computed_in_float32_and_still_has_its_width():
    config = FakeModelConfig(vocabulary=WIDE, width=16, seed=2)
    contexts = [str(each).encode() for each in range(40)]
    large, small = (FakeModel(config, float64_entries=entries).logits(contexts) for entries in (1, WIDE * 16))
    assert rank(centred(large[:, ::100]), 1e-4) == 16
    assert not np.array_equal(large, small)
    assert large == pytest.approx(small, abs=1e-4)
