"""What a recipe costs, before anything is read or trained: `lensmith train RECIPE --dry-run`.

Where the run's folder has a plan, sequences are as it says: time by their mean, memory by the fullest. Where there is
none, each is assumed full, of tokens and of pictures, which is the most that a step can cost.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lensmith.core.errors import ConfigError
from lensmith.data.plan.reading import Plan, PlannedSequence
from lensmith.models.config import VisionLanguageConfig
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import PretrainingRecipe, PretrainingStage
from lensmith.train.cost.advice import Remedy, changes_that_fit
from lensmith.train.cost.cost import Estimator, SequenceShape, Spread, TrainingCost, Workload
from lensmith.train.cost.devices import ASSUMED_MFU, GPUS, PUBLISHED_MFU, gpu_named
from lensmith.train.cost.processor import measure_cpu
from lensmith.train.cost.trace import DocumentShape, tokens_per_picture
from lensmith.workflows.training.pretraining import PLAN_FILE

CPU = "cpu"
_READ_OF_PLAN = 2_000


class Basis(enum.Enum):
    """What is known of the sequences."""

    PLAN = "as the plan has them: time by the mean, memory by the fullest"
    FULL = "assumed full of tokens and pictures, the most that a step can cost; after `lensmith data plan`, as they are"


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A change with which a stage fits, and what a process then holds."""

    change: str
    total_bytes: int
    is_setting: bool


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """A stage's cost, and what follows from it; `fixes` where it does not fit."""

    stage: str
    sequences_per_step: int
    cost: TrainingCost
    fits: bool
    total_bytes: int
    tokens_per_s: float
    days: Spread
    fixes: tuple[Fix, ...]


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """A recipe's cost on `nodes` machines of `devices` devices each."""

    recipe: str
    device: str
    nodes: int
    devices: int
    basis: Basis
    stages: tuple[StageCost, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def dry_run(name: str, out_dir: Path, *, device: str = CPU, nodes: int = 1, devices: int = 1) -> DryRun:
    """What training recipe `name` into `out_dir` would cost on a kind of GPU, or on this machine's processor.

    Nothing is downloaded, read of the sources or written. Raises InputError for an unknown device and ConfigError for a
    recipe that is none of pre-training, for no device at all, or where a step's sequences cannot be shared out.
    """
    for what, count in (("nodes", nodes), ("gpus", devices)):
        if count < 1:
            raise ConfigError(f"{what}: nothing to train on", expected="at least 1", actual=count)
    recipe = recipe_named(name)
    if not isinstance(recipe, PretrainingRecipe):
        raise ConfigError(f"the cost of {name!r} cannot be told", expected="a recipe of pre-training on documents")
    if device == CPU and nodes * devices > 1:
        raise ConfigError(
            "this machine is one process", expected="--nodes 1 --gpus 1, or a --gpu", actual=f"{nodes} x {devices}"
        )
    estimator = Estimator(measure_cpu() if device == CPU else gpu_named(device))
    plan = _plan_in(out_dir)
    stages = tuple(
        _stage_cost(
            estimator,
            stage,
            workload_of(recipe, stage, _full(recipe, stage) if plan is None else _planned(plan, number)),
            nodes * devices,
        )
        for number, stage in enumerate(recipe.stages)
    )
    basis = Basis.FULL if plan is None else Basis.PLAN
    return DryRun(recipe=name, device=device, nodes=nodes, devices=devices, basis=basis, stages=stages)


def workload_of(recipe: PretrainingRecipe, stage: PretrainingStage, sequences: tuple[SequenceShape, ...]) -> Workload:
    """What a stage trains, with its sequences as given."""
    made = _made(recipe)
    return Workload(
        model=made.config,
        train=stage.train,
        sequences=sequences,
        sequences_per_step=stage.sequences_per_step or recipe.sequences_per_step,
        picture_px=made.picture_px,
        frozen=tuple(part.name for part in stage.train.optim.parts if not part.lr_factor),
    )


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A recipe's model, and the side of the pictures that its tower reads: of the larger ones where it reads two."""

    config: VisionLanguageConfig
    picture_px: int


def _made(recipe: PretrainingRecipe) -> _Made:
    """With a tokenizer made of nothing: what a model costs depends on how many tokens it knows, not on which."""
    tokenizer = recipe.parts.train_tokenizer((), vocabulary_size=recipe.vocabulary_size)
    config = recipe.parts.config(tokenizer)
    if config.language.vocab_size == len(tokenizer):  # as many as the tokenizer has, which will have more
        config.language.vocab_size = recipe.vocabulary_size
    inputs = recipe.parts.processor(tokenizer).picture_inputs([Image.new("RGB", (32, 32))])
    return _Made(config=config, picture_px=max(pixels.shape[-1] for pixels in inputs.values.values()))


def _stage_cost(estimator: Estimator, stage: PretrainingStage, workload: Workload, ranks: int) -> StageCost:
    cost = estimator.cost(workload, ranks=ranks)
    changes = () if cost.fits else changes_that_fit(estimator, workload, ranks=ranks)
    return StageCost(
        stage=stage.name,
        sequences_per_step=workload.sequences_per_step,
        cost=cost,
        fits=cost.fits,
        total_bytes=cost.memory.total,
        tokens_per_s=cost.tokens_per_s,
        days=cost.days,
        fixes=tuple(_fix(change) for change in changes),
    )


def _fix(change: Remedy) -> Fix:
    return Fix(change=change.text, total_bytes=change.total_bytes, is_setting=change.is_setting)


def _plan_in(out_dir: Path) -> Plan | None:
    path = out_dir / PLAN_FILE
    return Plan(path) if path.exists() else None


def _full(recipe: PretrainingRecipe, stage: PretrainingStage) -> tuple[SequenceShape, ...]:
    """Full of tokens and of as many pictures as fit; and, for memory, full of text, whose tokens all have logits."""
    made, packing = _made(recipe), stage.packing or recipe.packing
    room = packing.max_tokens
    pictures = min(packing.max_pictures, room // tokens_per_picture(made.config, made.picture_px))
    return (
        SequenceShape(documents=(DocumentShape(tokens=room, pictures=pictures),), share=1.0),
        SequenceShape(documents=(DocumentShape(tokens=room),), share=0.0),
    )


def _planned(plan: Plan, stage: int) -> tuple[SequenceShape, ...]:
    """The stage's mean sequence, as documents of one length; and, for memory, the one with most pictures and the one
    with most text, of up to 2,000 from all over the stage."""
    stages = plan.config.stages
    first, sequences = sum(each.sequences for each in stages[:stage]), stages[stage].sequences
    count = min(sequences, _READ_OF_PLAN)
    read = [plan.sequence(first + place * sequences // count) for place in range(count)]
    fullest = (
        max(read, key=_pictures),
        max(read, key=lambda each: each.tokens - plan.tokens_per_picture * _pictures(each)),
    )
    return (
        SequenceShape(documents=_mean_documents(read), share=1.0),
        *(SequenceShape(documents=_documents(each), share=0.0) for each in fullest),
    )


def _pictures(sequence: PlannedSequence) -> int:
    return sum(each.span.pictures for each in sequence.documents)


def _documents(sequence: PlannedSequence) -> tuple[DocumentShape, ...]:
    return tuple(DocumentShape(tokens=each.span.tokens, pictures=each.span.pictures) for each in sequence.documents)


def _mean_documents(read: list[PlannedSequence]) -> tuple[DocumentShape, ...]:
    documents = [each for sequence in read for each in _documents(sequence)]
    count = max(1, round(len(documents) / len(read)))
    tokens = round(sum(each.tokens for each in documents) / len(read) / count)
    pictures = round(sum(each.pictures for each in documents) / len(read))
    shares = (pictures // count + (place < pictures % count) for place in range(count))
    return tuple(DocumentShape(tokens=tokens, pictures=share) for share in shares)


def _lines(run: DryRun) -> Iterator[str]:
    where = "this machine" if run.device == CPU else f"{run.nodes} x {run.devices} {run.device}"
    for stage in run.stages:
        cost = stage.cost
        yield f"{run.recipe}, stage {stage.stage!r}, on {where} in {cost.precision.value}"
        yield (
            f"  {cost.steps:,} steps of {stage.sequences_per_step} sequences, {cost.tokens_per_step:,.0f} tokens; "
            f"{cost.sequences_at_once} at once in a process, {cost.accumulate} times"
        )
        yield f"  sequences: {run.basis.value}"
        yield f"  {'parameters':<22}{'trained':>16}{'frozen':>16}"
        for part in cost.parameters:
            yield f"    {part.part:<20}{part.trained:>16,}{part.frozen:>16,}"
        yield f"  {'TFLOP a step':<22}{'forward':>16}{'backward':>16}"
        for flops in cost.flops:
            yield f"    {flops.part:<20}{flops.forward / 1e12:>16,.3f}{flops.backward / 1e12:>16,.3f}"
        yield from _memory_lines(stage)
        yield from _time_lines(cost)


def _memory_lines(stage: StageCost) -> Iterator[str]:
    memory, limit = stage.cost.memory, stage.cost.memory_limit
    yield f"  {'memory of a process':<22}{'GB':>16}"
    for name in memory.__dataclass_fields__:
        if size := getattr(memory, name):
            yield f"    {name.replace('_', ' '):<20}{size / 1e9:>16,.2f}"
    verdict = "fits" if stage.cost.fits else "does not fit"
    yield f"    {'in all':<20}{memory.total / 1e9:>16,.2f}   {verdict} in {limit / 1e9:,.0f} GB"
    if not stage.cost.fits:
        yield "  what would fit:" if stage.fixes else "  no change of one setting would make it fit"
    for fix in stage.fixes:
        yield f"    {fix.change}: {fix.total_bytes / 1e9:,.1f} GB"


def _time_lines(cost: TrainingCost) -> Iterator[str]:
    step, days = cost.step_s, cost.days
    yield f"  time: {step.assumed:,.2f} s a step, {cost.tokens_per_s:,.0f} tokens/s, {days.assumed:,.2f} days"
    if cost.device in GPUS:
        lowest, highest = PUBLISHED_MFU
        peak = GPUS[cost.device].rate(cost.precision)
        yield (
            f"    assumed: {ASSUMED_MFU:.0%} of {peak / 1e12:,.0f} TFLOP/s; at the {highest:.0%} and {lowest:.0%} that "
            f"others published of theirs {days.lowest:,.2f} to {days.highest:,.2f} days"
        )
    else:
        yield "    by this machine's rates, measured now"
    yield "    without reading data, communication, checkpoints and restarts"
