"""The attack on the interface that it was published for: token texts come back, a bias is taken by id."""

import re
from dataclasses import replace

import pytest

from lensmith.audit.findings.finding import ReadOut, Verdict
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.meter import Budget
from lensmith.audit.querying.tokens import TokenBytes
from lensmith.audit.run import AuditConfig, audit
from lensmith.core.exposure import Exposure, Sampled, Taken
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.endpoints.http.client import HttpClient
from tests.support.fake_audits import finding
from tests.support.text_names import ByText, TextPrompts

AFTER = Exposure(logprobs_taken=Taken.AFTER_BIAS)
ECHO = replace(Exposure.text_only(), echo=True, sampled_logprob=Sampled.SHOWN)
SWITCHES = ("vocabulary", "width", "anisotropy")


def session_of(folder, url, *, max_queries=20_000, **options):
    budget = Budget(queries_per_s=None, max_queries=max_queries, max_tokens=None)
    return SessionConfig(target=url, model="fake", folder=folder / "audit", budget=budget, **options)


def audited(folder, exposure, *, kind=ByText, read_outs=(ReadOut.P3,), **options):
    switches = {"vocabulary": 120, "width": 24} | {name: options.pop(name) for name in SWITCHES if name in options}
    endpoint = kind(seed=switches["width"], exposes=exposure, **switches)
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


def tokenizer_of(endpoint, spelled=lambda data: data):
    return TokenBytes(bytes_of={each: spelled(endpoint.tokens.data(each)) for each in range(len(endpoint.tokens))})


def test_with_a_tokenizer_an_echo_is_read_where_prompts_are_text(tmp_path):
    options = {"kind": TextPrompts, "read_outs": (ReadOut.P5,), "max_queries": 500}
    plain, endpoint = audited(tmp_path / "plain", ECHO, **options)
    assert "prompts are text" in finding(plain, "LEAK-P5").was_read
    given, _ = audited(tmp_path / "given", ECHO, tokens=tokenizer_of(endpoint), **options)
    assert finding(given, "LEAK-P5").evidence["logits"] >= 60
    others = tokenizer_of(endpoint, lambda data: b" of another" + data)
    wrong, _ = audited(tmp_path / "wrong", ECHO, tokens=others, **options)
    assert finding(wrong, "LEAK-P5") is None and wrong.verdict is Verdict.COULD_NOT_TELL


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_a_tokenizer_an_echo_tells_the_width(tmp_path):
    endpoint = TextPrompts(vocabulary=120, width=32)
    options = {"kind": TextPrompts, "width": 32, "read_outs": (ReadOut.P5,), "max_queries": 6_000}
    report, _ = audited(tmp_path, ECHO, tokens=tokenizer_of(endpoint), **options)
    assert report.width == 32 and finding(report, "WIDTH").read_out is ReadOut.P5


def test_greedy_answers_are_not_begun_where_the_budget_is_too_small_for_a_width(tmp_path):
    """Token texts, logprobs before the bias and nothing of a token outside the top: OpenAI's interface of today."""
    report, endpoint = audited_over_http(tmp_path, Exposure(), width=20, vocabulary=120, max_queries=3_000)
    assert finding(report, "LEAK-P7") is not None
    assert endpoint.queries < 1_500
    (sentence,) = [each for each in report.unresolved if each.startswith("the width")]
    assert "more queries" in sentence


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("width", "max_queries"), [(16, 20_000), (32, 30_000), (48, 30_000)])
def test_greedy_answers_tell_what_the_budget_reaches(tmp_path, width, max_queries):
    report, _ = audited(tmp_path, Exposure(), width=width, read_outs=(), max_queries=max_queries)
    assert report.width == width or report.width_interval in ((width, width + 1), (width - 1, width))
    assert report.spent.queries <= max_queries


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("use_whole_budget", [False, True])
def test_greedy_answers_of_a_wide_model_end_early_unless_told_otherwise(tmp_path, use_whole_budget):
    switches = {"width": 184, "vocabulary": 400}
    report, endpoint = audited(tmp_path, Exposure(), read_outs=(), use_whole_budget=use_whole_budget, **switches)
    (sentence,) = [each for each in report.unresolved if each.startswith("the width")]
    assert report.width is None and "at least" in sentence
    assert ("--use-whole-budget" in sentence) is not use_whole_budget
    assert (endpoint.queries > 13_000) if use_whole_budget else (endpoint.queries < 11_000)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed_of_audit", [0, 1])
def test_errors_of_the_greedy_search_prove_no_width(tmp_path, seed_of_audit):
    """Of this model's outputs the last directions are no larger than what a search of greedy answers errs by, the same
    way each time it is repeated; they were taken for the model's, and "at least 63" for proven."""
    exposure = replace(AFTER, top_logprobs=20)
    switches = {"width": 48, "vocabulary": 1_500, "anisotropy": 2.0}
    report, _ = audited(
        tmp_path, exposure, read_outs=(ReadOut.P7,), use_whole_budget=True, seed=seed_of_audit, **switches
    )
    (sentence,) = [each for each in report.unresolved if each.startswith("the width")]
    assert report.width in (None, 48)
    assert 30 <= int(re.search(r"at least (\d+) is proven", sentence)[1]) <= 48


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
