"""The probe: every switch of the fake endpoint is found out from outside."""

from dataclasses import replace

import pytest

from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.probe.capabilities import SampledFound
from lensmith.audit.querying.contexts import first_of_each_form
from lensmith.audit.querying.event_log import EventLog
from lensmith.audit.querying.meter import Budget, Meter
from lensmith.core.endpoint import RefusedError
from lensmith.core.errors import InputError, NotExposedError
from lensmith.core.exposure import Exposure, Noise, Sampled, Taken, Together
from lensmith.endpoints.fake.endpoint import FakeEndpoint, Lattice
from lensmith.openai_api import EndpointError
from tests.support.fake_audits import probe
from tests.support.text_names import ByMergedText

EVERYTHING = Exposure.everything()
MOST_QUERIES = 140


def probed(exposure, **switches):
    endpoint = FakeEndpoint(vocabulary=512, width=16, seed=1, exposes=exposure, **switches)
    found = probe(endpoint, first_of_each_form(0))
    assert endpoint.queries < MOST_QUERIES
    return found


def read_outs(exposure, **switches):
    return {read_out.value for read_out in probed(exposure, **switches).read_outs()}


def test_everything_is_found_where_everything_is_told():
    found = probed(EVERYTHING)
    assert found.whole_vocabulary
    assert found.vocabulary_size == 512
    assert found.top_logprobs == 512
    assert found.wanted_ids == 512
    assert found.sampled is SampledFound.TRUE_VALUE
    assert found.taken is Taken.BEFORE_BIAS
    assert found.largest_bias == 100
    assert found.allow_list and found.allow_list_true_value
    assert found.echo
    assert found.deterministic
    assert {"P1", "P2", "P4a", "P4b", "P5", "P7", "P8", "P9"} <= {read_out.value for read_out in found.read_outs()}


def test_text_alone_has_no_read_out():
    found = probed(Exposure.text_only())
    assert found.read_outs() == (ReadOut.P9,)
    assert not found.bias_steers


@pytest.mark.parametrize(
    ("exposure", "there", "not_there"),
    [
        (Exposure(), {"P7", "P8", "P9"}, {"P1", "P2", "P3", "P4a", "P4b", "P5", "P6"}),
        (replace(Exposure(), sampled_logprob=Sampled.SHOWN), {"P4a", "P7"}, {"P3", "P1"}),
        (replace(Exposure(), logprobs_taken=Taken.AFTER_BIAS), {"P3", "P7"}, {"P4a", "P6"}),
        (replace(Exposure(), logprobs_taken=Taken.AFTER_BIAS, top_logprobs=1), {"P6", "P7"}, {"P3", "P4a", "P8"}),
        (replace(Exposure(), top_logprobs=None), {"P1"}, set()),
        (replace(Exposure(), wanted_ids=16), {"P2"}, {"P1"}),
        (replace(Exposure(), allowed_ids=1, sampled_logprob=Sampled.SHOWN), {"P4a", "P4b"}, {"P1"}),
        (replace(Exposure(), echo=True, sampled_logprob=Sampled.SHOWN), {"P5"}, {"P1"}),
        (
            replace(Exposure(), bias_with_logprobs=Together.REFUSED, sampled_logprob=Sampled.SHOWN),
            {"P7", "P8"},
            {"P3", "P4a", "P6"},
        ),
        (replace(Exposure(), logit_bias=0.0), {"P8", "P9"}, {"P3", "P4a", "P6", "P7"}),
        (replace(Exposure(), top_logprobs=0, sampled_logprob=Sampled.HIDDEN), {"P7", "P9"}, {"P8", "P4a"}),
    ],
)
def test_each_switch_opens_and_closes_its_read_outs(exposure, there, not_there):
    found = read_outs(exposure)
    assert there <= found
    assert not found & not_there


@pytest.mark.parametrize("limit", [5.0, 20.0])
def test_the_limit_of_the_bias_is_found(limit):
    assert probed(replace(EVERYTHING, logit_bias=limit)).largest_bias == limit


@pytest.mark.parametrize("count", [1, 16, 300])
def test_how_many_ids_may_be_biased_is_found(count):
    assert probed(replace(EVERYTHING, biased_ids=count)).biased_ids == count


def test_the_vocabulary_is_counted_where_it_is_not_told():
    assert probed(replace(Exposure(), metadata=False)).vocabulary_size == 512


def test_chance_is_noticed():
    assert not probed(EVERYTHING, jitter_nats=0.05).deterministic
    assert probed(replace(EVERYTHING, noise_nats=0.1, noise=Noise.FRESH)).spread_nats > 0.01
    assert probed(replace(EVERYTHING, noise_nats=0.1, noise=Noise.FROZEN)).deterministic


