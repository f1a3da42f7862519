"""One position at a time: what is masked, in which order ties stand, and how noise behaves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.exposure import Exposure, Noise, Sampled
from lensmith.guard.logprobs import LogprobFilter, Position, TokenLogprob
from lensmith.openai_api import MASKED_LOGPROB, MalformedAnswerError


def token(name: str, logprob: float, token_id: int | None = None) -> TokenLogprob:
    return TokenLogprob(name=name, logprob=logprob, token_id=token_id, data=name.encode())


def filter_of(exposure: Exposure, *, asked_top: int = 4, rng: int = 0, **request: object) -> LogprobFilter:
    usual = {"prompt": "x", "reveal": Reveal.SAMPLED, **request}
    return LogprobFilter(Request(**usual), exposure, np.random.default_rng(rng), asked_top=asked_top)


LIST = (token("a", -0.5), token("b", -1.5), token("c", -2.5), token("d", -3.5))


@pytest.mark.parametrize(
    ("sampled", "listed", "is_told"),
    [
        (LIST[0], LIST, True),
        (LIST[2], LIST, True),
        (LIST[3], LIST, False),  # fourth of three that may be told
        (token("z", -9.0), LIST, False),
        (token("z", -9.0), (token("z", -9.0), *LIST[:3]), False),  # listed first, as vLLM does
        (token("z", -2.0), (token("z", -2.0), *LIST[:3]), True),
        (token("z", -9.0), (token("z", -9.0), *LIST[:1]), False),  # a short list proves nothing
        (token("b", -9.0), LIST, False),  # another token with a likely one's text
        (token("c", -3.5), (token("a", math.log(0.5)), token("b", math.log(0.4)), token("c", -3.5)), False),
        (
            token("c", math.log(0.1)),
            (token("a", math.log(0.5)), token("b", math.log(0.4)), token("c", math.log(0.1))),
            True,
        ),
        (token("a", 0.0), (token("a", 0.0),), True),  # nothing is left for others
        (token("a", -0.5), (), False),
    ],
)
def test_the_sampled_token_is_told_where_it_is_proven_to_be_inside(sampled, listed, is_told):
    shown = filter_of(Exposure(top_logprobs=3)).visible(Position(sampled=sampled, listed=listed))
    assert shown.sampled.logprob == (sampled.logprob if is_told else MASKED_LOGPROB)
    assert shown.listed == ()


def test_a_sampled_token_that_was_put_into_the_list_does_not_stay_there():
    listed = (token("z", -9.0), *LIST[:3])
    shown = filter_of(Exposure(top_logprobs=4), top_logprobs=4).visible(Position(sampled=listed[0], listed=listed))
    assert [each.name for each in shown.listed] == ["a", "b", "c"]


def test_ties_stand_in_an_order_that_rounding_does_not_tell():
    exposure = Exposure(top_logprobs=3, decimals=0)
    by_text = (token("z", -1.51), token("y", -1.52), token("x", -1.53), token("w", -9.0))
    shown = filter_of(exposure, top_logprobs=3).visible(Position(sampled=by_text[0], listed=by_text))
    assert [each.name for each in shown.listed] == ["x", "y", "z"]
    by_id = (token("a", -1.51, 9), token("b", -1.52, 8), token("c", -1.53, 7), token("d", -9.0, 1))
    shown = filter_of(exposure, top_logprobs=3).visible(Position(sampled=by_id[0], listed=by_id))
    assert [each.token_id for each in shown.listed] == [7, 8, 9]


def test_fresh_noise_has_the_deviation_that_was_asked_for_and_one_value_a_token_and_position():
    exposure = Exposure(top_logprobs=4, noise_nats=0.1, wanted_ids=None)
    listed = tuple(token(str(n), -1.5 - n / 8, n) for n in range(4))
    each = filter_of(exposure, top_logprobs=3, wanted_ids=(1,))
    noise = []
    for _ in range(2000):
        shown = each.visible(Position(sampled=listed[1], listed=(*listed, listed[1])))
        values = {one.token_id: one.logprob for one in shown.listed}
        assert shown.sampled.logprob == values[1] == shown.listed[-1].logprob
        noise += [values[n] - listed[n].logprob for n in (0, 1)]
    assert np.mean(noise) == pytest.approx(0, abs=0.01)
    assert np.std(noise) == pytest.approx(0.1, rel=0.05)
    assert abs(np.corrcoef(noise[::2], noise[1::2])[0, 1]) < 0.1


@given(first=st.integers(0, 5), seed=st.integers(1, 2**60))
def test_frozen_noise_stays_for_a_prompt_and_the_tokens_before_it(first, seed):
    exposure = Exposure(top_logprobs=4, noise_nats=0.1, noise=Noise.FROZEN, noise_seed=seed)

    def told_after(prompt: str, before: int) -> float:
        each = filter_of(exposure, prompt=prompt, rng=seed % 7)
        each.visible(Position(sampled=token(str(before), -0.1)))
        return each.visible(Position(sampled=LIST[0], listed=LIST)).sampled.logprob

    assert told_after("p", first) == told_after("p", first)
    assert told_after("p", first) != told_after("p", first + 1)
    assert told_after("p", first) != told_after("q", first)


def test_what_is_told_is_never_above_zero_or_a_negative_zero():
    exposure = Exposure(top_logprobs=3, decimals=1)
    for value in (0.004, 0.0, -0.0, -0.01):
        shown = filter_of(exposure, top_logprobs=3).visible(
            Position(sampled=token("a", value), listed=(token("a", value),))
        )
        assert str(shown.sampled.logprob) == "0.0"


@pytest.mark.parametrize("listed", [(token("a", 2.5),), (token("a", -0.1), token("b", -0.1)), (token("a", math.inf),)])
def test_what_cannot_be_logprobs_is_malformed(listed):
    with pytest.raises(MalformedAnswerError):
        filter_of(Exposure(top_logprobs=3), top_logprobs=2).visible(Position(sampled=token("z", -5.0), listed=listed))


@pytest.mark.parametrize("sampled", Sampled)
def test_missing_wanted_ids_are_malformed(sampled):
    exposure = Exposure(wanted_ids=None, sampled_logprob=sampled)
    for listed in ((), (token("5", -1.0, 5),)):
        with pytest.raises(MalformedAnswerError):
            filter_of(exposure, wanted_ids=(7,)).visible(Position(sampled=token("z", -5.0, 1), listed=listed))
