"""One audit from end to end: what exists, what it reads, how wide the model is, what the whole would cost.

Each stage writes what it found into the event log and the matrices beside it, so a run that ends early, by a crash, by
Ctrl-C or because its budget is spent, goes on where it was when the same command is typed again.

What the whole last layer costs through each read-out: as it was paid, where it was read; else worked out.

Working out takes the number of contexts and the queries a logit of the width that was read, where one was; what the
readers expect before anything was read stands in for the rest.

What an audit tells of its progress: where it is, and what it has asked. How much is left nobody knows beforehand.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import lensmith
from lensmith.audit.findings.finding import AuditReport, Cost, Finding, ReadOut, Severity
from lensmith.audit.findings.wording import only_tried
from lensmith.audit.probe.capabilities import CHEAPEST_FIRST, Probed
from lensmith.audit.querying.contexts import ContextForm, route_of
from lensmith.audit.querying.meter import Budget, TokenTexts
from lensmith.audit.querying.price import CONTEXTS_PER_WIDTH, extrapolated, total, with_price
from lensmith.audit.readouts.choose import reader_for
from lensmith.audit.session import Session, SessionConfig, open_session
from lensmith.audit.stages.image import IMAGE_FILE, find_image
from lensmith.audit.stages.layer import LayerOutcome, find_layer, with_evidence
from lensmith.audit.stages.proof import metadata_finding, prove
from lensmith.audit.stages.rotation import find_rotation
from lensmith.audit.stages.runner import StageRunner
from lensmith.audit.stages.stage import AuditStage
from lensmith.audit.stages.width import WidthOutcome, find_width
from lensmith.audit.weights.head import open_gain, open_head
from lensmith.core.endpoint import Endpoint
from lensmith.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AuditProgress:
    """`stage` in words, `queries` so far, those of earlier runs included, and `most_queries` that may be asked."""

    stage: str
    queries: int
    most_queries: int | None

    def __str__(self) -> str:
        most = "" if self.most_queries is None else f" (at most {self.most_queries:,})"
        return f"{self.queries:,} {'query' if self.queries == 1 else 'queries'}{most}: {self.stage}"


OnProgress = Callable[[AuditProgress], None]


class Reporter:
    """Keeps the stage and the count together, and tells them whenever one changes."""

    def __init__(self, most_queries: int | None, on_progress: OnProgress) -> None:
        self._most_queries = most_queries
        self._on_progress = on_progress
        self._stage = self._shown = "probe"
        self._queries = 0

    def begin(self, stage: str) -> None:
        """A new stage."""
        self._stage = self._shown = stage
        self._tell()

    def rows(self, done: int, total: int) -> None:
        """Contexts of the stage's matrix that were read."""
        self._shown = f"{self._stage}, {done:,} of {total:,} contexts"
        self._tell()

    def spent(self, cost: Cost) -> None:
        """What was asked so far, as the meter counts it."""
        self._queries = cost.queries
        self._tell()

    def _tell(self) -> None:
        self._on_progress(AuditProgress(stage=self._shown, queries=self._queries, most_queries=self._most_queries))


WHOLE_IS = "whole_is"
ASSUMED_WIDTH = 4_096
ASSUMED_VOCABULARY = 128_000
"""For extrapolating where nothing is known: a common model of 7 billion parameters."""


def with_whole_costs(stage: AuditStage, findings: Sequence[Finding], width: WidthOutcome) -> list[Finding]:
    """The findings, each leak with what the whole last layer takes through it."""
    layer = next((finding for finding in findings if finding.code == "LAYER"), None)
    return [_with_whole_cost(stage, finding, width, layer) for finding in findings]


