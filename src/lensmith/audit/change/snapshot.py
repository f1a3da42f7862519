"""Recording an endpoint's outputs on fixed questions, and telling two recordings apart.

A customer, or an operator of a fleet, keeps a snapshot and compares it with a later one: the questions follow from the
seed alone, so two snapshots with one seed ask the same (Finlayson et al., arXiv 2403.09539, section on model changes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lensmith.audit.change.compare import Change, Comparison, Snapshot, compare, load_snapshot, save_snapshot
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.event_log import asked_anew, mark_finished
from lensmith.audit.querying.meter import TokenTexts
from lensmith.audit.readouts.choose import lasting_ids
from lensmith.audit.session import Session, open_session
from lensmith.audit.stages.matrix import GrowingMatrix
from lensmith.audit.stages.proof import first_proven, repeat_difference
from lensmith.core.endpoint import Endpoint
from lensmith.core.errors import NotExposedError

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SnapshotConfig:
    """What to record: `contexts` by `tokens`. More contexts than the model is wide show its image.

    An interrupted recording of the same target goes on; one that was finished is no part of the next.
    """

    session: SessionConfig
    contexts: int = 720
    tokens: int = 1024


@dataclass(frozen=True, kw_only=True)
class SnapshotInfo:
    """What was recorded."""

    out: Path
    sha256: str
    contexts: int
    tokens: int
    read_out: str
    repeat_nats: float
    queries: int

    def __str__(self) -> str:
        return (
            f"{self.out}: {self.contexts} contexts x {self.tokens} tokens through {self.read_out}, repeats differ by "
            f"{self.repeat_nats:.2g} nats, {self.queries} queries"
        )


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What `lensmith audit diff` prints."""

    comparison: Comparison

    @property
    def exit_code(self) -> int:
        """0 the same, 1 changed, 3 could not tell."""
        return {Change.SAME: 0, Change.COULD_NOT_TELL: 3}.get(self.comparison.change, 1)

    def __str__(self) -> str:
        found = self.comparison
        rank = "" if found.rank is None else f" of rank {found.rank}"
        return f"{found.change.value}{rank}: {found.reason}"


def take_snapshot(
    endpoint: Endpoint,
    config: SnapshotConfig,
    out: Path,
    *,
    texts: TokenTexts | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> SnapshotInfo:
    """Records the endpoint's outputs into `out`. Raises NotExposedError where it tells no logits, BudgetError, and
    ConfigError where the session's folder holds an unfinished recording of another target."""
    asked = config.session
    with asked_anew(asked.folder):
        with open_session(endpoint, asked, asked.header(snapshot=asked.model), texts=texts) as session:
            info = _recorded(session, config, out, texts, on_progress)
        mark_finished(asked.folder)
    return info


def _recorded(
    session: Session, config: SnapshotConfig, out: Path, texts: TokenTexts | None, on_progress: OnProgress
) -> SnapshotInfo:
    stage, meter = session.whole_stage(), session.stage.meter
    read_out = first_proven(stage)
    if read_out is None:
        raise NotExposedError(
            "the endpoint tells no logits", hint="what cannot be read cannot be compared; its text can, by hand"
        )
    contexts = stage.contexts(read_out)
    chosen = stage.plan(read_out, contexts.take(0, 4), columns=config.tokens + 1)
    matrix = GrowingMatrix(stage.folder, contexts, chosen.reader, chosen.columns)
    matrix.grow(meter, config.contexts, matrix.most_columns, on_progress)
    repeat_nats = repeat_difference(stage, chosen)
    whole_NM = matrix.whole(config.contexts, matrix.most_columns)
    snapshot = Snapshot(
        outputs_NM=whole_NM.logits_NM,
        contexts=tuple(f"{contexts.form.value} {config.session.seed} {number}" for number in range(config.contexts)),
        token_ids_M=lasting_ids(whole_NM.token_ids_M, texts),
        repeat_nats=repeat_nats,
    )
    return SnapshotInfo(
        out=out,
        sha256=save_snapshot(snapshot, out),
        contexts=config.contexts,
        tokens=len(whole_NM.token_ids_M),
        read_out=read_out.value,
        repeat_nats=repeat_nats,
        queries=meter.spent.queries,
    )


def compare_files(before: Path, after: Path) -> Diff:
    """Compares two snapshots. Raises InputError for a file that is none."""
    return Diff(comparison=compare(load_snapshot(before), load_snapshot(after)))
