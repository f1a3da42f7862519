"""A study of defences as one HTML page and as JSON: a bar for what an attacker pays, a table for both sides."""

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import lensmith
from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.findings.wording import count, visible
from lensmith.core.files import write_atomic
from lensmith.core.page import page, table
from lensmith.workflows.defences.cases import HONEST
from lensmith.workflows.defences.study import Attack, DefenceRow, DefenceStudy

SCHEMA_VERSION = 1

_STYLE = """
td,thead th{font-size:14px;font-variant-numeric:tabular-nums;padding:9px 14px 9px 0}
td b{font-weight:600}td code{font-size:12px}
.defences,.served{overflow-wrap:normal}.defences code{overflow-wrap:anywhere}
.defences{min-width:900px}.defences td:first-child{width:330px}
.opened b{background:var(--code);border-radius:6px;padding:1px 6px;font-size:12px;display:inline-block;margin:0 0 3px}
.safe,.yes{color:var(--good);font-weight:600}.no{color:var(--dim)}
.served td,.served th{text-align:center;white-space:nowrap}.served thead th{white-space:normal;vertical-align:bottom}
.served td{padding:6px 8px}.served th{overflow-wrap:normal}
.served{min-width:860px}.served td:first-child,.served th:first-child{text-align:left;width:250px}
@media(max-width:760px){.scroll tr>:first-child{position:sticky;left:0;background:var(--paper);white-space:normal;
overflow-wrap:anywhere}
.defences td:first-child,.served td:first-child,.served th:first-child{width:150px;min-width:150px}}
.plot .bar{fill:var(--accent)}.plot .bar.partly{fill:var(--medium)}.plot text.name{fill:var(--ink);font-size:13px}
.plot text.value{fill:var(--ink);font-size:13px}.plot text.safe{fill:var(--good);font-size:13px;font-weight:600}
"""
_YES = '<span class="yes" title="served">&#10003;</span>'
_NO = '<span class="no" title="refused">&#8211;</span>'
_NOTHING = "no read-out of logits"
_UNLISTED = (ReadOut.P0, ReadOut.P9)
_WIDE, _ROW, _NAMES, _VALUES = 1140, 30, 270, 200


def write_study(study: DefenceStudy, folder: Path) -> None:
    """Writes `defences.html` and `defences.json` into `folder`, over older ones."""
    write_atomic(folder / "defences.json", json.dumps(as_dict(study), indent=2, allow_nan=False) + "\n")
    write_atomic(folder / "defences.html", as_html(study))


