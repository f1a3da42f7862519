"""Interfaces that give logits away and have a bad moment, a lost key, or another route: none may be called clean."""

from dataclasses import replace

import pytest

from lensmith.audit.findings.finding import Verdict
from lensmith.audit.run import AuditConfig, audit
from lensmith.core.errors import AccessError
from lensmith.core.exposure import Exposure, Sampled
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.endpoints.http.client import HttpClient
from lensmith.openai_api import EndpointError, Kind, MalformedAnswerError, WireError
from tests.support.fake_audits import VOCABULARY, WIDTH, finding, session_in

CLOSED = Exposure.text_only()
ECHO = replace(CLOSED, echo=True, sampled_logprob=Sampled.SHOWN)
WHOLE = replace(CLOSED, top_logprobs=None)


def fake(exposure):
    return FakeEndpoint(vocabulary=VOCABULARY, width=WIDTH, seed=3, exposes=exposure)


def audited(server, folder, **options):
    """An audit over HTTP, as the command makes it."""
    with server as url, HttpClient(url, "fake", dialect=server.dialect) as client:
        config = AuditConfig(session=session_in(folder / "audit", max_queries=400, target=url), **options)
        return audit(client, config, texts=client.vocabulary)


class Failing(FakeServer):
    """Fails the first `times` requests that have a field."""

    def __init__(self, endpoint, field, times, error=None):
        super().__init__(endpoint, dialect="vllm")
        self.field, self.times = field, times
        self.error = error or EndpointError("CUDA error: out of memory in echo of the prompt")

    def read(self, kind, body):
        if self.times and body.get(self.field):
            self.times -= 1
            raise self.error
        return super().read(kind, body)


def test_a_question_that_fails_once_is_asked_again(tmp_path):
    report = audited(Failing(fake(ECHO), "echo", times=1), tmp_path)
    assert report.verdict is Verdict.FINDINGS
    assert finding(report, "LEAK-P5") is not None


def test_a_question_that_always_fails_leaves_it_open(tmp_path):
    report = audited(Failing(fake(ECHO), "echo", times=100), tmp_path)
    assert report.verdict is Verdict.COULD_NOT_TELL
    assert any(sentence.startswith("the probe: echo: ") for sentence in report.unresolved)


def test_a_question_that_could_show_nothing_new_may_fail(tmp_path):
    """What a closed server does with prompts of token ids opens nothing."""

    class NoIds(FakeServer):
        def read(self, kind, body):
            if isinstance(body.get("prompt"), list):
                raise EndpointError("no prompts of ids")
            return super().read(kind, body)

    assert audited(NoIds(fake(CLOSED), dialect="vllm"), tmp_path).verdict is Verdict.CLEAN


class Masked(FakeServer):
    """Names its least likely token without a logprob, as some do with tokens that are masked."""

    def write(self, wires, answers):
        body = super().write(wires, answers)
        for choice in body["choices"]:
            logprobs = choice.get("logprobs") or {}
            for top in logprobs.get("top_logprobs") or []:
                if top and len(top) > 1:
                    top[min(top, key=top.get)] = None
            for entry in logprobs.get("content") or []:
                if len(entry["top_logprobs"]) > 1:
                    entry["top_logprobs"][-1]["logprob"] = None
        return body


@pytest.mark.parametrize("dialect", ["vllm", "llama-server", "lensmith"])
def test_a_logprob_that_is_null_is_not_told_and_the_others_are(tmp_path, dialect):
    report = audited(Masked(fake(WHOLE), dialect=dialect), tmp_path)
    assert report.width == WIDTH
    assert finding(report, "LEAK-P1") is not None


class Locking(FakeServer):
    """Answers so many requests and then no longer, in whatever words."""

    def __init__(self, endpoint, requests, error):
        super().__init__(endpoint, dialect="vllm")
        self.left, self.error = requests, error

    def read(self, kind, body):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().read(kind, body)


@pytest.mark.parametrize("requests", [2, 10, 30])
def test_a_server_that_refuses_all_from_some_moment_on_is_not_clean(tmp_path, requests):
    report = audited(Locking(fake(CLOSED), requests, WireError("no more of you")), tmp_path)
    assert report.verdict is Verdict.COULD_NOT_TELL
    assert any("no longer answers" in sentence for sentence in report.unresolved)


