"""How reports put figures and foreign text: short, in units that a person reads, and harmless.

A model's name, a server's answer and an address are hostile input. Before any of them is shown, what a terminal, a
browser or an XML parser could take for more than text is spelt out.
"""

import math
import unicodedata
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from lensmith.audit.findings import AuditReport, Cost, Finding, Verdict

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control and format characters (among them those that turn the reading direction), surrogates, the unassigned."""
_SECONDS = ((86_400 * 365.25, "years"), (86_400, "days"), (3_600, "h"), (60, "min"))
_COUNTS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def visible(text: str) -> str:
    """The same text with every character that is not plainly visible spelt out (`\\u202e`); newlines become spaces."""
    return "".join(_spelt(char) for char in text)


def public_target(target: str) -> str:
    """An address as reports may hold it: without user name, password, query or fragment."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return visible(target)
    if not parts.netloc:
        return visible(target)
    return visible(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))


def count(number: float) -> str:
    """`1,300`, `2.2 million`."""
    for size, name in _COUNTS:
        if number >= size:
            return f"{_three(number / size)} {name}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 min`, `5.1 h`, `12 days`."""
    for size, name in _SECONDS:
        if seconds >= size:
            number = seconds / size
            return f"{number:.1f} {name}" if number < 9.95 else f"{count(number)} {name}"
    return f"{seconds:.1f} s" if seconds >= 0.05 or seconds == 0 else f"{seconds * 1000:.0f} ms"


def money(usd: float) -> str:
    """`$0.31`, `$2,000`; what is less than a cent says so."""
    if usd <= 0:
        return "$0"
    if usd < 0.01:
        return "under 1 cent"
    return f"${usd:.2f}" if usd < 100 else f"${usd:,.0f}" if usd < 1e6 else f"${count(usd)}"


def queries(number: int) -> str:
    """`1 query`, `40 queries`."""
    return f"{count(number)} {'query' if number == 1 else 'queries'}"


def cost(value: Cost) -> str:
    """One line: queries, tokens, time and money; what was worked out and not spent says so."""
    parts = [queries(value.queries)]
    parts += [f"{count(value.tokens)} tokens"] if value.tokens else []
    parts += [duration(value.seconds)] if value.seconds else []
    parts += [money(value.usd)] if value.usd else []
    return ", ".join(parts) + (" (extrapolated)" if value.extrapolated else "")


def listing(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def by_severity(report: AuditReport) -> list[Finding]:
    """The findings, worst first; equal ones by code and read-out, so that two runs list them alike."""
    return sorted(
        report.findings, key=lambda one: (-one.severity, one.code, one.read_out.value if one.read_out else "")
    )


def headline(report: AuditReport) -> str:
    """The verdict in one sentence."""
    threshold = report.threshold.name.lower()
    if report.verdict is Verdict.FINDINGS:
        number = sum(finding.severity >= report.threshold for finding in report.findings)
        return f"{number} {'finding' if number == 1 else 'findings'} at or above {threshold}"
    if report.verdict is Verdict.CLEAN:
        return f"Clean: nothing at or above {threshold}"
    return "Could not tell"


def lead(report: AuditReport) -> str:
    """One sentence below the headline."""
    findings = by_severity(report)
    if report.verdict is Verdict.FINDINGS:
        return f"{visible(findings[0].title).rstrip('.')}."
    number = len(report.unresolved)
    if report.verdict is Verdict.COULD_NOT_TELL:
        return (
            f"No finding reaches the threshold, but {number} {'question' if number == 1 else 'questions'} stayed open."
        )
    return "No finding reaches the threshold, and no question stayed open."


def width_text(report: AuditReport) -> str:
    """`576`, `16 to 17`, or `unresolved`."""
    if report.width_interval is not None and len(set(report.width_interval)) > 1:
        low, high = report.width_interval
        return f"{low:,} to {high:,}"
    return "unresolved" if report.width is None else f"{report.width:,}"


def width_note(report: AuditReport) -> str:
    """The reason in brackets after a space, where one was given."""
    return f" ({visible(report.width_note)})" if report.width_note else ""


def _spelt(char: str) -> str:
    if char in "\n\r\t":
        return " "
    if unicodedata.category(char) not in _UNSAFE:
        return char
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _three(number: float) -> str:
    """Three significant digits, no exponent."""
    if not math.isfinite(number):
        return str(number)
    digits = max(0, 2 - math.floor(math.log10(number))) if number > 0 else 0
    text = f"{number:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
