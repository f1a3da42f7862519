"""Runs side by side as one page: how they stand, their curves, what their recipes differ in, what they wrote.

The page has no script: which runs show, and how smooth, are check boxes that the style sheet reads. Each curve is
therefore drawn once for each smoothing.
"""

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import lensmith
from lensmith.core.page import page, table
from lensmith.workflows.training.comparison import (
    ComparedRuns,
    RunRecord,
    RunSummary,
    Sample,
    speed_of,
    steps_words,
)

_HUES = (214, 22, 150, 282, 340, 186, 48, 0)
_SMOOTHINGS = {"none": 1, "10 steps": 10, "50 steps": 50}
_MOST_POINTS = 400
_SIDE = 1000
"""Curves are drawn in a square of so many units, which the page stretches; text is no part of it, and is not."""
_OUTSIDE = 0.005
_MOST_WRITTEN = 5

_STYLE = """
.runs td,.fields td{font-variant-numeric:tabular-nums;padding:10px 16px 10px 0}
.runs td:first-child{font-weight:600}.runs .why{display:block;font-size:13px;color:var(--dim);max-width:34ch}
.swatch{display:inline-block;width:11px;height:11px;border-radius:3px;background:var(--run);margin-right:8px}
.state{font-weight:600;white-space:nowrap}.finished{color:var(--good)}.running{color:var(--accent)}
.stopped,.unknown{color:var(--open)}.failed,.lost{color:var(--bad)}
.choices{display:flex;flex-wrap:wrap;gap:8px 22px;margin:0 0 18px;align-items:center}
.choices>div{display:flex;flex-wrap:wrap;gap:6px;align-items:center}
.choices .dim{font-size:13px;margin-right:2px}
.choices input{position:absolute;opacity:0;pointer-events:none}
.choices label{cursor:pointer;border:1px solid var(--line);border-radius:999px;padding:3px 12px;font-size:13px;
color:var(--dim);user-select:none}
.choices label .swatch{opacity:.25}
.choices input:checked+label{color:var(--ink);border-color:var(--dim);background:var(--code)}
.choices input:checked+label .swatch{opacity:1}
.choices input:focus-visible+label{outline:2px solid var(--accent);outline-offset:2px}
.charts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:26px 34px}
.chart{margin:0}.chart figcaption{font-weight:600;font-size:14px;margin:0 0 8px}
.chart figcaption .dim{font-weight:400}
.frame{position:relative;height:250px;margin:0 10px 22px 52px}
.frame svg{width:100%;height:100%;display:block;overflow:visible}
.frame line{stroke:var(--line);vector-effect:non-scaling-stroke}
.frame polyline{fill:none;stroke:var(--run);stroke-width:1.6;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.frame span{position:absolute;font-size:12px;line-height:1;color:var(--dim);font-variant-numeric:tabular-nums;
white-space:nowrap}
.frame .y{right:calc(100% + 8px);transform:translateY(-50%)}
.frame .x{top:calc(100% + 8px);transform:translateX(-50%)}
.frame b{position:absolute;width:7px;height:7px;margin:-3.5px;border-radius:50%;background:var(--run)}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:16px}
.sample{display:grid;grid-template-columns:72px 1fr;gap:4px 14px;border:1px solid var(--line);border-radius:10px;
padding:14px}
.sample img{width:72px;height:72px;object-fit:contain;background:#fff;border:1px solid var(--line);border-radius:6px}
.sample ol{list-style:none;margin:6px 0 0;padding:0;grid-column:1/-1;font-size:14px}
.sample li{display:grid;grid-template-columns:72px 1fr;gap:14px;margin:0;padding:5px 0;border-top:1px solid var(--line)}
.sample li .dim{font-variant-numeric:tabular-nums;font-size:13px}
@media(max-width:760px){.charts{grid-template-columns:minmax(0,1fr)}.frame{height:200px}
.runs thead{display:none}.runs tr{display:block;padding:10px 0;border-bottom:1px solid var(--line)}
.runs tbody tr:last-child{border-bottom:0}
.runs td{display:flex;justify-content:space-between;gap:16px;border:0;padding:3px 0;text-align:right}
.runs td::before{content:attr(data-name);color:var(--dim);font-size:13px;flex:none;font-weight:400}
.runs td:first-child{font-size:16px}.runs td:first-child::before{content:none}
.fields td,.fields th{padding-right:12px}}
"""


