"""Penalties against their definitions, written out token by token, and against the switches that govern them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.endpoint import Feature, Penalties, RefusedError, Request, Reveal, needed_features
from lensmith.core.errors import InputError, ShapeError
from lensmith.core.exposure import (
    Exposure,
    PrecedingTokens,
    Taken,
    Together,
    apply,
    biased_logits,
    check,
    parse_exposure,
)

SIZE = 8
LOGITS = st.lists(st.floats(-20, 20), min_size=SIZE, max_size=SIZE)
IDS = st.lists(st.integers(0, SIZE - 1), max_size=12)
ADDED = st.floats(-2, 2)


def ask(penalties, **options):
    return Request(token_ids=(0,), temperature=0.0, penalties=penalties, **options)


def literal(logits, penalties, prompt, answer, bias=()):
    """Bias; then CTRL's repetition penalty; then OpenAI's: mu[j] - c[j] * frequency - float(c[j] > 0) * presence."""
    result = [value + dict(bias).get(token, 0.0) for token, value in enumerate(logits)]
    for token in set(prompt) | set(answer):
        over_0 = result[token] > 0
        result[token] = result[token] / penalties.repetition if over_0 else result[token] * penalties.repetition
    for token in range(SIZE):
        count = answer.count(token)
        result[token] -= count * penalties.frequency + float(count > 0) * penalties.presence
    return result


@given(LOGITS, IDS, IDS, ADDED, ADDED, st.floats(0.1, 3), st.dictionaries(st.integers(0, SIZE - 1), ADDED))
def test_penalties_are_what_their_definitions_say(logits, prompt, answer, presence, frequency, repetition, bias):
    penalties = Penalties(presence=presence, frequency=frequency, repetition=repetition)
    preceding = PrecedingTokens(prompt_ids=np.array(prompt, dtype=np.int64), answer_ids=answer)
    [moved] = biased_logits(np.array([logits]), ask(penalties, logit_bias=bias), preceding)
    np.testing.assert_allclose(moved, literal(logits, penalties, prompt, answer, bias.items()), atol=1e-12)


def test_the_prompt_counts_for_repetition_only():
    logits_1V = np.array([[2.0, 1.0, -1.0]])
    preceding = PrecedingTokens(prompt_ids=[0, 0, 2], answer_ids=[1, 1, 1])
    added = biased_logits(logits_1V, ask(Penalties(presence=0.5, frequency=0.25)), preceding)
    assert added.tolist() == [[2.0, 1.0 - 0.5 - 0.75, -1.0]]
    assert biased_logits(logits_1V, ask(Penalties(repetition=2.0)), preceding).tolist() == [[1.0, 0.5, -2.0]]


def test_the_token_is_chosen_from_penalised_logits_and_logprobs_are_taken_before_or_after():
    logits_1V, preceding = np.array([[3.0, 2.5, 0.0]]), PrecedingTokens(prompt_ids=[], answer_ids=[0])
    request = ask(Penalties(presence=1.0), reveal=Reveal.VOCABULARY)
    for taken, source in ((Taken.BEFORE_BIAS, [3.0, 2.5, 0.0]), (Taken.AFTER_BIAS, [2.0, 2.5, 0.0])):
        exposure = Exposure(top_logprobs=None, logprobs_taken=taken)
        revealed = apply(logits_1V, request, exposure, preceding=preceding)
        assert revealed.token_ids_T.tolist() == [1]
        normaliser = math.log(sum(map(math.exp, source)))
        np.testing.assert_allclose(revealed.logprobs.vocabulary_TV, [[each - normaliser for each in source]])


def test_penalties_come_before_the_temperature():
    logits_1V, preceding = np.array([[1.0, 0.0]]), PrecedingTokens(prompt_ids=[], answer_ids=[0])
    request = Request(token_ids=(0,), temperature=0.5, penalties=Penalties(frequency=2.0))
    rng = np.random.default_rng(0)
    drawn = [
        int(apply(logits_1V, request, Exposure(), preceding=preceding, rng=rng).token_ids_T[0]) for _ in range(4000)
    ]
    # (1 - 2) / 0.5 against 0: e^-2 to 1. After the temperature it would be 1 / 0.5 - 2 against 0: one to one.
    assert np.mean(drawn) == pytest.approx(1 / (1 + math.exp(-2)), abs=0.02)


def test_a_token_that_is_not_there_or_not_allowed_stays_out():
    logits_1V = np.array([[-np.inf, 1.0, 0.5]])
    preceding = PrecedingTokens(prompt_ids=[0], answer_ids=[0, 1])
    request = ask(Penalties(presence=-2.0, frequency=-2.0, repetition=0.5), allowed_ids=(0, 2))
    assert biased_logits(logits_1V, request, preceding).tolist() == [[-np.inf, -np.inf, 0.5]]


def test_what_is_written_is_needed_and_one_position():
    request = ask(Penalties(presence=1.0))
    with pytest.raises(ShapeError, match="tokens before"):
        apply(np.zeros((1, 3)), request, Exposure())
    with pytest.raises(ShapeError, match="one position"):
        apply(np.zeros((2, 3)), request, Exposure(), preceding=PrecedingTokens(prompt_ids=[], answer_ids=[]))


# --- who may ask --------------------------------------------------------------------------------------------------

KINDS = {
    Feature.PRESENCE_PENALTY: Penalties(presence=0.1),
    Feature.FREQUENCY_PENALTY: Penalties(frequency=-0.1),
    Feature.REPETITION_PENALTY: Penalties(repetition=1.1),
}


@pytest.mark.parametrize(
    "expose", ["no-penalties", "no-logit-bias", "text-only", "biased-ids=10", "no-biased-ids", "logit-bias=99"]
)
@pytest.mark.parametrize("feature", KINDS)
def test_where_a_bias_is_off_or_limited_there_are_no_penalties(expose, feature):
    exposure = parse_exposure(expose)
    assert not exposure.features & Feature.PENALTIES
    with pytest.raises(RefusedError) as refused:
        check(ask(KINDS[feature]), exposure)
    assert refused.value.feature == feature == needed_features(ask(KINDS[feature])) & Feature.PENALTIES
    check(ask(Penalties()), exposure)


@pytest.mark.parametrize("exposure", [Exposure(), Exposure.everything(), parse_exposure("top-logprobs=5,no-echo")])
def test_where_a_bias_is_open_there_are_penalties(exposure):
    assert Feature.PENALTIES in exposure.features
    for penalties in KINDS.values():
        check(ask(penalties), exposure)


@pytest.mark.parametrize("penalties", KINDS.values())
def test_penalties_may_be_allowed_without_a_bias_and_then_stand_beside_no_logprobs(penalties):
    exposure = parse_exposure("no-logit-bias,penalties=allowed")
    check(ask(penalties), exposure)
    with pytest.raises(RefusedError, match="together with logprobs"):
        check(ask(penalties, top_logprobs=1), exposure)
    check(ask(penalties, top_logprobs=1), parse_exposure("penalties=allowed"))


@pytest.mark.parametrize("penalties", KINDS.values())
def test_penalties_steer_and_so_do_not_stand_beside_logprobs_where_a_bias_may_not(penalties):
    exposure = Exposure(bias_with_logprobs=Together.REFUSED)
    assert ask(penalties).steers
    check(ask(penalties), exposure)
    with pytest.raises(RefusedError, match="together with logprobs") as refused:
        check(ask(penalties, top_logprobs=1), exposure)
    assert Feature.LOGIT_BIAS | Feature.ALLOWED_IDS | needed_features(ask(penalties)) & Feature.PENALTIES == (
        refused.value.feature
    )


@pytest.mark.parametrize(
    ("penalties", "name"),
    [
        ({"presence": math.nan}, "presence_penalty"),
        ({"frequency": math.inf}, "frequency_penalty"),
        ({"repetition": 0.0}, "repetition_penalty"),
        ({"repetition": -1.0}, "repetition_penalty"),
        ({"repetition": math.inf}, "repetition_penalty"),
    ],
)
def test_impossible_penalties(penalties, name):
    with pytest.raises(InputError, match=name):
        ask(Penalties(**penalties))
