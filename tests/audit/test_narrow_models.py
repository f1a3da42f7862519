"""Models narrower than the first matrix that is read of them: nothing that is claimed exceeds the truth.

What a read-out cannot resolve comes out the same twice, and makes directions of its own: rounding, the last interval of
a search, the lattice of 16 bits, the error of a reference that many values share.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest

from lensmith.audit.estimators.width import Status, WidthEstimate, estimate_width
from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.querying.contexts import ContextForm, Contexts
from lensmith.audit.readouts.choose import reader_for
from lensmith.core.exposure import Exposure, Sampled, Taken, Together
from lensmith.endpoints.fake.endpoint import FakeEndpoint, Lattice
from tests.support.fake_audits import probe

CLOSED = replace(Exposure.text_only(), bias_with_logprobs=Together.ALLOWED)
BIASED = replace(Exposure(), top_logprobs=0, sampled_logprob=Sampled.HIDDEN)
OPEN = {
    ReadOut.P1: replace(CLOSED, top_logprobs=None),
    ReadOut.P2: replace(CLOSED, wanted_ids=20),
    ReadOut.P3: replace(BIASED, top_logprobs=20, logprobs_taken=Taken.AFTER_BIAS),
    ReadOut.P4A: replace(BIASED, sampled_logprob=Sampled.SHOWN),
    ReadOut.P4B: replace(CLOSED, sampled_logprob=Sampled.SHOWN, allowed_ids=1),
    ReadOut.P5: replace(CLOSED, sampled_logprob=Sampled.SHOWN, echo=True),
    ReadOut.P6: replace(BIASED, top_logprobs=1, logprobs_taken=Taken.AFTER_BIAS),
    ReadOut.P7: BIASED,
}
ROWS, COLUMNS, VOCABULARY = 64, 80, 300
PRECISIONS = [
    *((decimals, Lattice.FLOAT32) for decimals in (None, 4, 2, 1)),
    *((None, lattice) for lattice in (Lattice.FLOAT16, Lattice.BFLOAT16)),
]
FAST = [
    *product((ReadOut.P1, ReadOut.P2, ReadOut.P4B), (48, 60), PRECISIONS, (1.0,)),
    *product((ReadOut.P3,), (48,), PRECISIONS[2:], (1.0,)),
]
ALL = [
    *product((ReadOut.P1, ReadOut.P2, ReadOut.P3), (8, 13, 20, 32, 40, 48, 56, 60), PRECISIONS, (0.5, 1.0)),
    *product((ReadOut.P4A, ReadOut.P4B, ReadOut.P5), (8, 32, 60), PRECISIONS, (1.0,)),
    *product((ReadOut.P6,), (20, 48, 60), PRECISIONS, (1.0,)),
    *product((ReadOut.P7,), (16, 48, 60), [PRECISIONS[0], *PRECISIONS[-2:]], (1.0,)),
]


@dataclass(frozen=True, kw_only=True)
class Read:
    """A matrix of a model's outputs, and how exact it says that it is."""

    logits_NM: np.ndarray
    resolution_nats: float

    def estimate(self) -> WidthEstimate:
        return estimate_width(self.logits_NM, noise_nats=self.resolution_nats)


def read(read_out, width, precision, anisotropy):
    decimals, lattice = precision
    endpoint = FakeEndpoint(
        vocabulary=VOCABULARY,
        width=width,
        seed=width,
        exposes=replace(OPEN[read_out], decimals=decimals),
        lattice=lattice,
        anisotropy=anisotropy,
    )
    contexts = Contexts(ContextForm.TOKEN_IDS, width)
    probed = probe(endpoint, [contexts[0]])
    ids = np.random.default_rng(width).permutation(np.arange(3, VOCABULARY))[: COLUMNS + 1]
    reading = reader_for(read_out, probed).read(endpoint, contexts.take(0, ROWS), ids)
    logits_NM = reading.logits_NM - reading.logits_NM[:, :1]
    return Read(logits_NM=logits_NM, resolution_nats=max(reading.resolution_nats, probed.spread_nats))


def claims_too_much(estimate, width):
    low, high = estimate.interval or (estimate.at_least or 0, None)
    is_outside = high is not None and not low <= width <= high
    rank_errs = estimate.rank is not None and abs(estimate.rank - width) > 1
    return low > width or is_outside or rank_errs or (estimate.status is Status.EXACT and estimate.width != width)


@pytest.mark.parametrize(("read_out", "width", "precision", "anisotropy"), FAST, ids=str)
def test_nothing_is_claimed_above_the_truth(read_out, width, precision, anisotropy):
    assert not claims_too_much(read(read_out, width, precision, anisotropy).estimate(), width)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nothing_is_claimed_above_the_truth_through_any_read_out():
    assert len(ALL) > 200
    wrong = [case for case in ALL if claims_too_much(read(*case).estimate(), case[1])]
    assert not wrong


@pytest.mark.parametrize("width", [48, 60])
@pytest.mark.parametrize("read_out", [ReadOut.P1, ReadOut.P2])
def test_a_resolution_that_is_ignored_would_be_seen(read_out, width):
    """The control: taken to be as exact as its repeats are equal, the same reading proves more than there is."""
    found = read(read_out, width, (1, Lattice.FLOAT32), 1.5)
    assert claims_too_much(estimate_width(found.logits_NM, noise_nats=1e-6), width)
    assert not claims_too_much(found.estimate(), width)


@pytest.mark.parametrize(("width", "least"), [(64, 40), (96, 60), (256, 60)])
def test_a_wider_model_still_gives_nearly_as_many_directions_as_contexts(width, least):
    found = read(ReadOut.P1, width, PRECISIONS[0], 1.0).estimate()
    assert found.status is Status.UNRESOLVED and found.at_least >= least
