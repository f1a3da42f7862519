"""The attack on the interface that it was published for: token texts come back, a bias is taken by id."""

from dataclasses import replace

import pytest

from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.meter import Budget
from lensmith.audit.querying.tokens import TokenBytes
from lensmith.audit.run import AuditConfig, audit
from lensmith.core.exposure import Exposure, Sampled, Taken
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.endpoints.http.client import HttpClient
from tests.support.fake_audits import finding
from tests.support.text_names import ByText

AFTER = Exposure(logprobs_taken=Taken.AFTER_BIAS)


def session_of(folder, url, *, max_queries=20_000, **options):
    budget = Budget(queries_per_s=None, max_queries=max_queries, max_tokens=None)
    return SessionConfig(target=url, model="fake", folder=folder / "audit", budget=budget, **options)


def audited(folder, exposure, *, width=24, vocabulary=120, read_outs=(ReadOut.P3,), **options):
    endpoint = ByText(vocabulary=vocabulary, width=width, seed=width, exposes=exposure)
    session = session_of(folder, "http://127.0.0.1:1/v1", **options)
    return audit(endpoint, AuditConfig(session=session, read_outs=read_outs), texts=endpoint.texts), endpoint


def audited_over_http(folder, exposure, *, width, vocabulary, read_outs=(), **options):
    endpoint = FakeEndpoint(vocabulary=vocabulary, width=width, seed=width, exposes=exposure)
    server = FakeServer(endpoint, dialect="compatible")
    with server as url, HttpClient(url, "fake", dialect=server.dialect) as client:
        config = AuditConfig(session=session_of(folder, url, **options), read_outs=read_outs)
        return audit(client, config, texts=client.vocabulary), endpoint


@pytest.mark.parametrize("top", [5, 20])
def test_the_width_is_exact_and_the_layer_is_read_too(tmp_path, top):
    exposure = replace(AFTER, top_logprobs=top)
    report, endpoint = audited(tmp_path, exposure, width=32)
    assert report.width == 32
    assert finding(report, "WIDTH").read_out is ReadOut.P3
    assert finding(report, "LAYER") is not None
    assert endpoint.queries <= report.spent.queries < 20_000


def test_a_tokenizer_saves_the_queries_that_names_take(tmp_path):
    exposure = replace(AFTER, top_logprobs=5)
    plain, endpoint = audited(tmp_path / "plain", exposure, width=32)
    tokens = TokenBytes(bytes_of={each: endpoint.tokens.data(each) for each in range(120)})
    given, _ = audited(tmp_path / "given", exposure, width=32, tokens=tokens)
    assert given.width == plain.width == 32
    assert given.spent.queries < plain.spent.queries - 30
    wrong = TokenBytes(bytes_of={each: endpoint.tokens.data(each - 1) for each in range(1, 120)})
    report, _ = audited(tmp_path / "wrong", exposure, tokens=wrong)
    assert report.width is None
    assert any("not that of the endpoint's model" in sentence for sentence in report.unresolved)


def test_greedy_answers_are_not_begun_where_the_budget_is_too_small_for_a_width(tmp_path):
    """Token texts, logprobs before the bias and nothing of a token outside the top: OpenAI's interface of today."""
    report, endpoint = audited_over_http(tmp_path, Exposure(), width=20, vocabulary=120)
    assert finding(report, "LEAK-P7") is not None
    assert endpoint.queries < 2_000
    (sentence,) = [each for each in report.unresolved if each.startswith("the width")]
    assert "not begun" in sentence and "--use-whole-budget" in sentence


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_greedy_answers_tell_a_small_width_where_the_budget_is_given_for_it(tmp_path):
    report, _ = audited(tmp_path, Exposure(), width=20, read_outs=(), use_whole_budget=True)
    assert (report.width or report.width_interval[0]) in (19, 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("exposure", "read_out"),
    [
        (replace(AFTER, top_logprobs=1), ReadOut.P6),
        (replace(Exposure(), sampled_logprob=Sampled.SHOWN), ReadOut.P4A),
    ],
    ids=["one top logprob", "the forced token's"],
)
def test_other_read_outs_need_no_ids_either(tmp_path, exposure, read_out):
    report, _ = audited_over_http(tmp_path, exposure, width=40, vocabulary=300)
    assert report.width == 40
    assert finding(report, "WIDTH").read_out is read_out


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("width", "top"), [(64, 5), (64, 20), (256, 20), (384, 5), (768, 20)])
def test_widths_of_real_models_are_exact_within_the_usual_budget(tmp_path, width, top):
    exposure = replace(AFTER, top_logprobs=top)
    report, _ = audited_over_http(tmp_path, exposure, width=width, vocabulary=2_000, read_outs=(ReadOut.P3,))
    assert report.width == width
    assert finding(report, "WIDTH").spent.queries <= 20_000