def test_rounding_and_lattices_are_noticed():
    assert probed(replace(EVERYTHING, decimals=3)).decimals == 3
    assert probed(EVERYTHING).decimals is None
    assert probed(EVERYTHING).step_nats == 0
    assert probed(EVERYTHING, lattice=Lattice.BFLOAT16).step_nats >= 2**-8


def test_what_the_metadata_says_is_kept():
    facts = {"meta": {"n_embd": 16, "n_params": 10}}
    assert probed(EVERYTHING, metadata=facts).facts == {"meta.n_embd": 16, "meta.n_params": 10}
    assert ReadOut.P0 in probed(EVERYTHING, metadata=facts).read_outs()
    assert ReadOut.P0 not in probed(EVERYTHING).read_outs()


def test_an_endpoint_that_answers_nothing_is_told_apart_from_a_clean_one():
    endpoint = FakeEndpoint(vocabulary=64, width=8, context_tokens=1)
    with pytest.raises(NotExposedError, match="answers no simple request"):
        probe(endpoint, first_of_each_form(0))


def test_a_probe_that_is_repeated_from_its_log_asks_little(tmp_path):
    endpoint = FakeEndpoint(vocabulary=512, width=16, seed=1, exposes=Exposure())
    budget, header = Budget(queries_per_s=None), {"target": "x"}
    first = probe(Meter(endpoint, budget, EventLog(tmp_path / "e", header)), first_of_each_form(0))
    asked = endpoint.queries
    assert probe(Meter(endpoint, budget, EventLog(tmp_path / "e", header)), first_of_each_form(0)) == first
    assert endpoint.queries == asked


class Breaking:
    """Fails on prompts of token ids, and for good after so many requests."""

    def __init__(self, dies_after=None):
        self.inner = FakeEndpoint(vocabulary=512, width=16, seed=1, exposes=Exposure())
        self.dies_after = dies_after

    def answer(self, requests):
        dead = self.dies_after is not None and self.inner.queries >= self.dies_after
        if dead or any(request.token_ids for request in requests):
            raise EndpointError("the endpoint failed")
        return self.inner.answer(requests)

    def supports(self):
        return self.inner.supports()

    def metadata(self):
        return self.inner.metadata()


def test_a_question_that_breaks_the_server_is_not_taken_for_a_refusal_of_all():
    found = probe(Breaking(), first_of_each_form(0))
    assert not found.takes_token_ids
    assert found.bias_steers
    assert found.notes["prompt of token ids"].startswith("failed")


def test_a_server_that_dies_is_not_taken_for_a_clean_one():
    with pytest.raises(EndpointError):
        probe(Breaking(dies_after=12), first_of_each_form(0))


class Failing:
    """Fails each form of the question in turn."""

    def __init__(self, *failures):
        self.failures = list(failures)

    def answer(self, requests):
        raise self.failures.pop(0)


def of_usage(problem):
    error = InputError(problem, hint="do this")
    return [error] * len(first_of_each_form(0))


def test_a_mistake_of_the_person_is_said_once():
    with pytest.raises(InputError) as caught:
        probe(Failing(*of_usage("the key is wrong")), first_of_each_form(0))
    assert (caught.value.exit_code, str(caught.value).count("the key is wrong")) == (2, 1)
    assert caught.value.hint == "do this"


def test_several_mistakes_are_said_once_each():
    _, *rest = of_usage("the key is wrong")
    with pytest.raises(InputError) as caught:
        probe(Failing(InputError("no such model"), *rest), first_of_each_form(0))
    assert caught.value.actual == "no such model; the key is wrong"


def test_refusals_of_every_form_leave_it_open():
    refusals = [RefusedError("no") for _ in first_of_each_form(0)]
    with pytest.raises(NotExposedError) as caught:
        probe(Failing(*refusals), first_of_each_form(0))
    assert (caught.value.exit_code, caught.value.actual) == (3, "no")


class EightTexts(ByMergedText):
    """Ids have eight texts in all, so that among the first tokens some share one."""

    def number(self, token_id):
        return super().number(token_id % 8)


@pytest.mark.parametrize("seed", range(12))
def test_tokens_that_share_a_text_are_no_cap_on_the_top_logprobs(seed):
    after = Exposure(logprobs_taken=Taken.AFTER_BIAS, top_logprobs=20)
    found = probe(EightTexts(vocabulary=120, width=16, seed=seed, exposes=after), first_of_each_form(0))
    assert found.top_logprobs >= 6
    assert ReadOut.P3 in found.read_outs()
