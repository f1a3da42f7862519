"""One audit from end to end: what exists, what it reads, how wide the model is, what the whole would cost.

Each stage writes what it found into the event log and the matrices beside it, so a run that ends early, by a crash, by
Ctrl-C or because its budget is spent, goes on where it was when the same command is typed again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import lensmith
from lensmith.audit.contexts import Form, route_of
from lensmith.audit.findings import AuditReport, Finding, ReadOut, Severity
from lensmith.audit.image_stage import IMAGE_FILE, find_image
from lensmith.audit.layer_stage import LayerOutcome, find_layer, with_evidence
from lensmith.audit.meter import Limits, TokenTexts
from lensmith.audit.price import total, with_price
from lensmith.audit.probed import CHEAPEST_FIRST, Probed
from lensmith.audit.progress import OnProgress, Reporter
from lensmith.audit.rotation_stage import find_rotation
from lensmith.audit.session import Session, SessionConfig, open_session
from lensmith.audit.stages import Stage, WidthOutcome, find_width, metadata_finding, prove
from lensmith.audit.trouble import Ledger
from lensmith.audit.truth import open_gain, open_head
from lensmith.audit.whole_cost import with_whole_costs
from lensmith.audit.wording import only_tried
from lensmith.core.endpoint import Endpoint
from lensmith.core.errors import ConfigError

_MANY_A_QUERY = (ReadOut.P1, ReadOut.P2)


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What to audit and how far to go. `target` and `model` are names for the report and the log.

    `read_outs`: only these are tried, of those that tell logits; empty for all. `form`: how contexts are put, and so
    which route is audited; None for both, the one that gives away more as a whole. `truth`: the model's own weights, to
    score a recovered layer. `retest` is the command that checks a cure. Raises ConfigError for a read-out that tells no
    logits.
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

    def __post_init__(self) -> None:
        for read_out in self.read_outs:
            if read_out not in CHEAPEST_FIRST:
                raise ConfigError(
                    f"{read_out.value} ({read_out.title}) tells no logits and cannot be tried alone",
                    expected=", ".join(sorted(each.value for each in CHEAPEST_FIRST)),
                    actual=read_out.value,
                )


def audit(
    endpoint: Endpoint,
    config: AuditConfig,
    on_progress: OnProgress = lambda progress: None,
    *,
    texts: TokenTexts | None = None,
    server: str | None = None,
) -> AuditReport:
    """Audits an endpoint. Writes only below `config.out`; the report's files are the caller's to write.

    A budget that is spent, or an endpoint that is gone, ends the audit and not its report: what was found until then
    stands, and what was not tried is unresolved. `texts`: the client's numbers for tokens that the server names by
    text. `server`: its name, for the cures. Raises NotExposedError where the endpoint answers nothing, ConfigError
    where `config.out` holds another audit, InputError for weights that cannot be read, before anything is asked.
    """
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    if config.truth is not None:
        check_truth(config.truth)
    header = {"target": config.target, "model": config.model, "seed": config.seed, "lensmith": lensmith.__version__}
    opening = SessionConfig(
        folder=config.out,
        header=header,
        model=config.model,
        seed=config.seed,
        form=config.form,
        every_route=True,
        limits=config.limits,
        prices=config.prices,
        retest=config.retest,
    )
    reporter = Reporter(config.limits.max_queries, on_progress)
    with open_session(endpoint, opening, texts=texts, server=server, on_spent=reporter.spent) as session:
        stage, ledger = session.stage, Ledger(session.stage)
        width = _read(session, config, reporter, ledger)
        findings = with_whole_costs(stage, ledger.findings, width)
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
        unresolved=tuple(ledger.unresolved),
        only_read_outs=config.read_outs,
        width=width.width,
        width_interval=width.interval,
        width_note=width.note,
        singular_values=width.singular_values,
        spent=with_price(stage.meter.spent, stage.price),
    )


def check_truth(truth: Path) -> None:
    """Raises InputError unless the file's head, and its last norm's gain where it has one, can be read."""
    open_head(truth)
    open_gain(truth)


def _read(session: Session, config: AuditConfig, reporter: Reporter, ledger: Ledger) -> WidthOutcome:
    """Proves each read-out that exists, reads the width through the cheapest, and the layer where that is in reach.

    Where a query tells many logits, all but the rotation comes before the proofs that follow, which take more than it.
    """
    stage, proven = session.stage, list[ReadOut]()
    beyond: _Beyond | None = None
    if session.probe_ended_by is not None:
        ledger.end("the probe", session.probe_ended_by)
    if stage.probed.facts:
        ledger.findings.append(metadata_finding(stage))
    for read_out in _wanted(stage.probed, config.read_outs):
        if not _prove(stage, read_out, reporter, ledger):
            continue
        proven.append(read_out)
        if beyond is None and read_out in _MANY_A_QUERY:
            beyond = _width_and_layer(stage, read_out, config, reporter, ledger)
    ledger.unresolved += _untried(stage.probed, config.read_outs)
    ledger.unresolved += [f"the probe: {name}: {problem}" for name, problem in stage.probed.undecided().items()]
    ledger.unresolved += [f"the probe: {session.unprobed}"] if session.unprobed else []
    if session.other is not None:
        _read_other_route(session.other, stage, config, reporter, ledger)
    if not proven:
        return WidthOutcome(note="no read-out was read" if ledger.is_cut_short else "no read-out tells logits")
    beyond = beyond or _width_and_layer(stage, proven[0], config, reporter, ledger)
    if beyond.width.finding is None and not beyond.width.out_of_budget and ReadOut.P7 in proven[1:]:
        # All others read what is told, with the same noise; what is chosen no noise or rounding touches.
        beyond = _width_and_layer(stage, ReadOut.P7, config, reporter, ledger)
    if beyond.width.finding is None:
        ledger.unresolved.append(f"the width: {beyond.width.note}")
    else:
        _read_rotation(stage, beyond, config, reporter, ledger)
    return beyond.width


def _prove(stage: Stage, read_out: ReadOut, reporter: Reporter, ledger: Ledger, where: str = "") -> bool:
    """Whether a read-out reads logits; what it tells goes into the ledger. `where`: the route, if not the main one."""
    name = f"{read_out.value} ({read_out.title}{where})"
    reporter.begin(name)
    proof = ledger.attempt(name, partial(prove, stage, read_out))
    if proof is None:
        return False
    told = [replace(finding, title=f"{finding.title}{where}") for finding in proof.findings]
    ledger.findings += with_whole_costs(stage, told, WidthOutcome()) if where else told
    ledger.unresolved += proof.unresolved
    return proof.holds


def _read_other_route(other: Stage, stage: Stage, config: AuditConfig, reporter: Reporter, ledger: Ledger) -> None:
    """Proves what the other route gives away and the audited one does not."""
    known, where = stage.probed.readable(), f", asked by {route_of(other.form).value}"
    for read_out in _wanted(other.probed, config.read_outs):
        if read_out not in known:
            _prove(other, read_out, reporter, ledger, where)
    failed = other.probed.undecided(besides=known)
    ledger.unresolved += [f"the probe{where}: {name}: {problem}" for name, problem in failed.items()]


@dataclass(frozen=True, kw_only=True)
class _Beyond:
    """The width, and the layer where it was recovered."""

    width: WidthOutcome
    layer: LayerOutcome = field(default_factory=LayerOutcome)


def _width_and_layer(
    stage: Stage, read_out: ReadOut, config: AuditConfig, reporter: Reporter, ledger: Ledger
) -> _Beyond:
    """The width, and where it is found, the layer up to a linear map and the image as far as the budget reaches."""
    width = _width_through(stage, read_out, reporter, ledger)
    if width.finding is None:
        return _Beyond(width=width)
    ledger.findings.append(replace(width.finding, whole=width.finding.spent))
    reporter.begin("layer")
    found = ledger.attempt("the layer", lambda: find_layer(stage, width, config.truth, reporter.rows)) or LayerOutcome()
    ledger.unresolved += found.unresolved
    if found.finding is not None:
        ledger.findings.append(_after([width.finding], found.finding))
    reporter.begin("image")
    columns, path = found.columns or width.columns, config.out / IMAGE_FILE
    image = ledger.attempt("the image", lambda: find_image(stage, width, columns, path, reporter.rows))
    if image is not None:
        ledger.unresolved += image.unresolved
        ledger.findings += [] if image.finding is None else [_after([width.finding, found.finding], image.finding)]
    return _Beyond(width=width, layer=found)


def _width_through(stage: Stage, read_out: ReadOut, reporter: Reporter, ledger: Ledger) -> WidthOutcome:
    """What a proven read-out tells of the width; what kept it from doing so is its note."""
    reporter.begin(f"width, {read_out.value}")
    trouble = len(ledger.unresolved)
    found = ledger.attempt("the width", partial(find_width, stage, read_out, reporter.rows))
    if found is not None:
        return replace(found, note=found.note.removeprefix("; "))
    reasons = [sentence.removeprefix("the width: ") for sentence in ledger.unresolved[trouble:]]
    del ledger.unresolved[trouble:]
    return WidthOutcome(read_out=read_out, out_of_budget=ledger.is_cut_short, note="; ".join(reasons))


def _read_rotation(stage: Stage, beyond: _Beyond, config: AuditConfig, reporter: Reporter, ledger: Ledger) -> None:
    """The layer up to a rotation, where the layer was recovered; why not stands in the layer's evidence."""
    width, found = beyond.width, beyond.layer
    if found.finding is None:
        return
    reporter.begin("layer up to a rotation")
    truth = config.truth if found.is_own_truth else None
    rotation = ledger.attempt("the rotation", lambda: find_rotation(stage, width, found, truth, reporter.rows))
    if rotation is not None and rotation.finding is not None:
        ledger.findings.append(_after([width.finding, found.finding], rotation.finding))
        return
    why_not = "not finished" if rotation is None else rotation.why_not
    place = next(place for place, finding in enumerate(ledger.findings) if finding.code == found.finding.code)
    ledger.findings[place] = with_evidence(ledger.findings[place], up_to_rotation=why_not)


def _after(earlier: Sequence[Finding | None], finding: Finding) -> Finding:
    """The finding with what the whole of it takes: what the ones took that it builds on, and its own."""
    return replace(finding, whole=total(part.spent for part in (*earlier, finding) if part is not None))


def _wanted(probed: Probed, only: Sequence[ReadOut]) -> list[ReadOut]:
    return [read_out for read_out in probed.readable() if not only or read_out in only]


def _untried(probed: Probed, only: Sequence[ReadOut]) -> list[str]:
    """What a restricted audit leaves open: nobody may call an interface clean whose open read-outs were not tried."""
    left_out = [read_out for read_out in probed.readable() if only and read_out not in only]
    return [
        f"{read_out.value} ({read_out.title}): the probe shows it open; {only_tried(only)}" for read_out in left_out
    ]
