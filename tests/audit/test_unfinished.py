"""Audits that cannot have all: restricted, short of budget, of an endpoint that dies, or with files that do not fit."""

import json
from dataclasses import replace

import pytest

from lensmith.audit.findings.finding import ReadOut, Severity, Verdict
from lensmith.audit.querying.meter import Budget
from lensmith.audit.report.files import as_dict, as_text, write_report
from lensmith.audit.report.html import FIGURES
from lensmith.audit.run import AuditConfig, audit
from lensmith.audit.weights.head import open_weights
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.exposure import Exposure, Sampled
from lensmith.openai_api import EndpointError
from tests.support.fake_audits import EVERYTHING, WIDTH, audited, fake, finding, session_in, write_weights

FORCED = replace(Exposure(), sampled_logprob=Sampled.SHOWN)
"""A query tells one logit, that of a token which a bias forces."""


class Dying:
    """A fake that is gone after so many questions, for good."""

    def __init__(self, endpoint, questions):
        self._endpoint, self._left = endpoint, questions

    def answer(self, requests):
        self._left -= len(requests)
        if self._left < 0:
            raise EndpointError("the endpoint cannot be reached")
        return self._endpoint.answer(requests)

    def supports(self):
        return self._endpoint.supports()

    def metadata(self):
        return self._endpoint.metadata()


class BreaksOn(Dying):
    """A fake that fails on some questions and answers all others."""

    def __init__(self, endpoint, fails):
        super().__init__(endpoint, 10**9)
        self._fails = fails

    def answer(self, requests):
        if any(self._fails(request) for request in requests):
            raise EndpointError("the endpoint failed")
        return super().answer(requests)


def budgeted(endpoint, folder, **budget):
    unlimited = Budget(queries_per_s=None, max_queries=None, max_tokens=None)
    session = session_in(folder / "audit", budget=replace(unlimited, **budget))
    return audit(endpoint, AuditConfig(session=session))


def codes(report):
    return {found.code for found in report.findings}


# --- restricted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_out", [ReadOut.P0, ReadOut.P8, ReadOut.P9])
def test_a_read_out_that_tells_no_logits_cannot_be_all_that_is_tried(tmp_path, read_out):
    with pytest.raises(ConfigError, match="tells no logits"):
        audited(fake(), tmp_path, read_outs=(read_out,))
    assert not (tmp_path / "audit").exists()


def test_an_open_interface_is_not_clean_because_another_read_out_was_tried(tmp_path):
    report = audited(fake(), tmp_path, read_outs=(ReadOut.P3,))
    assert (report.verdict, report.findings) == (Verdict.COULD_NOT_TELL, ())
    untried = [sentence for sentence in report.unresolved if "only P3 was tried" in sentence]
    assert [sentence.split()[0] for sentence in untried] == ["P1", "P2", "P5", "P4a", "P4b", "P7"]
    assert "only P3 was tried" in as_text(report) and as_dict(report)["only_read_outs"] == ["P3"]


def test_a_restricted_audit_of_an_interface_that_is_otherwise_closed_is_clean_and_says_what_was_tried(tmp_path):
    report = audited(fake(Exposure.text_only()), tmp_path, read_outs=(ReadOut.P3, ReadOut.P7))
    assert report.verdict is Verdict.CLEAN
    assert as_text(report).startswith("Clean: nothing at or above medium (only P3 and P7 were tried)")


# --- short of budget ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "verdict", "found"),
    [
        ({"max_queries": 20}, Verdict.COULD_NOT_TELL, ()),
        ({"max_tokens": 500}, Verdict.COULD_NOT_TELL, ()),
        ({"max_queries": 120}, Verdict.FINDINGS, ("LEAK-P1",)),
        ({"max_queries": 300}, Verdict.FINDINGS, ("LEAK-P1", "WIDTH", "LAYER", "IMAGE")),
        ({"max_queries": 900}, Verdict.FINDINGS, ("LEAK-P1", "LEAK-P4a", "WIDTH", "LAYER", "IMAGE")),
    ],
    ids=str,
)
def test_a_spent_budget_ends_the_audit_and_not_the_report(tmp_path, budget, verdict, found):
    endpoint = fake()
    report = budgeted(endpoint, tmp_path, **budget)
    assert report.verdict is verdict and set(found) <= codes(report)
    assert any("budget" in sentence or "queries are left" in sentence for sentence in report.unresolved)
    assert endpoint.queries <= budget.get("max_queries", endpoint.queries)
    write_report(report, tmp_path / "audit")
    assert json.loads((tmp_path / "audit" / "report.json").read_text())["exit_code"] == verdict.exit_code


def test_the_next_run_with_a_larger_budget_goes_on_from_there(tmp_path):
    first, second = fake(), fake()
    budgeted(first, tmp_path, max_queries=20)
    report = budgeted(second, tmp_path, max_queries=300)
    whole = fake()
    budgeted(whole, tmp_path / "at-once", max_queries=300)
    assert report.width == WIDTH
    assert first.queries + second.queries <= whole.queries + 2


