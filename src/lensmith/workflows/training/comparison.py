"""Runs side by side: what each is, how it stands, how well it learns and how fast, and in what their recipes differ.

A run is a folder that `lensmith train` writes (`run.json` and a folder a stage), or one that the library's `train` does
(`log.jsonl`), which has no recipe. Nothing is written into either, and a run under way is read as it is.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.core.config import load
from lensmith.core.errors import InputError
from lensmith.core.manifest import Manifest
from lensmith.train.log import LOG_FILE, read
from lensmith.train.status import RunState, RunStatus, read_status
from lensmith.workflows.training.held_out import read_samples
from lensmith.workflows.training.runs import RUN_FILE

ABSENT = "(absent)"
_HASH_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run in a line. Losses are in nats a token; None is what is not known (yet).

    `step` and `total_steps` are of its stages together, as far as they have begun. `tokens_per_s` (all that the model
    reads) and `mfu` are medians over the steps of the last stage; `data_wait_share` is the part of their time that was
    spent waiting for batches. `state` None: an older run, which did not say.
    """

    name: str
    folder: Path
    recipe: str | None
    plan: str | None
    stage: str
    state: RunState | None
    why: str | None
    step: int
    total_steps: int | None
    loss: float | None
    held_out_loss: float | None
    target_tokens_per_s: float | None
    tokens_per_s: float | None
    mfu: float | None
    peak_source: str | None
    padding_share: float | None
    blank_share: float | None
    data_wait_share: float | None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model wrote about a held-out picture after so many steps; `picture` is a PNG, None where none was kept."""

    step: int
    key: str
    caption: str
    written: str
    picture: bytes | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run with its curves: `lines` of all its logs, with steps that go on from stage to stage, and its samples."""

    summary: RunSummary
    lines: Sequence[Mapping[str, Any]]
    held_out: str | None
    samples: Sequence[Sample]


@dataclass(frozen=True, kw_only=True)
class ComparisonSummary:
    """Runs, and each field in which their recipes differ: its values in the order of the runs."""

    runs: tuple[RunSummary, ...]
    differences: Mapping[str, tuple[Any, ...]]

    def __str__(self) -> str:
        heads = ("run", "recipe", "plan", "steps", "loss", "held out", "tokens/s", "mfu", "state")
        rows = [heads, *(_cells(run) for run in self.runs)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        for name, values in self.differences.items():
            lines.append(f"differs: {name}: {' | '.join(map(str, values))}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class ComparedRuns:
    """What a comparison says in short, and the runs with all their curves."""

    summary: ComparisonSummary
    records: tuple[RunRecord, ...]


def compare_runs(folders: Sequence[Path]) -> ComparedRuns:
    """The runs in these folders; a folder that holds runs stands for all of them.

    Raises InputError where a folder neither is a run nor holds one, ConfigError where a run's files cannot be read.
    """
    found = [run for folder in folders for run in _runs_in(folder)]
    names = _names(found)
    manifests = [load(Manifest, run / RUN_FILE) if (run / RUN_FILE).exists() else None for run in found]
    records = tuple(_record(run, name, manifest) for run, name, manifest in zip(found, names, manifests, strict=True))
    configs = [dict(_dotted(manifest.config)) if manifest else {} for manifest in manifests]
    fields = sorted({name for config in configs for name in config})
    values = {name: tuple(config.get(name, ABSENT) for config in configs) for name in fields}
    summary = ComparisonSummary(
        runs=tuple(record.summary for record in records),
        differences={name: row for name, row in values.items() if any(value != row[0] for value in row)},
    )
    return ComparedRuns(summary=summary, records=records)


def _runs_in(folder: Path) -> list[Path]:
    if _is_run(folder):
        return [folder]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path)) if folder.is_dir() else []
    if not inside:
        raise InputError(
            "there is no run", expected=f"a folder with {RUN_FILE} or {LOG_FILE}, or one of such folders", actual=folder
        )
    return inside


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).exists() or (folder / LOG_FILE).exists()


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as many of those above as it takes to tell them apart."""
    parts = [path.resolve().parts for path in folders]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _record(folder: Path, name: str, manifest: Manifest | None) -> RunRecord:
    stages = [folder] if manifest is None else _stages(folder, manifest)
    lines: list[dict[str, Any]] = []
    samples: list[Sample] = []
    offset, statuses, last = 0, [], []
    for stage in stages:
        status = read_status(stage)
        last = _log(stage)
        lines += [line | {"step": line["step"] + offset} for line in last]
        samples += _samples(stage, offset)
        statuses.append(status)
        offset += status.total_steps if status else (last[-1]["step"] if last else 0)
    held_out = _held_out(lines)
    return RunRecord(
        summary=_summary(
            folder,
            name,
            manifest,
            stage=stages[-1].name if stages else "",
            statuses=statuses,
            lines=lines,
            last=last,
            held_out=held_out,
        ),
        lines=lines,
        held_out=held_out,
        samples=samples,
    )


def _stages(folder: Path, manifest: Manifest) -> list[Path]:
    """The folders of the stages that have begun, in the recipe's order."""
    stages = manifest.config.get("stages", [])
    return [folder / stage["name"] for stage in stages if (folder / stage["name"] / LOG_FILE).exists()]


