"""Top logprobs that a bias moves give true logits at the stated cost, and nothing where the bias does not move them."""

import dataclasses

import numpy as np
import pytest

from lensmith.audit.readouts.base import Prior
from lensmith.audit.readouts.top_bias import SingleTopReader, TopBiasReader, tie_from_answer, tied
from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError, NotExposedError, ShapeError
from lensmith.core.exposure import Exposure, Taken
from lensmith.endpoints.fake.endpoint import FakeEndpoint

AFTER = dataclasses.replace(Exposure.everything(), logprobs_taken=Taken.AFTER_BIAS, top_logprobs=5)
CONTEXTS = [Request(token_ids=(5, number)) for number in range(6)]
IDS = np.array([40, 3, 77, 9, 61, 12, 90, 2, 33])


def fake(exposes=AFTER, **options):
    return FakeEndpoint(**{"vocabulary": 97, "width": 8, "seed": 3, "exposes": exposes, **options})


def truth(endpoint, contexts=CONTEXTS, ids=IDS):
    return np.array([endpoint.true_logits(context)[ids] for context in contexts], dtype=np.float64)


def centred(matrix_NM):
    return matrix_NM - matrix_NM.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("reader", [TopBiasReader(), TopBiasReader(top=2), TopBiasReader(biased_ids=3)])
def test_top_logprobs_with_a_reference_are_exact_at_the_stated_cost(reader):
    endpoint = fake()
    ids = IDS[~np.isin(IDS, [endpoint.true_logits(context).argmax() for context in CONTEXTS])]
    reading = reader.read(endpoint, CONTEXTS, ids)
    np.testing.assert_allclose(centred(reading.logits_NM), centred(truth(endpoint, ids=ids)), atol=1e-6)
    assert reading.spent == reader.queries_for(6, len(ids), context_tokens=2)
    assert endpoint.queries == reading.spent.queries


def test_the_top_token_is_zero_and_read_for_nothing():
    endpoint = fake()
    top = int(endpoint.true_logits(CONTEXTS[0]).argmax())
    reading = TopBiasReader().read(endpoint, CONTEXTS[:1], np.array([top]))
    assert reading.logits_NM.tolist() == [[0.0]] and endpoint.queries == 2
    assert TopBiasReader().read(endpoint, CONTEXTS[:1], IDS).top_N.tolist() == [0.0]


def test_several_positions_share_a_request():
    endpoint = fake()
    reader = TopBiasReader(positions=4)
    reading = reader.read(endpoint, CONTEXTS, IDS)
    tops = [int(endpoint.true_logits(context).argmax()) for context in CONTEXTS]
    longer = [
        Request(token_ids=(*context.token_ids, *[top] * count))
        for context, top in zip(CONTEXTS, tops, strict=True)
        for count in range(4)
    ]
    assert reading.read_fraction == 1
    np.testing.assert_allclose(centred(reading.logits_NM), centred(truth(endpoint, longer)), atol=1e-6)
    assert reading.spent.queries < TopBiasReader().queries_for(24, len(IDS)).queries / 2


