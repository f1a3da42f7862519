"""Packing: which documents share a training sequence, so that little of it stays empty.

A sequence has room for so many tokens and so many pictures (MM1, arXiv 2403.09611, section 3.3: 4,096 and 16; how MM1
filled them is not published). Documents wait. When enough do, the oldest opens a sequence, and of those that fit the
one is added that leaves least, until none fits. So a few hundred documents are held rather than open sequences, and no
document waits for more sequences than `max_waiting`.

Of the sequence, a share a of the tokens would be left, and b of the pictures; the waiting documents want t and p
sequences for theirs. Least is the least t²a² - min(t, p)²ab + p²b²: the scarcer counts more, squares take large
documents while small ones are there to fill up with, and the product spares a rest of both, which others can fill,
where a rest of one is lost. Without pictures this is best fit. `python -m benchmarks.packing` compares it with others'.
"""

import enum
import heapq
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lensmith.core.errors import ConfigError, InputError


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """A sequence's limits, and how many documents wait to be chosen: more fill it better, and change the order more."""

    max_tokens: int = 4096
    max_pictures: int = 16
    max_waiting: int = 256

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_pictures", "max_waiting"):
            if getattr(self, name) < 1:
                raise ConfigError(f"packing.{name}: too small", expected="at least 1", actual=getattr(self, name))


class Item(NamedTuple):
    """A document, or the part of one that is packed as a whole. `number` is the caller's; visual tokens are tokens."""

    number: int
    tokens: int
    pictures: int


@dataclass(frozen=True, kw_only=True)
class Pack:
    """One training sequence: its items in the order in which they came."""

    items: tuple[Item, ...]

    @property
    def tokens(self) -> int:
        return sum(item.tokens for item in self.items)

    @property
    def pictures(self) -> int:
        return sum(item.pictures for item in self.items)


class Packer:
    """Packs a stream of items: every item once, the same packs for the same stream.

    `waiting` is all the state there is: a new packer that is given these items goes on as this one would have.
    """

    def __init__(self, config: PackingConfig) -> None:
        self.config = config
        self._waiting: dict[int, Item] = {}
        self._arrivals = 0
        # For each number of pictures: tokens and negative arrival of what waits, ascending. So the oldest of the
        # longest stands last.
        self._sizes: list[list[tuple[int, int]]] = [[] for _ in range(config.max_pictures + 1)]
        self._tokens = self._pictures = 0

    @property
    def waiting(self) -> tuple[Item, ...]:
        """What is in no pack yet, in the order in which it came."""
        return tuple(self._waiting.values())

    def add(self, item: Item) -> list[Pack]:
        """Takes the next item and returns the packs that are complete. Raises InputError for one that never fits."""
        limits = self.config
        if not (0 < item.tokens <= limits.max_tokens and 0 <= item.pictures <= limits.max_pictures):
            raise InputError(
                f"item {item.number} fits no sequence",
                expected=f"1 to {limits.max_tokens} tokens, at most {limits.max_pictures} pictures",
                actual=f"{item.tokens} tokens, {item.pictures} pictures",
                hint="cut the document into parts that fit",
            )
        self._waiting[self._arrivals] = item
        insort(self._sizes[item.pictures], (item.tokens, -self._arrivals))
        self._arrivals += 1
        self._tokens += item.tokens
        self._pictures += item.pictures
        return [self._pack()] if len(self._waiting) >= limits.max_waiting else []

    def flush(self) -> list[Pack]:
        """Packs all that waits."""
        packs = []
        while self._waiting:
            packs.append(self._pack())
        return packs

    def _pack(self) -> Pack:
        tokens_left, pictures_left = self.config.max_tokens, self.config.max_pictures
        chosen: list[tuple[int, Item]] = []
        arrival: int | None = next(iter(self._waiting))
        while arrival is not None:
            item = self._take(arrival)
            chosen.append((arrival, item))
            tokens_left -= item.tokens
            pictures_left -= item.pictures
            arrival = self._best(tokens_left, pictures_left)
        return Pack(items=tuple(item for _, item in sorted(chosen)))

    def _take(self, arrival: int) -> Item:
        item = self._waiting.pop(arrival)
        sizes = self._sizes[item.pictures]
        del sizes[bisect_left(sizes, (item.tokens, -arrival))]
        self._tokens -= item.tokens
        self._pictures -= item.pictures
        return item

    def _best(self, tokens_left: int, pictures_left: int) -> int | None:
        """The arrival of the item that leaves least; the fewest pictures, then the oldest, among equals."""
        limits = self.config
        # Products alone, no powers: every machine rounds them alike, and so makes the same packs.
        of_tokens = self._tokens / limits.max_tokens * (self._tokens / limits.max_tokens)
        of_pictures = self._pictures / limits.max_pictures * (self._pictures / limits.max_pictures)
        of_both = min(of_tokens, of_pictures)
        best, least = None, math.inf
        for pictures, sizes in enumerate(self._sizes[: pictures_left + 1]):
            if sizes and sizes[0][0] <= tokens_left:
                tokens, negative_arrival = sizes[bisect_right(sizes, (tokens_left, 0)) - 1]
                a = (tokens_left - tokens) / limits.max_tokens
                b = (pictures_left - pictures) / limits.max_pictures
                rest = of_tokens * a * a - of_both * a * b + of_pictures * b * b
                if rest < least:
                    best, least = -negative_arrival, rest
        return best


