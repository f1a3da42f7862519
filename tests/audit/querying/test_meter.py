"""The meter: a rate, a budget, and a log that pays for nothing twice."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.findings.finding import Cost
from lensmith.audit.querying.event_log import EventLog
from lensmith.audit.querying.meter import Budget, BudgetError, Meter
from lensmith.core.endpoint import (
    Answer,
    Capabilities,
    Choice,
    Feature,
    Finish,
    Logprobs,
    RefusedError,
    Request,
    Reveal,
)
from lensmith.core.errors import AccessError, ConfigError, InputError
from lensmith.core.types import Message, Picture
from lensmith.endpoints.http.errors import DoubtfulRefusalError, NoEndpointError
from lensmith.openai_api import EndpointError

HEADER = {"target": "http://127.0.0.1:1/v1", "model": "m", "seed": 0}
UNLIMITED = Budget(queries_per_s=None, max_queries=None, max_tokens=None)


class Counting:
    """Answers with the number of requests so far, so that no two answers are equal."""

    def __init__(self, top=3):
        self.asked = []
        self.top = top

    def answer(self, requests):
        answers = []
        for request in requests:
            if request.logit_bias:
                raise RefusedError("no bias", feature=Feature.LOGIT_BIAS)
            self.asked.append(request)
            number = len(self.asked)
            logprobs = Logprobs(
                sampled_T=np.array([-1.0 / number]),
                top_ids_TK=np.arange(self.top)[None],
                top_TK=-np.full((1, self.top), number, dtype=np.float64),
                wanted_TW=np.empty((1, 0)),
            )
            choice = Choice(text=f"ü{number}", finish=Finish.LENGTH, token_ids_T=np.array([number]), logprobs=logprobs)
            answers.append(Answer(choices=(choice,), prompt_tokens=5))
        return answers

    def supports(self):
        return Capabilities(features=Feature.PROMPT_TEXT)

    def metadata(self):
        return {}


def requests(count, start=0):
    return [Request(prompt=f"question {number}", max_tokens=1) for number in range(start, start + count)]


def texts(answers):
    return [answer.choices[0].text for answer in answers]


def metered(tmp_path, endpoint, budget=UNLIMITED, header=HEADER):
    return Meter(endpoint, budget, EventLog(tmp_path / "events.jsonl", header))


def test_what_is_known_is_not_asked_again_after_a_restart(tmp_path):
    first = Counting()
    before = metered(tmp_path, first).answer(requests(3))
    again = Counting()
    meter = metered(tmp_path, again)
    answers = meter.answer(requests(5))
    assert [request.prompt for request in again.asked] == ["question 3", "question 4"]
    assert texts(answers[:3]) == texts(before)
    for new, old in zip(answers[:3], before, strict=True):
        for name, array in vars(old.choices[0].logprobs).items():
            assert array is None or np.array_equal(getattr(new.choices[0].logprobs, name), array)
        assert new.prompt_tokens == old.prompt_tokens
        assert new.choices[0].token_ids_T.dtype == old.choices[0].token_ids_T.dtype
    assert meter.spent.queries == 5
    assert meter.spent.tokens == 5 * 6


def test_answers_keep_the_order_of_their_questions(tmp_path):
    meter = metered(tmp_path, Counting())
    meter.answer(requests(2, start=1))
    answers = meter.answer(requests(200))
    assert texts(answers)[1:3] == ["ü1", "ü2"]
    assert [texts(meter.answer([request]))[0] for request in requests(200)] == texts(answers)


def test_a_request_that_stands_twice_in_one_batch_is_asked_twice(tmp_path):
    endpoint = Counting()
    assert len(set(texts(metered(tmp_path, endpoint).answer(requests(1) * 3)))) == 3


@pytest.mark.parametrize(
    "other",
    [
        replace(requests(1)[0], temperature=0.0),
        replace(requests(1)[0], wanted_ids=(3,)),
        replace(requests(1)[0], reveal=Reveal.SAMPLED),
        replace(requests(1)[0], seed=1),
    ],
)
def test_other_questions_are_other_questions(tmp_path, other):
    endpoint = Counting()
    meter = metered(tmp_path, endpoint)
    meter.answer(requests(1))
    meter.answer([other])
    assert len(endpoint.asked) == 2


def test_pictures_and_roles_tell_questions_apart(tmp_path):
    endpoint = Counting()
    meter = metered(tmp_path, endpoint)
    for part in (Picture(data=b"a"), Picture(data=b"b"), "a"):
        for role in ("user", "system"):
            meter.answer([Request(messages=(Message(role=role, parts=(part,)),))])
    assert len(endpoint.asked) == 6


def test_the_budget_is_not_overdrawn_and_says_what_to_do(tmp_path):
    endpoint = Counting()
    meter = metered(tmp_path, endpoint, Budget(queries_per_s=None, max_queries=100, max_tokens=None))
    with pytest.raises(BudgetError, match="--budget-queries"):
        meter.answer(requests(200))
    assert len(endpoint.asked) == meter.spent.queries == 100  # a batch that does not fit is made smaller
    assert meter.queries_left == 0
    assert texts(meter.answer(requests(100))) == [f"ü{number}" for number in range(1, 101)]
    with pytest.raises(BudgetError, match="tokens"):
        metered(tmp_path, endpoint, Budget(queries_per_s=None, max_queries=None, max_tokens=390)).answer(
            requests(5, start=500)
        )


def test_a_refusal_is_paid_for_and_raised(tmp_path):
    meter = metered(tmp_path, Counting())
    with pytest.raises(RefusedError, match="no bias"):
        meter.answer([replace(requests(1)[0], logit_bias={1: 1.0})])
    assert meter.spent.queries == 1


def test_a_refusal_is_remembered_and_a_failure_is_not(tmp_path):
    biased = replace(requests(1)[0], logit_bias={1: 1.0})
    with pytest.raises(RefusedError):
        metered(tmp_path, Counting()).answer([biased])
    again = metered(tmp_path, Counting())
    with pytest.raises(RefusedError, match="no bias") as refusal:
        again.answer([biased])
    assert refusal.value.feature is Feature.LOGIT_BIAS and again.spent.queries == 1


@pytest.mark.parametrize(
    "failure", [EndpointError("gone"), AccessError("whose key?"), DoubtfulRefusalError("no"), NoEndpointError("a page")]
)
def test_what_may_come_right_is_not_remembered(tmp_path, failure):
    class Failing(Counting):
        def answer(self, requests):
            raise failure

    with pytest.raises(type(failure)):
        metered(tmp_path, Failing()).answer(requests(1))
    assert texts(metered(tmp_path, Counting()).answer(requests(1))) == ["ü1"]


def test_the_rate_is_kept(tmp_path):
    meter = metered(tmp_path, Counting(), Budget(queries_per_s=100.0, max_queries=None, max_tokens=None))
    began = time.monotonic()
    for number in range(21):
        meter.answer(requests(1, start=number))
    assert time.monotonic() - began >= 0.2


def test_large_answers_are_charged_and_not_kept(tmp_path):
    endpoint = Counting(top=10_000)
    meter = metered(tmp_path, endpoint)
    meter.answer(requests(2))
    meter.answer(requests(2))
    assert len(endpoint.asked) == 4
    assert (tmp_path / "events.jsonl").stat().st_size < 2_000
    assert metered(tmp_path, endpoint).spent == Cost(
        queries=4, tokens=24, seconds=pytest.approx(meter.spent.seconds, abs=1e-5)
    )


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path):
    metered(tmp_path, Counting()).answer(requests(3))
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    endpoint = Counting()
    metered(tmp_path, endpoint).answer(requests(3))
    assert [request.prompt for request in endpoint.asked] == ["question 2"]
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["audit"] + ["asked"] * 3


def test_the_log_of_another_audit_is_refused(tmp_path):
    metered(tmp_path, Counting())
    with pytest.raises(ConfigError, match=r"another audit \(different: model\)"):
        metered(tmp_path, Counting(), header=HEADER | {"model": "other"})


def test_a_damaged_log_is_refused(tmp_path):
    (tmp_path / "events.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(InputError, match="damaged"):
        metered(tmp_path, Counting())


def test_progress_is_what_was_spent(tmp_path):
    seen = []
    meter = Meter(Counting(), UNLIMITED, EventLog(tmp_path / "e.jsonl", HEADER), seen.append)
    meter.answer(requests(3))
    assert [cost.queries for cost in seen] == [1, 2, 3]


class Slow(Counting):
    """Answers one after another, each taking so long."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.batches = clock, seconds, []

    def answer(self, requests):
        self.batches.append(len(requests))
        self.clock[0] += self.seconds * len(requests)
        return super().answer(requests)


