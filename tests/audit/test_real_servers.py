"""A real model behind a real server that is not ours: what it gives away, and what is left of that behind the guard."""

import os
import subprocess
import sys
import time

import httpx
import pytest

from benchmarks.real_models import llama_server, smollm2_gguf
from lensmith.audit.findings.finding import ReadOut, Verdict
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.meter import Budget
from lensmith.audit.run import AuditConfig
from lensmith.audit.weights.head import open_weights
from lensmith.core.errors import InputError
from lensmith.workflows.audit import audit_url

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
WIDTH = 576
SAFE = "top-logprobs=5,no-logit-bias,no-metadata"


@pytest.fixture(scope="module")
def server():
    try:
        with llama_server(smollm2_gguf()) as url:
            yield url
    except InputError as error:
        pytest.skip(f"THE REAL SERVER WAS NOT TESTED: {error}")


@pytest.fixture(scope="module")
def guarded(server):
    command = [sys.executable, "-m", "lensmith.cli", "guard", "--upstream", server, "--expose", SAFE, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert "guard on" in line, line
        yield line.split()[2]
        process.terminate()


def session(url, folder, **budget):
    return SessionConfig(target=url, folder=folder, budget=Budget(queries_per_s=10_000, **budget))


def test_the_width_is_found_exactly_and_the_forced_token_is_reported(server, tmp_path):
    report = audit_url(AuditConfig(session=session(server, tmp_path)))
    findings = {finding.code: finding for finding in report.findings}
    assert (report.width, report.verdict) == (WIDTH, Verdict.FINDINGS)
    assert findings["WIDTH"].read_out is ReadOut.P1
    assert "taken before the bias does not close this" in findings["LEAK-P4a"].was_read
    assert findings["LEAK-P4a"].whole.queries > 10_000_000
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "report.sarif").is_file()


def test_behind_the_guard_it_is_clean(guarded, tmp_path):
    report = audit_url(AuditConfig(session=session(guarded, tmp_path)))
    assert (report.width, report.verdict) == (None, Verdict.CLEAN)
    assert {finding.code for finding in report.findings} == set()


def test_chat_still_streams_through_the_guard(guarded):
    body = {"messages": [{"role": "user", "content": "Count from one to five."}], "max_tokens": 24, "stream": True}
    with httpx.stream("POST", f"{guarded}/chat/completions", json=body, timeout=120) as response:
        assert response.status_code == 200
        arrivals = [time.monotonic() for line in response.iter_lines() if line.startswith("data: {")]
    assert len(arrivals) >= 10
    assert arrivals[-1] - arrivals[0] > 0.05, "the pieces came one by one, not all at the end"


@pytest.fixture(scope="module")
def served():
    """SmolLM2 behind our own server, which tells all."""
    command = [sys.executable, "-m", "lensmith.cli", "serve", str(smollm2_gguf()), "--port", "0"]
    command += ["--expose", os.environ.get("LENSMITH_TEST_EXPOSE", "everything")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = ""
        while "serving at" not in line:
            line = process.stderr.readline()
            assert line, "the server ended"
        yield line.split()[-1]
        process.terminate()


@pytest.mark.parametrize("read_out", [ReadOut.P1, ReadOut.P2])
def test_the_same_model_behind_our_server(served, tmp_path, read_out):
    truth = open_weights(smollm2_gguf())
    report = audit_url(AuditConfig(session=session(served, tmp_path), read_outs=(read_out,), truth=truth))
    assert report.width == WIDTH
    assert report.spent.queries <= 20_000


def test_what_is_dear_is_bounded_and_priced(served, tmp_path):
    asked = session(served, tmp_path, max_queries=12_000)
    report = audit_url(AuditConfig(session=asked, read_outs=(ReadOut.P4A,)))
    leak = next(finding for finding in report.findings if finding.code == "LEAK-P4a")
    assert report.width is None
    assert leak.whole.extrapolated
    assert leak.whole.usd > 1
    assert any("at least" in line for line in report.unresolved)
