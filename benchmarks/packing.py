"""How full training sequences get, and how fast, against the ways that others pack.

Every way packs the same documents in the same order, in turn, round after round, into 4,096 tokens and 16 pictures: the
real ones of each of `mm1_toy`'s sources, cut as a plan cuts them, and a million simulated lengths. All ways are written
here anew, in Python, and none drops a document. CPU time is measured: each is one thread that waits for nothing. The
others' ways:

a. next-fit: a document that does not fit closes the sequence;
b. first-fit over 64 sequences, all emitted when a document fits none, as Grain does it (and so torchtitan);
c. a greedy knapsack: of 1,000 documents, always the longest that fits, as LLaMA-Factory does it, with a picture limit;
d. a balanced knapsack: of documents for 1,024 sequences the longest first, each to the emptiest of as many sequences as
   their tokens need and five more, as nanoVLM does it.

Efficiency is the fewest sequences that the limits allow, over those that were made. Balance is a rank's mean share of
the pictures of the fullest, over 8 ranks and batches of 512 sequences: sequences dealt in turn, or shared out by
`share_out`.

    python -m benchmarks.packing [--quick] [--json]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cores import keep_to_cores
from lensmith.data.plan.order import Order
from lensmith.data.plan.packing import Item, Pack, Packer, PackingConfig, picture_balance, report
from lensmith.data.plan.tokens import Cutter, encode
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import PretrainingRecipe
from lensmith.workflows.training.pretraining import PreparedData

RANKS = 8
BATCH_SEQUENCES = 512
OPEN_SEQUENCES = 64
BUFFER_DOCUMENTS = 1000
BUFFER_SEQUENCES = 1024
MORE_SEQUENCES = 5

Ints = NDArray[np.int64]
Way = Callable[[Sequence[Item], PackingConfig], list[Pack]]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Documents to pack: tokens, visual ones included, and pictures of each (N,)."""

    name: str
    tokens_N: Ints
    pictures_N: Ints

    def items(self) -> list[Item]:
        pairs = zip(self.tokens_N.tolist(), self.pictures_N.tolist(), strict=True)
        return [Item(number, tokens, pictures) for number, (tokens, pictures) in enumerate(pairs)]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest over the rounds."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way: what became of the documents, and how many it packs a second."""

    name: str
    sequences: int
    token_efficiency: float
    efficiency: float
    balance_dealt: float
    balance_shared: float
    dropped: int
    items_per_s: Spread


@dataclass(frozen=True, kw_only=True)
class Table:
    """All ways on the same documents."""

    name: str
    documents: int
    binds: str
    rows: tuple[Row, ...]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="100,000 documents instead of a million, 1 round instead of 3"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    count, rounds = (100_000, 1) if options.quick else (1_000_000, 3)
    tables = [measure(lengths, PackingConfig(), rounds=rounds) for lengths in (*real(), *simulated(count))]
    print(json.dumps([asdict(table) for table in tables], indent=1) if options.json else as_text(tables))
    if any(row.dropped for table in tables for row in table.rows):
        print("A way dropped documents: its figures are of other work.", file=sys.stderr)
        return 1
    return 0


def real() -> Iterator[Lengths]:
    """The documents of `mm1_toy`'s sources in the order of their first pass; long ones in the parts of a plan."""
    recipe, limits = recipe_named("mm1_toy"), PackingConfig()
    assert isinstance(recipe, PretrainingRecipe)
    with tempfile.TemporaryDirectory() as folder:
        prepared = PreparedData.of(recipe, Path(folder))
    tokens = prepared.tokens
    cutter = Cutter(tokens, max_tokens=limits.max_tokens, max_pictures=limits.max_pictures)
    for name, source in prepared.sources.items():
        order = Order(len(source), seed=0, name=name)
        records = (source.document(order.record(place)) for place in range(len(source)))
        spans = [span for document in records for span in cutter.spans(encode(document, tokens))]
        yield Lengths(
            name=f"{name}, {len(source):,} documents in {len(spans):,} parts",
            tokens_N=np.array([span.tokens for span in spans]),
            pictures_N=np.array([span.pictures for span in spans]),
        )


