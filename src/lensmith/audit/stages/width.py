"""The width through one read-out: a matrix of outputs grows from size to size until its rank shows.

Precise read-outs are watched while they are read, and stop early where the rank seems reached.

Sources: Carlini et al., arXiv 2403.06634, sections 4 and 5; Finlayson et al., arXiv 2403.09539.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lensmith.audit.estimators.heads import Heads
from lensmith.audit.estimators.rank_watch import RankWatch, expected_rank
from lensmith.audit.estimators.width import Status, WidthEstimate, estimate_width
from lensmith.audit.findings.finding import Cost, Finding, FindingKind, ReadOut, Severity
from lensmith.audit.findings.wording import ratio
from lensmith.audit.probe.capabilities import YIELDS
from lensmith.audit.querying.meter import BudgetError, Meter
from lensmith.audit.readouts.base import LogitReader
from lensmith.audit.readouts.choose import reader_for
from lensmith.audit.stages.matrix import GrowingMatrix
from lensmith.audit.stages.stage import BLOCK_COLUMNS, AuditStage

_FLOAT32_NATS = 1e-4
"""More than a model's own arithmetic in float32 makes of the noise of one value."""


_COLUMNS_PER_ROW = 1.25

_MOST_COLUMNS = 16_384

_MOST_ROWS_PER_COLUMN = 4

_USUAL_ROWS = 1094
"""Contexts that show a width of 768, and somewhat more."""
_POSITIONS = (1, 2, 4, 8, 16, 32)
_SHARE = 0.6
"""Of the budget that is left, for the rows of a usual width."""


@dataclass(frozen=True, kw_only=True)
class WidthFound:
    """The width, as `rows` x `columns` logits of `matrix` show it: `estimate` is resolved, and `finding` says how."""

    read_out: ReadOut
    matrix: GrowingMatrix
    rows: int
    columns: int
    estimate: WidthEstimate
    finding: Finding

    @property
    def width(self) -> int | None:
        """Where it is exact."""
        return self.estimate.width if self.estimate.status is Status.EXACT else None

    @property
    def interval(self) -> tuple[int, int] | None:
        """Where the width is not exact: the least and the most that it can be."""
        return None if self.estimate.status is Status.EXACT else self.estimate.interval

    @property
    def rank(self) -> int:
        """That of the matrix, centred over tokens."""
        assert self.estimate.rank is not None, "resolved"
        return self.estimate.rank


@dataclass(frozen=True, kw_only=True)
class WidthUnresolved:
    """Why the width does not show. `at_least` is proven in any case; `estimate` is that of the last matrix judged."""

    reason: str
    at_least: int = 0
    estimate: WidthEstimate | None = None
    out_of_budget: bool = False


WidthOutcome = WidthFound | WidthUnresolved


def find_width(
    stage: AuditStage, read_out: ReadOut, on_rows: Callable[[int, int], None] = lambda done, total: None
) -> WidthOutcome:
    """Reads a growing matrix through `read_out` until its rank shows, the budget ends, or it cannot grow."""
    before = stage.meter.spent
    contexts = stage.contexts(read_out)
    positions = _positions(stage, read_out)
    most = min(_MOST_COLUMNS, _affordable_columns(stage, read_out, positions)) + 1
    try:
        chosen = stage.plan(read_out, contexts.take(0, 4), columns=most, positions=positions)
    except BudgetError as error:
        return WidthUnresolved(reason=error.problem, out_of_budget=True)
    matrix = GrowingMatrix(stage.folder, contexts, chosen.reader, chosen.all_columns)
    unresolved = WidthUnresolved(reason="")
    sizes = _sizes(chosen.reader, len(chosen.columns) - 1)
    is_watched = YIELDS[matrix.reader.read_out].is_watched and stage.probed.is_precise
    growth = WatchedGrowth(stage.meter, matrix, is_watched=is_watched)
    for number, (rows, wanted_columns) in enumerate(sizes):
        if matrix.cost_of(rows, wanted_columns).queries > stage.meter.queries_left:
            reason = _too_dear(stage, matrix, unresolved.at_least, rows, wanted_columns)
            return replace(unresolved, reason=reason, out_of_budget=True)
        try:
            for rows_read in growth.to(rows, wanted_columns, on_rows):
                if rows_read == rows and is_watched and _may_wait(stage, matrix, sizes[number + 1 :], number):
                    continue
                # Columns beyond the rows help against noise only, and where there is none cost time.
                enough = math.ceil(_COLUMNS_PER_ROW * rows_read)
                columns = min(wanted_columns, enough) if is_watched else wanted_columns
                estimate = _estimate(stage, matrix, rows_read, columns)
                if estimate.heads is Heads.SEVERAL:  # more contexts come from as many heads
                    return WidthUnresolved(reason=estimate.reason, estimate=estimate)
                if rows_read < rows and not _ends_in_noise(estimate, rows_read, columns):
                    continue  # a fall within the spectrum, such as that before a padding: only more contexts tell
                if estimate.status is not Status.UNRESOLVED:
                    finding = _width_finding(stage, read_out, before, estimate)
                    return WidthFound(
                        read_out=read_out,
                        matrix=matrix,
                        rows=rows_read,
                        columns=columns,
                        estimate=estimate,
                        finding=finding,
                    )
                at_least = max(unresolved.at_least, estimate.at_least or 0)
                unresolved = WidthUnresolved(reason=estimate.reason, at_least=at_least, estimate=estimate)
                # Only greedy answers are so dear that most budgets end within the first matrix.
                out_of_reach = read_out is ReadOut.P7 and _out_of_reach(
                    stage, matrix, unresolved, (rows_read, columns), sizes[number + 1 :]
                )
                if out_of_reach:
                    return replace(unresolved, reason=out_of_reach, out_of_budget=True)
        except BudgetError as error:
            return replace(unresolved, reason=_joined(unresolved.reason, error.problem), out_of_budget=True)
    return replace(unresolved, reason=_joined(unresolved.reason, "the vocabulary has no more columns to read"))


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _may_wait(stage: AuditStage, matrix: GrowingMatrix, later: Sequence[tuple[int, int]], number: int) -> bool:
    """Whether a matrix need not be judged yet: where the watch saw no end of the rank, every third is enough, which
    keeps the time of all judgements near that of the last."""
    if number % 3 == 2 or not later:
        return False
    return matrix.cost_of(*later[0]).queries <= stage.meter.queries_left