def _with_whole_cost(stage: AuditStage, finding: Finding, width: WidthOutcome, layer: Finding | None) -> Finding:
    """The width is the one found, else the least that is proven, else an assumed one, as the evidence then says."""
    read_out = finding.read_out
    if read_out is None or not finding.code.startswith("LEAK") or not finding.spent.queries:
        return finding
    if WHOLE_IS in finding.evidence:
        return finding
    if layer is not None and layer.read_out is read_out:
        return replace(finding, whole=layer.whole)
    known = width.width or (width.interval or (0, 0))[1] or width.at_least
    hidden = known or ASSUMED_WIDTH
    vocabulary = stage.probed.vocabulary_size or ASSUMED_VOCABULARY
    rows = max(math.ceil(CONTEXTS_PER_WIDTH * hidden), 0 if width.finding is None else width.rows)
    queries = reader_for(read_out, stage.probed).queries_for(rows, vocabulary).queries
    evidence = {**finding.evidence, WHOLE_IS: f"the last layer, {rows} contexts x {vocabulary} tokens"}
    if not known:
        evidence["assumed_width"] = hidden
    paid = finding.spent
    if width.finding is not None and width.read_out is read_out:
        paid = width.finding.spent
        queries = max(paid.queries, math.ceil(queries * _paid_share(stage, read_out, width, paid)))
    return replace(finding, whole=extrapolated(paid, queries, stage.price), evidence=evidence)


def _paid_share(stage: AuditStage, read_out: ReadOut, width: WidthOutcome, paid: Cost) -> float:
    """What the width's matrix took, as a part of what its reader expected."""
    expected = reader_for(read_out, stage.probed).queries_for(width.rows, width.columns + 1).queries
    return paid.queries / max(1, expected)


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
    budget: Budget = field(default_factory=Budget)
    threshold: Severity = Severity.MEDIUM
    read_outs: tuple[ReadOut, ...] = ()
    form: ContextForm | None = None
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
        budget=config.budget,
        prices=config.prices,
        retest=config.retest,
    )
    reporter = Reporter(config.budget.max_queries, on_progress)
    with open_session(endpoint, opening, texts=texts, server=server, on_spent=reporter.spent) as session:
        stage, runner = session.stage, StageRunner(session.stage)
        width = _read(session, config, reporter, runner)
        findings = with_whole_costs(stage, runner.findings, width)
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
        unresolved=tuple(runner.unresolved),
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


def _read(session: Session, config: AuditConfig, reporter: Reporter, runner: StageRunner) -> WidthOutcome:
    """Proves each read-out that exists, reads the width through the cheapest, and the layer where that is in reach.

    Where a query tells many logits, all but the rotation comes before the proofs that follow, which take more than it.
    """
    stage, proven = session.stage, list[ReadOut]()
    beyond: _Beyond | None = None
    if session.probe_ended_by is not None:
        runner.stop("the probe", session.probe_ended_by)
    if stage.probed.facts:
        runner.findings.append(metadata_finding(stage))
    for read_out in _wanted(stage.probed, config.read_outs):
        if not _prove(stage, read_out, reporter, runner):
            continue
        proven.append(read_out)
        if beyond is None and read_out in _MANY_A_QUERY:
            beyond = _width_and_layer(stage, read_out, config, reporter, runner)
    runner.unresolved += _untried(stage.probed, config.read_outs)
    runner.unresolved += [f"the probe: {name}: {problem}" for name, problem in stage.probed.undecided().items()]
    runner.unresolved += [f"the probe: {session.unprobed}"] if session.unprobed else []
    if session.other is not None:
        _read_other_route(session.other, stage, config, reporter, runner)
    if not proven:
        return WidthOutcome(note="no read-out was read" if runner.is_cut_short else "no read-out tells logits")
    beyond = beyond or _width_and_layer(stage, proven[0], config, reporter, runner)
    if beyond.width.finding is None and not beyond.width.out_of_budget and ReadOut.P7 in proven[1:]:
        # All others read what is told, with the same noise; what is chosen no noise or rounding touches.
        beyond = _width_and_layer(stage, ReadOut.P7, config, reporter, runner)
    if beyond.width.finding is None:
        runner.unresolved.append(f"the width: {beyond.width.note}")
    else:
        _read_rotation(stage, beyond, config, reporter, runner)
    return beyond.width


