"""Exposures as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import ConfigError
from lensmith.core.exposure import Exposure, Noise, Sampled, Taken, Together, parse_exposure, spell_exposure

counts = st.none() | st.integers(0, 10**6)
sizes = st.floats(0, 1e6)
exposures = st.builds(
    Exposure,
    top_logprobs=counts,
    sampled_logprob=st.sampled_from(Sampled),
    logprobs_taken=st.sampled_from(Taken),
    logit_bias=sizes,
    biased_ids=counts,
    bias_with_logprobs=st.sampled_from(Together),
    wanted_ids=counts,
    allowed_ids=counts,
    echo=st.booleans(),
    decimals=st.none() | st.integers(0, 12),
    noise_nats=sizes,
    noise=st.sampled_from(Noise),
    noise_seed=st.integers(0, 2**31),
    metadata=st.booleans(),
)


@given(exposures)
def test_what_is_spelled_is_read_back(exposure):
    assert parse_exposure(spell_exposure(exposure)) == exposure


@pytest.mark.parametrize(
    ("text", "exposure"),
    [
        ("", Exposure()),
        ("top-logprobs=5,no-logit-bias", Exposure(top_logprobs=5, logit_bias=0.0)),
        (" top-logprobs = all , echo ", Exposure(top_logprobs=None, echo=True)),
        ("text-only", Exposure.text_only()),
        ("everything,decimals=4,no-echo,no-metadata", None),
        ("no-top-logprobs,no-sampled-logprob", Exposure(top_logprobs=0, sampled_logprob=Sampled.HIDDEN)),
        ("logprobs-taken=after-bias,biased-ids=300", Exposure(logprobs_taken=Taken.AFTER_BIAS, biased_ids=300)),
        ("no-bias-with-logprobs", Exposure(bias_with_logprobs=Together.REFUSED)),
        ("noise-nats=0.1,noise=frozen,noise-seed=4", Exposure(noise_nats=0.1, noise=Noise.FROZEN, noise_seed=4)),
    ],
)
def test_typed_exposures(text, exposure):
    parsed = parse_exposure(text)
    if exposure is not None:
        assert parsed == exposure
    assert parse_exposure(spell_exposure(parsed)) == parsed


def test_spelling_is_short():
    assert spell_exposure(Exposure()) == ""
    assert spell_exposure(Exposure(top_logprobs=5, logit_bias=0.0)) == "top-logprobs=5,no-logit-bias"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("top-logprob=5", ["top-logprob: unknown", "'top-logprobs'"]),
        ("no-logits-bias", ["'no-logit-bias'"]),
        ("top-logprobs=many", ["top-logprobs: not a number", "many", "all"]),
        ("top-logprobs=-3", ["top_logprobs: must not be negative"]),
        ("logit-bias=all", ["logit-bias: not a number"]),
        ("top-logprobs", ["needs a value", "no-top-logprobs"]),
        ("echo=yes", ["takes no value", "no-echo"]),
        ("sampled-logprob=shwon", ["'shown'"]),
        ("echo,no-echo", ["echo stands twice"]),
        ("echo,text-only", ["text-only: must come first"]),
        ("no-noise", ["no-noise: unknown"]),
    ],
)
def test_each_typing_mistake_is_named(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_exposure(text)
    for word in words:
        assert word in str(caught.value)