def _ends_in_noise(estimate: WidthEstimate, rows: int, columns: int) -> bool:
    """Whether what lies behind the rank is as small as the arithmetic of a float32 leaves it."""
    if estimate.status is Status.UNRESOLVED or estimate.rank is None:
        return False
    beyond = math.sqrt(rows - estimate.rank) + math.sqrt(columns - estimate.rank)
    return bool(estimate.values_K[estimate.rank] <= _FLOAT32_NATS * beyond)


def _affordable_columns(stage: AuditStage, read_out: ReadOut, positions: int) -> int:
    """More columns than this the budget cannot fill; where a query tells all that there are, all are taken."""
    if math.isinf(stage.meter.queries_left) or stage.probed.returns_ids or stage.probed.whole_vocabulary:
        return _MOST_COLUMNS
    reader = reader_for(read_out, stage.probed)
    told = positions * _MOST_COLUMNS / max(1, reader.queries_for(1, _MOST_COLUMNS).queries)
    return max(BLOCK_COLUMNS, math.ceil(2 * math.sqrt(stage.meter.queries_left * max(1.0, told))))


def _positions(stage: AuditStage, read_out: ReadOut) -> int:
    """How many rows to take from one context: as few as let the budget reach for a model of a usual width, since rows
    of one context are more alike than those of several."""
    if read_out is not ReadOut.P3 or not stage.probed.deterministic:
        return 1
    cost = reader_for(read_out, stage.probed).queries_for(_USUAL_ROWS, math.ceil(_COLUMNS_PER_ROW * _USUAL_ROWS))
    enough = (count for count in _POSITIONS if cost.queries / count <= _SHARE * stage.meter.queries_left)
    return next(enough, _POSITIONS[-1])


def _out_of_reach(
    stage: AuditStage,
    matrix: GrowingMatrix,
    had: WidthUnresolved,
    last: tuple[int, int],
    later: Sequence[tuple[int, int]],
) -> str:
    """Why not to go on: what was read leads to expect more than the largest matrix that the budget reaches can show."""
    reached = [rows for rows, columns in later if matrix.cost_of(rows, columns).queries <= stage.meter.queries_left]
    if stage.config.use_whole_budget or not reached:
        return ""
    most, expected = (
        shown_by(reached[-1]),
        expected_rank(matrix.complete(*last).logits_NM, matrix.resolution_nats(*last)),
    )
    if max(expected, had.at_least) <= most:
        return ""
    return (
        f"at least {had.at_least} is proven; what {last[0]} contexts add to one another leads to expect "
        f"{max(expected, had.at_least):.0f} or more, and the {reached[-1]} contexts that the budget reaches through "
        f"{matrix.reader.read_out.value} show no width over {most}: not read (--use-whole-budget reads them all the "
        "same)"
    )


def shown_by(contexts: int) -> int:
    """The largest width that so many contexts show."""
    return contexts - contexts // 4


def _sizes(reader: LogitReader, most_columns: int) -> list[tuple[int, int]]:
    """Rows and columns to try, growing. Columns that cost nothing are all taken at once."""
    free = reader.queries_for(1, most_columns).queries == reader.queries_for(1, 2).queries
    sizes, rows = [], float(FIRST_ROWS)
    while rows <= _MOST_ROWS_PER_COLUMN * most_columns:
        wanted = most_columns if free else min(most_columns, math.ceil(_COLUMNS_PER_ROW * rows))
        sizes.append((math.ceil(rows), wanted))
        rows *= GROWTH
    if reader.read_out is ReadOut.P7:  # with the same columns, they cost nothing more
        sizes = [*((first_rows, columns) for first_rows in FIRST_LOOKS for _, columns in sizes[:1]), *sizes]
    return sizes


