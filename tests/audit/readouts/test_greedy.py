"""Greedy answers alone give the logits, and a reader that is lied to gives nothing."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmith.audit.readouts.base import Prior
from lensmith.audit.readouts.greedy import GreedyReader
from lensmith.audit.readouts.intervals import ANCHOR, Intervals
from lensmith.core.endpoint import Request
from lensmith.core.errors import NotExposedError
from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.endpoint import FakeEndpoint

BIAS_ONLY = dataclasses.replace(Exposure.text_only(), logit_bias=100.0, biased_ids=64)
CONTEXTS = [Request(token_ids=(5, number)) for number in range(3)]
IDS = np.arange(10, 90)


def fake(exposes=BIAS_ONLY, **options):
    return FakeEndpoint(**{"vocabulary": 97, "width": 8, "seed": 3, "exposes": exposes, **options})


def gaps(endpoint, contexts=CONTEXTS, ids=IDS):
    logits_NV = np.array([endpoint.true_logits(context) for context in contexts], dtype=np.float64)
    return logits_NV[:, ids] - logits_NV.max(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("reader", "most"),
    [
        (GreedyReader(biased_ids=64), 3.2),
        (GreedyReader.simultaneous(biased_ids=64), 6.6),
        (GreedyReader.binary(), 18.0),
    ],
    ids=["one of n", "simultaneous", "binary"],
)
def test_gaps_are_found_to_the_target_within_the_queries_expected(reader, most):
    endpoint = fake()
    reading = reader.read(endpoint, CONTEXTS, IDS)
    errors_NM = reading.logits_NM - gaps(endpoint)
    assert reading.read_fraction == 1
    assert np.sqrt((errors_NM**2).mean()) < 2e-3
    assert 0.7 < reading.resolution_nats / np.sqrt((errors_NM**2).mean()) < 2.5
    assert reading.spent.queries / errors_NM.size < most
    assert endpoint.queries == reading.spent.queries


def test_more_than_the_papers_18_bits_for_less_than_its_3_7_requests():
    endpoint = fake(dataclasses.replace(BIAS_ONLY, biased_ids=300), vocabulary=600, width=64)
    ids = np.arange(100, 600)
    true_V = endpoint.true_logits(CONTEXTS[0]).astype(np.float64)
    reader = GreedyReader(target_nats=np.ptp(true_V) * 2.0**-18.5)
    reading = reader.read(endpoint, CONTEXTS[:1], ids)
    rms = np.sqrt(((reading.logits_NM - gaps(endpoint, CONTEXTS[:1], ids)) ** 2).mean())
    assert np.log2(np.ptp(true_V) / rms) > 18.0
    assert reading.spent.queries / len(ids) < 3.0
    assert 0.7 < reader.queries_for(1, 500).queries / reading.spent.queries < 1.5


def test_a_budget_ends_a_search_and_the_precision_says_what_was_reached():
    endpoint = fake()
    reading = GreedyReader(biased_ids=64, target_nats=1e-9, most_queries=2.0).read(endpoint, CONTEXTS[:1], IDS)
    assert reading.spent.queries <= 2.0 * len(IDS) + 3
    rms = np.sqrt(np.nanmean((reading.logits_NM - gaps(endpoint, CONTEXTS[:1])) ** 2))
    assert 0.3 < reading.resolution_nats / rms < 3


def test_a_prior_saves_first_steps():
    endpoint = fake()
    true_NM = gaps(endpoint)
    noise_M = np.random.default_rng(0).standard_normal(len(IDS))
    prior = Prior(mean_M=true_NM[0] + 0.3 * noise_M, spread_M=np.full(len(IDS), 0.3))
    plain = GreedyReader(biased_ids=64).read(endpoint, CONTEXTS[:1], IDS)
    helped = GreedyReader(biased_ids=64, prior=prior).read(endpoint, CONTEXTS[:1], IDS)
    assert helped.spent.queries < 0.85 * plain.spent.queries
    assert np.abs(helped.logits_NM - true_NM[:1]).max() < 0.02


def test_a_wrong_prior_does_not_make_a_wrong_answer():
    endpoint = fake()
    prior = Prior(mean_M=np.full(len(IDS), -40.0), spread_M=np.full(len(IDS), 0.5))
    reading = GreedyReader(biased_ids=64, prior=prior).read(endpoint, CONTEXTS[:1], IDS)
    errors_M = (reading.logits_NM - gaps(endpoint)[:1])[np.isfinite(reading.logits_NM)]
    assert len(errors_M) > 70 and np.abs(errors_M).max() < 0.02


def test_an_ignored_bias_is_noticed_and_a_refused_one_is_refused():
    class Deaf(FakeEndpoint):
        def answer(self, requests):
            return super().answer([dataclasses.replace(request, logit_bias={}) for request in requests])

    deaf = Deaf(vocabulary=97, width=8, exposes=BIAS_ONLY)
    with pytest.raises(NotExposedError, match="does not change"):
        GreedyReader(biased_ids=64).read(deaf, CONTEXTS, IDS)
    assert deaf.queries <= 4
    with pytest.raises(NotExposedError):
        GreedyReader(biased_ids=64).read(fake(Exposure.text_only()), CONTEXTS, IDS)


def test_tokens_out_of_the_bias_reach_are_unread():
    endpoint = fake(dataclasses.replace(BIAS_ONLY, logit_bias=8.0))
    reading = GreedyReader(biased_ids=64, bias_limit=8.0).read(endpoint, CONTEXTS, IDS)
    true_NM = gaps(endpoint)
    read_NM = np.isfinite(reading.logits_NM)
    assert not read_NM[true_NM < -8.001].any()
    assert read_NM[true_NM > -7.9].mean() > 0.95
    assert np.abs((reading.logits_NM - true_NM)[read_NM]).max() < 0.05


def test_a_bias_that_is_clipped_in_silence_gives_no_wrong_row():
    class Clips(FakeEndpoint):
        def answer(self, requests):
            clipped = [{key: min(bias, 6.0) for key, bias in request.logit_bias.items()} for request in requests]
            pairs = zip(requests, clipped, strict=True)
            return super().answer([dataclasses.replace(request, logit_bias=biases) for request, biases in pairs])

    endpoint = Clips(vocabulary=97, width=8, seed=3, exposes=BIAS_ONLY)
    reading = GreedyReader(biased_ids=64).read(endpoint, CONTEXTS, IDS)
    errors_NM = np.abs(reading.logits_NM - gaps(endpoint))
    assert not (errors_NM > 0.1).any() and not np.isfinite(reading.logits_NM).all(axis=1).any()


def test_the_last_race_finds_that_the_model_was_changed():
    class Changes(FakeEndpoint):
        changes_after = 10**9

        def answer(self, requests):
            other = self.queries >= self.changes_after
            return (fake(seed=4) if other else super()).answer(requests)

    endpoint = Changes(vocabulary=97, width=8, seed=3, exposes=BIAS_ONLY)
    before = GreedyReader(biased_ids=64).read(endpoint, CONTEXTS, IDS)
    changed = Changes(vocabulary=97, width=8, seed=3, exposes=BIAS_ONLY)
    changed.changes_after = endpoint.queries - len(CONTEXTS)
    after = GreedyReader(biased_ids=64).read(changed, CONTEXTS, IDS)
    assert before.read_fraction == 1
    assert after.read_fraction < 0.02 and any("contradict" in note for note in after.notes)


class TextOnly(FakeEndpoint):
    """Tells texts and no ids, as a chat interface without logprobs does."""

    def answer(self, requests):
        nothing = np.empty(0, dtype=np.int64)
        answers = super().answer(requests)
        return [
            dataclasses.replace(answer, choices=(dataclasses.replace(answer.choices[0], token_ids_T=nothing),))
            for answer in answers
        ]


@pytest.mark.parametrize("is_told", [True, False])
def test_texts_name_tokens_given_or_learned(is_told):
    ids = np.arange(2, 95)
    endpoint = TextOnly(vocabulary=97, width=8, seed=3, exposes=BIAS_ONLY, duplicate_texts=6)
    texts = {int(each): endpoint.tokens.text(int(each)) for each in ids}
    reader = GreedyReader(biased_ids=64, texts=texts if is_told else None)
    reading = reader.read(endpoint, CONTEXTS, ids)
    read_NM = np.isfinite(reading.logits_NM)
    assert np.abs((reading.logits_NM - gaps(endpoint, ids=ids))[read_NM]).max() < 0.02
    doubles = [column for column, each in enumerate(ids) if list(texts.values()).count(texts[int(each)]) > 1]
    unread = np.flatnonzero(~read_NM.all(axis=0))
    assert len(doubles) == 4
    assert set(doubles) <= set(unread.tolist()) and len(unread) <= len(doubles) + 3


def test_an_endpoint_that_does_not_repeat_itself_gives_no_precise_answer():
    endpoint = fake(jitter_nats=0.5)
    reading = GreedyReader(biased_ids=64, most_queries=6).read(endpoint, CONTEXTS, IDS)
    assert not np.isfinite(reading.logits_NM).all(axis=1).any() and any("contradict" in note for note in reading.notes)


@given(st.integers(0, 2**16), st.integers(1, 40), st.floats(0.5, 8))
@settings(max_examples=30, deadline=None)
def test_intervals_always_hold_the_truth(seed, count, expected_over):
    rng = np.random.default_rng(seed)
    true_M = -np.abs(rng.normal(12, 5, count))
    intervals = Intervals(count=count, lowest=-100.0)
    for _ in range(30):
        placement = intervals.place(16, expected_over)
        scores = true_M[placement.columns_C] + placement.biases_C
        intervals.update(placement, int(scores.argmax()) if scores.max() > 0 else ANCHOR)
        assert (intervals.low_M <= true_M).all() and (true_M <= intervals.high_M).all()
    assert not intervals.contradicted_M.any()
