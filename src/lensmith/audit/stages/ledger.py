"""How an audit outlives its stages: what each found is kept, and one that fails becomes a question that stayed open."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from lensmith.audit.findings.finding import Finding
from lensmith.audit.querying.meter import BudgetError
from lensmith.audit.stages.stage import Stage
from lensmith.core.errors import InputError, LensmithError, NotExposedError
from lensmith.openai_api import EndpointError

_SEED_OF_A_SIGN_OF_LIFE = 2_000
"""A seed makes the question one that is not in the log."""

Found = TypeVar("Found")


class Ledger:
    """What stages found, and what they could not tell. Once the budget is spent or the endpoint is gone, no stage is
    tried any more."""

    def __init__(self, stage: Stage) -> None:
        self.findings: list[Finding] = []
        self.unresolved: list[str] = []
        self._stage = stage
        self._ended_by = ""
        self._signs_of_life = 0

    @property
    def is_cut_short(self) -> bool:
        """Whether stages were left out."""
        return bool(self._ended_by)

    def attempt(self, name: str, work: Callable[[], Found]) -> Found | None:
        """What `work` gives, or None where it failed or was not tried; then `unresolved` says why."""
        if self._ended_by:
            self.unresolved.append(f"{name}: not tried: {self._ended_by}")
            return None
        try:
            return work()
        except BudgetError as error:
            # What is left may still do for a stage that takes less.
            if self._stage.meter.queries_left < 1:
                self.end(name, error)
            else:
                self.unresolved.append(f"{name}: {_told(error)}")
        except EndpointError as error:
            # A server that breaks on a question may still answer others.
            if self._is_alive():
                self.unresolved.append(f"{name}: {_told(error)}")
            else:
                self.end(name, error)
        except (NotExposedError, InputError) as error:
            self.unresolved.append(f"{name}: {_told(error)}")
        return None

    def end(self, name: str, error: LensmithError) -> None:
        """Nothing more is tried because of this."""
        self.unresolved.append(f"{name}: {_told(error)}")
        self._ended_by = error.problem

    def _is_alive(self) -> bool:
        self._signs_of_life += 1
        plain = replace(self._stage.probed.context, seed=_SEED_OF_A_SIGN_OF_LIFE + self._signs_of_life)
        try:
            self._stage.meter.answer([plain])
        except LensmithError:
            return False
        return True


def _told(error: LensmithError) -> str:
    """The problem with its figures, in one line."""
    details = [str(part) for part in (error.actual, error.expected) if part is not None]
    return f"{error.problem} ({'; '.join(details)})" if details else error.problem