def _estimate(stage: AuditStage, matrix: GrowingMatrix, rows: int, columns: int) -> WidthEstimate:
    noise_nats = max(matrix.resolution_nats(rows, columns), stage.probed.spread_nats)
    return estimate_width(matrix.complete(rows, columns).logits_NM, noise_nats=noise_nats, seed=stage.config.seed)


def _width_finding(stage: AuditStage, read_out: ReadOut, before: Cost, estimate: WidthEstimate) -> Finding:
    exact = estimate.status is Status.EXACT
    low, high = estimate.interval or (estimate.width, estimate.width)
    size = f"{estimate.width}" if exact else f"between {low} and {high}, likely {estimate.width}"
    return stage.finding(
        FindingKind.WIDTH,
        read_out,
        title=f"The model's hidden width is {size}",
        severity=Severity.HIGH,
        was_read=(
            f"{estimate.contexts} x {estimate.tokens} logits through {read_out.value} ({read_out.title}) have rank "
            f"{estimate.rank}: the next singular value is {ratio(estimate.ratio or math.inf)} times smaller. "
            f"Found again on {estimate.confirmation.value}. Final norm: {estimate.norm.value}."
        ),
        evidence={
            "width": estimate.width,
            "interval": [low, high],
            "rank": estimate.rank,
            "ratio": estimate.ratio,
            "score": estimate.score,
            "norm": estimate.norm.value,
            "contexts": estimate.contexts,
            "tokens": estimate.tokens,
            "confirmed_on": estimate.confirmation.value,
            "significant_gaps": [{"rank": gap.rank, "ratio": gap.ratio, "score": gap.score} for gap in estimate.gaps],
        },
        spent=stage.spent_since(before),
    )


def _too_dear(stage: AuditStage, matrix: GrowingMatrix, at_least: int, rows: int, columns: int) -> str:
    proven = f"at least {at_least} is proven; " if at_least else ""
    return (
        f"{proven}the next matrix, {rows} x {columns} logits through {matrix.reader.read_out.value}, takes "
        f"{matrix.cost_of(rows, columns).queries} more queries, and {stage.meter.queries_left:.0f} are left"
    )


FIRST_ROWS = 64
FIRST_LOOKS = (24, 40)
"""Contexts of the first matrix at which it is judged already, where these few are dear."""
GROWTH = 1.5
_STEP = 32
_AT_ONCE = 512
"""Contexts shown to the watch at a time: what they need in memory beside the matrix."""
_SPARE = 16
"""Contexts beyond the rank on which a width is confirmed, two parts of which share all but half of them."""


class WatchedGrowth:
    """One matrix that grows from size to size; `is_watched`: its values are as precise as a float32."""

    def __init__(self, meter: Meter, matrix: GrowingMatrix, *, is_watched: bool) -> None:
        self._meter, self._matrix = meter, matrix
        self._is_watched = is_watched
        self._watched_columns = self._watched_rows = 0
        self._ahead = GROWTH**2

    def to(self, rows: int, columns: int, on_rows: Callable[[int, int], None]) -> Iterator[int]:
        """Grows the matrix and yields its number of rows when it is time to look: at the end, and if watched also when
        the rank seems reached, which saves what a matrix is usually read beyond it."""
        # Few contexts too many are read, and many at once.
        step = _STEP * (1 if rows < 1024 else 2 if rows < 2048 else 4)
        for rows_read in range(FIRST_ROWS, rows, step):
            if not self._is_watched:
                break
            if rows_read <= self._watched_rows:
                continue
            self._matrix.grow(self._meter, rows_read, columns, on_rows)
            if self._seems_reached(rows_read, rows, columns):
                yield rows_read
                break
        self._matrix.grow(self._meter, rows, columns, on_rows)
        yield rows

    def _seems_reached(self, rows_read: int, rows: int, columns: int) -> bool:
        """Shows the watch what was read; a few more columns than rows show how many of these are independent."""
        if self._watched_columns < min(columns, rows + _STEP):
            # Enough for the next two sizes too, where they are there: a new start takes as long as all before it.
            last_rows = math.ceil(self._ahead * rows)
            self._watched_columns, self._watched_rows = min(columns, last_rows + _STEP), 0
            self._watch = RankWatch(room=min(last_rows, self._watched_columns))
        while self._watched_rows < rows_read:
            until = min(rows_read, self._watched_rows + _AT_ONCE)
            new_NM = self._matrix.whole(until, self._watched_columns, first_row=self._watched_rows).logits_NM
            if not np.isfinite(new_NM).all():
                return self._without_missing(rows_read, rows, columns)
            self._watch.push(new_NM)
            self._watched_rows = until
        reached = self._watch.reached
        return reached is not None and rows_read >= reached + _SPARE

    def _without_missing(self, rows_read: int, rows: int, columns: int) -> bool:
        """The same on no more columns than this size needs, which may all be there; else the watch is over."""
        self._is_watched = self._ahead > 1.0
        self._ahead, self._watched_columns = 1.0, 0
        return self._is_watched and self._seems_reached(rows_read, rows, columns)
