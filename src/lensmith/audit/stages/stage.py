"""What every stage of an audit works with, and how what it found becomes a finding with its price and cure."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.findings.cures import cure
from lensmith.audit.findings.finding import Cost, Finding, ReadOut
from lensmith.audit.probe.capabilities import Probed
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.contexts import ContextForm, Contexts, form_of
from lensmith.audit.querying.meter import Meter
from lensmith.audit.querying.price import Price, with_price

BLOCK_COLUMNS = 16
"""Columns of the block that proves a read-out; fewer are read nowhere."""

Float64Array = NDArray[np.float64]


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

    def finding(self, read_out: ReadOut | None, before: Cost, **parts: object) -> Finding:
        """A finding with its price, cure and retest filled in. `before`: what had been spent when its stage began."""
        now = self.meter.spent
        spent = Cost(
            queries=now.queries - before.queries,
            tokens=now.tokens - before.tokens,
            seconds=now.seconds - before.seconds,
        )
        filled: dict[str, object] = {
            "read_out": read_out,
            "spent": with_price(spent, self.price),
            "cure": "" if read_out is None else cure(read_out, self.server),
            "retest": self.config.retest,
        }
        return Finding(**{**filled, **parts})  # type: ignore[arg-type]  # the parts' types are the callers' affair
