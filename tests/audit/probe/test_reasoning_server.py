"""A server with a reasoning parser: the first tokens come beside the answer, and a bias that steers them is seen."""

from dataclasses import replace

import pytest

from lensmith.audit.findings.finding import ReadOut, Verdict
from lensmith.audit.run import AuditConfig
from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure, Sampled
from lensmith.core.types import Message
from lensmith.endpoints.fake.server import FakeServer
from lensmith.endpoints.http.client import connect
from lensmith.openai_api import Kind, WireError
from lensmith.workflows.audit import audit_url
from tests.support.fake_audits import fake, session_in

_BIAS_ONLY = replace(Exposure(), top_logprobs=0, sampled_logprob=Sampled.HIDDEN)


class _Thinking(FakeServer):
    """Chat only; all that it writes is still thought aloud."""

    def __init__(self, *given, name, **options):
        super().__init__(*given, **options)
        self._name = name

    def read(self, kind, body):
        if kind is not Kind.CHAT:
            raise WireError("completions are off", param="prompt")
        return super().read(kind, body)

    def write(self, wires, answers):
        body = super().write(wires, answers)
        for choice in body["choices"]:
            message = choice["message"]
            message[self._name], message["content"] = message["content"], None
        return body


def _audited(exposure, name, folder):
    with _Thinking(fake(exposure), name=name, dialect="sglang") as url:
        return audit_url(AuditConfig(session=session_in(folder, target=url, max_queries=120)))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_bias_that_steers_the_thoughts_is_no_clean_interface(tmp_path, name):
    report = _audited(_BIAS_ONLY, name, tmp_path)
    assert ReadOut.P7.value in report.capabilities["read_outs"]
    assert report.verdict is not Verdict.CLEAN


def test_thoughts_that_no_bias_steers_are(tmp_path):
    report = _audited(Exposure.text_only(), "reasoning_content", tmp_path)
    assert ReadOut.P7.value not in report.capabilities["read_outs"]
    assert report.verdict is Verdict.CLEAN


def test_thoughts_are_not_shown_as_the_answer():
    request = Request(messages=(Message(role="user", parts=("a",)),), max_tokens=3)
    with _Thinking(fake(), name="reasoning_content", dialect="vllm") as url, connect(url, "fake") as client:
        choice = client.answer([request])[0].choices[0]
    assert choice.text == ""
    assert choice.reasoning
