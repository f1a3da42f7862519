"""What an audit tells of its progress: where it is, and what it has asked. How much is left nobody knows beforehand."""

from collections.abc import Callable
from dataclasses import dataclass

from lensmith.audit.findings import Cost


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