def comparison_page(comparison: ComparedRuns) -> str:
    """The whole page; no other file, no network, no script."""
    records = comparison.records
    title = records[0].summary.name if len(records) == 1 else f"{len(records)} training runs"
    head = f'<header><p class="kicker">Training</p><h1>{escape(title)}</h1>{_lead(records)}</header>'
    standing = f"<section><h2>How they stand</h2>{_runs(records)}</section>"
    differences = _differences(comparison)
    body = head + standing + _curves(records) + differences + _samples(records) + _notes(records)
    return page(title=title, body=body, style=_STYLE + _toggles(len(records)))


def _toggles(runs: int) -> str:
    """What the check boxes do."""
    colours = "".join(f".r{place}{{--run:hsl({_HUES[place % len(_HUES)]} 72% 44%)}}" for place in range(runs))
    dark = "".join(f".r{place}{{--run:hsl({_HUES[place % len(_HUES)]} 76% 68%)}}" for place in range(runs))
    hidden = "".join(
        f"main:has(#run-{place}:not(:checked)) :is(polyline,b,li).r{place}{{display:none}}" for place in range(runs)
    )
    smooth = ""
    for place in range(1, len(_SMOOTHINGS)):
        smooth += f"main:not(:has(#smooth-{place}:checked)) .s{place}{{display:none}}"
    faint = "main:not(:has(#smooth-0:checked)) .s0{opacity:.22}"
    return f"{colours}@media(prefers-color-scheme:dark){{{dark}}}{hidden}{smooth}{faint}"


def _lead(records: Sequence[RunRecord]) -> str:
    told = [record.summary for record in records if record.summary.held_out_loss is not None]
    if not told:
        return ""
    best = min(told, key=lambda run: run.held_out_loss or 0.0)
    lowest = f"held-out loss {best.held_out_loss:.4f} nats a token after {best.step:,} steps"
    return f'<p class="lead">{f"Lowest: {escape(best.name)}, " if len(told) > 1 else ""}{lowest}</p>'


# --- the table ----------------------------------------------------------------------------------------------------


def _runs(records: Sequence[RunRecord]) -> str:
    heads = ("run", "recipe", "plan", "steps", "loss", "held out", "tokens/s", "mfu", "padding", "blank", "waiting")
    rows = [[*_cells(place, record.summary), _state(record.summary)] for place, record in enumerate(records)]
    return f'<div class="scroll">{table((*heads, "state"), rows, name="runs")}</div>'


def _cells(place: int, run: RunSummary) -> list[str]:
    return [
        f'<span><i class="swatch r{place}"></i>{escape(run.name)}</span>',
        escape(run.recipe or "-"),
        f"<code>{escape(run.plan)}</code>" if run.plan else "-",
        steps_words(run),
        _number(run.loss, ".4f"),
        _number(run.held_out_loss, ".4f"),
        _number(speed_of(run), ",.0f"),
        _number(run.mfu, ".1%"),
        _number(run.padding_share, ".1%"),
        _number(run.blank_share, ".1%"),
        _number(run.data_wait_share, ".1%"),
    ]


def _state(run: RunSummary) -> str:
    name = "unknown" if run.state is None else run.state.value
    why = f'<span class="why">{escape(run.why)}</span>' if run.why else ""
    return f'<span><span class="state {name}">{name}</span>{why}</span>'


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _differences(comparison: ComparedRuns) -> str:
    summary = comparison.summary
    if not summary.differences:
        return ""
    rows = [
        [f"<code>{escape(name)}</code>", *(escape(str(value)) for value in values)]
        for name, values in summary.differences.items()
    ]
    heads = ("field", *(run.name for run in summary.runs))
    return f'<section><h2>What differs</h2><div class="scroll">{table(heads, rows, name="fields")}</div></section>'


# --- the curves ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """What a chart shows of each log line. `is_sparse`: few points, which are marked and never smoothed."""

    title: str
    unit: str
    value: Callable[[RunRecord, Mapping[str, Any]], float | None]
    form: str = ".3g"
    is_sparse: bool = False
    is_smoothed: bool = True
    is_logarithmic: bool = False


def _named(name: str) -> Callable[[RunRecord, Mapping[str, Any]], float | None]:
    return lambda record, line: line.get(name)


_CHARTS = (
    _Chart(title="loss", unit="nats a token", value=_named("loss")),
    _Chart(
        title="held-out loss",
        unit="nats a token",
        value=lambda record, line: None if record.held_out is None else line.get(record.held_out),
        is_sparse=True,
    ),
    _Chart(title="gradient norm", unit="before clipping, logarithmic", value=_named("grad_norm"), is_logarithmic=True),
    _Chart(title="learning rate", unit="", value=_named("lr"), form=".1e", is_smoothed=False),
    _Chart(
        title="tokens a second",
        unit="all that are read",
        value=lambda record, line: line.get("tokens_per_s", line.get("target_tokens_per_s")),
        form=",.0f",
    ),
    _Chart(title="model FLOP utilisation", unit="see below", value=_named("mfu"), form=".0%"),
)


