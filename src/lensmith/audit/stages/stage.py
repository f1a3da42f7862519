"""What every stage of an audit works with, and how what it found becomes a finding with its price and cure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensmith.audit.findings.cures import cure
from lensmith.audit.findings.finding import Cost, Finding, FindingKind, ReadOut, Severity
from lensmith.audit.probe.capabilities import Probed
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.contexts import ContextForm, Contexts, form_of
from lensmith.audit.querying.meter import Meter
from lensmith.audit.querying.price import Price, with_price
from lensmith.audit.readouts.choose import ReadingPlan, plan_reading
from lensmith.core.endpoint import Request

BLOCK_COLUMNS = 16
"""Columns of the block that proves a read-out; fewer are read nowhere."""


@dataclass(frozen=True, kw_only=True)
class AuditStage:
    """What every stage needs: an endpoint that was probed by one route, and where its matrices lie."""

    config: SessionConfig
    meter: Meter
    probed: Probed
    folder: Path
    price: Price
    server: str | None

    @property
    def form(self) -> ContextForm:
        """How contexts are put that the endpoint answered."""
        return form_of(self.probed.context)

    def contexts(self, read_out: ReadOut) -> Contexts:
        """Prompt logprobs need contexts that a token can be put behind; all others take the form that was answered."""
        ids = read_out is ReadOut.P5 and self.probed.takes_token_ids
        return Contexts(ContextForm.TOKEN_IDS if ids else self.form, self.config.seed)

    def plan(self, read_out: ReadOut, contexts: Sequence[Request], *, columns: int, positions: int = 1) -> ReadingPlan:
        """As `plan_reading`, of what was probed."""
        config = self.config
        return plan_reading(
            read_out,
            self.probed,
            self.meter,
            contexts,
            columns=columns,
            seed=config.seed,
            positions=positions,
            tokens=config.tokens,
        )

    def spent_since(self, before: Cost) -> Cost:
        """What was asked since the meter stood at `before`, with its price."""
        now = self.meter.spent
        spent = Cost(
            queries=now.queries - before.queries,
            tokens=now.tokens - before.tokens,
            seconds=now.seconds - before.seconds,
        )
        return with_price(spent, self.price)

    def finding(
        self,
        kind: FindingKind,
        read_out: ReadOut,
        *,
        title: str,
        severity: Severity,
        was_read: str,
        evidence: Mapping[str, object],
        spent: Cost,
        whole: Cost | None = None,
    ) -> Finding:
        """A finding with its cure and retest filled in."""
        return Finding(
            kind=kind,
            title=title,
            severity=severity,
            read_out=read_out,
            was_read=was_read,
            evidence=evidence,
            spent=spent,
            whole=whole,
            cure=cure(read_out, self.server),
            retest=self.config.retest,
        )
