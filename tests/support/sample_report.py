"""One report with a finding of each kind, and variations of it."""

from typing import Any

from lensmith.audit.findings.finding import AuditReport, Cost, Finding, FindingKind, ReadOut, Severity

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202egnp.exe\ud800]]>\x00"


def finding(**changes: Any) -> Finding:
    values: dict[str, Any] = {
        "kind": FindingKind.LEAK,
        "title": "A forced token's true logprob is told",
        "severity": Severity.MEDIUM,
        "read_out": ReadOut.P4A,
        "was_read": "Token 81 came back as -14.03.",
        "evidence": {"token": 81, "told": -14.03},
        "spent": Cost(queries=64, tokens=640, seconds=3.0, usd=0.01),
        "whole": Cost(queries=42_000_000, tokens=420_000_000, seconds=2e6, usd=420.0, extrapolated=True),
        "cure": "Refuse `logit_bias` together with logprobs.",
        "retest": "lensmith audit URL --read-out P4a",
    }
    return Finding(**{**values, **changes})


def audit_report(**changes: Any) -> AuditReport:
    """Two findings at or above the threshold, one below, one open question, a width of 8."""
    values: dict[str, Any] = {
        "target": "http://127.0.0.1:8080/v1",
        "model": "tiny",
        "seed": 7,
        "started_at": "2026-01-02T03:04:05+00:00",
        "seconds": 12.5,
        "threshold": Severity.MEDIUM,
        "capabilities": {"top_logprobs": 20, "read_outs": ["P4a", "P8"], "notes": {"echo": "refused"}},
        "findings": (
            finding(
                kind=FindingKind.METADATA,
                title="Metadata tells the size",
                severity=Severity.LOW,
                read_out=ReadOut.P0,
                whole=None,
            ),
            finding(),
            finding(kind=FindingKind.WIDTH, title="The width is 8", severity=Severity.HIGH, read_out=ReadOut.P1),
        ),
        "unresolved": ("Whether an allow-list is honoured.",),
        "width": 8,
        "singular_values": tuple([2.0**-place for place in range(8)] + [1e-6 * 0.9**place for place in range(12)]),
        "spent": Cost(queries=130, tokens=1300, seconds=6.0, usd=0.02),
    }
    return AuditReport(**{**values, **changes})


def clean_report(**changes: Any) -> AuditReport:
    return audit_report(**{"findings": (), "unresolved": (), "width": None, "singular_values": (), **changes})
