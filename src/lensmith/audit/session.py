"""What every command that asks an endpoint begins with: its event log, a meter, the probe, and what stages need."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lensmith.audit.findings.cures import server_name
from lensmith.audit.findings.finding import Cost
from lensmith.audit.probe.capabilities import CHEAPEST_FIRST, Probed
from lensmith.audit.probe.questions import ProbeOutcome, probe_so_far
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.contexts import Contexts, first_of_each_form, form_of, route_of
from lensmith.audit.querying.event_log import LOG_NAME, MATRICES_NAME, EventLog
from lensmith.audit.querying.meter import BudgetError, Meter, TokenTexts
from lensmith.audit.querying.price import load_prices
from lensmith.audit.stages.stage import AuditStage
from lensmith.core.endpoint import Endpoint
from lensmith.core.errors import InputError, LensmithError, NotExposedError


@dataclass(frozen=True, kw_only=True)
class Session:
    """An endpoint that was probed, and the log that remembers it.

    `other` is the stage of the other route, where that was probed and answers; `unprobed` says which route failed, and
    how. `probe_ended_by`: why the probe did not ask all its questions; then what it found is what it found until then.
    """

    stage: AuditStage
    log: EventLog
    other: AuditStage | None = None
    unprobed: str = ""
    probe_ended_by: LensmithError | None = None

    def whole_stage(self) -> AuditStage:
        """The stage. Raises what ended the probe in the middle."""
        if self.probe_ended_by is not None:
            raise self.probe_ended_by
        return self.stage


@contextlib.contextmanager
def open_session(
    endpoint: Endpoint,
    config: SessionConfig,
    header: Mapping[str, Any],
    *,
    every_route: bool = False,
    texts: TokenTexts | None = None,
    server: str | None = None,
    on_spent: Callable[[Cost], None] | None = None,
) -> Iterator[Session]:
    """Probes the endpoint. `header` says which session the log is of. With `every_route`, and no form asked for, both
    routes are probed, and the one that gives most away is the session's.

    Raises NotExposedError where the endpoint answers nothing, ConfigError where `folder` holds another session.
    """
    price = (config.prices or load_prices()).of(config.model)
    log = EventLog(config.folder / LOG_NAME, header)
    try:
        meter = Meter(endpoint, config.budget, log, on_spent, texts)
        outcomes, unprobed = _probe(meter, config, every_route=every_route)
        for outcome in outcomes:
            log.write("probed", **outcome.found.as_json())
        stages = [
            AuditStage(
                config=config,
                meter=meter,
                probed=outcome.found,
                folder=config.folder / folder,
                price=price,
                server=server_name(server),
            )
            for outcome, folder in zip(outcomes, (MATRICES_NAME, f"{MATRICES_NAME}-other"), strict=False)
        ]
        ended_by = next((outcome.ended_by for outcome in outcomes if outcome.ended_by is not None), None)
        other = stages[1] if len(stages) > 1 else None
        yield Session(stage=stages[0], log=log, other=other, unprobed=unprobed, probe_ended_by=ended_by)
    finally:
        log.close()


def _probe(meter: Meter, config: SessionConfig, *, every_route: bool) -> tuple[list[ProbeOutcome], str]:
    """What the probe found, first of the route that gives away more: whose cheapest read-out is cheaper.

    And which route failed at its first question, so that nothing is known of it.
    """
    if config.form is not None:
        return [probe_so_far(meter, [Contexts(config.form, config.seed)[0]])], ""
    forms = first_of_each_form(config.seed)
    first = probe_so_far(meter, forms)
    if not every_route or first.ended_by is not None:
        return [first], ""
    others = [form for form in forms if route_of(form_of(form)) is not route_of(form_of(first.found.context))]
    try:
        second = probe_so_far(meter, others)
    except (NotExposedError, InputError):  # no such route, which is as closed as can be
        return [first], ""
    except BudgetError as error:
        return [replace(first, ended_by=error)], ""
    except LensmithError as error:
        return [first], f"{route_of(form_of(others[0])).value}: {error.problem}"
    return sorted((first, second), key=lambda outcome: _cheapest(outcome.found)), ""


def _cheapest(probed: Probed) -> int:
    """The place of its cheapest read-out among all."""
    return min(map(CHEAPEST_FIRST.index, probed.readable()), default=len(CHEAPEST_FIRST))
