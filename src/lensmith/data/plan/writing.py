"""Writing a plan: the mixture is drawn, documents are cut and packed, and each training sequence becomes a row.

MM1 sampled its mixture once and kept it, since the order of data alone moves results (arXiv 2403.09611, appendix). A
plan is that snapshot: the same configuration and sources give the same rows and the same hash, on any machine. Memory
does not grow with the corpus, but for the sources' own indexes: records are read one by one, and what waits is bounded.

A plan may have stages, one after the other in the one file: each has its own mixture, packing and number of sequences a
step, and may say how often sequences are of language alone. A source is read on from stage to stage.

    plan.parquet    a row a sequence: source, tokens, pictures, and its documents: record, start, stop, pictures
                    metadata: what it was made from, what came of it, and the hash of both and of all rows
"""

import hashlib
import itertools
import json
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.config import to_dict
from lensmith.core.errors import ConfigError, ImageError, InputError
from lensmith.core.files import open_output
from lensmith.core.images import open_picture
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.documents import AnyDocument, BadRecordError, Source
from lensmith.data.mixture import LanguageSchedule, Mixture, choices, scheduled_choices
from lensmith.data.plan.order import Order
from lensmith.data.plan.packing import Item, Packer, PackingConfig
from lensmith.data.plan.tokens import Cutter, Tokens, encode

