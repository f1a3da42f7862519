"""What the demonstration's second chapter says of two audits."""

from lensmith.audit.findings.finding import AuditReport, Cost, Finding, FindingKind, ReadOut, Severity
from lensmith.workflows.demo.leaks import LeaksResult, leaks_chapter


def finding(title, severity):
    return Finding(kind=FindingKind.WIDTH, title=title, severity=severity, read_out=ReadOut.P1, was_read="")


def report(**values):
    common = {"target": "http://127.0.0.1:1/v1", "model": "tiny", "seed": 0, "started_at": "", "seconds": 1.0}
    spent = Cost(queries=1_234)
    return AuditReport(**common, threshold=Severity.MEDIUM, capabilities={}, spent=spent, **values)


def chapter(tmp_path):
    findings = (
        finding("a fact", Severity.LOW),
        finding("a read-out", Severity.MEDIUM),
        finding("the layer", Severity.CRITICAL),
    )
    result = LeaksResult(
        open_report=tmp_path / "leaks" / "open" / "report.html",
        guarded_report=tmp_path / "leaks" / "guarded" / "report.html",
        open=report(findings=findings, unresolved=(), width=320),
        guarded=report(findings=(), unresolved=(), width=None),
        true_width=320,
        same_page=True,
    )
    return result, leaks_chapter(result, tmp_path)


def test_the_worst_stands_first_and_what_does_not_count_is_left_out(tmp_path):
    result, told = chapter(tmp_path)
    _, open_row, guarded_row = told.rows
    assert open_row[1:4] == ["critical: the layer; medium: a read-out", "320", "1,234"]
    assert guarded_row[1:3] == ["clean", "not found"]
    assert "2 findings, width 320 (it is 320); behind the guard: clean, and it writes the same page" in str(result)


def test_links_lead_to_both_reports(tmp_path):
    _, told = chapter(tmp_path)
    links = [told.links[row[-1]] for row in told.rows[1:]]
    assert links == ["leaks/open/report.html", "leaks/guarded/report.html"]
