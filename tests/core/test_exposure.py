"""What is told equals a slow, separate reference, and each switch hides what it promises to hide."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.core.config import from_dict, to_dict
from lensmith.core.endpoint import NO_TOKEN, Feature, RefusedError, Request, Reveal
from lensmith.core.errors import ConfigError, InputError, ShapeError
from lensmith.core.exposure import (
    Exposure,
    Noise,
    Sampled,
    Taken,
    Together,
    apply,
    check,
    frozen_noise,
    visible_metadata,
)

PROMPT = (1, 2, 3)
ALL = Exposure.everything()


def ask(**options: object) -> Request:
    return Request(token_ids=PROMPT, **{"temperature": 0.0, **options})


# --- the reference: dictionaries and loops ------------------------------------------------------------------------


def reference(logits: list[list[float]], request: Request, exposure: Exposure) -> list[dict[str, object]]:
    rows = []
    for raw in logits:
        biased = [value + request.logit_bias.get(token, 0.0) for token, value in enumerate(raw)]
        if request.allowed_ids is not None:
            biased = [value if token in request.allowed_ids else -math.inf for token, value in enumerate(biased)]
        chosen = max(range(len(biased)), key=lambda token: (biased[token], -token))
        source = raw if exposure.logprobs_taken is Taken.BEFORE_BIAS else biased
        normaliser = math.log(math.fsum(math.exp(value - max(source)) for value in source)) + max(source)
        exact = [value - normaliser for value in source]
        ranking = sorted(range(len(exact)), key=lambda token: (-exact[token], token))
        told = [min(0.0, value if exposure.decimals is None else round(value, exposure.decimals)) for value in exact]
        top = [token for token in ranking[: request.top_logprobs] if exact[token] != -math.inf]
        top.sort(key=lambda token: (-told[token], token))
        cap = len(exact) if exposure.top_logprobs is None else exposure.top_logprobs
        tells = exposure.sampled_logprob is Sampled.SHOWN or chosen in ranking[:cap]
        rows.append(
            {
                "chosen": chosen,
                "sampled": told[chosen] if Reveal.SAMPLED in request.reveal and tells else None,
                "top": [(token, told[token]) for token in top],
                "wanted": [told[token] for token in request.wanted_ids],
                "vocabulary": told if Reveal.VOCABULARY in request.reveal else None,
            }
        )
    return rows


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[list[float]], Request, Exposure]:
    size = draw(st.integers(1, 12))
    ids = st.integers(0, size - 1)
    quarters = st.integers(-40, 40).map(lambda number: number / 4)  # many exact ties, and none by rounding
    logits = draw(st.lists(st.lists(quarters, min_size=size, max_size=size), min_size=1, max_size=4))
    request = ask(
        logit_bias=draw(st.dictionaries(ids, quarters, max_size=3)),
        allowed_ids=draw(st.none() | st.lists(ids, min_size=1, unique=True).map(tuple)),
        top_logprobs=draw(st.integers(0, size + 2)),
        wanted_ids=draw(st.lists(ids, unique=True).map(tuple)),
        reveal=draw(st.sampled_from([Reveal.NOTHING, Reveal.SAMPLED, Reveal.SAMPLED | Reveal.VOCABULARY])),
    )
    cap = None if Reveal.VOCABULARY in request.reveal else request.top_logprobs + draw(st.integers(0, 3))
    exposure = Exposure(
        top_logprobs=cap,
        sampled_logprob=draw(st.sampled_from([Sampled.SHOWN, Sampled.MASKED])),
        logprobs_taken=draw(st.sampled_from(Taken)),
        wanted_ids=None,
        allowed_ids=None,
        decimals=draw(st.none() | st.integers(0, 4)),
    )
    return logits, request, exposure


@given(questions())
@settings(max_examples=400)
def test_apply_equals_the_reference(question):
    logits, request, exposure = question
    revealed = apply(np.array(logits), request, exposure)
    expected = reference(logits, request, exposure)
    assert revealed.token_ids_T.tolist() == [row["chosen"] for row in expected]
    if not request.wants_logprobs:
        assert revealed.logprobs is None
        return
    told = revealed.logprobs
    for position, row in enumerate(expected):
        sampled = told.sampled_T[position]
        assert np.isnan(sampled) if row["sampled"] is None else sampled == pytest.approx(row["sampled"], abs=1e-9)
        listed = told.top_ids_TK[position] != NO_TOKEN
        assert told.top_ids_TK[position][listed].tolist() == [token for token, _ in row["top"]]
        assert told.top_TK[position][listed] == pytest.approx([value for _, value in row["top"]], abs=1e-9)
        assert np.isnan(told.top_TK[position][~listed]).all()
        np.testing.assert_allclose(told.wanted_TW[position], row["wanted"], atol=1e-9)
        if row["vocabulary"] is None:
            assert told.vocabulary_TV is None
        else:
            np.testing.assert_allclose(told.vocabulary_TV[position], row["vocabulary"], atol=1e-9)


# --- read-outs of the papers --------------------------------------------------------------------------------------

LOGITS = np.array([[2.0, 1.0, 0.0, -1.0, -3.0]])


def test_after_bias_the_difference_of_two_logits_can_be_read_and_before_it_cannot_be_moved():
    request = ask(top_logprobs=2, logit_bias={4: 10.0, 0: 7.0})
    after = apply(LOGITS, request, Exposure(logprobs_taken=Taken.AFTER_BIAS)).logprobs
    by_id = dict(zip(after.top_ids_TK[0].tolist(), after.top_TK[0], strict=True))
    assert by_id[4] - by_id[0] - (10.0 - 7.0) == pytest.approx(-3.0 - 2.0)
    before = apply(LOGITS, request, Exposure(logprobs_taken=Taken.BEFORE_BIAS)).logprobs
    assert before.top_ids_TK.tolist() == [[0, 1]]
    unbiased = apply(LOGITS, ask(top_logprobs=2), Exposure()).logprobs
    assert before.top_TK.tolist() == unbiased.top_TK.tolist()


def test_a_bias_reads_any_token_through_the_sampled_logprob_unless_it_is_masked():
    request = ask(logit_bias={4: 100.0}, reveal=Reveal.SAMPLED)
    shown = apply(LOGITS, request, Exposure(top_logprobs=2, sampled_logprob=Sampled.SHOWN))
    exact = LOGITS[0] - np.log(np.exp(LOGITS[0]).sum())
    assert shown.token_ids_T.tolist() == [4]
    assert shown.logprobs.sampled_T[0] == pytest.approx(exact[4])
    masked = Exposure(top_logprobs=2, sampled_logprob=Sampled.MASKED)
    assert np.isnan(apply(LOGITS, request, masked).logprobs.sampled_T[0])
    inside = apply(LOGITS, ask(logit_bias={1: 100.0}, reveal=Reveal.SAMPLED), masked)
    assert inside.logprobs.sampled_T[0] == pytest.approx(exact[1])


def test_an_allow_list_forces_a_token_like_a_bias():
    revealed = apply(LOGITS, ask(allowed_ids=(3, 4), reveal=Reveal.SAMPLED), ALL)
    assert revealed.token_ids_T.tolist() == [3]


def test_forced_tokens_are_told_as_they_stand():
    forced = np.array([4, 2])
    revealed = apply(np.vstack([LOGITS, LOGITS]), ask(reveal=Reveal.SAMPLED), ALL, forced_T=forced)
    assert revealed.token_ids_T.tolist() == [4, 2]
    assert revealed.logprobs.sampled_T[1] - revealed.logprobs.sampled_T[0] == pytest.approx(3.0)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "exposure", "feature"),
    [
        ({"top_logprobs": 6}, Exposure(top_logprobs=5), Feature.TOP_LOGPROBS),
        ({"logit_bias": {1: 1.0}}, Exposure(logit_bias=0.0), Feature.LOGIT_BIAS),
        ({"logit_bias": {1: 0.0}}, Exposure(biased_ids=0), Feature.LOGIT_BIAS),
        ({"logit_bias": {1: -100.5}}, Exposure(), Feature.LOGIT_BIAS),
        ({"logit_bias": {1: 1.0, 2: 1.0}}, Exposure(biased_ids=1), Feature.LOGIT_BIAS),
        ({"allowed_ids": (1,)}, Exposure(), Feature.ALLOWED_IDS),
        ({"wanted_ids": (1,)}, Exposure(), Feature.WANTED_IDS),
        ({"wanted_ids": (1, 2)}, Exposure(wanted_ids=1), Feature.WANTED_IDS),
        ({"reveal": Reveal.VOCABULARY}, Exposure(), Feature.VOCABULARY_LOGPROBS),
        ({"reveal": Reveal.SAMPLED}, Exposure(sampled_logprob=Sampled.HIDDEN), Feature.SAMPLED_LOGPROB),
        ({"reveal": Reveal.PROMPT}, Exposure(), Feature.PROMPT_LOGPROBS),
        (
            {"logit_bias": {1: 1.0}, "top_logprobs": 1},
            Exposure(bias_with_logprobs=Together.REFUSED),
            Feature.LOGIT_BIAS | Feature.ALLOWED_IDS,
        ),
        (
            {"allowed_ids": (1,), "reveal": Reveal.SAMPLED},
            Exposure(bias_with_logprobs=Together.REFUSED, allowed_ids=None),
            Feature.LOGIT_BIAS | Feature.ALLOWED_IDS,
        ),
    ],
)
def test_each_switch_refuses_by_type_and_names_its_feature(options, exposure, feature):
    with pytest.raises(RefusedError) as caught:
        apply(LOGITS, ask(**options), exposure)
    assert caught.value.feature == feature
    assert caught.value.exit_code == 3
    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made one line above
    assert (str(back), back.feature, type(back)) == (str(caught.value), feature, RefusedError)
    apply(LOGITS, ask(**options), ALL)


def test_bias_alone_and_logprobs_alone_are_allowed_where_both_together_are_not():
    exposure = Exposure(bias_with_logprobs=Together.REFUSED)
    check(ask(logit_bias={1: 1.0}), exposure)
    check(ask(top_logprobs=5), exposure)


@pytest.mark.parametrize(
    "options",
    [
        {"top_logprobs": 1},
        {"logit_bias": {1: 1e-9}},
        {"wanted_ids": (0,)},
        {"allowed_ids": (0,)},
        *({"reveal": kind} for kind in Reveal),
    ],
)
def test_text_only_reveals_text_only(options):
    with pytest.raises(RefusedError):
        check(ask(**options), Exposure.text_only())
    assert apply(LOGITS, ask(), Exposure.text_only()).logprobs is None
    assert visible_metadata({"id": "m", "n_embd": 576}, Exposure.text_only()) == {"id": "m"}
    assert visible_metadata({"id": "m", "n_embd": 576}, Exposure()) == {"id": "m", "n_embd": 576}


# --- noise and rounding -------------------------------------------------------------------------------------------


def vocabulary(exposure: Exposure, **options: object) -> np.ndarray:
    logits = np.random.default_rng(0).normal(size=(1, 4000)) - 0.5
    request = ask(reveal=Reveal.VOCABULARY, **{key: options.pop(key) for key in ("seed",) if key in options})
    return apply(logits, request, exposure, **options).logprobs.vocabulary_TV


EXACT = Exposure(top_logprobs=None)


def noisy(noise: Noise, seed: int = 0) -> Exposure:
    return Exposure(top_logprobs=None, noise_nats=0.1, noise=noise, noise_seed=seed)


def test_frozen_noise_repeats_and_fresh_noise_averages_out():
    error = vocabulary(noisy(Noise.FROZEN)) - vocabulary(EXACT)
    again = vocabulary(noisy(Noise.FROZEN), seed=9) - vocabulary(EXACT)
    np.testing.assert_array_equal(error, again)
    assert error.std() == pytest.approx(0.1, rel=0.05)
    assert abs(error.mean()) < 0.01
    fresh = [vocabulary(noisy(Noise.FRESH), seed=seed) - vocabulary(EXACT) for seed in range(64)]
    assert fresh[0].std() == pytest.approx(0.1, rel=0.05)
    assert np.mean(fresh, axis=0).std() == pytest.approx(0.1 / 8, rel=0.1)


def test_frozen_noise_differs_between_contexts_seeds_and_tokens():
    first = vocabulary(noisy(Noise.FROZEN)) - vocabulary(EXACT)
    for other in (
        vocabulary(noisy(Noise.FROZEN), context=b"another prompt"),
        vocabulary(noisy(Noise.FROZEN, seed=1)),
    ):
        assert abs(np.corrcoef(first[0], (other - vocabulary(EXACT))[0])[0, 1]) < 0.05


def test_frozen_noise_at_a_position_depends_on_the_tokens_before_it():
    logits = np.zeros((2, 100)) - 1.0

    def told(first: int) -> np.ndarray:
        request = ask(reveal=Reveal.VOCABULARY)
        return apply(logits, request, noisy(Noise.FROZEN), forced_T=np.array([first, 5])).logprobs.vocabulary_TV

    np.testing.assert_array_equal(told(1)[0], told(2)[0])
    assert (told(1)[1] != told(2)[1]).all()
    assert (told(1)[1] != told(1)[0]).all()


def test_frozen_noise_is_standard_normal_and_the_same_for_a_token_read_alone():
    ids = np.arange(200_000)
    noise = frozen_noise(b"context", ids, 7)
    for power, moment, tolerance in ((1, 0, 0.01), (2, 1, 0.02), (3, 0, 0.05), (4, 3, 0.15)):
        assert (noise**power).mean() == pytest.approx(moment, abs=tolerance)
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.01
    assert frozen_noise(b"context", ids[123:124], 7)[0] == noise[123]


def test_noise_never_changes_which_tokens_are_chosen_or_listed():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5, 50))
    request = ask(top_logprobs=5, reveal=Reveal.SAMPLED)
    plain = apply(logits, request, Exposure())
    loud = apply(logits, request, Exposure(noise_nats=3.0), rng=rng)
    assert loud.token_ids_T.tolist() == plain.token_ids_T.tolist()
    assert np.sort(loud.logprobs.top_ids_TK).tolist() == np.sort(plain.logprobs.top_ids_TK).tolist()
    assert (np.diff(loud.logprobs.top_TK) <= 0).all()
    assert (loud.logprobs.top_TK <= 0).all()


@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_rounding_leaves_no_digit_beyond(decimals, seed):
    logits = np.random.default_rng(seed).normal(size=(2, 30))
    exposure = Exposure(top_logprobs=None, decimals=decimals, noise_nats=0.3)
    told = apply(logits, ask(reveal=Reveal.VOCABULARY), exposure).logprobs.vocabulary_TV
    np.testing.assert_array_equal(told, np.round(told, decimals))
    assert not np.signbit(told[told == 0]).any()


# --- choosing -----------------------------------------------------------------------------------------------------


def test_sampling_follows_temperature_bias_and_top_p():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]])).repeat(20_000, axis=0)

    def shares(**options: object) -> np.ndarray:
        chosen = apply(logits, ask(seed=3, **options), ALL).token_ids_T
        return np.bincount(chosen, minlength=4) / len(chosen)

    np.testing.assert_allclose(shares(temperature=1.0), [0.5, 0.3, 0.15, 0.05], atol=0.015)
    sharp = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(shares(temperature=0.5), sharp / sharp.sum(), atol=0.015)
    np.testing.assert_allclose(shares(temperature=1.0, top_p=0.7), [0.625, 0.375, 0, 0], atol=0.015)
    np.testing.assert_allclose(shares(temperature=1.0, top_p=0.5), [1, 0, 0, 0])
    np.testing.assert_allclose(shares(temperature=1.0, logit_bias={0: math.log(2)})[0], 1 / 1.5, atol=0.015)
    assert shares(temperature=1.0, allowed_ids=(2, 3))[:2].sum() == 0


def test_the_same_seed_chooses_the_same_tokens():
    logits = np.random.default_rng(0).normal(size=(50, 20))
    first, again, other = (apply(logits, ask(temperature=1.0, seed=seed), ALL).token_ids_T for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_padded_vocabulary_rows_are_neither_chosen_nor_listed():
    logits = np.array([[1.0, -np.inf, 0.0, -np.inf]], dtype=np.float32)
    revealed = apply(logits, ask(top_logprobs=4, reveal=Reveal.VOCABULARY), ALL)
    assert revealed.logprobs.top_ids_TK.tolist() == [[0, 2, NO_TOKEN, NO_TOKEN]]
    assert np.isneginf(revealed.logprobs.vocabulary_TV[0, [1, 3]]).all()


# --- values that make no sense ------------------------------------------------------------------------------------


def test_impossible_values_are_typed_errors():
    for broken in (np.array([[np.nan, 1.0]]), np.array([[np.inf, 1.0]]), np.array([[-np.inf, -np.inf]])):
        with pytest.raises(InputError, match="logits must be numbers"):
            apply(broken, ask(), ALL)
    with pytest.raises(ShapeError, match="positions, vocabulary"):
        apply(LOGITS[0], ask(), ALL)
    with pytest.raises(ShapeError, match="forced token"):
        apply(LOGITS, ask(), ALL, forced_T=np.array([1, 2]))
    with pytest.raises(InputError, match="none of these tokens exists"):
        apply(np.array([[0.0, -np.inf]]), ask(allowed_ids=(1,)), ALL)


@pytest.mark.parametrize("options", [{"logit_bias": {5: 1.0}}, {"wanted_ids": (5,)}, {"allowed_ids": (5,)}])
def test_an_unknown_id_is_an_error_that_does_not_tell_the_size_of_the_vocabulary(options):
    with pytest.raises(InputError, match="outside the vocabulary") as caught:
        apply(LOGITS, ask(**options), ALL)
    assert not isinstance(caught.value, RefusedError)
    assert "5" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"top_logprobs": -1}, {"logit_bias": -1.0}, {"noise_nats": float("inf")}, {"decimals": -1}]
)
def test_impossible_exposures_are_config_errors(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        Exposure(**values)


@pytest.mark.parametrize("exposure", [Exposure(), Exposure.text_only(), ALL])
def test_an_exposure_is_a_configuration(exposure):
    assert from_dict(Exposure, to_dict(exposure)) == exposure


def test_the_smallest_temperature_is_greedy():
    with np.errstate(all="raise"):
        told = apply(LOGITS, ask(temperature=5e-324, seed=1), ALL)
    assert told.token_ids_T.tolist() == LOGITS.argmax(axis=1).tolist()


def test_a_seed_does_not_foretell_fresh_noise():
    request = ask(top_logprobs=3, temperature=1.0, seed=5)
    exposure = Exposure(noise_nats=0.1, noise=Noise.FRESH)
    one, other = (apply(LOGITS, request, exposure) for _ in range(2))
    assert one.token_ids_T.tolist() == other.token_ids_T.tolist()
    assert not np.array_equal(one.logprobs.top_TK, other.logprobs.top_TK)
