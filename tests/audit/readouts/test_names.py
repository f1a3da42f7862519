"""Ids and texts find each other through biases, and what is read by text is what is read by id."""

from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.readouts.names import BiasNames, NamedReader
from lensmith.audit.readouts.top_bias import SingleTopReader, TopBiasReader
from lensmith.core.endpoint import Request
from lensmith.core.errors import NotExposedError
from lensmith.core.exposure import Exposure, Taken
from tests.support.text_names import ByText

AFTER = Exposure(top_logprobs=20, logprobs_taken=Taken.AFTER_BIAS)
CONTEXTS = [Request(token_ids=(5, number), max_tokens=1, temperature=0.0) for number in range(4)]
IDS = np.random.default_rng(0).permutation(np.arange(3, 300))[:60]


def by_text(exposure=AFTER, **switches):
    return ByText(**{"vocabulary": 300, "width": 16, "seed": 2, "exposes": exposure, **switches})


def learner(top=20, bias_limit=100.0, error_nats=1e-6):
    return BiasNames(top=top, bias_limit=bias_limit, biased_ids=300, error_nats=error_nats)


def true_logits(endpoint, ids=IDS):
    return np.array([endpoint.true_logits(context)[ids] for context in CONTEXTS], dtype=np.float64)


def largest_difference(logits_NM, true_NM):
    """Up to a constant a row."""
    differences_NM = logits_NM - true_NM
    return float(np.nanmax(np.abs(differences_NM - np.nanmean(differences_NM, axis=1, keepdims=True))))


@pytest.mark.parametrize("switches", [{}, {"logit_std": 9.0}, {"seed": 5, "anisotropy": 1.5}], ids=str)
@pytest.mark.parametrize("top", [2, 5, 20])
def test_every_name_is_learned_for_two_requests_a_group(top, switches):
    endpoint, names = by_text(replace(AFTER, top_logprobs=top), **switches), learner(top)
    found = names(endpoint, CONTEXTS[0], IDS)
    assert found == {endpoint.number(each): each for each in IDS.tolist()}
    assert endpoint.queries <= names.queries_for(len(IDS)) + 2


@pytest.mark.parametrize("decimals", [3, 1, 0])
def test_names_are_learned_from_rounded_logprobs(decimals):
    error_nats = 10.0**-decimals / np.sqrt(12)
    endpoint = by_text(replace(AFTER, decimals=decimals))
    found = learner(error_nats=error_nats)(endpoint, CONTEXTS[0], IDS)
    assert len(found) > 50 and all(endpoint.number(each) == name for name, each in found.items())


def test_of_ids_that_share_a_text_one_keeps_it():
    endpoint = by_text(duplicate_texts=100)
    found = learner()(endpoint, CONTEXTS[0], IDS)
    assert all(endpoint.number(each) == name for name, each in found.items())
    texts = {endpoint.tokens.text(each) for each in IDS.tolist()}
    assert len(IDS) > len(texts) > len(found) - 1 > 0.8 * len(texts)


@pytest.mark.parametrize(
    "exposure",
    [replace(AFTER, logprobs_taken=Taken.BEFORE_BIAS), replace(AFTER, noise_nats=3.0)],
    ids=["before", "noise"],
)
def test_nothing_is_learned_from_what_a_bias_does_not_explain(exposure):
    with pytest.raises(NotExposedError, match="do not show"):
        learner()(by_text(exposure), CONTEXTS[0], np.arange(3, 300))


@pytest.mark.parametrize("positions", [1, 4])
def test_logits_are_read_by_text_as_by_id(positions):
    endpoint = by_text(duplicate_texts=100)
    reader = NamedReader(reader=TopBiasReader(top=20, own_reference=True, positions=positions), learn=learner())
    reading = reader.read(endpoint, CONTEXTS, IDS)
    assert reading.logits_NM.shape == (4 * positions, len(IDS))
    assert np.isfinite(reading.logits_NM).mean() > 0.8
    assert largest_difference(reading.logits_NM[::positions], true_logits(endpoint)) < 1e-5
    asked = endpoint.queries
    reader.read(endpoint, CONTEXTS, IDS)
    assert endpoint.queries - asked <= reader.reader.queries_for(4 * positions, len(IDS)).queries


def test_a_single_top_logprob_needs_no_names_but_tells_twins_apart():
    endpoint = by_text(replace(AFTER, top_logprobs=1), duplicate_texts=100)
    tops = [int(endpoint.true_logits(context).argmax()) for context in CONTEXTS]
    ids = np.unique([*tops, *[each + 200 for each in tops if each < 100], *IDS[:20].tolist()])
    reading = SingleTopReader().read(endpoint, CONTEXTS, ids)
    assert largest_difference(reading.logits_NM, true_logits(endpoint, ids)) < 1e-4
    assert np.isfinite(reading.logits_NM).mean() > 0.9
    for row, top in enumerate(tops):
        assert np.isfinite(reading.logits_NM[row, ids == top]).all()


def test_a_bias_that_moves_nothing_is_noticed_by_text_too():
    closed = replace(AFTER, top_logprobs=1, logprobs_taken=Taken.BEFORE_BIAS)
    with pytest.raises(NotExposedError, match="does not move"):
        SingleTopReader().read(by_text(closed), CONTEXTS, IDS)