# --- an endpoint that dies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("questions", "found"),
    [
        (20, set()),
        (120, {"LEAK-P1"}),
        (300, ("LEAK-P1", "WIDTH", "LAYER", "IMAGE")),
        (1_300, {"LEAK-P1", "LEAK-P7", "WIDTH", "LAYER", "IMAGE"}),
    ],
)
def test_an_endpoint_that_dies_in_the_middle_leaves_a_report(tmp_path, questions, found):
    report = budgeted(Dying(fake(), questions), tmp_path)
    assert set(found) <= codes(report) and "ROTATION" not in codes(report)
    assert report.verdict is (Verdict.FINDINGS if found else Verdict.COULD_NOT_TELL)
    assert any("cannot be reached" in sentence for sentence in report.unresolved)


def test_an_endpoint_that_breaks_on_one_kind_of_question_is_audited_through_the_others(tmp_path):
    breaks = BreaksOn(fake(), lambda request: len(request.wanted_ids) > 8 and request.seed is not None)
    report = budgeted(breaks, tmp_path, max_queries=900)
    assert any(sentence.startswith("P2") and "failed" in sentence for sentence in report.unresolved)
    assert {"LEAK-P1", "WIDTH", "LEAK-P5"} <= codes(report) and "LEAK-P2" not in codes(report)


# --- files that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["out", "out/inner"])
def test_a_folder_that_is_a_file_is_refused_in_words(tmp_path, place):
    (tmp_path / "out").write_text("a file")
    config = AuditConfig(session=session_in(tmp_path / place))
    with pytest.raises(ConfigError, match="cannot hold an audit"):
        audit(fake(), config)


def test_a_folder_whose_log_is_a_folder_is_refused_in_words(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(ConfigError, match="cannot hold a log"):
        audit(fake(), AuditConfig(session=session_in(tmp_path)))


@pytest.mark.parametrize("content", [None, b"\x05\0\0\0\0\0\0\0{}"], ids=["missing", "broken"])
def test_weights_that_cannot_be_read_are_refused_before_the_first_question(tmp_path, content):
    file, endpoint = tmp_path / "truth.safetensors", fake()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"truth\.safetensors"):
        audited(endpoint, tmp_path, truth=open_weights(file))
    assert endpoint.queries == 0 and not (tmp_path / "audit").exists()


@pytest.mark.parametrize("switches", [{"width": 48}, {"seed": 4}, {"vocabulary": 128}], ids=str)
def test_another_models_weights_are_said_to_be_so_and_hide_no_finding(tmp_path, switches):
    other = fake(**switches).truth
    truth = write_weights(
        tmp_path / "other.safetensors", lm_head__weight=other.head_VH, model__norm__weight=other.gain_H
    )
    report = audited(fake(), tmp_path, truth=open_weights(truth))
    assert any("the weights given are not this model's" in sentence for sentence in report.unresolved)
    assert finding(report, "LAYER").severity is Severity.CRITICAL
    assert "Not scored" in finding(report, "LAYER").was_read
    assert "error_up_to_rotation" not in finding(report, "ROTATION").evidence


def test_a_models_own_weights_are_not_called_anothers(tmp_path):
    endpoint = fake(replace(EVERYTHING, decimals=0))
    truth = write_weights(tmp_path / "own.safetensors", lm_head__weight=endpoint.truth.head_VH)
    report = audited(endpoint, tmp_path, truth=open_weights(truth))
    assert not any("not this model's" in sentence for sentence in report.unresolved)


# --- prices ---------------------------------------------------------------------------------------------------------


def test_what_was_paid_beats_what_was_worked_out_and_every_figure_has_a_name(tmp_path):
    report = audited(fake(), tmp_path)
    assert {key for found in report.findings for key in found.evidence} <= {*FIGURES}
    assert finding(report, "LEAK-P1").whole == finding(report, "LAYER").whole
    assert not finding(report, "LEAK-P1").whole.extrapolated


def test_the_whole_layer_is_worked_out_from_what_the_width_took(tmp_path):
    report = budgeted(fake(FORCED), tmp_path, max_queries=8_000)
    width, leak = finding(report, "WIDTH"), finding(report, "LEAK-P4a")
    assert "LAYER" not in codes(report) and leak.whole.extrapolated
    a_logit = width.spent.queries / (width.evidence["contexts"] * width.evidence["tokens"])
    contexts = int(leak.evidence["whole_is"].split(", ")[1].split()[0])
    assert leak.whole.queries == pytest.approx(a_logit * contexts * 256, rel=0.1)


def test_what_the_metadata_says_cost_a_query_once(tmp_path):
    talkative = {"exposure": replace(Exposure.text_only(), metadata=True), "metadata": {"n_embd": WIDTH}}
    first = audited(fake(**talkative), tmp_path)
    again = audited(fake(**talkative), tmp_path)
    assert finding(first, "META").spent.queries == 1
    assert again.spent.queries == first.spent.queries
