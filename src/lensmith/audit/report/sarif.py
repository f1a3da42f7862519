"""An audit as SARIF 2.1.0, which code hosts and security dashboards read.

Findings are results of kind `fail` (those that only note a capability are `informational`), what stayed open is of kind
`open`. Rules are mapped to OWASP LLM10:2025 "Unbounded Consumption", which lists model extraction through an API and
advises to limit logits and logprobs, and to MITRE ATLAS AML.T0024.002 "Extract AI Model".
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import lensmith
from lensmith.audit.findings.finding import AuditReport, Finding, Severity
from lensmith.audit.findings.wording import by_severity, cost, public_target, visible
from lensmith.core.files import sha256_of_bytes

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
UNRESOLVED = "UNRESOLVED"

_LEVELS = {
    Severity.INFO: "none",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
_SCORES = {
    Severity.INFO: "0.0",
    Severity.LOW: "2.0",
    Severity.MEDIUM: "5.0",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
}
"""What code hosts sort by (`security-severity`); their bands are low, medium, high and critical."""

_TAXONOMIES: tuple[dict[str, Any], ...] = (
    {
        "name": "OWASP Top 10 for LLM Applications",
        "version": "2025",
        "organization": "OWASP",
        "informationUri": "https://genai.owasp.org/llm-top-10/",
        "shortDescription": {"text": "The ten most critical risks of applications of large language models."},
        "taxa": [
            {
                "id": "LLM10:2025",
                "name": "UnboundedConsumption",
                "shortDescription": {"text": "Unbounded Consumption, which includes model extraction through an API."},
                "helpUri": "https://genai.owasp.org/llmrisk/llm102025-unbounded-consumption/",
            }
        ],
    },
    {
        "name": "MITRE ATLAS",
        "organization": "MITRE",
        "informationUri": "https://atlas.mitre.org/",
        "shortDescription": {"text": "Adversary tactics and techniques against systems that use AI."},
        "taxa": [
            {
                "id": "AML.T0024.002",
                "name": "ExtractAIModel",
                "shortDescription": {"text": "Extract AI Model, of Exfiltration via AI Inference API."},
                "helpUri": "https://atlas.mitre.org/techniques/AML.T0024.002",
            }
        ],
    },
)


def as_sarif(report: AuditReport) -> str:
    """The report as SARIF 2.1.0 JSON."""
    codes = sorted({finding.code for finding in report.findings})
    rules = [_rule(code, [one for one in report.findings if one.code == code]) for code in codes]
    if report.unresolved:
        rules.append(_unresolved_rule())
    order = {rule["id"]: index for index, rule in enumerate(rules)}
    results = [_result(finding, order[finding.code], report) for finding in by_severity(report)]
    results += [_open_result(sentence, order[UNRESOLVED], report) for sentence in report.unresolved]
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "lensmith audit",
                "version": lensmith.__version__,
                "semanticVersion": lensmith.__version__,
                "rules": rules,
                "supportedTaxonomies": [
                    {"name": taxonomy["name"], "index": index} for index, taxonomy in enumerate(_TAXONOMIES)
                ],
            }
        },
        "taxonomies": list(_TAXONOMIES),
        "invocations": [_invocation(report)],
        "automationDetails": {"id": f"lensmith-audit/{quote(visible(report.model), safe='')}/"},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _rule(code: str, findings: Sequence[Finding]) -> dict[str, Any]:
    worst = max(findings, key=lambda finding: finding.severity)
    title = visible(worst.title)
    relationships = [
        {
            "target": {
                "id": taxonomy["taxa"][0]["id"],
                "index": 0,
                "toolComponent": {"name": taxonomy["name"], "index": index},
            },
            "kinds": ["relevant"],
        }
        for index, taxonomy in enumerate(_TAXONOMIES)
    ]
    return {
        "id": code,
        "name": _pascal(code),
        "shortDescription": {"text": title},
        "fullDescription": {"text": f"{title}. Read-out {worst.read_out.value}: {worst.read_out.title}."},
        "help": {"text": visible(worst.cure) or "See the report."},
        "defaultConfiguration": {"level": _LEVELS[worst.severity]},
        "relationships": relationships,
        "properties": {
            "security-severity": _SCORES[worst.severity],
            "tags": ["security", "model-extraction", "OWASP-LLM10:2025", "AML.T0024.002"],
        },
    }


def _unresolved_rule() -> dict[str, Any]:
    text = "The audit could not tell. Nothing is claimed, and nothing is called clean."
    return {
        "id": UNRESOLVED,
        "name": "Unresolved",
        "shortDescription": {"text": text},
        "defaultConfiguration": {"level": "none"},
        "properties": {"tags": ["security", "model-extraction"]},
    }


def _result(finding: Finding, rule_index: int, report: AuditReport) -> dict[str, Any]:
    read_out = finding.read_out.value
    identity = "\n".join((report.target, report.model, finding.code, read_out))
    properties: dict[str, Any] = {
        "severity": finding.severity.name.lower(),
        "spent": cost(finding.spent),
        "atOrAboveThreshold": finding.severity >= report.threshold,
        "readOut": read_out,
    }
    properties |= {"wholeAttack": cost(finding.whole)} if finding.whole else {}
    properties |= {"retest": visible(finding.retest)} if finding.retest else {}
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "kind": "informational" if finding.severity is Severity.INFO else "fail",
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "locations": [_location(report)],
        "partialFingerprints": {"finding/v1": sha256_of_bytes(identity.encode("utf-8", "backslashreplace"))},
        "properties": properties,
    }


def _open_result(sentence: str, rule_index: int, report: AuditReport) -> dict[str, Any]:
    return {
        "ruleId": UNRESOLVED,
        "ruleIndex": rule_index,
        "kind": "open",
        "level": "none",
        "message": {"text": visible(sentence)},
        "locations": [_location(report)],
    }


def _location(report: AuditReport) -> dict[str, Any]:
    """The endpoint as an artifact (code hosts show nothing without one), the model as what lies at it."""
    target, model = public_target(report.target), visible(report.model)
    return {
        "physicalLocation": {"artifactLocation": {"uri": quote(target, safe=":/?#[]@!$&'()*+,;=%-._~")}},
        "logicalLocations": [{"name": model, "fullyQualifiedName": f"{target}#{model}", "kind": "resource"}],
    }


def _invocation(report: AuditReport) -> dict[str, Any]:
    verdict = report.verdict
    invocation: dict[str, Any] = {
        "executionSuccessful": True,
        "exitCode": verdict.exit_code,
        "exitCodeDescription": verdict.value,
    }
    try:
        start = datetime.fromisoformat(report.started_at).astimezone(UTC)
    except ValueError:
        return invocation  # a time that nobody can read is left out rather than guessed
    end = start + timedelta(seconds=report.seconds)
    return {**invocation, "startTimeUtc": _utc(start), "endTimeUtc": _utc(end)}


def _message(finding: Finding) -> str:
    whole = f" The whole attack: {cost(finding.whole)}." if finding.whole else ""
    cure = f" Cure: {visible(finding.cure)}" if finding.cure else ""
    return f"{visible(finding.was_read)}{whole}{cure}"


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _pascal(code: str) -> str:
    words = "".join(char if char.isalnum() else " " for char in code).split()
    return "".join(word.capitalize() for word in words) or "Finding"