def share_out(batch: Sequence[Pack], ranks: int) -> list[list[Pack]]:
    """One global batch's packs for each rank: equally many, and pictures as even as may be.

    The pack with most pictures goes next, to the rank with fewest pictures, then tokens, that has room (longest
    processing time first); a rank's packs are in the batch's order. Raises InputError where ranks do not divide the
    batch.
    """
    if ranks < 1 or len(batch) % ranks:
        raise InputError("ranks do not divide the global batch", expected=f"a divisor of {len(batch)}", actual=ranks)
    room = len(batch) // ranks
    sizes = [(pack.pictures, pack.tokens) for pack in batch]
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, 0, rank) for rank in range(ranks)]
    for index in sorted(range(len(batch)), key=sizes.__getitem__, reverse=True):
        pictures, tokens, rank = heapq.heappop(loads)
        shares[rank].append(index)
        if len(shares[rank]) < room:
            heapq.heappush(loads, (pictures + sizes[index][0], tokens + sizes[index][1], rank))
    return [[batch[index] for index in sorted(share)] for share in shares]


def picture_balance(batches: Iterable[Sequence[Sequence[Pack]]]) -> float:
    """A rank's mean share of the pictures of the fullest rank, over batches of packs for each rank; 1 is even.

    It is the share of the towers' time that is work, where every rank waits for the one with most pictures.
    """
    mean, fullest = 0.0, 0
    for batch in batches:
        pictures = [sum(pack.pictures for pack in share) for share in batch]
        mean += sum(pictures) / len(pictures)
        fullest += max(pictures)
    return mean / fullest if fullest else 1.0


class Limit(enum.Enum):
    """What keeps sequences from being fewer."""

    TOKENS = "tokens"
    PICTURES = "pictures"


@dataclass(frozen=True, kw_only=True)
class PackingReport:
    """What a packing holds, how many sequences each limit demands at least, and how even its pictures are."""

    sequences: int
    tokens: int
    pictures: int
    max_tokens: int
    token_bound: int
    picture_bound: int
    picture_balance: float

    @property
    def binds(self) -> Limit:
        return Limit.PICTURES if self.picture_bound > self.token_bound else Limit.TOKENS

    @property
    def efficiency(self) -> float:
        """The number of sequences that no packing can go below, over the number there is."""
        return max(self.token_bound, self.picture_bound) / self.sequences

    @property
    def token_efficiency(self) -> float:
        """The share of positions that hold a token."""
        return self.tokens / (self.sequences * self.max_tokens)


def report(packs: Sequence[Pack], config: PackingConfig, *, batch_sequences: int, ranks: int) -> PackingReport:
    """Counts packs, and shares out each whole global batch of them. Raises InputError where there are none.

    Beside an item as long as a sequence stands no other, and no one gets that sequence's room for pictures: the picture
    bound counts such sequences apart.
    """
    if not packs:
        raise InputError("there are no sequences to report on", expected="at least one pack")
    tokens, pictures = sum(pack.tokens for pack in packs), sum(pack.pictures for pack in packs)
    alone = [pack.pictures for pack in packs if pack.items[0].tokens == config.max_tokens]
    starts = range(0, len(packs) - batch_sequences + 1, batch_sequences)
    return PackingReport(
        sequences=len(packs),
        tokens=tokens,
        pictures=pictures,
        max_tokens=config.max_tokens,
        token_bound=math.ceil(tokens / config.max_tokens),
        picture_bound=len(alone) + math.ceil((pictures - sum(alone)) / config.max_pictures),
        picture_balance=picture_balance(share_out(packs[at : at + batch_sequences], ranks) for at in starts),
    )
