import json
import re

import pytest

from lensmith.audit.findings.finding import ReadOut, Severity
from lensmith.audit.report.sarif import UNRESOLVED, as_sarif
from tests.support.sample_report import HOSTILE, audit_report, clean_report, finding


def run_of(report):
    log = json.loads(as_sarif(report))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    assert set(log) == {"$schema", "version", "runs"}
    (run,) = log["runs"]
    return run


@pytest.mark.parametrize("report", [audit_report(), clean_report(), audit_report(model=HOSTILE, target=HOSTILE)])
def test_the_structure_is_that_of_the_standard(report):
    """The constraints of the published schema on the objects that are used; all indices point at what they name."""
    run = run_of(report)
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", rule["name"]) for rule in rules)
    for result in run["results"]:
        assert result["kind"] in {"fail", "open", "informational"}
        assert result["level"] in {"none", "note", "warning", "error"}
        # 3.27.10: a kind other than "fail" has the level "none"
        assert (result["level"] == "none") == (result["kind"] != "fail")
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        (location,) = result["locations"]
        uri = location["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=%._~-]+", uri)
    for rule in rules:
        for relation in rule.get("relationships", ()):
            taxonomy = run["taxonomies"][relation["target"]["toolComponent"]["index"]]
            assert taxonomy["name"] == relation["target"]["toolComponent"]["name"]
            assert taxonomy["taxa"][relation["target"]["index"]]["id"] == relation["target"]["id"]
    for supported in run["tool"]["driver"]["supportedTaxonomies"]:
        assert run["taxonomies"][supported["index"]]["name"] == supported["name"]


def test_findings_are_mapped_to_owasp_and_atlas():
    run = run_of(audit_report())
    taxa = {taxon["id"] for taxonomy in run["taxonomies"] for taxon in taxonomy["taxa"]}
    assert taxa == {"LLM10:2025", "AML.T0024.002"}
    for rule in run["tool"]["driver"]["rules"]:
        if rule["id"] != UNRESOLVED:
            assert {relation["target"]["id"] for relation in rule["relationships"]} == taxa


def test_severities_become_levels_and_scores():
    read_outs = (ReadOut.P1, ReadOut.P2, ReadOut.P3, ReadOut.P5, ReadOut.P7)
    findings = tuple(
        finding(read_out=read_out, severity=severity) for read_out, severity in zip(read_outs, Severity, strict=True)
    )
    run = run_of(audit_report(findings=findings, unresolved=()))
    levels = {result["ruleId"]: (result["kind"], result["level"]) for result in run["results"]}
    assert levels == {
        "LEAK-P1": ("informational", "none"),
        "LEAK-P2": ("fail", "note"),
        "LEAK-P3": ("fail", "warning"),
        "LEAK-P5": ("fail", "error"),
        "LEAK-P7": ("fail", "error"),
    }
    scores = [float(rule["properties"]["security-severity"]) for rule in run["tool"]["driver"]["rules"]]
    assert len(set(scores)) == 5


def test_an_open_question_is_neither_a_failure_nor_a_pass():
    run = run_of(clean_report(unresolved=("Whether it leaks.",)))
    (result,) = run["results"]
    assert result["kind"] == "open" and result["ruleId"] == UNRESOLVED
    assert run["invocations"][0]["exitCode"] == 3
    assert run_of(clean_report())["results"] == []


def test_fingerprints_tell_findings_apart_and_last_over_runs():
    def prints(report):
        return [
            result["partialFingerprints"]["finding/v1"]
            for result in run_of(report)["results"]
            if result["kind"] == "fail"
        ]

    first, later = audit_report(), audit_report(started_at="2026-05-01T00:00:00+00:00", seconds=1.0, seed=9)
    assert prints(first) == prints(later) and len(set(prints(first))) == 3
    assert set(prints(first)).isdisjoint(prints(audit_report(model="another")))


def test_times_are_utc_and_an_unreadable_one_is_left_out():
    invocation = run_of(audit_report(started_at="2026-01-02T05:04:05+02:00"))["invocations"][0]
    assert invocation["startTimeUtc"] == "2026-01-02T03:04:05.000Z"
    assert invocation["endTimeUtc"] == "2026-01-02T03:04:17.500Z"
    assert "startTimeUtc" not in run_of(audit_report(started_at="yesterday"))["invocations"][0]