def as_dict(study: DefenceStudy) -> dict[str, Any]:
    """The study in JSON's types."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": study.model,
        "vocabulary": study.vocabulary,
        "contexts": study.contexts,
        "width": study.width,
        "seed": study.seed,
        "defences": [
            {
                "name": row.defence.name,
                "expose": row.defence.words,
                "attacks": [{**vars(attack), "read_out": attack.read_out.value} for attack in row.attacks],
                "cheapest": None if row.cheapest is None else row.cheapest.read_out.value,
                "user": {**vars(row.user), "refused": list(row.user.refused)},
            }
            for row in study.rows
        ],
    }


def as_text(study: DefenceStudy) -> str:
    """The study for a terminal: one line a defence."""
    names = max((len(visible(row.defence.name)) for row in study.rows), default=8)
    head = f"{'defence':{names}}  {'open':26}  {'bits':>5}  {'to show the width':28}  user"
    lines = [f"{visible(study.model)}: width {study.width or 'unresolved'}, {study.contexts} contexts", head]
    for row in study.rows:
        opened = " ".join(attack.read_out.value for attack in row.attacks) or "-"
        sharpest = row.sharpest
        bits = f"{sharpest.bits:5.1f}" if sharpest is not None else "    -"
        lines.append(
            f"{visible(row.defence.name):{names}}  {opened:26}  {bits}  {_width_text(row, study):28}  "
            f"KL {_nats(row.user.kl_nats)}, {row.user.served} of {len(HONEST)} requests served"
        )
    return "\n".join(lines)


def as_html(study: DefenceStudy) -> str:
    """The whole page; no other file, no network, no script."""
    title = f"What each defence costs: {visible(study.model)}" if study.model else "What each defence costs"
    shown = "The logits show no width, so only the reading of single logits is compared. "
    if study.width is not None:
        shown = f"Their width, <b>{study.width:,}</b>, is what the attacker wants to show. "
    lead = (
        f"Measured on the real logits of {study.contexts:,} contexts and {study.vocabulary:,} tokens. {shown}"
        "A few logits were read through each interface; the queries of a whole matrix are counted, not sent."
    )
    body = (
        f'<header><p class="kicker">Defence study</p><h1>{escape(title)}</h1><p>{lead}</p></header>'
        f"<section><h2>Queries until the width shows</h2>{_bars(study)}</section>"
        f"<section><h2>What an attacker reads, what a user is told</h2>{_table(study)}</section>"
        f"<section><h2>What an application may still ask</h2>{_served(study)}</section>{_notes()}"
        f"<footer>lensmith {escape(lensmith.__version__)}, seed {study.seed}</footer>"
    )
    return page(title=title, body=body, style=_STYLE)


# --- the plot -----------------------------------------------------------------------------------------------------


def _bars(study: DefenceStudy) -> str:
    """One bar a defence on a logarithmic axis. A defence that nothing got through has none."""
    costs = [_cost(row) for row in study.rows]
    decades = max(1, math.ceil(math.log10(max([cost for cost in costs if cost is not None], default=10))))
    high = len(study.rows) * _ROW + 62
    left, right = _NAMES, _WIDE - _VALUES
    parts = []
    for decade in range(decades + 1):
        x = left + (right - left) * decade / decades
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{high - 52}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{high - 34}" text-anchor="middle">10'
            f'<tspan dy="-5" font-size="9">{decade}</tspan></text>'
        )
    for place, (row, cost) in enumerate(zip(study.rows, costs, strict=True)):
        y, share = 10 + place * _ROW, 0.0 if cost is None else max(math.log10(max(cost, 1)) / decades, 0.004)
        bar, text = ("bar partly", "safe") if row.cheapest is None else ("bar", "value")
        end = left + (right - left) * share
        parts.append(f'<text class="name" x="{left - 12}" y="{y + 16}" text-anchor="end">{_name(row)}</text>')
        parts.append(f'<rect class="{bar}" x="{left}" y="{y + 3}" width="{end - left:.1f}" height="18" rx="3"/>')
        said = escape(_width_text(row, study))
        parts.append(f'<text class="{text}" x="{end + 10:.1f}" y="{y + 16}">{said}</text>')
    parts.append(f'<text x="{(left + right) / 2:.1f}" y="{high - 10}" text-anchor="middle">queries</text>')
    described = "queries that each defence makes an attacker pay to show the width"
    return (
        f'<figure class="scroll"><svg class="plot" viewBox="0 0 {_WIDE} {high}" role="img" aria-label="{described}">'
        f"<title>{described}</title>{''.join(parts)}</svg></figure>"
    )


def _cost(row: DefenceRow) -> int | None:
    """Queries that showed the width, or that were tried in vain; None where there was nothing to try."""
    if row.cheapest is not None:
        return row.cheapest.width_queries
    return max((attack.tried for attack in row.attacks), default=0) or None


def _width_text(row: DefenceRow, study: DefenceStudy) -> str:
    found = row.cheapest
    if found is not None and found.width_queries is not None:
        repeated = f", each {found.repeats} times" if found.repeats > 1 else ""
        return f"{count(found.width_queries)} through {found.read_out.value}{repeated}"
    tried = _cost(row)
    if study.width is None:
        return "no width to show"
    if tried:
        return f"not with {count(tried)}"
    return "too few logits can be read" if any(one.read_out is not ReadOut.P8 for one in row.attacks) else _NOTHING


# --- the table ----------------------------------------------------------------------------------------------------


def _table(study: DefenceStudy) -> str:
    """What is left to the attacker, and how wrongly the user is told."""
    heads = (
        "Defence",
        "Still open",
        "Sharpest reading of a logit",
        "To show the width",
        "User: KL, nats",
        "likeliest token told wrongly",
        "text changed",
    )
    return _grid(heads, (_row(row, study) for row in study.rows), "defences")


def _row(row: DefenceRow, study: DefenceStudy) -> list[str]:
    user = row.user
    return [
        f"<b>{_name(row)}</b><br><code>{escape(row.defence.words)}</code>",
        _opened(row.attacks),
        _sharpest(row),
        f'<span class="{"" if row.cheapest else "safe"}">{escape(_width_text(row, study))}</span>',
        '<span class="dim">not told</span>' if user.kl_nats is None else _nats(user.kl_nats),
        '<span class="dim">not told</span>' if user.top_changed is None else _percent(user.top_changed),
        _percent(user.text_changed),
    ]


def _served(study: DefenceStudy) -> str:
    """Which ordinary requests each defence still serves."""
    rows = []
    for row in study.rows:
        marks = [_NO if name in row.user.refused else _YES for name in HONEST]
        rows.append([f"<b>{_name(row)}</b>", *marks, f"{row.user.served} of {len(HONEST)}"])
    return _grid(("Defence", *HONEST, "Served"), rows, "served")


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]], name: str) -> str:
    return f'<div class="scroll">{table(heads, rows, name=name)}</div>'


def _name(row: DefenceRow) -> str:
    return escape(visible(row.defence.name))


def _opened(attacks: Sequence[Attack]) -> str:
    if not attacks:
        return '<span class="safe">nothing</span>'
    names = (f'<b title="{escape(one.read_out.title)}">{one.read_out.value}</b>' for one in attacks)
    return f'<span class="opened">{" ".join(names)}</span>'


def _sharpest(row: DefenceRow) -> str:
    sharpest = row.sharpest
    if sharpest is None or sharpest.bits is None or sharpest.queries_per_logit is None:
        return '<span class="safe">none</span>'
    asked = f"{sharpest.queries_per_logit:.2g}"
    return (
        f"{sharpest.bits:.1f} bits<br>{asked} {'query' if asked == '1' else 'queries'} a logit "
        f'<span class="dim">({sharpest.read_out.value})</span>'
    )


def _notes() -> str:
    titles = "".join(f"<li><b>{one.value}</b> {escape(one.title)}</li>" for one in ReadOut if one not in _UNLISTED)
    return (
        "<section><h2>How to read this</h2><p><b>Bits</b>: log2 of the range of the logits over the root-mean-square "
        "error of what was read, told in float32. <b>To show the width</b>: the cheapest matrix, of 1.25, 2 or 4 times "
        "as many contexts as the width, in which it shows; against fresh noise each question is also asked up to 1,024 "
        "times. <i>Not with N</i> means that so many queries did not suffice, not that more would not. <b>KL</b>: of "
        "the distribution as told from the true one, in nats.</p><p>Noise and rounding touch what is told and never "
        "which token is chosen. So no text changes, and so they do nothing against P7, which reads the choice. P8 "
        f"gives an approximate head and is not priced.</p><ul>{titles}</ul></section>"
    )


def _nats(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if value < 1e-12 else f"{value:.1e}" if value < 1e-3 else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.01 else f"{100 * share:.1f} %"
