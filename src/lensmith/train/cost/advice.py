"""What would make a run fit that does not: changes of one setting each, tried with the same estimate.

Nothing is told that was not estimated to fit. The first two change no result but for rounding; shorter sequences are
another run. Activation checkpointing is estimated too, for what it would be worth: `lensmith train` has no setting for
it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lensmith.train.cost.cost import Estimator, SequenceShape, Workload, with_accumulation
from lensmith.train.cost.devices import Gpu
from lensmith.train.cost.trace import DocumentShape

_MOST_RANKS = 4096


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change with which a run fits, and the bytes that a process then holds. `workload` and `ranks` are those with
    the change made; `is_setting` False: nobody can make it yet."""

    text: str
    workload: Workload
    ranks: int
    total_bytes: int
    checkpoints_activations: bool = False
    is_setting: bool = True


def changes_that_fit(estimator: Estimator, workload: Workload, *, ranks: int) -> tuple[Remedy, ...]:
    """Of each kind the least change that fits, none where no change of that kind does."""
    kinds = (
        _in_more_micro_batches(workload, ranks),
        _on_more_devices(estimator, workload, ranks),
        _with_shorter_sequences(workload, ranks),
        _with_checkpoints(workload, ranks),
    )
    found = (next((each for change in kind if (each := _tried(estimator, change))), None) for kind in kinds)
    return tuple(change for change in found if change is not None)


def _tried(estimator: Estimator, change: Remedy) -> Remedy | None:
    cost = estimator.cost(change.workload, ranks=change.ranks, checkpoints_activations=change.checkpoints_activations)
    return replace(change, total_bytes=cost.memory.total) if cost.fits else None


def _in_more_micro_batches(workload: Workload, ranks: int) -> Iterator[Remedy]:
    at_once = workload.sequences_at_once(ranks)
    for fewer in range(at_once - 1, 0, -1):
        if at_once % fewer == 0:
            accumulate = workload.train.accumulate * at_once // fewer
            text = f"accumulate={accumulate}: {fewer} sequences at once in place of {at_once}"
            yield _change(text, with_accumulation(workload, accumulate), ranks)


def _on_more_devices(estimator: Estimator, workload: Workload, ranks: int) -> Iterator[Remedy]:
    if not isinstance(estimator.device, Gpu):
        return
    more = 2 * ranks
    while more <= _MOST_RANKS and workload.sequences_per_step % more == 0:
        # As many micro-batches as there are sequences: one at once is the least that a process can hold.
        for accumulate in sorted(
            {min(workload.train.accumulate, workload.sequences_per_step // more), workload.sequences_per_step // more}
        ):
            if workload.sequences_per_step % (more * accumulate) == 0:
                changed = with_accumulation(workload, accumulate)
                text = f"{more} GPUs in place of {ranks}, with accumulate={accumulate}"
                yield _change(text, changed, more)
        more *= 2


def _with_shorter_sequences(workload: Workload, ranks: int) -> Iterator[Remedy]:
    single = with_accumulation(workload, workload.train.accumulate * workload.sequences_at_once(ranks))
    for parts in (2, 4, 8):
        kinds = tuple(_cut(kind, parts) for kind in workload.sequences)
        longest = max(sum(each.tokens for each in kind.documents) for kind in kinds)
        text = f"max_tokens={longest}, with accumulate={single.train.accumulate}: another run, of shorter sequences"
        yield _change(text, replace(single, sequences=kinds), ranks)


def _with_checkpoints(workload: Workload, ranks: int) -> Iterator[Remedy]:
    text = "activation checkpointing, a third more arithmetic: there is no setting for it yet"
    change = _change(text, workload, ranks)
    yield replace(change, checkpoints_activations=True, is_setting=False)


def _change(text: str, workload: Workload, ranks: int) -> Remedy:
    return Remedy(text=text, workload=workload, ranks=ranks, total_bytes=0)


def _cut(kind: SequenceShape, parts: int) -> SequenceShape:
    """A part of each document; tokens and pictures are cut alike."""
    documents = tuple(
        DocumentShape(tokens=max(1, each.tokens // parts), pictures=each.pictures // parts) for each in kind.documents
    )
    return replace(kind, documents=documents)