def _curves(records: Sequence[RunRecord]) -> str:
    charts = "".join(_drawn(chart, records) for chart in _CHARTS)
    if not charts:
        return ""
    runs = "".join(
        f'<input type="checkbox" id="run-{place}" checked><label for="run-{place}"><i class="swatch r{place}"></i>'
        f"{escape(record.summary.name)}</label>"
        for place, record in enumerate(records)
    )
    smooth = "".join(
        f'<input type="radio" name="smooth" id="smooth-{place}"{" checked" if place == 1 else ""}>'
        f'<label for="smooth-{place}">{name}</label>'
        for place, name in enumerate(_SMOOTHINGS)
    )
    choices = (
        f'<div class="choices"><div><span class="dim">runs</span>{runs}</div>'
        f'<div><span class="dim">smoothed over</span>{smooth}</div></div>'
    )
    return f'<section><h2>Curves</h2>{choices}<div class="charts">{charts}</div></section>'


def _drawn(chart: _Chart, records: Sequence[RunRecord]) -> str:
    """The chart, empty where no run has a point in it."""
    curves = [list(_points(chart, record)) for record in records]
    values = sorted(y for curve in curves for _, y in curve)
    if not values:
        return ""
    scale = _Scale.of(values, [x for curve in curves for x, _ in curve], is_logarithmic=chart.is_logarithmic)
    parts = [f'<line x1="0" x2="{_SIDE}" y1="{y:.1f}" y2="{y:.1f}"/>' for y in map(scale.down, scale.rows)]
    marks = []
    for place, curve in enumerate(curves):
        for level, steps in enumerate(_SMOOTHINGS.values() if chart.is_smoothed and not chart.is_sparse else (1,)):
            name = f"r{place}" if chart.is_sparse or not chart.is_smoothed else f"r{place} s{level}"
            points = " ".join(
                f"{scale.across(x):.1f},{scale.down(y):.1f}" for x, y in _thinned(_smoothed(curve, steps))
            )
            if points:
                parts.append(f'<polyline class="{name}" points="{points}"/>')
        if chart.is_sparse or len(curve) == 1:
            marks += [
                f'<b class="r{place}" style="left:{scale.across(x) / _SIDE:.2%};top:{scale.down(y) / _SIDE:.2%}" '
                f'title="step {x:,}: {y:.4g}"></b>'
                for x, y in curve
            ]
    texts = [f'<span class="y" style="top:{scale.down(y) / _SIDE:.2%}">{y:{chart.form}}</span>' for y in scale.rows]
    texts += [f'<span class="x" style="left:{scale.across(x) / _SIDE:.2%}">{x:,}</span>' for x in scale.columns]
    unit = f' <span class="dim">{chart.unit}</span>' if chart.unit else ""
    return (
        f'<figure class="chart"><figcaption>{chart.title}{unit}</figcaption><div class="frame">'
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" role="img" aria-label="{chart.title} by step">'
        f"{''.join(parts)}</svg>{''.join(marks)}{''.join(texts)}</div></figure>"
    )


