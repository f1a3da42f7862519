"""One audit from end to end: what exists, what it reads, how wide the model is, what the whole would cost.

Each stage writes what it found into the event log and the matrices beside it, so a run that ends early, by a crash, by
Ctrl-C or because its budget is spent, goes on where it was when the same command is typed again.
"""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from lensmith.audit.findings.finding import AuditReport, ReadOut, Severity
from lensmith.audit.findings.wording import only_tried
from lensmith.audit.probe.capabilities import CHEAPEST_FIRST, YIELDS, AQuery, Probed
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.contexts import route_of
from lensmith.audit.querying.meter import TokenTexts
from lensmith.audit.querying.price import with_price
from lensmith.audit.session import Session, open_session
from lensmith.audit.stages.image import IMAGE_FILE, ImageOutcome, find_image
from lensmith.audit.stages.layer import LayerFound, LayerOutcome, find_layer
from lensmith.audit.stages.proof import metadata_finding, prove
from lensmith.audit.stages.rotation import find_rotation
from lensmith.audit.stages.runner import OnProgress, ProgressReporter, StageRunner
from lensmith.audit.stages.stage import AuditStage
from lensmith.audit.stages.whole_cost import after, with_whole_costs
from lensmith.audit.stages.width import WidthFound, WidthOutcome, WidthUnresolved, find_width
from lensmith.audit.weights.head import TrueWeights
from lensmith.core.endpoint import Endpoint
from lensmith.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What to audit and how far to go.

    `session.form` decides which route is audited; None for both, the one that gives away more as a whole.
    `read_outs`: only these are tried, of those that tell logits; empty for all. `truth`: the model's own weights, to
    score a recovered layer. Raises ConfigError for a read-out that tells no logits.
    """

    session: SessionConfig
    threshold: Severity = Severity.MEDIUM
    read_outs: tuple[ReadOut, ...] = ()
    truth: TrueWeights | None = None

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
    """Audits an endpoint. Writes only below `config.session.folder`; the report's files are the caller's to write.

    A budget that is spent, or an endpoint that is gone, ends the audit and not its report: what was found until then
    stands, and what was not tried is unresolved. `texts`: the client's numbers for tokens that the server names by
    text. `server`: its name, for the cures. Raises NotExposedError where the endpoint answers nothing, ConfigError
    where the folder holds another audit.
    """
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    asked = config.session
    progress = ProgressReporter(asked.budget.max_queries, on_progress)
    with open_session(
        endpoint,
        asked,
        asked.header(model=asked.model),
        every_route=True,
        texts=texts,
        server=server,
        on_spent=progress.spent,
    ) as session:
        stage, running = session.stage, _Audit(session, config, progress)
        width = running.run()
        findings = with_whole_costs(stage, running.runner.findings, width)
        for finding in findings:
            session.log.write("finding", code=finding.code, severity=finding.severity.name, was_read=finding.was_read)
    return AuditReport(
        target=asked.target,
        model=asked.model,
        seed=asked.seed,
        started_at=started_at,
        seconds=time.monotonic() - began,
        threshold=config.threshold,
        capabilities=stage.probed.as_json(),
        findings=tuple(findings),
        unresolved=tuple(running.runner.unresolved),
        only_read_outs=config.read_outs,
        width=width.width if isinstance(width, WidthFound) else None,
        width_interval=width.interval if isinstance(width, WidthFound) else None,
        width_note=width.estimate.reason if isinstance(width, WidthFound) else width.reason,
        singular_values=() if width.estimate is None else tuple(width.estimate.values_K.tolist()),
        spent=with_price(stage.meter.spent, stage.price),
    )


@dataclass(frozen=True, kw_only=True)
class _Recovered:
    """What one read-out gave: the width or why there is none, and the layer where it was recovered."""

    width: WidthOutcome
    layer: LayerFound | None = None


class _Audit:
    """The stages in their order. What they find and could not tell is kept by `runner`."""

    def __init__(self, session: Session, config: AuditConfig, progress: ProgressReporter) -> None:
        self.runner = StageRunner(session.stage)
        self._session = session
        self._stage = session.stage
        self._config = config
        self._progress = progress

    def run(self) -> WidthOutcome:
        """Proves each read-out that exists, reads the width through the cheapest, and the layer where that is in
        reach.

        Where a query tells many logits, all but the rotation comes before the proofs that follow, which take more.
        """
        session, probed, runner = self._session, self._stage.probed, self.runner
        if session.probe_ended_by is not None:
            runner.stop("the probe", session.probe_ended_by)
        if probed.facts:
            runner.findings.append(metadata_finding(self._stage))
        proven = list[ReadOut]()
        recovered: _Recovered | None = None
        for read_out in self._wanted(probed):
            if not self._prove(self._stage, read_out):
                continue
            proven.append(read_out)
            if recovered is None and YIELDS[read_out].a_query is AQuery.MANY:
                recovered = self._recover(read_out)
        runner.unresolved += self._untried(probed)
        runner.unresolved += [f"the probe: {name}: {problem}" for name, problem in probed.undecided().items()]
        runner.unresolved += [f"the probe: {session.unprobed}"] if session.unprobed else []
        if session.other is not None:
            self._prove_other_route(session.other)
        if not proven:
            return WidthUnresolved(reason="no read-out was read" if runner.is_cut_short else "no read-out tells logits")
        recovered = recovered or self._recover(proven[0])
        width = recovered.width
        if isinstance(width, WidthUnresolved) and not width.out_of_budget and ReadOut.P7 in proven[1:]:
            # All others read what is told, with the same noise; what is chosen no noise or rounding touches.
            recovered = self._recover(ReadOut.P7)
            width = recovered.width
        if isinstance(width, WidthUnresolved):
            runner.unresolved.append(f"the width: {width.reason}")
        else:
            self._read_rotation(width, recovered.layer)
        return width

    def _prove(self, stage: AuditStage, read_out: ReadOut, where: str = "") -> bool:
        """Whether a read-out reads logits. `where`: the route, if not the main one."""
        name = f"{read_out.value} ({read_out.title}{where})"
        self._progress.begin(name)
        proof = self.runner.attempt(name, partial(prove, stage, read_out))
        if proof is None:
            return False
        leaks = [replace(finding, title=f"{finding.title}{where}") for finding in proof.findings]
        # The width is that of the main route's model: nothing is known of another's.
        self.runner.findings += with_whole_costs(stage, leaks, WidthUnresolved(reason="not read")) if where else leaks
        self.runner.unresolved += proof.unresolved
        return proof.holds

    def _prove_other_route(self, other: AuditStage) -> None:
        """What the other route gives away and the audited one does not."""
        known, where = self._stage.probed.readable(), f", asked by {route_of(other.form).value}"
        for read_out in self._wanted(other.probed):
            if read_out not in known:
                self._prove(other, read_out, where)
        failed = other.probed.undecided(besides=known)
        self.runner.unresolved += [f"the probe{where}: {name}: {problem}" for name, problem in failed.items()]

    def _recover(self, read_out: ReadOut) -> _Recovered:
        """The width, and where it is found, the layer up to a linear map and the image as far as the budget reaches."""
        stage, runner, on_rows = self._stage, self.runner, self._progress.rows
        width = self._read_width(read_out)
        if isinstance(width, WidthUnresolved):
            return _Recovered(width=width)
        runner.findings.append(after([], width.finding))
        self._progress.begin("layer")
        outcome = runner.attempt("the layer", lambda: find_layer(stage, width, self._config.truth, on_rows))
        outcome = outcome or LayerOutcome()
        runner.unresolved += outcome.unresolved
        earlier, layer = [width.finding], outcome.found
        if layer is not None:
            runner.findings.append(after(earlier, layer.finding))
            earlier.append(layer.finding)
        self._progress.begin("image")
        columns, path = width.columns if layer is None else layer.columns, self._config.session.folder / IMAGE_FILE
        image = runner.attempt("the image", lambda: find_image(stage, width, columns, path, on_rows)) or ImageOutcome()
        runner.unresolved += image.unresolved
        if image.finding is not None:
            runner.findings.append(after(earlier, image.finding))
        return _Recovered(width=width, layer=layer)

    def _read_width(self, read_out: ReadOut) -> WidthOutcome:
        """What a proven read-out says of the width; what kept it from doing so is the reason."""
        runner = self.runner
        self._progress.begin(f"width, {read_out.value}")
        known_before = len(runner.unresolved)
        found = runner.attempt("the width", partial(find_width, self._stage, read_out, self._progress.rows))
        if found is not None:
            return found
        reasons = [sentence.removeprefix("the width: ") for sentence in runner.unresolved[known_before:]]
        del runner.unresolved[known_before:]
        return WidthUnresolved(reason="; ".join(reasons), out_of_budget=runner.is_cut_short)

    def _read_rotation(self, width: WidthFound, layer: LayerFound | None) -> None:
        """The layer up to a rotation, where the layer was recovered; why not stands in the layer's evidence."""
        stage, runner = self._stage, self.runner
        if layer is None:
            return
        self._progress.begin("layer up to a rotation")
        truth = self._config.truth if layer.is_own_truth else None
        rotation = runner.attempt(
            "the rotation", lambda: find_rotation(stage, width, layer, truth, self._progress.rows)
        )
        if rotation is not None and rotation.finding is not None:
            runner.findings.append(after([width.finding, layer.finding], rotation.finding))
            return
        why_not = "not finished" if rotation is None else rotation.why_not
        runner.amend(layer.finding.kind, up_to_rotation=why_not)

    def _wanted(self, probed: Probed) -> list[ReadOut]:
        only = self._config.read_outs
        return [read_out for read_out in probed.readable() if not only or read_out in only]

    def _untried(self, probed: Probed) -> list[str]:
        """What a restricted audit leaves open: an interface is not clean whose open read-outs were not tried."""
        only = self._config.read_outs
        left_out = [read_out for read_out in probed.readable() if only and read_out not in only]
        return [
            f"{read_out.value} ({read_out.title}): the probe shows it open; {only_tried(only)}" for read_out in left_out
        ]
