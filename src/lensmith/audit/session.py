"""What every command that asks an endpoint begins with: its event log, a meter, the probe, and what stages need."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensmith.audit.contexts import Contexts, Form, first_of_each_form, form_of
from lensmith.audit.cures import server_name
from lensmith.audit.event_log import EventLog
from lensmith.audit.findings import Cost
from lensmith.audit.meter import Limits, Meter, TokenTexts
from lensmith.audit.price import load_prices
from lensmith.audit.probe import probe_so_far
from lensmith.audit.stages import Stage
from lensmith.core.endpoint import Endpoint
from lensmith.core.errors import LensmithError


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """`folder` takes the event log and what is read, so that an interrupted session goes on. `header` says which
    session the log is of. `form`: how contexts are put; None for the first form that the endpoint answers."""

    folder: Path
    header: Mapping[str, Any]
    model: str
    seed: int
    form: Form | None = None
    limits: Limits = field(default_factory=Limits)
    prices: Path | None = None
    retest: str = ""


@dataclass(frozen=True, kw_only=True)
class Session:
    """An endpoint that was probed, and the log that remembers it.

    `probe_ended_by`: why the probe did not ask all its questions; then what it found is what it found until then.
    """

    stage: Stage
    log: EventLog
    probe_ended_by: LensmithError | None = None

    def whole_stage(self) -> Stage:
        """The stage. Raises what ended the probe in the middle."""
        if self.probe_ended_by is not None:
            raise self.probe_ended_by
        return self.stage


@contextlib.contextmanager
def open_session(
    endpoint: Endpoint,
    config: SessionConfig,
    *,
    texts: TokenTexts | None = None,
    server: str | None = None,
    on_spent: Callable[[Cost], None] | None = None,
) -> Iterator[Session]:
    """Probes the endpoint. Raises NotExposedError where it answers nothing, ConfigError where `folder` holds another
    session."""
    price = load_prices(config.prices).of(config.model)
    log = EventLog(config.folder / "events.jsonl", config.header)
    try:
        meter = Meter(endpoint, config.limits, log, on_spent, texts)
        one_of = first_of_each_form(config.seed) if config.form is None else [Contexts(config.form, config.seed)[0]]
        outcome = probe_so_far(meter, one_of)
        probed = outcome.found
        log.write("probed", **probed.as_json())
        stage = Stage(
            meter=meter,
            probed=probed,
            form=form_of(probed.context),
            folder=config.folder / "matrices",
            price=price,
            server=server_name(server),
            retest=config.retest,
            seed=config.seed,
        )
        yield Session(stage=stage, log=log, probe_ended_by=outcome.ended_by)
    finally:
        log.close()
