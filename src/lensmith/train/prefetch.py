"""Batches made ahead in background threads, handed over in order.

A bounded row of futures: at most `ahead` batches exist that the loop has not yet taken, whatever the number of threads.
"""

import collections
import itertools
from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

from lensmith.train.interfaces import BatchError, Batches


class _Wanted(NamedTuple):
    step: int
    micro: int
    batch: Future[Any]


class Prefetcher:
    """Yields `batches.batch_at(step, micro)` for `first_step <= step < total_steps`, micro-batches innermost.

    `take(step, micro)` must be called in that order, past the steps numbered in `skip` (from 1, as in the log). An
    error in the data function comes out where its batch was due, as BatchError naming the step, with the original as
    its cause.
    """

    def __init__(
        self,
        batches: Batches[Any],
        *,
        first_step: int,
        total_steps: int,
        accumulate: int,
        ahead: int,
        threads: int,
        skip: Set[int] = frozenset(),
    ) -> None:
        self._batches = batches
        self._ahead = ahead
        wanted = (step for step in range(first_step, total_steps) if step + 1 not in skip)
        self._order = ((step, micro) for step in wanted for micro in range(accumulate))
        self._row: collections.deque[_Wanted] = collections.deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lensmith-batches")

    def __enter__(self) -> Self:
        self._fill()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A batch under way is not waited for after an error: it could hang, and nobody wants it any more.
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def take(self, step: int, micro: int) -> Any:
        """The next batch, which must be this one. Waits for it where it is not ready."""
        wanted = self._row.popleft()
        if (wanted.step, wanted.micro) != (step, micro):
            raise ValueError(f"batches are taken in order: {wanted.step, wanted.micro} is next, not {step, micro}")
        try:
            batch = wanted.batch.result()
        except Exception as error:
            place = f"update {step} (counted from 0), micro-batch {micro}"
            raise BatchError(f"the batch of {place} could not be made: {type(error).__name__}: {error}") from error
        self._fill()
        return batch

    def _fill(self) -> None:
        for step, micro in itertools.islice(self._order, self._ahead - len(self._row)):
            self._row.append(_Wanted(step, micro, self._pool.submit(self._batches.batch_at, step, micro)))