def _points(chart: _Chart, record: RunRecord) -> Iterator[tuple[int, float]]:
    for line in record.lines:
        value = chart.value(record, line)
        if value is not None and (value > 0 or not chart.is_logarithmic):
            yield line["step"], value


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Where a step and a value stand; `rows` and `columns` are the values and steps that are written beside."""

    low: float
    high: float
    first: int
    last: int
    rows: tuple[float, ...]
    columns: tuple[int, ...]
    is_logarithmic: bool

    @classmethod
    def of(cls, values: Sequence[float], steps: Sequence[int], *, is_logarithmic: bool) -> "_Scale":
        """For sorted values: the few that lie outside of all others do not decide, and are drawn at the edge."""
        outside = int(len(values) * _OUTSIDE)
        low, high = values[outside], values[len(values) - 1 - outside]
        if is_logarithmic:
            low, high = math.log10(low), math.log10(high)
        margin = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
        low, high = low - margin, high + margin
        if not is_logarithmic and values[0] >= 0:
            low = max(low, 0.0)
        first, last = min(steps), max(steps)
        return cls(
            low=low,
            high=high,
            first=first,
            last=last,
            rows=tuple(_decades(low, high) if is_logarithmic else _round_numbers(low, high, 4)),
            columns=tuple(int(step) for step in _round_numbers(first, last, 4) if step == int(step)),
            is_logarithmic=is_logarithmic,
        )

    def across(self, step: float) -> float:
        return _SIDE * (step - self.first) / max(self.last - self.first, 1)

    def down(self, value: float) -> float:
        height = math.log10(value) if self.is_logarithmic else value
        return _SIDE * min(max((self.high - height) / (self.high - self.low), 0.0), 1.0)


def _round_numbers(low: float, high: float, about: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, about so many."""
    rough = (high - low) / about or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two logarithms; powers alone where there are many."""
    factors = (1, 2, 5) if high - low < 1.5 else (1,)
    numbers = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    return [number for number in numbers if low <= math.log10(number) <= high]


def _smoothed(curve: Sequence[tuple[int, float]], steps: int) -> list[tuple[int, float]]:
    """An exponential mean over about so many points before, each as far as there are any."""
    keep, total, weight, found = 1 - 1 / steps, 0.0, 0.0, []
    for x, y in curve:
        total, weight = keep * total + y, keep * weight + 1
        found.append((x, total / weight))
    return found


def _thinned(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The curve, or of each of equal pieces the lowest and the highest point, so that no spike is lost."""
    if len(curve) <= _MOST_POINTS:
        return list(curve)
    pieces = _MOST_POINTS // 2
    kept = {0, len(curve) - 1}
    for piece in range(pieces):
        inside = range(piece * len(curve) // pieces, (piece + 1) * len(curve) // pieces)
        kept |= {min(inside, key=lambda at: curve[at][1]), max(inside, key=lambda at: curve[at][1])}
    return [curve[at] for at in sorted(kept)]


# --- what was written ---------------------------------------------------------------------------------------------


def _samples(records: Sequence[RunRecord]) -> str:
    """A card a picture: what each run wrote about it, step by step."""
    cards: dict[tuple[str, str], list[tuple[int, Sample]]] = {}
    for place, record in enumerate(records):
        for sample in record.samples:
            cards.setdefault((sample.key, sample.caption), []).append((place, sample))
    if not cards:
        return ""
    drawn = "".join(_card(caption, written) for (_, caption), written in cards.items())
    return (
        "<section><h2>What they wrote about held-out pictures</h2>"
        f'<p class="dim">The likeliest words while training, a few of the steps.</p><div class="samples">{drawn}</div>'
        "</section>"
    )


def _card(caption: str, written: Sequence[tuple[int, Sample]]) -> str:
    picture = next((sample.picture for _, sample in written if sample.picture is not None), None)
    shown = '<span class="dim">no picture</span>'
    if picture is not None:
        shown = f'<img alt="" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    lines = []
    for place in sorted({place for place, _ in written}):
        own = [sample for at, sample in written if at == place]
        chosen = sorted({round(at * (len(own) - 1) / (_MOST_WRITTEN - 1)) for at in range(_MOST_WRITTEN)})
        lines += [
            f'<li class="r{place}"><span class="dim"><i class="swatch"></i>{own[at].step:,}</span>'
            f"<span>{escape(own[at].written) or '<span class=dim>nothing</span>'}</span></li>"
            for at in chosen
        ]
    return (
        f'<div class="sample">{shown}<div><span class="dim">its caption</span><br>{escape(caption)}</div>'
        f"<ol>{''.join(lines)}</ol></div>"
    )


def _notes(records: Sequence[RunRecord]) -> str:
    sources = {record.summary.peak_source for record in records if record.summary.peak_source}
    peaks = f" Peaks here: {escape('; '.join(sorted(sources)))}." if sources else ""
    return (
        "<section><h2>How to read this</h2><p><b>Tokens a second</b>, <b>mfu</b> and <b>waiting</b> count the time of "
        "the steps alone, without validation and checkpoints; the table has medians of the last stage. <b>Mfu</b>, "
        "model FLOP utilisation, is the arithmetic that the model needs over what the device could do at its peak in "
        f"the same time.{peaks} <b>Padding</b> and <b>blank</b> are the parts of all tokens that fill up rows, and "
        "that stand for a blank picture; <b>waiting</b> is the part of the time spent on batches that were not ready."
        "</p><p>Curves: the few values that lie far outside of all others are drawn at the edge. Steps go on from "
        f"stage to stage.</p></section><footer>lensmith {escape(lensmith.__version__)}</footer>"
    )
