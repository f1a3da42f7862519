"""An audit's results as files: JSON for programs, one HTML page for people, JUnit and SARIF for machines that gate.

All four say the same, and all are written whole or not at all. Foreign text (names of models, answers of servers) is
made visible and escaped before it stands anywhere; addresses lose user names, passwords and queries.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.audit.findings import wording
from lensmith.audit.findings.finding import AuditReport, Cost, Finding
from lensmith.audit.findings.wording import (
    by_severity,
    headline,
    one_cure,
    one_retest,
    only_tried,
    public_target,
    visible,
    width_note,
    width_text,
)
from lensmith.audit.report.html import as_html
from lensmith.audit.report.junit import as_junit
from lensmith.audit.report.sarif import as_sarif
from lensmith.core.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where the parts of a report were written."""

    json: Path
    html: Path
    junit: Path
    sarif: Path


def write_report(report: AuditReport, folder: Path) -> ReportFiles:
    """Writes `report.json`, `report.html`, `report.junit.xml` and `report.sarif` into `folder`, over older ones."""
    files = ReportFiles(
        json=folder / "report.json",
        html=folder / "report.html",
        junit=folder / "report.junit.xml",
        sarif=folder / "report.sarif",
    )
    texts = {
        files.json: as_json(report),
        files.html: as_html(report),
        files.junit: as_junit(report),
        files.sarif: as_sarif(report),
    }
    for path, text in texts.items():
        write_atomic(path, text)
    return files


def as_json(report: AuditReport) -> str:
    """The report as JSON, keys in a fixed order; numbers that JSON does not have (NaN, infinity) become null."""
    return json.dumps(as_dict(report), indent=2, allow_nan=False) + "\n"


def as_dict(report: AuditReport) -> dict[str, Any]:
    """The report in JSON's types. `schema_version` changes when a reader of the old form would misread the new one."""
    return {
        "schema_version": report.schema_version,
        "target": public_target(report.target),
        "model": report.model,
        "seed": report.seed,
        "started_at": report.started_at,
        "seconds": report.seconds,
        "verdict": report.verdict.value,
        "exit_code": report.verdict.exit_code,
        "threshold": report.threshold.name.lower(),
        "width": report.width,
        "width_interval": None if report.width_interval is None else list(report.width_interval),
        "width_note": report.width_note,
        "spent": _cost_dict(report.spent),
        "only_read_outs": [read_out.value for read_out in report.only_read_outs],
        "one_cure": one_cure(report),
        "findings": [_finding_dict(finding) for finding in by_severity(report)],
        "unresolved": list(report.unresolved),
        "capabilities": _plain(report.capabilities),
        "singular_values": _plain(report.singular_values),
    }


def as_text(report: AuditReport) -> str:
    """The report for a terminal: the verdict, one paragraph a finding, and what stayed open. No colours."""
    lines = [headline(report), f"  {public_target(report.target)}  {visible(report.model)}"]
    lines += [f"  {only_tried(report.only_read_outs)}"] if report.only_read_outs else []
    lines += [f"  width: {width_text(report)}{width_note(report)}", f"  spent: {wording.cost(report.spent)}"]
    if one_cure(report):
        lines.append(f"  closes all of it: {one_cure(report)}")
    retest = one_retest(report)
    lines += [f"  test again: {retest}"] if retest else []
    for finding in by_severity(report):
        lines += ["", *_finding_lines(finding, report, has_retest=not retest)]
    if report.unresolved:
        lines += ["", "could not be told:", *(f"  - {visible(sentence)}" for sentence in report.unresolved)]
    return "\n".join(lines)


def _finding_lines(finding: Finding, report: AuditReport, *, has_retest: bool) -> list[str]:
    mark = "!" if finding.severity >= report.threshold else "-"
    lines = [
        f"{mark} {finding.severity.name.lower()}: {visible(finding.title)} [{finding.read_out.value}] ({finding.code})"
    ]
    lines += [f"    {visible(finding.was_read)}", f"    spent:  {wording.cost(finding.spent)}"]
    lines += [f"    whole:  {wording.cost(finding.whole)}"] if finding.whole else []
    lines += [f"    cure:   {visible(finding.cure)}"] if finding.cure else []
    lines += [f"    retest: {visible(finding.retest)}"] if finding.retest and has_retest else []
    return lines


def _finding_dict(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "title": finding.title,
        "severity": finding.severity.name.lower(),
        "read_out": finding.read_out.value,
        "was_read": finding.was_read,
        "evidence": _plain(finding.evidence),
        "spent": _cost_dict(finding.spent),
        "whole": None if finding.whole is None else _cost_dict(finding.whole),
        "cure": finding.cure,
        "retest": finding.retest,
    }


def _cost_dict(cost: Cost) -> dict[str, Any]:
    return {**vars(cost), "seconds": round(cost.seconds, 6), "usd": round(cost.usd, 6)}


def _plain(value: Any) -> Any:
    """In JSON's types: keys sorted, tuples and arrays as lists, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
