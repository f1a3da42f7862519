"""An audit as one HTML page.

Plain words for what reports hold as field names: capabilities, the figures of findings, and what a finding means.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from types import MappingProxyType
from typing import Any

import numpy as np

import lensmith
from lensmith.audit.estimators.gaps import is_steep_enough, significant_gaps
from lensmith.audit.findings import wording
from lensmith.audit.findings.finding import AuditReport, Cost, Finding, FindingKind, ReadOut, Severity, Verdict
from lensmith.audit.findings.wording import by_severity, headline, lead, public_target, visible, width_note, width_text
from lensmith.audit.report.plot import NARROW, WIDE, Mark, singular_plot
from lensmith.core.page import page

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "read_outs": "Ways to read that are open",
        "top_logprobs": "Most likely tokens told with their logprobs (top logprobs)",
        "whole_vocabulary": "Logprobs of the whole vocabulary are told",
        "wanted_ids": "Token ids whose logprobs one request may ask for",
        "sampled": "What is told of a chosen token outside the top",
        "bias_steers": "A bias decides which token comes",
        "largest_bias": "Largest bias that is taken",
        "biased_ids": "Tokens that one request may bias",
        "bias_with_logprobs": "A bias and logprobs go together",
        "taken": "Logprobs are taken",
        "allow_list": "A list of allowed tokens decides which token comes",
        "allow_list_true_value": "The allowed token's true logprob is told",
        "echo": "Logprobs of the prompt's own tokens are told (echo)",
        "takes_token_ids": "Prompts may be given as token ids",
        "tells_ids": "Tokens are told by their ids",
        "vocabulary_size": "Tokens in the vocabulary",
        "deterministic": "The same question gets the same answer",
        "spread_nats": "How far answers to one question lie apart, in nats",
        "decimals": "Decimals of a logprob",
        "step_nats": "Smallest step between two values, in nats",
        "facts": "What the metadata says",
        "failed": "Questions of the probe that failed",
        "notes": "Each question of the probe and its outcome",
    }
)
"""In the order in which a report shows them."""

FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "assumed_width": "Hidden width, assumed",
        "confirmed_on": "Found again on",
        "content_hash": "Hash of the image",
        "contexts": "Questions (contexts)",
        "difference_nats": "Difference between two readings, in nats",
        "error_nats": "Error of what was predicted, in nats",
        "error_of_linear_map": "Error if known up to a linear map only",
        "error_unrelated_nats": "Error of an unrelated image, in nats",
        "error_up_to_rotation": "Error after the best rotation",
        "file": "File",
        "gain": "Times less to read",
        "held_out": "Questions kept apart to test it",
        "interval": "Width, least and most",
        "logits": "Logits read",
        "lost": "Directions that no output shows",
        "misfit": "Misfit of questions kept apart, as a part of none",
        "n_embd": "Hidden width (n_embd)",
        "n_params": "Parameters (n_params)",
        "n_vocab": "Vocabulary (n_vocab)",
        "noise_nats": "Noise of one value, in nats",
        "norm": "Final norm",
        "not_scored": "Why there is no score",
        "queries_an_output": "Queries an output takes, with the image and without",
        "rank": "Rank",
        "ratio": "Times smaller behind the gap",
        "reading_error": "Error of the rows for what their tokens were read to, relative",
        "rms": "Error against the weights given",
        "rms_seen": "The same, in directions that outputs show",
        "rms_unrelated": "Error of an unrelated random layer",
        "score": "Size of the gap in its surroundings",
        "significant_gaps": "Gaps that stand out",
        "spread_nats": "Spread of the logits, in nats",
        "tokens": "Tokens",
        "tokens_read": "Tokens read of each output",
        "truth_rms": "Size of the weights given (root mean square)",
        "up_to_rotation": "Up to a rotation",
        "whole_is": "The whole attack is",
        "width": "Hidden width",
    }
)

_TAKEN = {"before-bias": "before the bias", "after-bias": "after the bias"}
_MEANINGS = {
    FindingKind.ROTATION: "Every token's row in the last layer is known but for one common turn: all lengths and "
    "angles between rows are the model's own.",
    FindingKind.LAYER: "The space that the last layer's rows span is known, so a copy of the layer that differs by one "
    "unknown matrix. This is the part of the model that the published attack steals.",
    FindingKind.WIDTH: "The hidden width tells how large the model is, which its maker may not have published.",
    FindingKind.IMAGE: "All outputs of a model lie in one small space, its image. Who knows it reads a few tokens of "
    "an answer and works out the rest, and recognises this model behind any other name.",
}


def meaning(kind: FindingKind) -> str:
    """What a finding of this kind means to its operator; empty where its title says it."""
    return _MEANINGS.get(kind, "")


def capability(key: str, value: object) -> object:
    """A capability's value in words where the value alone says little."""
    if key == "taken" and value in _TAKEN:
        return _TAKEN[str(value)]
    if key == "decimals" and value is None:
        return "more than six"
    if key in ("wanted_ids", "top_logprobs", "biased_ids") and value == 0:
        return "none"
    if key == "step_nats" and value == 0:
        return "none found"
    return "not known" if value is None else value


