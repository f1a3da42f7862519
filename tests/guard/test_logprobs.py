"""One position at a time: what is masked, in which order ties stand, and how noise behaves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.endpoint import Request, Reveal
from lensmith.core.exposure import Exposure, Noise, Sampled
from lensmith.guard.logprobs import Position, Teller, Told
from lensmith.openai_api import MASKED_LOGPROB, MalformedAnswerError


def told(name: str, logprob: float, token_id: int | None = None) -> Told:
    return Told(name=name, logprob=logprob, token_id=token_id, data=name.encode())


def teller(exposure: Exposure, *, asked_top: int = 4, rng: int = 0, **request: object) -> Teller:
    usual = {"prompt": "x", "reveal": Reveal.SAMPLED, **request}
    return Teller(Request(**usual), exposure, np.random.default_rng(rng), asked_top=asked_top)


LIST = (told("a", -0.5), told("b", -1.5), told("c", -2.5), told("d", -3.5))


@pytest.mark.parametrize(
    ("sampled", "listed", "is_told"),
    [
        (LIST[0], LIST, True),
        (LIST[2], LIST, True),
        (LIST[3], LIST, False),  # fourth of three that may be told
        (told("z", -9.0), LIST, False),
        (told("z", -9.0), (told("z", -9.0), *LIST[:3]), False),  # listed first, as vLLM does
        (told("z", -2.0), (told("z", -2.0), *LIST[:3]), True),
        (told("z", -9.0), (told("z", -9.0), *LIST[:1]), False),  # a short list proves nothing
        (told("b", -9.0), LIST, False),  # another token with a likely one's text
        (told("c", -3.5), (told("a", math.log(0.5)), told("b", math.log(0.4)), told("c", -3.5)), False),
        (
            told("c", math.log(0.1)),
            (told("a", math.log(0.5)), told("b", math.log(0.4)), told("c", math.log(0.1))),
            True,
        ),
        (told("a", 0.0), (told("a", 0.0),), True),  # nothing is left for others
        (told("a", -0.5), (), False),
    ],
)
def test_the_sampled_token_is_told_where_it_is_proven_to_be_inside(sampled, listed, is_told):
    shown = teller(Exposure(top_logprobs=3)).tell(Position(sampled=sampled, listed=listed))
    assert shown.sampled.logprob == (sampled.logprob if is_told else MASKED_LOGPROB)
    assert shown.listed == ()


def test_a_sampled_token_that_was_put_into_the_list_does_not_stay_there():
    listed = (told("z", -9.0), *LIST[:3])
    shown = teller(Exposure(top_logprobs=4), top_logprobs=4).tell(Position(sampled=listed[0], listed=listed))
    assert [each.name for each in shown.listed] == ["a", "b", "c"]


def test_ties_stand_in_an_order_that_rounding_does_not_tell():
    exposure = Exposure(top_logprobs=3, decimals=0)
    by_text = (told("z", -1.51), told("y", -1.52), told("x", -1.53), told("w", -9.0))
    shown = teller(exposure, top_logprobs=3).tell(Position(sampled=by_text[0], listed=by_text))
    assert [each.name for each in shown.listed] == ["x", "y", "z"]
    by_id = (told("a", -1.51, 9), told("b", -1.52, 8), told("c", -1.53, 7), told("d", -9.0, 1))
    shown = teller(exposure, top_logprobs=3).tell(Position(sampled=by_id[0], listed=by_id))
    assert [each.token_id for each in shown.listed] == [7, 8, 9]


def test_fresh_noise_has_the_deviation_that_was_asked_for_and_one_value_a_token_and_position():
    exposure = Exposure(top_logprobs=4, noise_nats=0.1, wanted_ids=None)
    listed = tuple(told(str(n), -1.5 - n / 8, n) for n in range(4))
    each = teller(exposure, top_logprobs=3, wanted_ids=(1,))
    noise = []
    for _ in range(2000):
        shown = each.tell(Position(sampled=listed[1], listed=(*listed, listed[1])))
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
        each = teller(exposure, prompt=prompt, rng=seed % 7)
        each.tell(Position(sampled=told(str(before), -0.1)))
        return each.tell(Position(sampled=LIST[0], listed=LIST)).sampled.logprob

    assert told_after("p", first) == told_after("p", first)
    assert told_after("p", first) != told_after("p", first + 1)
    assert told_after("p", first) != told_after("q", first)


def test_what_is_told_is_never_above_zero_or_a_negative_zero():
    exposure = Exposure(top_logprobs=3, decimals=1)
    for value in (0.004, 0.0, -0.0, -0.01):
        shown = teller(exposure, top_logprobs=3).tell(Position(sampled=told("a", value), listed=(told("a", value),)))
        assert str(shown.sampled.logprob) == "0.0"


@pytest.mark.parametrize("listed", [(told("a", 2.5),), (told("a", -0.1), told("b", -0.1)), (told("a", math.inf),)])
def test_what_cannot_be_logprobs_is_malformed(listed):
    with pytest.raises(MalformedAnswerError):
        teller(Exposure(top_logprobs=3), top_logprobs=2).tell(Position(sampled=told("z", -5.0), listed=listed))


@pytest.mark.parametrize("sampled", Sampled)
def test_missing_wanted_ids_are_malformed(sampled):
    exposure = Exposure(wanted_ids=None, sampled_logprob=sampled)
    for listed in ((), (told("5", -1.0, 5),)):
        with pytest.raises(MalformedAnswerError):
            teller(exposure, wanted_ids=(7,)).tell(Position(sampled=told("z", -5.0, 1), listed=listed))