def simulated(count: int) -> Iterator[Lengths]:
    """Heavy-tailed documents, cut to a sequence: texts alone, and with pictures of 64 visual tokens each."""
    limits = PackingConfig()
    generator = np.random.default_rng(0)

    def lengths(name: str, texts_N: NDArray[np.float64], pictures_N: Ints) -> Lengths:
        tokens_N = np.clip(texts_N.astype(np.int64) + 64 * pictures_N, 1, limits.max_tokens)
        return Lengths(name=name, tokens_N=tokens_N, pictures_N=pictures_N)

    def lognormal(median: float) -> NDArray[np.float64]:
        return generator.lognormal(np.log(median), 1.2, count)

    def geometric(mean: float) -> Ints:
        return np.minimum(limits.max_pictures, generator.geometric(1 / mean, count))

    none_N = np.zeros(count, dtype=np.int64)
    kinds_N = generator.choice(3, count, p=(0.3, 0.4, 0.3))
    mixed_N = np.select([kinds_N == 0, kinds_N == 1], [none_N, none_N + 1], geometric(4))
    yield lengths("texts, log-normal (median 400, sigma 1.2)", lognormal(400), none_N)
    yield lengths("texts, Pareto (60 tokens and more, index 1)", 60 * (1 + generator.pareto(1.0, count)), none_N)
    yield lengths("mixed: 30 % no picture, 40 % one, 30 % several (mean 4)", lognormal(300), mixed_N)
    yield lengths("interleaved: texts of median 150, 5 pictures on average", lognormal(150), geometric(5))