def _prove(stage: AuditStage, read_out: ReadOut, reporter: Reporter, runner: StageRunner, where: str = "") -> bool:
    """Whether a read-out reads logits; what it tells goes into the ledger. `where`: the route, if not the main one."""
    name = f"{read_out.value} ({read_out.title}{where})"
    reporter.begin(name)
    proof = runner.attempt(name, partial(prove, stage, read_out))
    if proof is None:
        return False
    found = [replace(finding, title=f"{finding.title}{where}") for finding in proof.findings]
    runner.findings += with_whole_costs(stage, found, WidthOutcome()) if where else found
    runner.unresolved += proof.unresolved
    return proof.holds


def _read_other_route(
    other: AuditStage, stage: AuditStage, config: AuditConfig, reporter: Reporter, runner: StageRunner
) -> None:
    """Proves what the other route gives away and the audited one does not."""
    known, where = stage.probed.readable(), f", asked by {route_of(other.form).value}"
    for read_out in _wanted(other.probed, config.read_outs):
        if read_out not in known:
            _prove(other, read_out, reporter, runner, where)
    failed = other.probed.undecided(besides=known)
    runner.unresolved += [f"the probe{where}: {name}: {problem}" for name, problem in failed.items()]


@dataclass(frozen=True, kw_only=True)
class _Beyond:
    """The width, and the layer where it was recovered."""

    width: WidthOutcome
    layer: LayerOutcome = field(default_factory=LayerOutcome)


def _width_and_layer(
    stage: AuditStage, read_out: ReadOut, config: AuditConfig, reporter: Reporter, runner: StageRunner
) -> _Beyond:
    """The width, and where it is found, the layer up to a linear map and the image as far as the budget reaches."""
    width = _width_through(stage, read_out, reporter, runner)
    if width.finding is None:
        return _Beyond(width=width)
    runner.findings.append(replace(width.finding, whole=width.finding.spent))
    reporter.begin("layer")
    found = runner.attempt("the layer", lambda: find_layer(stage, width, config.truth, reporter.rows)) or LayerOutcome()
    runner.unresolved += found.unresolved
    if found.finding is not None:
        runner.findings.append(_after([width.finding], found.finding))
    reporter.begin("image")
    columns, path = found.columns or width.columns, config.out / IMAGE_FILE
    image = runner.attempt("the image", lambda: find_image(stage, width, columns, path, reporter.rows))
    if image is not None:
        runner.unresolved += image.unresolved
        runner.findings += [] if image.finding is None else [_after([width.finding, found.finding], image.finding)]
    return _Beyond(width=width, layer=found)


def _width_through(stage: AuditStage, read_out: ReadOut, reporter: Reporter, runner: StageRunner) -> WidthOutcome:
    """What a proven read-out tells of the width; what kept it from doing so is its note."""
    reporter.begin(f"width, {read_out.value}")
    known_before = len(runner.unresolved)
    found = runner.attempt("the width", partial(find_width, stage, read_out, reporter.rows))
    if found is not None:
        return replace(found, note=found.note.removeprefix("; "))
    reasons = [sentence.removeprefix("the width: ") for sentence in runner.unresolved[known_before:]]
    del runner.unresolved[known_before:]
    return WidthOutcome(read_out=read_out, out_of_budget=runner.is_cut_short, note="; ".join(reasons))


def _read_rotation(
    stage: AuditStage, beyond: _Beyond, config: AuditConfig, reporter: Reporter, runner: StageRunner
) -> None:
    """The layer up to a rotation, where the layer was recovered; why not stands in the layer's evidence."""
    width, found = beyond.width, beyond.layer
    if found.finding is None:
        return
    reporter.begin("layer up to a rotation")
    truth = config.truth if found.is_own_truth else None
    rotation = runner.attempt("the rotation", lambda: find_rotation(stage, width, found, truth, reporter.rows))
    if rotation is not None and rotation.finding is not None:
        runner.findings.append(_after([width.finding, found.finding], rotation.finding))
        return
    why_not = "not finished" if rotation is None else rotation.why_not
    place = next(place for place, finding in enumerate(runner.findings) if finding.code == found.finding.code)
    runner.findings[place] = with_evidence(runner.findings[place], up_to_rotation=why_not)


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