_NO_LAYER = (FindingKind.METADATA, FindingKind.WIDTH, FindingKind.IMAGE)
"""Findings whose whole attack stops before the layer."""

_STYLE = """
main{max-width:1080px}
header.clean{--tone:var(--good)}header.found{--tone:var(--bad)}header.open{--tone:var(--open)}
.target{display:flex;flex-wrap:wrap;gap:2px 14px;margin:0 0 18px;color:var(--dim)}
.model{color:var(--ink);font-weight:600}
dl{margin:0}dd{margin:0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px 24px;padding-top:16px;
border-top:1px solid var(--line)}
.facts dt{font-size:13px;color:var(--dim)}
.facts strong{font-size:21px;display:block;line-height:1.3;font-variant-numeric:tabular-nums}
.findings thead th{padding-top:0}
.findings td{padding:16px 18px 16px 0}
.findings td:first-child{width:104px}
.cost{width:150px;font-variant-numeric:tabular-nums;font-size:14px}
.cost:last-child{padding-right:0}.cost>span{display:block}
.chip{display:inline-block;min-width:78px;text-align:center;border-radius:99px;padding:1px 10px;font-size:13px;
font-weight:600;color:var(--tone);border:1.5px solid var(--tone)}
.chip.critical{--tone:var(--critical);background:var(--tone);color:var(--paper)}
.chip.high{--tone:var(--high);background:var(--tone);color:var(--paper)}
.chip.medium{--tone:var(--medium)}.chip.low{--tone:var(--low)}.chip.info{--tone:var(--info)}
.below{display:block;font-size:12px;color:var(--dim);margin-top:4px}
.through{font-size:13px;color:var(--dim);margin:0 0 6px}
.through b{color:var(--ink);border-radius:6px;background:var(--code);padding:2px 7px;margin-right:4px}
.meaning{color:var(--dim)}
.cure{margin:0 0 18px}.cure p{margin:0 0 4px}.cure code+p{margin-top:10px}.cure code{font-size:14px}
h3 small{font-weight:400;font-size:12px;color:var(--dim);margin-left:8px}
.remedy{border-left:3px solid var(--line);padding-left:12px;margin:0 0 6px}
.remedy div{margin:0 0 6px}
.remedy dt{font-size:12px;font-weight:600;color:var(--dim)}
.plain th{width:240px;font-weight:400}
.plain th,.plain td{padding:5px 18px 5px 0;font-size:14px}
.plot polyline{fill:none;stroke-width:2.2;stroke-linejoin:round}
.plot polyline.signal{stroke:var(--accent)}.plot polyline.noise{stroke:var(--noise)}
.plot circle.signal{fill:var(--accent)}.plot circle.noise{fill:var(--noise)}
.plot .guide{stroke-dasharray:3 5;stroke:var(--mark);opacity:.55}
.plot .drop{stroke:var(--mark);stroke-width:2.2}
.plot .width{--mark:var(--bad)}.plot .gap{--mark:var(--medium)}
.plot text.label{fill:var(--mark);font-size:13px}.plot text.label.width{font-weight:700}
.plot.narrow{display:none}.plot.narrow text.label{font-size:12px}
.legend{font-size:14px}.legend ul{list-style:none;padding:0}.findings tbody:last-child td{padding-bottom:0}
.legend li{display:grid;grid-template-columns:100px 1fr;align-items:baseline}
.legend .chip{justify-self:start}.legend .codes li{grid-template-columns:34px 1fr}
.legend li code{justify-self:start}.legend h3{font-size:14px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:8px 32px;margin:0 0 8px}
@media(max-width:760px){.plot.narrow{display:block}.plot.wide{display:none}.two{grid-template-columns:1fr}
.findings thead{display:none}.findings td{display:block;width:auto!important;padding:4px 0;border:0}
.findings tbody{display:block;border-bottom:1px solid var(--line);padding:12px 0}
.findings .cost::before{content:"Spent here: ";color:var(--dim)}
.findings .cost:last-child::before{content:"The whole attack: "}
.findings .cost>span{display:inline}.findings .cost>span:not(:last-child)::after{content:", "}
.plain th{width:40%}}
"""

