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
from lensmith.audit.contexts import Form
from lensmith.audit.findings import AuditReport, Cost, Finding, ReadOut, Severity
from lensmith.audit.image_stage import IMAGE_FILE, find_image
from lensmith.audit.layer_stage import find_layer, with_evidence
from lensmith.audit.meter import BudgetError, Limits, TokenTexts
from lensmith.audit.price import total, with_price
from lensmith.audit.probed import Probed
from lensmith.audit.rotation_stage import find_rotation
from lensmith.audit.session import SessionConfig, open_session
from lensmith.audit.stages import Stage, WidthOutcome, find_width, metadata_finding, prove, with_whole_cost
from lensmith.core.endpoint import Endpoint

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
    header = {"target": config.target, "model": config.model, "seed": config.seed, "lensmith": lensmith.__version__}
    opening = SessionConfig(
        folder=config.out,
        header=header,
        model=config.model,
        seed=config.seed,
        form=config.form,
        limits=config.limits,
        prices=config.prices,
        retest=config.retest,
    )
    on_spent = _progress(config.limits, on_progress)
    with open_session(endpoint, opening, texts=texts, server=server, on_spent=on_spent) as session:
        stage = session.stage
        findings, unresolved, width = _read(stage, config)
        for finding in findings:
            session.log.write("finding", code=finding.code, severity=finding.severity.name, was_read=finding.was_read)
    return AuditReport(
        target=config.target,
        model=config.model,
        seed=config.seed,
        started_at=started_at,
        seconds=time.monotonic() - began,
        threshold=config.threshold,
        capabilities=stage.probed.as_json(),
        findings=tuple(findings),
        unresolved=tuple(unresolved),
        width=width.width,
        width_interval=width.interval,
        width_note=width.note,
        singular_values=width.singular_values,
        spent=with_price(stage.meter.spent, stage.price),
    )


def _read(stage: Stage, config: AuditConfig) -> tuple[list[Finding], list[str], WidthOutcome]:
    """Proves each read-out that exists, reads the width through the cheapest, and the layer where that is in reach."""
    findings: list[Finding] = []
    unresolved: list[str] = []
    if stage.probed.facts:
        findings.append(metadata_finding(stage))
    proven: list[ReadOut] = []
    for read_out in _wanted(stage.probed, config.read_outs):
        try:
            proof = prove(stage, read_out)
        except BudgetError as error:
            unresolved.append(f"{read_out.value} ({read_out.title}): {error.problem}")
            break  # the ones that follow are dearer
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
            beyond = _beyond_width(stage, width, config)
            findings += [replace(width.finding, whole=width.finding.spent), *beyond.findings]
            unresolved += beyond.unresolved
            break
        if width.out_of_budget:
            break  # the ones that follow are dearer
    if proven and width.finding is None:
        unresolved.append(f"the width: {width.note}")
    return [with_whole_cost(stage, finding, width) for finding in findings], unresolved, width


@dataclass(frozen=True, kw_only=True)
class _Beyond:
    findings: tuple[Finding, ...] = ()
    unresolved: tuple[str, ...] = ()


def _beyond_width(stage: Stage, width: WidthOutcome, config: AuditConfig) -> _Beyond:
    """The layer up to a linear map, the image, and the layer up to a rotation: each where the budget reaches."""
    assert width.finding is not None, "the width was found"
    found = find_layer(stage, width, config.truth)
    image = find_image(stage, width, found.columns or width.columns, config.out / IMAGE_FILE)
    findings = [] if image.finding is None else [_after([width.finding, found.finding], image.finding)]
    if found.finding is not None:
        layer = _after([width.finding], found.finding)
        rotation = find_rotation(stage, width, found, config.truth)
        if rotation.finding is None:
            findings.append(with_evidence(layer, up_to_rotation=rotation.why_not))
        else:
            findings += [layer, _after([width.finding, layer], rotation.finding)]
    return _Beyond(findings=tuple(findings), unresolved=(*found.unresolved, *image.unresolved))


def _after(earlier: Sequence[Finding | None], finding: Finding) -> Finding:
    """The finding with what the whole of it takes: what the ones took that it builds on, and its own."""
    return replace(finding, whole=total(part.spent for part in (*earlier, finding) if part is not None))


def _wanted(probed: Probed, only: Sequence[ReadOut]) -> list[ReadOut]:
    return [read_out for read_out in probed.readable() if not only or read_out in only]


def _progress(limits: Limits, on_progress: OnProgress) -> Callable[[Cost], None]:
    total = limits.max_queries or 0
    return lambda spent: on_progress(min(spent.queries, total - 1) if total else spent.queries, total)
