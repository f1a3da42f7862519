from xml.etree import ElementTree as Xml

import pytest

from lensmith.audit.findings.finding import Severity
from lensmith.audit.report.junit import as_junit
from tests.support.sample_report import HOSTILE, audit_report, clean_report, finding


def suite_of(report):
    root = Xml.fromstring(as_junit(report).encode())  # noqa: S314 - our own text
    assert root.tag == "testsuites"
    (suite,) = root
    return suite


def test_counts_are_those_of_the_cases():
    suite = suite_of(audit_report())
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == len(cases) == 4
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) == 2
    assert int(suite.get("errors")) == len(suite.findall("testcase/error")) == 1
    assert [case.get("classname").rpartition(".")[2] for case in cases] == ["WIDTH", "LEAK-P4a", "META", "UNRESOLVED"]
    assert "cure: Refuse `logit_bias`" in suite.find("testcase/failure").text
    assert {one.get("name"): one.get("value") for one in suite.findall("properties/property")}["verdict"] == "findings"


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (audit_report(), 1),
        (audit_report(threshold=Severity.CRITICAL), 3),
        (audit_report(threshold=Severity.CRITICAL, unresolved=()), 0),
        (clean_report(), 0),
    ],
)
def test_what_a_gate_reads_is_the_exit_status(report, code):
    suite = suite_of(report)
    read = 1 if int(suite.get("failures")) else 3 if int(suite.get("errors")) else 0
    assert read == code == report.verdict.exit_code
    assert int(suite.get("tests")) >= 1


def test_hostile_text_is_valid_xml():
    report = audit_report(model=HOSTILE, target=HOSTILE, unresolved=(HOSTILE,), findings=(finding(title=HOSTILE),))
    suite = suite_of(report)
    assert "<script>" in suite.get("name") and "\\x00" in suite.find("testcase").get("name")