_SEVERITIES = {
    Severity.CRITICAL: "the last layer was recovered, or can be within the budget",
    Severity.HIGH: "the model's width was found, or its image was learned",
    Severity.MEDIUM: "a read-out works; the attack was proven on a small block",
    Severity.LOW: "a signature, or a fact about the model",
    Severity.INFO: "noted; leaks nothing by itself",
}
_EXITS = {
    0: "clean: nothing at or above the threshold, and nothing left open",
    1: "findings at or above the threshold",
    2: "bad usage or input",
    3: "could not tell",
}
_READ_OUTS = {read_out.value: read_out.title for read_out in ReadOut}
_CLASSES = {Verdict.CLEAN: "clean", Verdict.FINDINGS: "found", Verdict.COULD_NOT_TELL: "open"}


def as_html(report: AuditReport) -> str:
    """The whole page."""
    parts = (_header, _findings, _spectrum, _unresolved, _capabilities, _legend, _footer)
    body = "".join(part(report) for part in parts)
    return page(title=f"Leak audit of {visible(report.model)}", body=body, style=_STYLE)


# --- the verdict --------------------------------------------------------------------------------------------------


def _header(report: AuditReport) -> str:
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _facts(report))
    return (
        f'<header class="{_CLASSES[report.verdict]}"><p class="kicker">Leak audit</p>'
        f'<h1>{escape(headline(report))}</h1><p class="lead">{escape(lead(report))}</p>'
        f'<p class="target"><bdi class="model">{_text(report.model)}</bdi>'
        f"<bdi>{escape(public_target(report.target))}</bdi></p>"
        f'{_cure_of_all(report)}<dl class="facts">{facts}</dl></header>'
    )


def _cure_of_all(report: AuditReport) -> str:
    restricted = f"<p>{wording.only_tried(report.only_read_outs).capitalize()}.</p>" if report.only_read_outs else ""
    command, retest = wording.one_cure(report), wording.one_retest(report)
    again = (
        f'<p>Then test again (with a guard, at its own address):</p><code class="line">{escape(retest)}</code>'
        if retest
        else ""
    )
    if not command:
        return restricted
    return (
        f'{restricted}<div class="cure"><p>One cure for all of it, which leaves chat, streaming and the five most '
        f'likely tokens:</p><code class="line">{_text(command)}</code>{again}</div>'
    )


def _facts(report: AuditReport) -> list[tuple[str, str]]:
    """What a hurried reader wants, as (name, HTML)."""
    facts = [("Hidden width", f"{_big(width_text(report))} {_dim(width_note(report) if report.width is None else '')}")]
    facts += _price_of_layer(report)
    facts.append(("This audit spent", f"{_big(wording.queries(report.spent.queries))} {_dim(_money(report.spent))}"))
    facts.append(("Exit status", f"{_big(str(report.verdict.exit_code))} {_dim(report.verdict.value)}"))
    return facts


def _price_of_layer(report: AuditReport) -> list[tuple[str, str]]:
    """What the last layer took, where it was recovered; else the least that it would take."""
    found = by_severity(report)
    taken = [finding for finding in found if finding.kind is FindingKind.LAYER and finding.whole is not None]
    priced = [(finding, finding.whole) for finding in taken or found if finding.whole is not None]
    priced = priced if taken else [pair for pair in priced if pair[0].kind not in _NO_LAYER]
    if not priced:
        return []
    finding, whole = min(priced, key=lambda pair: pair[1].queries)
    name = finding.read_out.value
    details = _money(whole, name) + (", extrapolated" if whole.extrapolated else "")
    return [
        (
            "The last layer took" if taken else "The last layer would take",
            f"{_big(wording.queries(whole.queries))} {_dim(details)}",
        )
    ]


def _money(cost: Cost, through: str = "") -> str:
    parts = [f"through {through}"] if through else []
    parts += [wording.money(cost.usd)] if cost.usd else []
    parts += [wording.duration(cost.seconds)] if cost.seconds else []
    return ", ".join(parts)


