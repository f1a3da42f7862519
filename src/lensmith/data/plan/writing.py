"""Writing a plan: the mixture is drawn, documents are cut and packed, and each training sequence becomes a row.

MM1 sampled its mixture once and kept it, since the order of data alone moves results (arXiv 2403.09611, appendix). A
plan is that snapshot: the same configuration and sources give the same rows and the same hash, on any machine. Memory
does not grow with the corpus, but for the sources' own indexes: records are read one by one, and what waits is bounded.

    plan.parquet    a row a sequence: source, tokens, pictures, and its documents: record, start, stop, pictures
                    metadata: what it was made from, what came of it, and the hash of both and of all rows
"""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.config import to_dict
from lensmith.core.errors import ConfigError, ImageError, InputError
from lensmith.core.files import open_output
from lensmith.core.images import open_picture
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.documents import AnyDocument, BadRecordError, Source
from lensmith.data.mixture import Mixture, choices
from lensmith.data.plan.order import Order
from lensmith.data.plan.packing import Item, Packer, PackingConfig
from lensmith.data.plan.tokens import Cutter, Tokens, encode

METADATA = b"lensmith.plan"
FORMAT = 1
_ROWS_A_GROUP = 1024
_LISTED = 20
"""So many bad records of each cause are named in the report."""