def _log(stage: Path) -> list[dict[str, Any]]:
    path = stage / LOG_FILE
    return list(read(stage)) if path.exists() else []


def _summary(
    folder: Path,
    name: str,
    manifest: Manifest | None,
    *,
    stage: str,
    statuses: Sequence[RunStatus | None],
    lines: Sequence[Mapping[str, Any]],
    last: Sequence[Mapping[str, Any]],
    held_out: str | None,
) -> RunSummary:
    status = statuses[-1] if statuses else None
    known = [one for one in statuses if one is not None]
    waited, took = _sum(last, "data_wait_s"), _sum(last, "step_s")
    plan = status.identity.get("plan") if status else None
    return RunSummary(
        name=name,
        folder=folder,
        recipe=manifest.config.get("name") if manifest else None,
        plan=None if plan is None else str(plan)[:_HASH_DIGITS],
        stage=stage,
        state=status.state if status else None,
        why=status.why if status else None,
        step=lines[-1]["step"] if lines else 0,
        total_steps=sum(one.total_steps for one in known) if known else None,
        loss=_last(lines, "loss"),
        held_out_loss=None if held_out is None else _last(lines, held_out),
        target_tokens_per_s=_median(last, "target_tokens_per_s"),
        tokens_per_s=_median(last, "tokens_per_s"),
        mfu=_median(last, "mfu"),
        peak_source=status.peak_source if status else None,
        padding_share=_mean(last, "padding_share"),
        blank_share=_mean(last, "blank_share"),
        data_wait_share=waited / took if took else None,
    )


def _held_out(lines: Iterable[Mapping[str, Any]]) -> str | None:
    """The name of the held-out loss in a log: the shortest of those that end so, as others say what they change."""
    names = {name for line in lines for name in line if name.startswith("validate/") and name.endswith("loss")}
    return min(names, key=len, default=None)


def _samples(stage: Path, offset: int) -> list[Sample]:
    found = []
    for line in read_samples(stage):
        # Only what lies below the stage's folder: the file says where.
        path = stage / str(line.get("picture", ""))
        is_own = path.is_file() and path.resolve().is_relative_to(stage.resolve())
        found.append(
            Sample(
                step=line["step"] + offset,
                key=line["key"],
                caption=line["caption"],
                written=line["written"],
                picture=path.read_bytes() if is_own else None,
            )
        )
    return found


def _numbers(lines: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    return [line[name] for line in lines if line.get(name) is not None]


def _last(lines: Iterable[Mapping[str, Any]], name: str) -> float | None:
    return next(iter(_numbers(reversed(list(lines)), name)), None)


def _median(lines: Iterable[Mapping[str, Any]], name: str) -> float | None:
    numbers = _numbers(lines, name)
    return statistics.median(numbers) if numbers else None


def _mean(lines: Iterable[Mapping[str, Any]], name: str) -> float | None:
    numbers = _numbers(lines, name)
    return statistics.fmean(numbers) if numbers else None


def _sum(lines: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(_numbers(lines, name))


def _dotted(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A recipe's fields by dotted name, entries of lists by their place."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _dotted(inner, f"{prefix}.{name}" if prefix else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for place, inner in enumerate(value):
            yield from _dotted(inner, f"{prefix}.{inner.get('name', place)}")
    else:
        yield prefix, tuple(value) if isinstance(value, list) else value


def state_words(run: RunSummary) -> str:
    """How a run stands, and why, for people."""
    state = "unknown" if run.state is None else run.state.value
    return f"{state}: {run.why}" if run.why else state


def steps_words(run: RunSummary) -> str:
    """How far a run is."""
    return f"{run.step:,}" if run.total_steps is None else f"{run.step:,} of {run.total_steps:,}"


def speed_of(run: RunSummary) -> float | None:
    """All tokens a second, or those of targets where no more is known."""
    return run.target_tokens_per_s if run.tokens_per_s is None else run.tokens_per_s


def _cells(run: RunSummary) -> tuple[str, ...]:
    speed = speed_of(run)
    return (
        run.name,
        run.recipe or "-",
        run.plan or "-",
        steps_words(run),
        "-" if run.loss is None else f"{run.loss:.4f}",
        "-" if run.held_out_loss is None else f"{run.held_out_loss:.4f}",
        "-" if speed is None else f"{speed:,.0f}",
        "-" if run.mfu is None else f"{run.mfu:.1%}",
        state_words(run),
    )