def measure(lengths: Lengths, limits: PackingConfig, *, rounds: int) -> Table:
    """Packs the same documents in every way, `rounds` times in turn."""
    items = lengths.items()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    packs: dict[str, list[Pack]] = {}
    for number in range(rounds):
        for name, way in WAYS.items():
            print(f"{lengths.name}, round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            started = time.process_time()
            packs[name] = way(items, limits)
            seconds[name].append(time.process_time() - started)
    rows = tuple(row(name, packs[name], seconds[name], items, limits) for name in WAYS)
    binds = report(packs["ours"], limits, batch_sequences=BATCH_SEQUENCES, ranks=RANKS).binds
    return Table(name=lengths.name, documents=len(items), binds=binds.value, rows=rows)


def row(name: str, packs: list[Pack], seconds: list[float], items: Sequence[Item], limits: PackingConfig) -> Row:
    assert all(pack.tokens <= limits.max_tokens and pack.pictures <= limits.max_pictures for pack in packs)
    result = report(packs, limits, batch_sequences=BATCH_SEQUENCES, ranks=RANKS)
    starts = range(0, len(packs) - BATCH_SEQUENCES + 1, BATCH_SEQUENCES)
    dealt = ([packs[at + rank : at + BATCH_SEQUENCES : RANKS] for rank in range(RANKS)] for at in starts)
    speeds = [len(items) / each for each in seconds]
    return Row(
        name=name,
        sequences=result.sequences,
        token_efficiency=result.token_efficiency,
        efficiency=result.efficiency,
        balance_dealt=picture_balance(dealt),
        balance_shared=result.picture_balance,
        dropped=len(items) - len({item.number for pack in packs for item in pack.items}),
        items_per_s=Spread(median=statistics.median(speeds), lowest=min(speeds), highest=max(speeds)),
    )


def ours(items: Sequence[Item], limits: PackingConfig) -> list[Pack]:
    packer = Packer(limits)
    packs = [pack for item in items for pack in packer.add(item)]
    return packs + packer.flush()


@dataclass
class _Sequence:
    """A sequence that is being filled."""

    items: list[Item]
    tokens: int = 0
    pictures: int = 0

    def takes(self, item: Item, limits: PackingConfig) -> bool:
        return self.tokens + item.tokens <= limits.max_tokens and self.pictures + item.pictures <= limits.max_pictures

    def put(self, item: Item) -> None:
        self.items.append(item)
        self.tokens += item.tokens
        self.pictures += item.pictures


def next_fit(items: Sequence[Item], limits: PackingConfig) -> list[Pack]:
    return first_fit(items, limits, most=1)


def first_fit(items: Sequence[Item], limits: PackingConfig, most: int = OPEN_SEQUENCES) -> list[Pack]:
    made: list[_Sequence] = []
    filling = [_Sequence([]) for _ in range(most)]
    for item in items:
        sequence = next((each for each in filling if each.takes(item, limits)), None)
        if sequence is None:
            made += filling
            filling = [_Sequence([]) for _ in range(most)]
            sequence = filling[0]
        sequence.put(item)
    return _packs(made + filling)


def greedy_knapsack(items: Sequence[Item], limits: PackingConfig) -> list[Pack]:
    made = []
    for start in range(0, len(items), BUFFER_DOCUMENTS):
        buffer = sorted(items[start : start + BUFFER_DOCUMENTS], key=_tokens)
        while buffer:
            sequence = _Sequence([])
            made.append(sequence)
            at = len(buffer)
            # What did not fit once does not fit later: the search goes on downwards.
            while at := min(at, bisect_right(buffer, limits.max_tokens - sequence.tokens, key=_tokens)):
                at -= 1
                if sequence.takes(buffer[at], limits):
                    sequence.put(buffer.pop(at))
    return _packs(made)


def balanced_knapsack(items: Sequence[Item], limits: PackingConfig) -> list[Pack]:
    made = []
    for buffer in _buffers(items, BUFFER_SEQUENCES * limits.max_tokens):
        fewest = -(-sum(map(_tokens, buffer)) // limits.max_tokens)
        sequences = [_Sequence([]) for _ in range(fewest + MORE_SEQUENCES)]
        by_tokens = [(0, index) for index in range(len(sequences))]
        for item in sorted(buffer, key=_tokens, reverse=True):
            place = next((i for i, (_, index) in enumerate(by_tokens) if sequences[index].takes(item, limits)), None)
            if place is None:
                index = len(sequences)
                sequences.append(_Sequence([]))
            else:
                _, index = by_tokens.pop(place)
            sequences[index].put(item)
            insort(by_tokens, (sequences[index].tokens, index))
        made += sequences
    return _packs(made)


def _buffers(items: Sequence[Item], tokens: int) -> Iterator[list[Item]]:
    """Successive documents, until they have so many tokens."""
    stream = iter(items)
    for first in stream:
        buffer, held = [first], first.tokens
        while held < tokens and (item := next(stream, None)):
            buffer.append(item)
            held += item.tokens
        yield buffer


def _tokens(item: Item) -> int:
    return item.tokens


def _packs(sequences: Sequence[_Sequence]) -> list[Pack]:
    return [Pack(items=tuple(sequence.items)) for sequence in sequences if sequence.items]


WAYS: dict[str, Way] = {
    "ours": ours,
    "a: next-fit": next_fit,
    "b: first-fit over 64": first_fit,
    "c: greedy knapsack": greedy_knapsack,
    "d: balanced knapsack": balanced_knapsack,
}


def as_text(tables: Sequence[Table]) -> str:
    head = (
        f"{'way':24}{'sequences':>10}{'of tokens':>11}{'efficiency':>12}"
        f"{'dealt':>9}{'shared out':>12}{'dropped':>9}{'items/s':>11}{'(range)':>24}"
    )
    lines = []
    for table in tables:
        lines += [f"{table.name}: {table.documents:,} documents, {table.binds} bind", head]
        for each in table.rows:
            speed = each.items_per_s
            lines.append(
                f"{each.name:24}{each.sequences:10,}{each.token_efficiency:11.2%}{each.efficiency:12.2%}"
                f"{each.balance_dealt:9.3f}{each.balance_shared:12.3f}{each.dropped:9}{speed.median:11,.0f}"
                f"{f'({speed.lowest:,.0f}-{speed.highest:,.0f})':>24}"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