def test_positions_after_another_token_than_the_reference_are_unread():
    endpoint = fake(dataclasses.replace(AFTER, logit_bias=8.0))
    reading = TopBiasReader(positions=4, bias_limit=8.0).read(endpoint, CONTEXTS, np.arange(97))
    tops = [int(endpoint.true_logits(context).argmax()) for context in CONTEXTS]
    unread = 0
    for row, row_M in enumerate(reading.logits_NM):
        context, count = CONTEXTS[row // 4], row % 4
        longer = Request(token_ids=(*context.token_ids, *[tops[row // 4]] * count))
        difference_M = row_M - endpoint.true_logits(longer)
        unread += int(np.isnan(difference_M).sum())
        read_M = np.isfinite(difference_M)
        assert not read_M.any() or np.ptp(difference_M[read_M]) < 1e-5
    assert unread


def test_a_bias_that_is_too_small_leaves_tokens_unread_and_the_rest_right():
    endpoint = fake(dataclasses.replace(AFTER, logit_bias=6.0))
    reading = TopBiasReader(bias_limit=6.0).read(endpoint, CONTEXTS, np.arange(97))
    read_NM = np.isfinite(reading.logits_NM)
    assert 0.05 < read_NM.mean() < 0.95
    difference_NM = reading.logits_NM - truth(endpoint, ids=np.arange(97))
    for row_M in difference_NM:
        assert np.ptp(row_M[np.isfinite(row_M)]) < 1e-6


def test_a_prior_that_is_wrong_costs_requests_and_no_exactness():
    endpoint = fake()
    wrong = Prior(mean_M=np.zeros(len(IDS)), spread_M=np.full(len(IDS), 0.5))
    reading = TopBiasReader(prior=wrong).read(endpoint, CONTEXTS, IDS)
    np.testing.assert_allclose(centred(reading.logits_NM), centred(truth(endpoint)), atol=1e-6)
    with pytest.raises(ShapeError):
        TopBiasReader(prior=wrong).read(endpoint, CONTEXTS, IDS[:3])


@pytest.mark.parametrize("reader", [TopBiasReader(), SingleTopReader()])
def test_a_bias_that_does_not_move_logprobs_reads_nothing(reader):
    before = dataclasses.replace(AFTER, logprobs_taken=Taken.BEFORE_BIAS)
    with pytest.raises(NotExposedError, match="does not move"):
        reader.read(fake(before), CONTEXTS, IDS)


@pytest.mark.parametrize("reader", [TopBiasReader(), SingleTopReader()])
@pytest.mark.parametrize("exposes", [Exposure.text_only(), dataclasses.replace(AFTER, top_logprobs=0)])
def test_nothing_exposed_is_refused(reader, exposes):
    with pytest.raises(NotExposedError):
        reader.read(fake(exposes), CONTEXTS, IDS)


def test_a_reference_and_a_target_are_needed():
    with pytest.raises(InputError):
        TopBiasReader(top=1)


# --- a single top logprob -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decimals", "limit"), [(None, 1e-6), (6, 3e-5), (4, 3e-3)])
def test_one_top_logprob_is_nearly_as_good_as_all(decimals, limit):
    endpoint = fake(dataclasses.replace(AFTER, top_logprobs=1, decimals=decimals))
    told = 1e-7 if decimals is None else 0.3 * 10.0**-decimals
    reader = SingleTopReader(logprob_error_nats=told, accept_nats=20 * told)
    reading = reader.read(endpoint, CONTEXTS, IDS)
    errors = centred(reading.logits_NM) - centred(truth(endpoint))
    assert np.abs(errors).max() < limit
    assert reading.resolution_nats < limit
    assert reading.spent.queries <= 1.1 * reader.queries_for(6, len(IDS)).queries


def test_a_token_without_bias_enough_to_count_is_unread():
    endpoint = fake(dataclasses.replace(AFTER, top_logprobs=1, logit_bias=1.0, decimals=4))
    reader = SingleTopReader(bias_limit=1.0, logprob_error_nats=3e-5)
    reading = reader.read(endpoint, CONTEXTS, np.arange(97))
    difference_NM = reading.logits_NM - np.array([endpoint.true_logits(each) for each in CONTEXTS], dtype=np.float64)
    assert np.isnan(reading.logits_NM).any() and np.isfinite(reading.logits_NM).any()
    for row_M in difference_NM:
        off_M = np.abs(row_M - np.nanmedian(row_M))
        assert (off_M[np.isfinite(off_M)] < 0.5).all()


@pytest.mark.parametrize("logprob", [-0.5, -3.0, -12.0, -30.0])
@pytest.mark.parametrize("off", [-3.0, -0.2, 0.2, 3.0])
def test_both_formulas_invert_the_softmax(logprob, off):
    others = np.log(-np.expm1(logprob))  # one other token has all the rest
    bias = tied(logprob) + off
    if bias <= 0.1:
        return
    scores = np.array([logprob + bias, others])
    after = scores - np.logaddexp(*scores)
    is_target = bool(after.argmax() == 0)
    tie = tie_from_answer(others, after.max(), bias, is_target=is_target, logprob_error_nats=1e-9)
    assert tie.logprob == pytest.approx(logprob, abs=1e-6)


def test_an_answer_that_shows_nothing_moves_the_bias():
    fell = tie_from_answer(-1.0, -1.0, 5.0, is_target=False, logprob_error_nats=1e-6)
    drowned = tie_from_answer(-1.0, 0.0, 50.0, is_target=True, logprob_error_nats=1e-6)
    assert np.isnan(fell.logprob) and fell.next_bias > 5
    assert np.isnan(drowned.logprob) and drowned.next_bias < 50
