"""An audit as JUnit XML, so that a CI system shows it beside the tests.

One test case for each finding, which fails at or above the threshold, and one for each question that stayed open, which
is an error. So the file says what the exit status says: a failure is 1, else an error is 3, else all passed: 0.
"""

from xml.etree import ElementTree as Xml

from lensmith.audit.findings.finding import AuditReport, Finding
from lensmith.audit.findings.wording import by_severity, cost, public_target, visible

SUITE = "lensmith audit"


def as_junit(report: AuditReport) -> str:
    """The report as JUnit XML, UTF-8, with its declaration."""
    failures = sum(finding.severity >= report.threshold for finding in report.findings)
    cases = len(report.findings) + len(report.unresolved)
    totals = {
        "tests": str(max(1, cases)),
        "failures": str(failures),
        "errors": str(len(report.unresolved)),
        "time": f"{report.seconds:.3f}",
    }
    root = Xml.Element("testsuites", {"name": SUITE, **totals})
    names = {"name": f"{SUITE}: {visible(report.model)}", "skipped": "0", "timestamp": visible(report.started_at)}
    suite = Xml.SubElement(root, "testsuite", {**names, **totals})
    _add_properties(suite, report)
    for finding in by_severity(report):
        _add_finding(suite, finding, report)
    for number, sentence in enumerate(report.unresolved, 1):
        case = _add_case(suite, "UNRESOLVED", f"unresolved {number}", 0.0)
        error = Xml.SubElement(case, "error", {"message": visible(sentence), "type": "unresolved"})
        error.text = visible(sentence)
    if not cases:
        _add_case(suite, "AUDIT", "nothing found", report.seconds)
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def _add_properties(suite: Xml.Element, report: AuditReport) -> None:
    properties = Xml.SubElement(suite, "properties")
    values = {
        "target": public_target(report.target),
        "model": visible(report.model),
        "seed": str(report.seed),
        "threshold": report.threshold.name.lower(),
        "verdict": report.verdict.value,
        "exit_code": str(report.verdict.exit_code),
        "width": "unresolved" if report.width is None else str(report.width),
        "queries": str(report.spent.queries),
    }
    for name, value in values.items():
        Xml.SubElement(properties, "property", {"name": name, "value": value})


def _add_finding(suite: Xml.Element, finding: Finding, report: AuditReport) -> None:
    name = f"{finding.severity.name.lower()}: {visible(finding.title)} ({finding.read_out.value})"
    case = _add_case(suite, finding.code, name, finding.spent.seconds)
    if finding.severity >= report.threshold:
        message = {"message": visible(finding.was_read), "type": finding.code}
        Xml.SubElement(case, "failure", message).text = _details(finding)
    else:
        Xml.SubElement(case, "system-out").text = _details(finding)


def _add_case(suite: Xml.Element, code: str, name: str, seconds: float) -> Xml.Element:
    return Xml.SubElement(
        suite, "testcase", {"classname": f"lensmith.audit.{code}", "name": name, "time": f"{seconds:.3f}"}
    )


def _details(finding: Finding) -> str:
    lines = [
        visible(finding.was_read),
        f"spent: {cost(finding.spent)}",
        f"the whole attack: {cost(finding.whole)}" if finding.whole else "",
        f"cure: {visible(finding.cure)}" if finding.cure else "",
        f"test again: {visible(finding.retest)}" if finding.retest else "",
    ]
    return "\n".join(line for line in lines if line)
