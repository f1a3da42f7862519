"""What `lensmith train --dry-run` says a step costs, beside what it cost: memory and time of six runs of training.

Six models of different sizes, with different parts that do not learn, in both precisions. Each is measured in processes
of its own, one for memory and one for time, with real weights, the loop's own loss and its own optimizer.

Memory is the highest resident size of the process above what it had before the model, once a small model has taken a
step, so that what is loaded late is there. glibc keeps freed memory for itself; here blocks of 64 KiB and more go back
to the system when they are freed (`MALLOC_MMAP_THRESHOLD_`), so that the resident size is what is held. That is slow,
and so time is another process.

Time is a step's, on one thread, by that thread's own clock (it waits for nothing): the median of several. The rates of
which it is predicted are measured in the same process, before the steps and after them; the mean of both predictions is
compared.

`--published` prints instead what is predicted of runs whose makers told how long they took.

    python -m benchmarks.cost [--quick] [--json] [--published]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lensmith.models import VisionLanguageModel
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.connectors import MlpConnectorConfig
from lensmith.models.connectors.c_abstractor import CAbstractorConfig
from lensmith.models.families.deepseek_vl.config import deepseek_vl_config
from lensmith.models.families.mm1.config import LlamaDecoderConfig
from lensmith.models.language.isolation import isolated_documents
from lensmith.models.towers import ClipTowerConfig, SiglipTowerConfig
from lensmith.train import OptimConfig, Precision, ScheduleConfig, StepContext, TrainConfig
from lensmith.train.config import autocast
from lensmith.train.cost.cost import Estimator, SequenceShape, TrainingCost, Workload
from lensmith.train.cost.devices import ASSUMED_MFU, PUBLISHED_MFU, gpu_named
from lensmith.train.cost.processor import CpuRates, measure_cpu
from lensmith.train.cost.trace import BatchShape, DocumentShape, batch_of
from lensmith.train.cost.weights import let_learn
from lensmith.train.objectives.documents import document_loss
from lensmith.train.optim import WeightAverage, build_optimizer, scale_and_clip

MEMORY_LIMIT, TIME_LIMIT = 0.10, 0.25
"""How far a prediction may be off."""
MMAP_THRESHOLD_BYTES = 65_536
STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run: what was predicted and what was measured, in MB and ms; the range is over steps."""

    name: str
    weights: int
    memory_mb: float
    predicted_memory_mb: float
    step_ms: float
    lowest_ms: float
    highest_ms: float
    predicted_step_ms: float

    @property
    def memory_ratio(self) -> float:
        return self.predicted_memory_mb / self.memory_mb

    @property
    def time_ratio(self) -> float:
        return self.predicted_step_ms / self.step_ms

    @property
    def is_within_limits(self) -> bool:
        return abs(self.memory_ratio - 1) <= MEMORY_LIMIT and abs(self.time_ratio - 1) <= TIME_LIMIT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest run alone: only shows that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--published", action="store_true", help="what is predicted of published runs")
    parser.add_argument("--worker", nargs=2, metavar=("WHAT", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        what, name = options.worker
        print(json.dumps(WORKERS[what](runs()[name])))
        return 0
    if options.published:
        table = [published(each) for each in PUBLISHED]
        print(json.dumps([asdict(each) for each in table], indent=1) if options.json else published_text(table))
        return 0
    names = ["toy, float32"] if options.quick else list(runs())
    rows = []
    for name in names:
        rows.append(measure(name))
        print(as_table(rows[-1:]), file=sys.stderr, flush=True)
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else as_table(rows))
    return 0 if options.quick or all(row.is_within_limits for row in rows) else 1


def runs() -> dict[str, Workload]:
    """What is measured, by name."""
    toy_tower = ClipTowerConfig(width=192, hidden_width=768, layers=4, heads=6, patch_px=8, native_px=64)
    toy = _config(
        toy_tower,
        CAbstractorConfig(side=4, depth=1, hidden_width=192, grid_side=8),
        LlamaDecoderConfig(width=256, layers=4, inner_width=704, head_width=64, max_positions=2048),
        4096,
    )
    wide = _config(
        SiglipTowerConfig(width=384, hidden_width=1536, layers=6, heads=6, patch_px=16, native_px=192),
        MlpConnectorConfig(depth=2),
        LlamaDecoderConfig(width=512, layers=8, inner_width=1376, head_width=64, max_positions=2048),
        16_000,
    )
    deep = _config(
        toy_tower,
        CAbstractorConfig(side=4, depth=1, hidden_width=192, grid_side=8),
        LlamaDecoderConfig(width=384, layers=8, inner_width=1024, head_width=64, max_positions=2048),
        4096,
    )
    captions = tuple(DocumentShape(tokens=24, pictures=1) for _ in range(24))
    pages = tuple(DocumentShape(tokens=256, pictures=4) for _ in range(2))
    text = (DocumentShape(tokens=700), DocumentShape(tokens=324))
    shown = (DocumentShape(tokens=400, pictures=2), DocumentShape(tokens=624))
    return {
        "toy, float32": _run(toy, pages, 64, sequences=4, precision=Precision.FLOAT32),
        "toy captions, bfloat16": _run(toy, captions, 64, sequences=4, precision=Precision.BFLOAT16),
        "toy, tower alone learns": _run(
            toy, captions, 64, sequences=4, precision=Precision.FLOAT32, frozen=("connector", "language_model")
        ),
        "deep, text, averaged": _run(
            deep, text, 64, sequences=2, precision=Precision.FLOAT32, accumulate=2, ema_decay=0.999
        ),
        "wide, connector alone learns": _run(
            wide, shown, 192, sequences=1, precision=Precision.FLOAT32, frozen=("vision_tower", "language_model")
        ),
        "wide, tower frozen, bfloat16": _run(
            wide, shown, 192, sequences=2, precision=Precision.BFLOAT16, frozen=("vision_tower",)
        ),
    }


def _config(tower: Any, connector: Any, decoder: LlamaDecoderConfig, vocabulary_size: int) -> VisionLanguageConfig:
    return VisionLanguageConfig(
        vision=tower, connector=connector, language=decoder.build(vocabulary_size), image_token_id=3
    )


def _run(
    config: VisionLanguageConfig,
    documents: tuple[DocumentShape, ...],
    picture_px: int,
    *,
    sequences: int,
    precision: Precision,
    frozen: tuple[str, ...] = (),
    **train: Any,
) -> Workload:
    return Workload(
        model=config,
        train=TrainConfig(
            optim=OptimConfig(peak_lr=1e-4),
            schedule=ScheduleConfig(total_steps=100, warmup_steps=1),
            precision=precision,
            **train,
        ),
        sequences=(SequenceShape(documents=documents, share=1.0),),
        sequences_per_step=sequences,
        picture_px=picture_px,
        frozen=frozen,
    )


def measure(name: str) -> Row:
    """A run in two processes, and what was predicted of it."""
    memory = _in_process("memory", name, {"MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD_BYTES)})
    timed = _in_process("time", name, {})
    seconds = timed["seconds"]
    return Row(
        name=name,
        weights=memory["weights"],
        memory_mb=memory["peak"] / 1e6,
        predicted_memory_mb=timed["memory"] / 1e6,
        step_ms=1e3 * statistics.median(seconds),
        lowest_ms=1e3 * min(seconds),
        highest_ms=1e3 * max(seconds),
        predicted_step_ms=1e3 * timed["predicted"],
    )


def _in_process(what: str, name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cost", "--worker", what, name]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


# --- in a process of its own ------------------------------------------------------------------------------------------


class Trainer:
    """A workload with real weights, and the loop's own update."""

    def __init__(self, workload: Workload) -> None:
        torch.manual_seed(0)
        self.workload, self.train = workload, workload.train
        self.model = VisionLanguageModel(workload.model)
        let_learn(self.model, workload.frozen)
        self.model.train()
        self.optimizer = build_optimizer(self.model, self.train.optim)
        decay = self.train.ema_decay
        self.average = None if decay is None else WeightAverage(self.model, decay)
        (kind,) = workload.sequences
        shape = BatchShape(documents=kind.documents * workload.sequences_at_once(1), picture_px=workload.picture_px)
        self.batch = batch_of(shape, workload.model, torch.randn)

    def step(self, number: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        targets = 0
        with isolated_documents(self.model.language_model):
            for micro in range(self.train.accumulate):
                context = StepContext(step=number, micro=micro, total_steps=STEPS, device=self.model.device)
                with autocast(self.train.precision, self.model.device):
                    parts = document_loss(self.model, self.batch, context)
                torch.autograd.backward(parts.loss_sum)
                targets += parts.target_tokens
        scale_and_clip(self.model, target_tokens=targets, clip_norm=self.train.optim.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(number)


def memory(workload: Workload) -> dict[str, float]:
    """The highest resident size of two steps, above what there was before the model."""
    torch.set_num_threads(1)
    Trainer(_small(workload)).step(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest size so far is forgotten
    trainer = Trainer(workload)
    for number in range(2):  # the optimizer's numbers come with the first
        trainer.step(number)
    peak = _resident("VmHWM") - before
    weights = sum(each.numel() for each in trainer.model.parameters())
    return {"peak": peak, "weights": weights}


def timed(workload: Workload) -> dict[str, Any]:
    """Seconds of each step, and of what is predicted by rates from before and behind."""
    torch.set_num_threads(1)
    trainer = Trainer(workload)
    trainer.step(0)
    before, seconds = _predicted(workload), []
    for number in range(1, STEPS + 1):
        started = time.process_time()
        trainer.step(number)
        seconds.append(time.process_time() - started)
    predictions = [each.step_s.assumed for each in (before, _predicted(workload))]
    return {"seconds": seconds, "predicted": statistics.mean(predictions), "memory": before.memory.total}


WORKERS = {"memory": memory, "time": timed}


def _predicted(workload: Workload) -> TrainingCost:
    rates: CpuRates = measure_cpu(time.process_time)
    return Estimator(rates).cost(workload)


def _small(workload: Workload) -> Workload:
    """Two documents of it: what takes a step loads all that a step needs."""
    (kind,) = workload.sequences
    few = replace(kind, documents=tuple(DocumentShape(tokens=180, pictures=each) for each in (0, 1)))
    small = LlamaDecoderConfig(width=64, layers=1, inner_width=64, head_width=64)
    config = VisionLanguageConfig(
        vision=replace(workload.model.vision, layers=1),
        connector=workload.model.connector,
        language=small.build(64),
        image_token_id=3,
    )
    return replace(workload, model=config, sequences=(few,), sequences_per_step=workload.train.accumulate)


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(field)


def as_table(rows: Sequence[Row]) -> str:
    lines = [
        f"{'run':<30}{'weights':>12}{'memory':>10}{'predicted':>11}{'ratio':>7}"
        f"{'step':>10}{'(range)':>18}{'predicted':>11}{'ratio':>7}"
    ]
    for row in rows:
        spread = f"({row.lowest_ms:,.0f}-{row.highest_ms:,.0f})"
        lines.append(
            f"{row.name:<30}{row.weights:>12,}{row.memory_mb:>7,.0f} MB{row.predicted_memory_mb:>8,.0f} MB"
            f"{row.memory_ratio:>7.2f}{row.step_ms:>7,.0f} ms{spread:>18}{row.predicted_step_ms:>8,.0f} ms"
            f"{row.time_ratio:>7.2f}"
        )
    return "\n".join(lines)


# --- published runs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PublishedStage:
    """A stage as its paper has it. `pictures`: of a sequence with pictures; `multimodal`: the share of those."""

    steps: int
    sequences_per_step: int
    tokens: int
    pictures: int
    multimodal: float
    frozen: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    name: str
    size: str
    picture_px: int
    gpus: int
    days: float
    stages: tuple[PublishedStage, ...]


def _deepseek_stages(steps: int, sequences_per_step: int) -> tuple[PublishedStage, ...]:
    """DeepSeek-VL (arXiv 2403.05525, table 4 and section 3); the second stage differs between sizes.

    Not told, and assumed: all sequences are full, one with pictures has three (one in the first and last stage), and
    shares of data are shares of sequences.
    """
    return (
        PublishedStage(
            steps=15_000,
            sequences_per_step=256,
            tokens=576 + 512,
            pictures=1,
            multimodal=1.0,
            frozen=("vision_tower", "language_model"),
        ),
        PublishedStage(
            steps=steps,
            sequences_per_step=sequences_per_step,
            tokens=4096,
            pictures=3,
            multimodal=0.3,
            frozen=("vision_tower",),
        ),
        PublishedStage(
            steps=10_000,
            sequences_per_step=256,
            tokens=4096,
            pictures=1,
            multimodal=0.521,
            frozen=("vision_tower.high",),  # SAM, which 1.3B has not
        ),
    )


PUBLISHED = (
    PublishedRun(
        name="DeepSeek-VL 1.3B",
        size="1.3b",
        picture_px=384,
        gpus=16 * 8,
        days=7.0,
        stages=_deepseek_stages(steps=96_000, sequences_per_step=1024),
    ),
    PublishedRun(
        name="DeepSeek-VL 7B",
        size="7b",
        picture_px=1024,
        gpus=64 * 8,
        days=5.0,
        stages=_deepseek_stages(steps=42_000, sequences_per_step=2304),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Days as published, and as predicted; `implied_mfu`: what the published days say was made of the devices."""

    name: str
    gpus: int
    flops: float
    published_days: float
    predicted_days: float
    lowest_days: float
    highest_days: float
    implied_mfu: float


def published(run: PublishedRun) -> Comparison:
    """All stages of a run, on as many A100."""
    print(run.name, file=sys.stderr, flush=True)
    gpu = gpu_named("a100")
    estimator = Estimator(gpu)
    flops = 0.0
    for stage in run.stages:
        flops += stage.steps * estimator.cost(_workload(run, stage)).flops_per_step
    at_best_days = flops / (run.gpus * gpu.rate(Precision.BFLOAT16)) / 86_400
    lowest, highest = PUBLISHED_MFU
    return Comparison(
        name=run.name,
        gpus=run.gpus,
        flops=flops,
        published_days=run.days,
        predicted_days=at_best_days / ASSUMED_MFU,
        lowest_days=at_best_days / highest,
        highest_days=at_best_days / lowest,
        implied_mfu=at_best_days / run.days,
    )


def _workload(run: PublishedRun, stage: PublishedStage) -> Workload:
    shown = DocumentShape(tokens=stage.tokens, pictures=stage.pictures)
    kinds = [SequenceShape(documents=(shown,), share=stage.multimodal)]
    if stage.multimodal < 1:
        kinds.append(SequenceShape(documents=(DocumentShape(tokens=stage.tokens),), share=1 - stage.multimodal))
    return Workload(
        model=deepseek_vl_config(run.size),
        train=TrainConfig(
            optim=OptimConfig(peak_lr=1e-4),
            schedule=ScheduleConfig(total_steps=stage.steps, warmup_steps=1),
            accumulate=stage.sequences_per_step,
        ),
        sequences=tuple(kinds),
        sequences_per_step=stage.sequences_per_step,
        picture_px=run.picture_px,
        frozen=stage.frozen,
    )


def published_text(table: Sequence[Comparison]) -> str:
    lowest, highest = PUBLISHED_MFU
    head = f"at {ASSUMED_MFU:.0%}"
    lines = [f"{'run':<18}{'A100':>6}{'FLOP':>11}{'published':>12}{head:>10}{'spread':>12}{'implied MFU':>13}"]
    for each in table:
        spread = f"{each.lowest_days:.1f}-{each.highest_days:.1f}"
        lines.append(
            f"{each.name:<18}{each.gpus:>6}{each.flops:>11.2e}{each.published_days:>7.0f} days"
            f"{each.predicted_days:>10.1f}{spread:>12}{each.implied_mfu:>13.1%}"
        )
    lines.append(
        f"The spread is by {highest:.0%} to {lowest:.0%} of the devices' rate, which others published of theirs."
    )
    lines.append("MM1 (arXiv 2403.09611) tells neither its devices nor its days.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