@pytest.mark.parametrize(("seconds", "most"), [(0.001, 128), (0.05, 32), (2.0, 8)])
def test_a_slow_endpoint_is_asked_few_questions_at_once(tmp_path, monkeypatch, seconds, most):
    """So that little is lost when it is interrupted, and something is heard of it."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    endpoint = Slow(clock, seconds)
    metered(tmp_path, endpoint).answer(requests(300))
    assert max(endpoint.batches) == most and sum(endpoint.batches) == 300
    assert max(endpoint.batches[3:]) * seconds <= 2 or max(endpoint.batches[3:]) == 4


def test_no_more_is_sent_at_once_than_the_rate_allows_in_a_second(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    endpoint = Slow(clock, 0.0)
    metered(tmp_path, endpoint, Budget(queries_per_s=3.0, max_queries=None, max_tokens=None)).answer(requests(12))
    assert endpoint.batches == [3, 3, 3, 3]


def test_what_an_endpoint_says_of_itself_is_asked_once_for_all_runs(tmp_path):
    class Talkative(Counting):
        told = 0

        def metadata(self):
            self.told += 1
            return {"n_embd": 32}

    first, second = Talkative(), Talkative()
    meter = metered(tmp_path, first)
    assert meter.metadata() == meter.metadata() == {"n_embd": 32}
    again = metered(tmp_path, second)
    assert again.metadata() == {"n_embd": 32}
    assert (first.told, second.told) == (1, 0) and meter.spent.queries == again.spent.queries == 1


def test_limits_must_be_possible():
    with pytest.raises(ConfigError, match="max_queries"):
        Budget(max_queries=0)


class Telling(Counting):
    """Says what its answers took, and thinks aloud."""

    def __init__(self, completion_tokens):
        super().__init__()
        self._told = completion_tokens

    def answer(self, requests):
        answers = super().answer(requests)
        silent = [replace(answer.choices[0], text="", reasoning=answer.choices[0].text) for answer in answers]
        return [
            replace(answer, choices=(choice,) * request.n, completion_tokens=self._told)
            for answer, choice, request in zip(answers, silent, requests, strict=True)
        ]


@pytest.mark.parametrize(
    ("told", "n", "counted"), [(None, 1, 1), (0, 1, 1), (1, 1, 1), (2000, 1, 2000), (2, 3, 3), (2000, 3, 2000)]
)
def test_tokens_are_those_that_the_endpoint_says_and_no_fewer_than_it_shows(tmp_path, told, n, counted):
    request = replace(requests(1)[0], n=n)
    meter = metered(tmp_path, Telling(told))
    meter.answer([request])
    assert meter.spent.tokens == 5 + counted
    again = metered(tmp_path, Telling(told))
    assert again.answer([request])[0].completion_tokens == told
    assert again.spent.tokens == 5 + counted


def test_hidden_tokens_end_a_budget_soon_after_it_is_spent(tmp_path):
    endpoint = Telling(2000)
    meter = metered(tmp_path, endpoint, replace(UNLIMITED, max_tokens=40_000))
    with pytest.raises(BudgetError):
        meter.answer(requests(200))
    assert 40_000 - 4_000 <= meter.spent.tokens <= 40_000 + 4_000
    assert 19 <= len(endpoint.asked) <= 21


def test_what_is_thought_aloud_is_read_where_there_is_no_answer_yet(tmp_path):
    assert texts(metered(tmp_path, Telling(None)).answer(requests(2))) == ["ü1", "ü2"]
    assert texts(metered(tmp_path, Telling(None)).answer(requests(2))) == ["ü1", "ü2"]
