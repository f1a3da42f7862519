"""Reading a plan: any training sequence by its number."""

import functools
import itertools
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.config import content_hash, from_dict
from lensmith.core.errors import CheckpointError, InputError
from lensmith.data.documents import Source
from lensmith.data.plan.tokens import Span, Tokens
from lensmith.data.plan.writing import FORMAT, METADATA, PlanConfig, PlanReport, PlanStage

_GROUPS_KEPT = 4


class PlannedDocument(NamedTuple):
    """A record of the sequence's source, and which of its tokens."""

    record: int
    span: Span


@dataclass(frozen=True, kw_only=True)
class PlannedSequence:
    """One row: the documents that fill it, in order."""

    source: str
    documents: tuple[PlannedDocument, ...]

    @property
    def tokens(self) -> int:
        return sum(document.span.tokens for document in self.documents)


class Plan:
    """A plan file. Every method may be called from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where there is no plan at `path`, or it is of another format."""
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"cannot read the plan {path}", expected="a file that `lensmith data plan` wrote", actual=error
            ) from error
        values = json.loads((self._file.metadata.metadata or {}).get(METADATA, b"{}"))
        if values.get("made_from", {}).get("format") != FORMAT:
            raise InputError(
                f"{path} is no plan of this format", expected=FORMAT, actual=values.get("made_from", {}).get("format")
            )
        self.path = path
        self.config: PlanConfig = from_dict(PlanConfig, values["made_from"]["config"])
        self.report: PlanReport = from_dict(PlanReport, values["report"])
        self._made_from: Mapping[str, Any] = values["made_from"]
        groups = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        self._rows_a_group = groups[0]
        self._lock = threading.Lock()
        self._group = functools.lru_cache(maxsize=_GROUPS_KEPT)(self._read_group)

    def __len__(self) -> int:
        return self.report.sequences

    @property
    def hash(self) -> str:
        """The hash of what the plan was made from and of all its rows."""
        return self.report.hash

    @property
    def tokens_per_picture(self) -> int:
        """How many visual tokens a picture is in it."""
        return int(self._made_from["tokens_per_picture"])

    def check(self, sources: Mapping[str, Source], tokens: Tokens, config: PlanConfig | None = None) -> None:
        """Raises CheckpointError where a source, the tokenizer or the configuration is not that of the plan."""
        was: dict[str, Any] = {f"source {name}": value for name, value in self._made_from["sources"].items()}
        tokens_now = {
            "tokenizer": tokens.fingerprint,
            "tokens_per_picture": tokens.per_picture,
            "chat_format": tokens.chat_format,
        }
        # A plan that is older than conversations are names no chat format.
        was |= {name: self._made_from[name] for name in tokens_now if name in self._made_from}
        now: dict[str, Any] = {
            f"source {name}": sources[name].fingerprint if name in sources else "missing"
            for name in self._made_from["sources"]
        }
        now |= tokens_now
        if config is not None:
            was, now = was | {"configuration": content_hash(self.config)}, now | {"configuration": content_hash(config)}
        if changed := [name for name in was if was[name] != now[name]]:
            raise CheckpointError(
                f"the plan {self.path} was made from something else: {', '.join(changed)}",
                expected=", ".join(f"{name} {was[name]}" for name in changed),
                actual=", ".join(f"{name} {now[name]}" for name in changed),
                hint="make the plan anew, into another folder than that of a run which uses this one",
            )

    def sequence(self, number: int) -> PlannedSequence:
        """Sequence `number` (from 0). Raises IndexError where the plan has not so many."""
        if not 0 <= number < len(self):
            raise IndexError(f"the plan has {len(self)} sequences, not one of number {number}")
        group, row = divmod(number, self._rows_a_group)
        with self._lock:
            values = self._group(group)[row]
        return PlannedSequence(
            source=values["source"],
            documents=tuple(
                PlannedDocument(each["record"], Span(each["start"], each["stop"], each["pictures"]))
                for each in values["documents"]
            ),
        )

    def stage_of(self, number: int) -> PlanStage:
        """The stage that sequence `number` is of."""
        ends = itertools.accumulate(stage.sequences for stage in self.config.stages)
        return next(stage for stage, end in zip(self.config.stages, ends, strict=True) if number < end)

    def _read_group(self, group: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._file.read_row_group(group).to_pylist()
        return rows
