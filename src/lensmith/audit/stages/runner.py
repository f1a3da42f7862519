"""Runs stages so that one that fails becomes an unresolved question, and the others still run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from lensmith.audit.findings.finding import Cost, Finding, FindingKind
from lensmith.audit.querying.meter import BudgetError
from lensmith.audit.stages.stage import AuditStage
from lensmith.core.errors import InputError, LensmithError, NotExposedError
from lensmith.openai_api import EndpointError

_FIRST_LIVENESS_SEED = 2_000
"""A seed makes the question one that is not in the log."""

Result = TypeVar("Result")


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


class ProgressReporter:
    """Keeps the stage and the count together, and reports them whenever one changes. How much is left nobody knows."""

    def __init__(self, most_queries: int | None, on_progress: OnProgress) -> None:
        self._most_queries = most_queries
        self._on_progress = on_progress
        self._stage = self._shown = "probe"
        self._queries = 0

    def begin(self, stage: str) -> None:
        """A new stage."""
        self._stage = self._shown = stage
        self._report()

    def rows(self, done: int, total: int) -> None:
        """Contexts of the stage's matrix that were read."""
        self._shown = f"{self._stage}, {done:,} of {total:,} contexts"
        self._report()

    def spent(self, cost: Cost) -> None:
        """What was asked so far, as the meter counts it."""
        self._queries = cost.queries
        self._report()

    def _report(self) -> None:
        self._on_progress(AuditProgress(stage=self._shown, queries=self._queries, most_queries=self._most_queries))


class StageRunner:
    """What stages found, and what they could not tell. Once the budget is spent or the endpoint is gone, no stage is
    tried any more."""

    def __init__(self, stage: AuditStage) -> None:
        self.findings: list[Finding] = []
        self.unresolved: list[str] = []
        self._stage = stage
        self._stopped_by = ""
        self._liveness_checks = 0

    @property
    def is_cut_short(self) -> bool:
        """Whether stages were left out."""
        return bool(self._stopped_by)

    def attempt(self, name: str, work: Callable[[], Result]) -> Result | None:
        """What `work` gives, or None where it failed or was not tried; then `unresolved` says why."""
        if self._stopped_by:
            self.unresolved.append(f"{name}: not tried: {self._stopped_by}")
            return None
        try:
            return work()
        except BudgetError as error:
            # What is left may still do for a stage that takes less.
            if self._stage.meter.queries_left < 1:
                self.stop(name, error)
            else:
                self.unresolved.append(f"{name}: {_in_one_line(error)}")
        except EndpointError as error:
            # A server that breaks on a question may still answer others.
            if self._is_alive():
                self.unresolved.append(f"{name}: {_in_one_line(error)}")
            else:
                self.stop(name, error)
        except (NotExposedError, InputError) as error:
            self.unresolved.append(f"{name}: {_in_one_line(error)}")
        return None

    def amend(self, kind: FindingKind, **evidence: object) -> None:
        """Adds evidence to the findings of a kind."""
        self.findings = [
            replace(finding, evidence={**finding.evidence, **evidence}) if finding.kind is kind else finding
            for finding in self.findings
        ]

    def stop(self, name: str, error: LensmithError) -> None:
        """Nothing more is tried because of this."""
        self.unresolved.append(f"{name}: {_in_one_line(error)}")
        self._stopped_by = error.problem

    def _is_alive(self) -> bool:
        self._liveness_checks += 1
        plain = replace(self._stage.probed.context, seed=_FIRST_LIVENESS_SEED + self._liveness_checks)
        try:
            self._stage.meter.answer([plain])
        except LensmithError:
            return False
        return True


def _in_one_line(error: LensmithError) -> str:
    """The problem with its figures, in one line."""
    details = [str(part) for part in (error.actual, error.expected) if part is not None]
    return f"{error.problem} ({'; '.join(details)})" if details else error.problem