def test_a_key_that_ends_is_not_clean_and_one_that_is_mended_goes_on(tmp_path):
    server = FakeServer(fake(WHOLE), dialect="vllm", api_key="right")
    with server as url:
        config = AuditConfig(session=session_in(tmp_path / "audit", max_queries=400, target=url))
        with HttpClient(url, "fake", dialect=server.dialect) as client, pytest.raises(AccessError, match="API key"):
            audit(client, config)
        with HttpClient(url, "fake", dialect=server.dialect, api_key="right") as client:
            assert audit(client, config, texts=client.vocabulary).width == WIDTH
    server = Expiring(fake(WHOLE), dialect="vllm", api_key="right")
    with server as url, HttpClient(url, "fake", dialect=server.dialect, api_key="right") as client:
        report = audit(
            client, replace(config, session=replace(config.session, target=url, folder=tmp_path / "expired"))
        )
    assert report.verdict is Verdict.COULD_NOT_TELL


class Expiring(FakeServer):
    """Its key is another one after three answers."""

    answered = 0

    def answer(self, wires):
        self.answered += 1
        self.api_key = "right" if self.answered < 3 else "another"
        return super().answer(wires)


class Wordless(FakeServer):
    """Keeps to itself what it answers, as a gateway that counts tokens only."""

    def write(self, wires, answers):
        body = super().write(wires, answers)
        for choice in body["choices"]:
            choice.update({"message": {"role": "assistant", "content": None}} if "message" in choice else {"text": ""})
        return body


def test_answers_that_show_nothing_show_no_bias_either(tmp_path):
    steered = replace(Exposure(), top_logprobs=0, sampled_logprob=Sampled.HIDDEN)
    report = audited(Wordless(fake(steered), dialect="compatible"), tmp_path)
    assert report.verdict is Verdict.COULD_NOT_TELL
    assert any("cannot be seen" in sentence for sentence in report.unresolved)


class OneRoute(FakeServer):
    """A gateway that filters one route and forgets the other."""

    def __init__(self, endpoint, filtered, dialect="vllm"):
        super().__init__(endpoint, dialect=dialect)
        self.filtered = filtered

    def read(self, kind, body):
        if kind is self.filtered:
            for field in ("logprobs", "logit_bias", "allowed_token_ids", "logprob_token_ids", "echo"):
                if body.get(field) not in (None, False):
                    raise WireError(f"{field} is not allowed here", param=field)
        return super().read(kind, body)


@pytest.mark.parametrize("filtered", Kind)
def test_both_routes_are_audited(tmp_path, filtered):
    report = audited(OneRoute(fake(Exposure.everything()), filtered), tmp_path)
    assert report.width == WIDTH
    assert {"LEAK-P1", "WIDTH", "LAYER"} <= {each.code for each in report.findings}


class Mixed(OneRoute):
    """All open but the vocabulary's logprobs, which only completions tell; chat tells chosen ids besides."""

    def read(self, kind, body):
        if kind is Kind.COMPLETION and (body.get("logprob_token_ids") or body.get("logit_bias")):
            raise WireError("logprob_token_ids is not allowed here", param="logprob_token_ids")
        if kind is Kind.CHAT and (body.get("top_logprobs") == -1 or body.get("logit_bias")):
            raise WireError("top_logprobs is not allowed here", param="top_logprobs")
        return FakeServer.read(self, kind, body)


def test_what_only_the_other_route_gives_away_is_found_and_said(tmp_path):
    exposure = replace(CLOSED, top_logprobs=None, wanted_ids=16)
    report = audited(Mixed(fake(exposure), None), tmp_path)
    assert report.width == WIDTH
    assert finding(report, "LEAK-P1").title.endswith("vocabulary")
    assert finding(report, "LEAK-P2").title.endswith("asked by chat")
    assert "whole_is" in finding(report, "LEAK-P2").evidence


class BrokenChat(FakeServer):
    """Chat fails, and nobody knows what it would tell."""

    def read(self, kind, body):
        if kind is Kind.CHAT:
            raise MalformedAnswerError("it has no words")
        return super().read(kind, body)


def test_a_route_that_fails_leaves_it_open_and_one_that_is_not_there_does_not(tmp_path):
    report = audited(BrokenChat(fake(CLOSED), dialect="vllm"), tmp_path / "broken")
    assert report.verdict is Verdict.COULD_NOT_TELL
    assert any(sentence.startswith("the probe: chat: ") for sentence in report.unresolved)
    assert audited(BrokenChat(fake(WHOLE), dialect="vllm"), tmp_path / "open").width == WIDTH

    class NoChat(FakeEndpoint):
        def answer(self, requests):
            if any(request.messages for request in requests):
                raise WireError("no chat here")
            return super().answer(requests)

    no_chat = NoChat(vocabulary=VOCABULARY, width=WIDTH, seed=3, exposes=CLOSED)
    assert audited(FakeServer(no_chat, dialect="vllm"), tmp_path / "none").verdict is Verdict.CLEAN