# --- the findings -------------------------------------------------------------------------------------------------


def _findings(report: AuditReport) -> str:
    if not report.findings:
        return "<section><h2>Findings</h2><p>None.</p></section>"
    has_own_retest = not wording.one_retest(report)
    rows = "".join(
        _finding(finding if has_own_retest else replace(finding, retest=""), report.threshold)
        for finding in by_severity(report)
    )
    return (
        '<section><h2>Findings</h2><div class="scroll"><table class="findings"><thead><tr>'
        '<th>Severity</th><th>What was read</th><th class="cost">Spent here</th><th class="cost">The whole attack</th>'
        f"</tr></thead>{rows}</table></div></section>"
    )


def _finding(finding: Finding, threshold: Severity) -> str:
    name = finding.severity.name.lower()
    below = "" if finding.severity >= threshold else '<span class="below">below threshold</span>'
    read_out = f'<p class="through"><b>{finding.read_out.value}</b> {escape(finding.read_out.title)}</p>'
    remedies = "".join(
        f"<div><dt>{label}</dt><dd>{html}</dd></div>"
        for label, html in (
            ("Cure", _ticked(finding.cure)),
            ("Test again", f'<code class="line">{_text(finding.retest)}</code>' if finding.retest else ""),
        )
        if html
    )
    remedies = f'<dl class="remedy">{remedies}</dl>' if remedies else ""
    figures = f'<table class="plain">{_rows(finding.evidence)}</table>'
    evidence = f"<details><summary>Figures</summary>{figures}</details>" if finding.evidence else ""
    said = f'<p class="meaning">{_text(meaning(finding.kind))}</p>' if meaning(finding.kind) else ""
    return (
        f'<tbody><tr><td><span class="chip {name}">{name}</span>{below}</td>'
        f"<td><h3>{_text(finding.title)}<small>{finding.code}</small></h3>{read_out}"
        f"{said}<p>{_ticked(finding.was_read)}</p>"
        f"{remedies}{evidence}</td>"
        f'<td class="cost">{_cost(finding.spent)}</td><td class="cost">{_cost(finding.whole)}</td></tr></tbody>'
    )


def _cost(cost: Cost | None) -> str:
    if cost is None:
        return _dim("not priced")
    if cost.queries == 0:
        return _dim("nothing more")
    lines = [f"<b>{escape(wording.queries(cost.queries))}</b>"]
    lines += [f"{wording.count(cost.tokens)} tokens"] if cost.tokens else []
    lines += [wording.duration(cost.seconds)] if cost.seconds else []
    lines += [f"<b>{wording.money(cost.usd)}</b>"] if cost.usd else []
    lines += [_dim("extrapolated")] if cost.extrapolated else []
    return "".join(f"<span>{line}</span>" for line in lines)


# --- the spectrum -------------------------------------------------------------------------------------------------


def _spectrum(report: AuditReport) -> str:
    marks = _marks(report)
    plots = [singular_plot(report.singular_values, marks, report.width, frame) for frame in (WIDE, NARROW)]
    if not plots[0]:
        return ""
    title = "Where the width shows" if report.width is not None else "What the singular values show"
    return (
        f"<section><h2>{title}</h2><p>Width: <b>{width_text(report)}</b>{escape(width_note(report))}. "
        "Outputs of a model of width h fill h directions; the singular values fall where they end. "
        f"{_gap_sentence(marks, report.width)}</p><figure>{''.join(plots)}</figure></section>"
    )


def _marks(report: AuditReport) -> list[Mark]:
    """Every significant gap, and in any case the one that was accepted as the width.

    Where a width is known, falls among the first values that say nothing after so few are left out.
    """
    values, width = report.singular_values, report.width
    positive = np.array([value for value in values if math.isfinite(value) and value > 0])
    gaps = [gap for gap in significant_gaps(positive) if width is None or is_steep_enough(gap)]
    marks = {gap.rank: Mark(after=gap.rank, ratio=gap.ratio) for gap in gaps}
    if width is not None and 1 <= width < len(values) and width not in marks:
        ratio = values[width - 1] / values[width] if values[width] > 0 else math.inf
        marks[width] = Mark(after=width, ratio=ratio)
    return [marks[after] for after in sorted(marks)]