SCHEMA = pa.schema(
    {
        "source": pa.dictionary(pa.int16(), pa.string()),
        "tokens": pa.int32(),
        "pictures": pa.int32(),
        "documents": pa.list_(
            pa.struct({"record": pa.int64(), "start": pa.int32(), "stop": pa.int32(), "pictures": pa.int32()})
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How sequences are drawn and filled: `sequences` of them in all."""

    mixture: Mixture
    packing: PackingConfig
    sequences: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise ConfigError("a plan has no sequences", expected="sequences of at least 1", actual=self.sequences)


@dataclass(frozen=True, kw_only=True)
class SourceShare:
    """What a source gave: `records` it has, `documents` read of them (again in each of `passes`), `cut` of those for
    their length, `unlearnt` spans left out since nothing in them is learnt. `bad`: records that could not be used by
    cause, `examples` some of each."""

    wanted: float
    records: int
    sequences: int
    tokens: int
    pictures: int
    documents: int
    passes: float
    cut: int
    bad: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    unlearnt: int = 0


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What a plan holds. `efficiency`: the share of all places in sequences that tokens fill.

    `unused` spans of documents were read and stood in open sequences when the last one was full.
    """

    hash: str
    sequences: int
    tokens: int
    pictures: int
    efficiency: float
    unused: int
    sources: dict[str, SourceShare]

    def __str__(self) -> str:
        lines = [
            f"{self.sequences:,} sequences, {self.tokens:,} tokens ({self.efficiency:.2%} of their room), "
            f"{self.pictures:,} pictures; {self.hash[:12]}",
            f"  {'source':<16} {'wanted':>7} {'sequences':>10} {'tokens':>7} {'pictures':>9} {'documents':>10} "
            f"{'passes':>7} {'cut':>6} {'bad':>6}",
        ]
        for name, share in self.sources.items():
            pictures = share.pictures / self.pictures if self.pictures else 0.0
            lines.append(
                f"  {name:<16} {share.wanted:>7.1%} {share.sequences / self.sequences:>10.1%} "
                f"{share.tokens / self.tokens:>7.1%} {pictures:>9.1%} {share.documents:>10,} {share.passes:>7.2f} "
                f"{share.cut:>6,} {sum(share.bad.values()):>6,}"
            )
            if share.unlearnt:
                lines.append(f"    {share.unlearnt:,} spans left out: nothing in them is learnt")
            lines += [
                f"    {count:,} bad: {cause} ({', '.join(share.examples[cause][:3])})"
                for cause, count in share.bad.items()
            ]
        return "\n".join(lines)


def write_plan(
    path: Path,
    config: PlanConfig,
    sources: Mapping[str, Source],
    tokens: Tokens,
    *,
    on_progress: OnProgress = unwatched,
) -> PlanReport:
    """Writes the plan, whole or not at all.

    Raises InputError where the mixture names a source that is not given, or one has no usable document.
    """
    shares = config.mixture.shares
    if unknown := [name for name in shares if name not in sources]:
        raise ConfigError(
            f"the mixture names a source that there is not: {unknown[0]}", expected=", ".join(sources) or "none"
        )
    drawers = {name: _Drawer(name, sources[name], config, tokens) for name in shares}
    given = dict.fromkeys(shares, 0)
    digest = hashlib.sha256()
    with open_output(path) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for number, name in zip(range(config.sequences), choices(config.mixture, config.seed, given), strict=False):
            row = drawers[name].next_row()
            given[name] += row["tokens"]
            _hash_row(digest, row)
            rows.append(row)
            if len(rows) == _ROWS_A_GROUP or number + 1 == config.sequences:
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows.clear()
            on_progress(number + 1, config.sequences)
        made_from = {
            "format": FORMAT,
            "config": to_dict(config),
            "tokenizer": tokens.fingerprint,
            "tokens_per_picture": tokens.per_picture,
            "chat_format": tokens.chat_format,
            "sources": {name: drawers[name].source.fingerprint for name in shares},
        }
        digest.update(json.dumps(made_from, sort_keys=True).encode())
        report = _report(digest.hexdigest(), config, drawers)
        values = {"made_from": made_from, "report": to_dict(report)}
        writer.add_key_value_metadata({METADATA: json.dumps(values).encode()})
    return report


@dataclass
class _Drawer:
    """A source's sequences, one after the other: its documents in order, cut, packed."""

    name: str
    source: Source
    config: PlanConfig
    tokens: Tokens
    closed: deque[dict[str, Any]] = field(default_factory=deque)
    spans: dict[int, dict[str, int]] = field(default_factory=dict)
    bad: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    unreadable: set[int] = field(default_factory=set)
    place: int = 0
    since_usable: int = 0

    def __post_init__(self) -> None:
        packing = self.config.packing
        self.order = Order(len(self.source), seed=self.config.seed, name=self.name)
        # No more wait than there are: a small source would fill sequences with two passes of itself.
        self.packer = Packer(replace(packing, max_waiting=min(packing.max_waiting, self.order.count)))
        self.cutter = Cutter(self.tokens, max_tokens=packing.max_tokens, max_pictures=packing.max_pictures)

    def next_row(self) -> dict[str, Any]:
        while not self.closed:
            self._read_one()
        row = self.closed.popleft()
        self.counts.update(sequences=1, tokens=row["tokens"], pictures=row["pictures"])
        return row

    def _read_one(self) -> None:
        record = self.order.record(self.place)
        self.place += 1
        try:
            document = self.source.document(record)
            self._look_at_pictures(record, document)
            encoded = encode(document, self.tokens)
            spans = list(self.cutter.spans(encoded))
            # A span's first token has no context.
            learnt = [span for span in spans if encoded.learnt_T[span.start + 1 : span.stop].any()]
            if not learnt:
                raise BadRecordError("nothing in it is learnt", actual=document.key)
        except BadRecordError as error:
            self._note_bad(record, error)
            return
        self.since_usable = 0
        self.counts.update(documents=1, cut=len(spans) > 1, unlearnt=len(spans) - len(learnt))
        for start, stop, pictures in learnt:
            number = self.counts["spans"]
            self.counts["spans"] += 1
            self.spans[number] = {"record": record, "start": start, "stop": stop, "pictures": pictures}
            for pack in self.packer.add(Item(number, stop - start, pictures)):
                self.closed.append(self._row([item.number for item in pack.items]))

    def _look_at_pictures(self, record: int, document: AnyDocument) -> None:
        """A picture that cannot be read is found now, not hours into training. Raises BadRecordError."""
        if self.place <= self.order.count:
            for ref in document.pictures:
                try:
                    open_picture(self.source.picture(ref))
                except ImageError as error:
                    self.unreadable.add(record)
                    raise BadRecordError(error.problem, actual=document.key) from error
        elif record in self.unreadable:
            raise BadRecordError("a picture that cannot be read", actual=document.key)

    def _row(self, numbers: list[int]) -> dict[str, Any]:
        documents = [self.spans.pop(number) for number in numbers]
        return {
            "source": self.name,
            "tokens": sum(span["stop"] - span["start"] for span in documents),
            "pictures": sum(span["pictures"] for span in documents),
            "documents": documents,
        }

    def _note_bad(self, record: int, error: BadRecordError) -> None:
        # A record that is bad is met again in each pass; it is counted once.
        if self.place <= self.order.count:
            self.bad[error.problem] += 1
            listed = self.examples.setdefault(error.problem, [])
            if len(listed) < _LISTED:
                listed.append(str(error.actual or record))
        self.since_usable += 1
        if self.since_usable >= self.order.count:
            raise InputError(
                f"the source {self.name!r} has no usable document",
                expected="at least one",
                actual="; ".join(
                    f"{count} of {self.order.count} records: {cause}" for cause, count in self.bad.items()
                ),
            )

    def share(self, wanted: float) -> SourceShare:
        return SourceShare(
            wanted=wanted,
            records=self.order.count,
            sequences=self.counts["sequences"],
            tokens=self.counts["tokens"],
            pictures=self.counts["pictures"],
            documents=self.counts["documents"],
            passes=self.place / self.order.count,
            cut=self.counts["cut"],
            bad=dict(self.bad),
            examples={cause: tuple(listed) for cause, listed in self.examples.items()},
            unlearnt=self.counts["unlearnt"],
        )


def _hash_row(digest: "hashlib._Hash", row: Mapping[str, Any]) -> None:
    digest.update(row["source"].encode() + b"\0")
    spans = [[span["record"], span["start"], span["stop"], span["pictures"]] for span in row["documents"]]
    digest.update(np.array(spans, dtype="<i8").tobytes())


def _report(hash_of_all: str, config: PlanConfig, drawers: Mapping[str, _Drawer]) -> PlanReport:
    shares = {name: drawers[name].share(wanted) for name, wanted in config.mixture.shares.items()}
    tokens = sum(share.tokens for share in shares.values())
    return PlanReport(
        hash=hash_of_all,
        sequences=config.sequences,
        tokens=tokens,
        pictures=sum(share.pictures for share in shares.values()),
        efficiency=tokens / (config.sequences * config.packing.max_tokens),
        unused=sum(len(drawer.spans) for drawer in drawers.values()),
        sources=shares,
    )