METADATA = b"lensmith.plan"
FORMAT = 2
_ROWS_A_GROUP = 1024
_LISTED = 20
"""So many bad records of each cause are named in the report."""
_PARTS = 10
"""Into so many parts of a stage the report divides the share of language."""

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
class PlanStage:
    """How the sequences of a stage are drawn and filled: `sequences` of them in all, `sequences_per_step` a step."""

    mixture: Mixture
    packing: PackingConfig
    sequences: int
    sequences_per_step: int = 1
    language: LanguageSchedule | None = None

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise ConfigError("a plan has no sequences", expected="sequences of at least 1", actual=self.sequences)
        if self.sequences_per_step < 1 or self.sequences % self.sequences_per_step:
            raise ConfigError(
                "a plan's sequences are not whole steps",
                expected=f"a multiple of {self.sequences_per_step}",
                actual=self.sequences,
            )
        if self.language is not None:
            self.language.check(self.mixture)

    @property
    def steps(self) -> int:
        return self.sequences // self.sequences_per_step

    @property
    def language_sources(self) -> frozenset[str]:
        """Those whose share is scheduled, which hold no pictures; none without a schedule."""
        return frozenset() if self.language is None else self.mixture.below(*self.language.parts)

    @property
    def wanted(self) -> dict[str, float]:
        """Each source's share of the stage's sequences, the schedule included."""
        shares = self.mixture.shares
        if self.language is None:
            return shares
        target, language = self.language.target(self.mixture), self.language_sources
        mean = math.fsum(self.language.share_at(step, target) for step in range(self.steps)) / self.steps
        return {
            name: share * (mean / target if name in language else (1 - mean) / (1 - target))
            for name, share in shares.items()
        }

    def choices(self, seed: int, tokens: Mapping[str, int]) -> Iterator[str]:
        """Which source fills each of the stage's sequences; see `mixture.choices`."""
        if self.language is None:
            return choices(self.mixture, seed, tokens)
        return scheduled_choices(self.mixture, self.language, seed, sequences_per_step=self.sequences_per_step)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """A plan's stages, one after the other."""

    stages: tuple[PlanStage, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a plan has no stages", expected="at least one", actual=0)

    @classmethod
    def of(cls, *, mixture: Mixture, packing: PackingConfig, sequences: int, seed: int = 0) -> Self:
        """A plan of one stage."""
        return cls(stages=(PlanStage(mixture=mixture, packing=packing, sequences=sequences),), seed=seed)

    @property
    def sequences(self) -> int:
        return sum(stage.sequences for stage in self.stages)

    @property
    def shares(self) -> dict[str, float]:
        """Each source's share of all sequences that is wanted."""
        found: dict[str, float] = {}
        for stage in self.stages:
            for name, share in stage.wanted.items():
                found[name] = found.get(name, 0.0) + share * stage.sequences / self.sequences
        return found


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
class LanguageShare:
    """Of the `steps` from `first_step` on: which share of sequences was of language alone, and which was wanted."""

    first_step: int
    steps: int
    wanted: float
    real: float


@dataclass(frozen=True, kw_only=True)
class StageShare:
    """What a stage holds, and, where language has a schedule, its share over time, in up to ten parts."""

    steps: int
    sequences: int
    tokens: int
    language: tuple[LanguageShare, ...]


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
    stages: tuple[StageShare, ...]

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
        for number, stage in enumerate(self.stages, start=1):
            if stage.language:
                lines.append(f"  language alone, over the {stage.steps:,} steps of stage {number}:")
                lines.append(f"    {'wanted':<14} " + " ".join(f"{part.wanted:>7.1%}" for part in stage.language))
                lines.append(f"    {'sequences':<14} " + " ".join(f"{part.real:>7.1%}" for part in stage.language))
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

    Raises ConfigError where a mixture names a source that is not given, InputError where one has no usable document,
    or one of language alone has a picture.
    """
    shares = config.shares
    if unknown := [name for name in shares if name not in sources]:
        raise ConfigError(
            f"the mixture names a source that there is not: {unknown[0]}", expected=", ".join(sources) or "none"
        )
    drawers = {name: _Drawer(name, sources[name], config.seed, tokens) for name in shares}
    counts = [_StageCounts(stage) for stage in config.stages]
    digest = hashlib.sha256()
    with open_output(path) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for number, row in enumerate(_drawn_rows(config, drawers, counts)):
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
        report = _report(digest.hexdigest(), config, drawers, counts)
        values = {"made_from": made_from, "report": to_dict(report)}
        writer.add_key_value_metadata({METADATA: json.dumps(values).encode()})
    return report


def _drawn_rows(
    config: PlanConfig, drawers: Mapping[str, "_Drawer"], counts: Sequence["_StageCounts"]
) -> Iterator[dict[str, Any]]:
    for index, (stage, counted) in enumerate(zip(config.stages, counts, strict=True)):
        given = dict.fromkeys(stage.mixture.shares, 0)
        for name in given:
            drawers[name].pack_by(stage.packing)
        # A stream of its own a stage, beside the three that a mixture with a schedule takes of a seed.
        names = stage.choices(config.seed + (index << 96), given)
        for _, name in zip(range(stage.sequences), names, strict=False):
            row = drawers[name].next_row()
            given[name] += row["tokens"]
            counted.add(row)
            yield row


@dataclass
class _StageCounts:
    """What of a stage is drawn so far, and how much of each tenth of it was of language alone."""

    stage: PlanStage
    sequences: int = 0
    tokens: int = 0
    language: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.alone = self.stage.language_sources

    def add(self, row: Mapping[str, Any]) -> None:
        if row["source"] in self.alone:
            if row["pictures"]:
                raise InputError(
                    f"the source {row['source']!r} has pictures",
                    expected="language alone, as the schedule's parts are",
                    hint="leave it out of the parts",
                )
            self.language[self._tenth(self.sequences // self.stage.sequences_per_step)] += 1
        self.sequences += 1
        self.tokens += row["tokens"]

    def share(self) -> StageShare:
        return StageShare(
            steps=self.stage.steps, sequences=self.sequences, tokens=self.tokens, language=tuple(self._over_time())
        )

    def _over_time(self) -> Iterator[LanguageShare]:
        schedule = self.stage.language
        if schedule is None:
            return
        target = schedule.target(self.stage.mixture)
        for tenth, group in itertools.groupby(range(self.stage.steps), key=self._tenth):
            own = list(group)
            yield LanguageShare(
                first_step=own[0],
                steps=len(own),
                wanted=math.fsum(schedule.share_at(step, target) for step in own) / len(own),
                real=self.language[tenth] / (len(own) * self.stage.sequences_per_step),
            )

    def _tenth(self, step: int) -> int:
        return step * min(_PARTS, self.stage.steps) // self.stage.steps


@dataclass
class _Drawer:
    """A source's sequences, one after the other: its documents in order, cut, packed."""

    name: str
    source: Source
    seed: int
    tokens: Tokens
    closed: deque[dict[str, Any]] = field(default_factory=deque)
    spans: dict[int, dict[str, int]] = field(default_factory=dict)
    bad: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    unreadable: set[int] = field(default_factory=set)
    place: int = 0
    since_usable: int = 0
    packing: PackingConfig | None = None
    left_behind: int = 0

    def __post_init__(self) -> None:
        self.order = Order(len(self.source), seed=self.seed, name=self.name)

    def pack_by(self, packing: PackingConfig) -> None:
        """From now on sequences are of these limits. What was cut for others and waits is left behind."""
        if packing == self.packing:
            return
        self.left_behind = self.unused
        self.closed.clear()
        self.spans.clear()
        self.packing = packing
        # No more wait than there are: a small source would fill sequences with two passes of itself.
        self.packer = Packer(replace(packing, max_waiting=min(packing.max_waiting, self.order.count)))
        self.cutter = Cutter(self.tokens, max_tokens=packing.max_tokens, max_pictures=packing.max_pictures)

    @property
    def unused(self) -> int:
        """How many spans were read and are in no sequence of the plan."""
        return self.left_behind + len(self.spans) + sum(len(row["documents"]) for row in self.closed)

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


def _report(
    hash_of_all: str, config: PlanConfig, drawers: Mapping[str, _Drawer], counts: Sequence[_StageCounts]
) -> PlanReport:
    shares = {name: drawers[name].share(wanted) for name, wanted in config.shares.items()}
    tokens = sum(share.tokens for share in shares.values())
    return PlanReport(
        hash=hash_of_all,
        sequences=config.sequences,
        tokens=tokens,
        pictures=sum(share.pictures for share in shares.values()),
        efficiency=tokens / sum(stage.sequences * stage.packing.max_tokens for stage in config.stages),
        unused=sum(drawer.unused for drawer in drawers.values()),
        sources=shares,
        stages=tuple(counted.share() for counted in counts),
    )