def _gap_sentence(marks: Sequence[Mark], width: int | None) -> str:
    if not marks:
        return "No gap stands out from the values around it."
    significant = wording.listing([f"after {mark.after:,} ({wording.ratio(mark.ratio)} times)" for mark in marks])
    others = " More than one may mean that the width was padded after training." if len(marks) > 1 else ""
    open_end = "" if width is not None else " None of them was accepted as the width."
    return f"Significant gaps: {significant}.{others}{open_end}"


# --- the rest -----------------------------------------------------------------------------------------------------


def _unresolved(report: AuditReport) -> str:
    if not report.unresolved:
        return ""
    items = "".join(f"<li>{_ticked(sentence)}</li>" for sentence in report.unresolved)
    return f"<section><h2>What could not be told</h2><ul>{items}</ul></section>"


def _capabilities(report: AuditReport) -> str:
    if not report.capabilities:
        return ""
    order = {key: place for place, key in enumerate(CAPABILITIES)}
    found = {
        key: capability(key, report.capabilities[key])
        for key in sorted(report.capabilities, key=lambda key: order.get(key, len(order)))
    }
    plain = {key: value for key, value in found.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in found.items() if isinstance(value, Mapping) and value}
    tables = [f'<table class="plain">{_rows(plain, CAPABILITIES)}</table>'] if plain else []
    for key, value in nested.items():
        rows = f'<table class="plain">{_rows(value)}</table>'
        tables.append(f"<details><summary>{_label(key, CAPABILITIES)}</summary>{rows}</details>")
    return f"<section><h2>What the interface allows</h2>{''.join(tables)}</section>"


def _legend(report: AuditReport) -> str:
    rows = []
    for severity, words in _SEVERITIES.items():
        name, mark = severity.name.lower(), " <b>(the threshold)</b>" if severity is report.threshold else ""
        rows.append(f'<li><span class="chip {name}">{name}</span><span>{words}{mark}</span></li>')
    exits = "".join(f"<li><code>{code}</code><span>{meaning}</span></li>" for code, meaning in _EXITS.items())
    return (
        '<section class="legend"><h2>How to read this</h2><div class="two">'
        f"<div><h3>Severity</h3><ul>{''.join(rows)}</ul></div>"
        f'<div><h3>Exit status</h3><ul class="codes">{exits}</ul></div></div>'
        "<p>A figure marked <i>extrapolated</i> was worked out from what a small block cost; nobody ran it. "
        "Findings concern OWASP LLM10:2025 (model extraction through an API) and MITRE ATLAS AML.T0024.002 "
        "(Extract AI Model).</p></section>"
    )


def _footer(report: AuditReport) -> str:
    return (
        f"<footer>lensmith {escape(lensmith.__version__)}, {_text(report.started_at)}, "
        f"{wording.duration(report.seconds)}, seed {report.seed}, report schema {report.schema_version}</footer>"
    )


def _rows(values: Mapping[str, Any], words: Mapping[str, str] = FIGURES) -> str:
    return "".join(f"<tr><th>{_label(key, words)}</th><td>{_figure(key, values[key])}</td></tr>" for key in values)


def _figure(key: str, value: Any) -> str:
    return wording.ratio(value) if key == "ratio" and isinstance(value, float) else _value(value)


def _value(value: Any) -> str:
    """A JSON value for a person."""
    if value is None:
        return _dim("none")
    if isinstance(value, bool):
        return "yes" if value else _dim("no")
    if isinstance(value, Mapping):
        return f'<table class="plain">{_rows(value)}</table>' if value else _dim("none")
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(item, str) and item in _READ_OUTS for item in value)
    ):
        return "<br>".join(f"<b>{item}</b> {escape(_READ_OUTS[item])}" for item in value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) if value else _dim("none")
    if hasattr(value, "tolist"):
        return _value(value.tolist())
    if isinstance(value, float):
        return wording.figure(value)
    return f"{value:,}" if isinstance(value, int) else _text(str(value))


def _ticked(text: str) -> str:
    """Escaped text in which what stands between backticks is code."""
    pieces = visible(text).split("`")
    if len(pieces) % 2 == 0:
        return escape("`".join(pieces))
    return "".join(
        f"<code>{escape(piece)}</code>" if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


def _label(key: str, words: Mapping[str, str]) -> str:
    return _text(words.get(str(key)) or str(key).replace("_", " "))


def _text(text: str) -> str:
    return escape(visible(text))


def _big(text: str) -> str:
    return f"<strong>{escape(text)}</strong>"


def _dim(text: str) -> str:
    return f'<span class="dim">{escape(text)}</span>' if text else ""
