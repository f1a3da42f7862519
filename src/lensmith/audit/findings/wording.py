"""How reports put figures and foreign text: short, in units that a person reads, and harmless.

A model's name, a server's answer and an address are hostile input. Before any of them is shown, what a terminal, a
browser or an XML parser could take for more than text is spelt out.
"""

import math
import shlex
import unicodedata
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from lensmith.audit.findings.cures import SAFE_WORDS
from lensmith.audit.findings.finding import AuditReport, Cost, Finding, FindingKind, ReadOut, Verdict

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control and format characters (among them those that turn the reading direction), surrogates, the unassigned."""
_SECONDS = ((86_400 * 365.25, "years"), (86_400, "days"), (3_600, "h"), (60, "min"))
_WORST_FIRST = (FindingKind.ROTATION, FindingKind.LAYER, FindingKind.WIDTH, FindingKind.IMAGE)
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
            return f"{figure(number / size)} {name}"
    return f"{number:,.0f}"


def figure(number: float, digits: int = 3) -> str:
    """A figure of any size: `0.0032`, `2.2`, `535,000`; what is very small or large as `3.1e-9`."""
    if not math.isfinite(number):
        return str(number)
    size = abs(number)
    if number == 0 or not 1e-3 <= size < 1e9:
        return f"{number:.{digits}g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    decimals = digits - 1 - math.floor(math.log10(size))
    text = f"{round(number, decimals):,.{max(0, decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ratio(times: float) -> str:
    """`3.2`, `29`, `44,000`, `1e140`: how many times smaller."""
    if not math.isfinite(times) or times >= 1e7:
        return "beyond measure" if not math.isfinite(times) else f"{times:.0e}".replace("e+", "e").replace("e0", "e")
    if times < 10:
        return f"{times:.1f}"
    digits = max(0, math.floor(math.log10(times)) - 1)
    return f"{round(times / 10**digits) * 10**digits:,}"


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


def only_tried(read_outs: Sequence[ReadOut]) -> str:
    """`only P3 was tried`: what a restricted audit says of itself; empty where all were tried."""
    if not read_outs:
        return ""
    return f"only {listing([each.value for each in read_outs])} {'was' if len(read_outs) == 1 else 'were'} tried"


def by_severity(report: AuditReport) -> list[Finding]:
    """The findings, worst first; equally bad ones in a fixed order, so that two runs list them alike."""
    return sorted(
        report.findings,
        key=lambda one: (
            -one.severity,
            _WORST_FIRST.index(one.kind) if one.kind in _WORST_FIRST else len(_WORST_FIRST),
            one.code,
            one.read_out.value,
        ),
    )


def one_retest(report: AuditReport) -> str:
    """The command that tests all findings again, where it is the same for all; else empty."""
    commands = {finding.retest for finding in report.findings}
    return visible(commands.pop()) if len(commands) == 1 else ""


def one_cure(report: AuditReport) -> str:
    """The command that closes all that was found at once; empty where nothing is to be closed."""
    if not any(finding.cure for finding in report.findings):
        return ""
    upstream = public_target(report.target)
    is_url = upstream.startswith(("http://", "https://"))
    return f"lensmith guard --upstream {shlex.quote(upstream) if is_url else 'URL'} --expose {SAFE_WORDS}"


def headline(report: AuditReport) -> str:
    """The verdict in one sentence."""
    threshold = report.threshold.name.lower()
    if report.verdict is Verdict.FINDINGS:
        number = sum(finding.severity >= report.threshold for finding in report.findings)
        return f"{number} {'finding' if number == 1 else 'findings'} at or above {threshold}"
    if report.verdict is Verdict.CLEAN:
        restricted = only_tried(report.only_read_outs)
        return f"Clean: nothing at or above {threshold}" + (f" ({restricted})" if restricted else "")
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
    return (
        "No finding reaches the threshold, and no question stayed open. What an audit does not ask for: grammars and "
        "response formats, embeddings, and what only one server knows."
    )


def width_text(report: AuditReport) -> str:
    """`576`, `16 to 17`, or `unresolved`."""
    if report.width_interval is not None and len(set(report.width_interval)) > 1:
        low, high = report.width_interval
        return f"{low:,} to {high:,}"
    return "unresolved" if report.width is None else f"{report.width:,}"


def width_note(report: AuditReport) -> str:
    """The reason in brackets after a space, where one was given and the width is not plain."""
    is_plain = report.width is not None and report.width_interval is None
    return f" ({visible(report.width_note)})" if report.width_note and not is_plain else ""


def _spelt(char: str) -> str:
    if char in "\n\r\t":
        return " "
    if unicodedata.category(char) not in _UNSAFE:
        return char
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
