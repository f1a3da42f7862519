"""One audit from end to end: what exists, what it reads, how wide the model is, what the whole would cost.

Each stage writes what it found into the event log and the matrices beside it, so a run that ends early, by a crash, by
Ctrl-C or because its budget is spent, goes on where it was when the same command is typed again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import lensmith
from lensmith.audit.contexts import Contexts, Form, first_of_each_form, form_of
from lensmith.audit.cures import server_name
from lensmith.audit.findings import AuditReport, Cost, Finding, ReadOut, Severity
from lensmith.audit.layer_stage import find_layer
from lensmith.audit.meter import EventLog, Limits, Meter, TokenTexts
from lensmith.audit.price import PriceList, load_prices, total, with_price
from lensmith.audit.probe import probe
from lensmith.audit.probed import Probed
from lensmith.audit.stages import Stage, WidthOutcome, find_width, metadata_finding, prove, with_whole_cost
from lensmith.core.endpoint import Endpoint

READERS_ORDER = (
    ReadOut.P1,
    ReadOut.P2,
    ReadOut.P5,
    ReadOut.P3,
    ReadOut.P4A,
    ReadOut.P4B,
    ReadOut.P6,
    ReadOut.P7,
)
"""From the cheapest to the dearest, as a reader pays."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What to audit and how far to go. `target` and `model` are names for the report and the log.

    `read_outs`: only these are tried; empty for all. `form`: how contexts are put; None for the first form that the
    endpoint answers. `truth`: the model's own weights, to score a recovered layer.
    `retest` is the command that checks a cure.
    """

    target: str
    model: str
    out: Path
    limits: Limits = field(default_factory=Limits)
    threshold: Severity = Severity.MEDIUM
    read_outs: tuple[ReadOut, ...] = ()
    form: Form | None = None
    truth: Path | None = None
    prices: Path | None = None
    seed: int = 0
    retest: str = ""


def audit(
    endpoint: Endpoint,
    config: AuditConfig,
    on_progress: OnProgress = lambda done, total: None,
    *,
    texts: TokenTexts | None = None,
    server: str | None = None,
) -> AuditReport:
    """Audits an endpoint. Writes only below `config.out`; the report's files are the caller's to write.

    `texts`: the client's numbers for tokens that the server names by text. `server`: its name, for the cures.
    Raises NotExposedError where the endpoint answers nothing, ConfigError where `config.out` holds another audit.
    """
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    prices = load_prices(config.prices)
    header = {"target": config.target, "model": config.model, "seed": config.seed, "lensmith": lensmith.__version__}
    log = EventLog(config.out / "events.jsonl", header)
    try:
        meter = Meter(endpoint, config.limits, log, _progress(config.limits, on_progress), texts)
        forms = first_of_each_form(config.seed) if config.form is None else [Contexts(config.form, config.seed)[0]]
        probed = probe(meter, forms)
        log.write("probed", **probed.as_json())
        stage = _stage(meter, config, probed, prices, server)
        findings, unresolved, width = _read(stage, config)
        for finding in findings:
            log.write("finding", code=finding.code, severity=finding.severity.name, was_read=finding.was_read)
    finally:
        log.close()
    return AuditReport(
        target=config.target,
        model=config.model,
        seed=config.seed,
        started_at=started_at,
        seconds=time.monotonic() - began,
        threshold=config.threshold,
        capabilities=probed.as_json(),
        findings=tuple(findings),
        unresolved=tuple(unresolved),
        width=width.width,
        width_interval=width.interval,
        width_note=width.note,
        singular_values=width.singular_values,
        spent=with_price(meter.spent, prices.of(config.model)),
    )


def _read(stage: Stage, config: AuditConfig) -> tuple[list[Finding], list[str], WidthOutcome]:
    """Proves each read-out that exists, reads the width through the cheapest, and the layer where that is in reach."""
    findings: list[Finding] = []
    unresolved: list[str] = []
    if stage.probed.facts:
        findings.append(metadata_finding(stage))
    proven: list[ReadOut] = []
    for read_out in _wanted(stage.probed, config.read_outs):
        proof = prove(stage, read_out)
        findings += proof.findings
        unresolved += proof.unresolved
        if proof.holds:
            proven.append(read_out)
    width = WidthOutcome(note="no read-out tells logits" if not proven else "")
    for place, read_out in enumerate(proven):
        if place > 0 and read_out is not ReadOut.P7:
            continue  # all others read what is told, with the same noise; what is chosen no noise or rounding touches
        width = find_width(stage, read_out)
        if width.finding is not None:
            width_paid = width.finding.spent
            findings.append(replace(width.finding, whole=width_paid))
            layer = find_layer(stage, read_out, width, config.truth)
            findings += [replace(found, whole=total((width_paid, found.spent))) for found in layer.findings]
            unresolved += layer.unresolved
            break
        if width.out_of_budget:
            break  # the ones that follow are dearer
    if proven and width.finding is None:
        unresolved.append(f"the width: {width.note}")
    return [with_whole_cost(stage, finding, width) for finding in findings], unresolved, width


def _wanted(probed: Probed, only: Sequence[ReadOut]) -> list[ReadOut]:
    there = probed.read_outs()
    return [read_out for read_out in READERS_ORDER if read_out in there and (not only or read_out in only)]


def _stage(meter: Meter, config: AuditConfig, probed: Probed, prices: PriceList, server: str | None) -> Stage:
    return Stage(
        meter=meter,
        probed=probed,
        form=form_of(probed.context),
        folder=config.out / "matrices",
        price=prices.of(config.model),
        server=server_name(server),
        retest=config.retest,
        seed=config.seed,
    )


def _progress(limits: Limits, on_progress: OnProgress) -> Callable[[Cost], None]:
    total = limits.max_queries or 0
    return lambda spent: on_progress(min(spent.queries, total - 1) if total else spent.queries, total)
