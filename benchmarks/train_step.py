"""How many useful tokens a second a training step takes, against `transformers.Trainer` on the same documents.

The same model with the same weights reads the same documents, 45 % captions, 45 % interleaved and 10 % text by packed
sequences of 2,048 tokens, in the same precision, as many documents a step. Useful tokens are those that are no padding.
The others' ways: documents in batches at random, padded to the longest; and the same by length (`group_by_length`, or
`train_sampling_strategy` as newer versions call it). Ways run one after the other; the range is over their steps.

Then the parts of our own step, by the clock, so that what is not the model can be seen.

    python -m benchmarks.train_step [--quick] [--json]
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.cores import CORES, keep_to_cores
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.reading import Plan, PlannedSequence
from lensmith.data.plan.writing import PlanConfig, write_plan
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.families.mm1.config import LlamaDecoderConfig
from lensmith.models.language.isolation import isolated_documents
from lensmith.models.vlm import VisionLanguageModel
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import PretrainingRecipe, build_model
from lensmith.train import OptimConfig, Precision, StepContext
from lensmith.train.config import autocast
from lensmith.train.objectives.documents import DocumentBatches, document_loss
from lensmith.train.optim import build_optimizer, scale_and_clip
from lensmith.workflows.training.pretraining import PreparedData

AIM_RANDOM, AIM_BY_LENGTH = 2.0, 1.0
SEQUENCES_A_STEP = 4
DOCUMENTS_A_BATCH = 8
OPTIM = OptimConfig(peak_lr=1e-4)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to train. `ratio`: ours over it, with its range over steps; `padding`: the share of its tokens."""

    name: str
    useful_tokens_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    padding: float


@dataclass(frozen=True, kw_only=True)
class Report:
    steps: int
    precision: str
    documents: int
    tokens: int
    ways: tuple[Way, ...]
    parts_ms: dict[str, float]

    @property
    def is_within_limits(self) -> bool:
        _, random, by_length = self.ways
        return random.ratio >= AIM_RANDOM and by_length.ratio >= AIM_BY_LENGTH


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model and 2 steps: only shows that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    torch.set_num_threads(CORES)
    report = measure(is_quick=options.quick)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0 if options.quick or report.is_within_limits else 1


def measure(*, is_quick: bool = False) -> Report:
    """All ways, in turns."""
    steps = 2 if is_quick else 12
    recipe = _recipe(is_quick=is_quick)
    with tempfile.TemporaryDirectory() as folder:
        prepared = PreparedData.of(recipe, Path(folder))
        plan_config = PlanConfig.of(
            mixture=recipe.mixture, packing=recipe.packing, sequences=(steps + 1) * SEQUENCES_A_STEP
        )
        write_plan(Path(folder) / "plan.parquet", plan_config, prepared.sources, prepared.tokens)
        plan = Plan(Path(folder) / "plan.parquet")
        batches = DocumentBatches(
            plan,
            prepared.sources,
            prepared.tokens,
            prepared.processor,
            sequences_per_step=SEQUENCES_A_STEP,
            accumulate=SEQUENCES_A_STEP,
        )
        samples = [_sample(batches, sequence) for sequence in _alone(plan)]
        each = len(samples) // (steps + 1)
        model = build_model(recipe, prepared.processor)
        ours, parts = _ours(model, batches, steps)
        ways = [("lensmith: packed, documents apart", ours)]
        for name, by_length in (("Trainer: padded at random", False), ("Trainer: padded by length", True)):
            theirs = _trainer(build_model(recipe, prepared.processor), samples, each, steps, by_length=by_length)
            ways.append((name, theirs))
    return Report(
        steps=steps,
        precision="bfloat16" if _precision() is Precision.BFLOAT16 else "float32",
        documents=each,
        tokens=plan.report.tokens // (steps + 1),
        ways=tuple(_compared(name, ours, own) for name, own in ways),
        parts_ms=parts,
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step's tokens with and without padding, and its time."""

    useful: int
    padded: int
    seconds: float


def _recipe(*, is_quick: bool) -> PretrainingRecipe:
    toy = recipe_named("mm1_toy")
    assert isinstance(toy, PretrainingRecipe)
    layers, width = (1, 64) if is_quick else (8, 384)
    decoder = LlamaDecoderConfig(
        width=width, layers=layers, inner_width=8 * width // 3, head_width=64, max_positions=2048
    )
    return replace(
        toy, parts=replace(toy.parts, decoder=decoder), packing=PackingConfig(max_tokens=2048, max_pictures=64)
    )


def _precision() -> Precision:
    return Precision.BFLOAT16 if torch.cpu._is_avx512_bf16_supported() else Precision.FLOAT32


def _alone(plan: Plan) -> list[PlannedSequence]:
    """Each document, or span of one, of the plan on its own."""
    sequences = [plan.sequence(number) for number in range(len(plan))]
    return [replace(each, documents=(document,)) for each in sequences for document in each.documents]


def _sample(batches: DocumentBatches, sequence: PlannedSequence) -> dict[str, Any]:
    batch = batches.batch_of([sequence])
    return {
        "input_ids": batch.input_ids_1T[0],
        "labels": batch.labels_1T[0],
        "pixel_values": batch.pictures["pixel_values"] if batch.has_pictures else None,
        "length": batch.input_ids_1T.shape[1],
    }


# --- ours -------------------------------------------------------------------------------------------------------------


def _ours(model: VisionLanguageModel, batches: DocumentBatches, steps: int) -> tuple[list[Step], dict[str, float]]:
    """The loop's own update, written out so that its parts can be timed; batches are made beforehand, as by its
    threads, and that time is told too."""
    optimizer = build_optimizer(model, OPTIM)
    done, parts = [], dict.fromkeys(("batch", "tower", "rest of forward", "backward", "clip", "optimizer"), 0.0)
    model.train()
    with isolated_documents(model.language_model):
        for step in range(steps + 1):
            started = time.perf_counter()
            own = [batches.batch_at(step, micro) for micro in range(batches.accumulate)]
            made = time.perf_counter()
            spent = _update(model, optimizer, own)
            if step:  # the first is for warming up
                useful = sum(batch.input_ids_1T.numel() for batch in own)
                done.append(Step(useful=useful, padded=useful, seconds=sum(spent.values())))
                for name, seconds in (spent | {"batch": made - started}).items():
                    parts[name] += 1e3 * seconds / steps
    return done, parts


def _update(model: VisionLanguageModel, optimizer: torch.optim.Optimizer, own: Sequence[Any]) -> dict[str, float]:
    spent = dict.fromkeys(("tower", "rest of forward", "backward", "clip", "optimizer"), 0.0)
    optimizer.zero_grad(set_to_none=True)
    targets = 0
    context = StepContext(step=0, micro=0, total_steps=1, device=torch.device("cpu"))
    for batch in own:
        with _timed(spent, "rest of forward"), _tower_timed(model, spent), autocast(_precision(), model.device):
            parts = document_loss(model, batch, context)
        targets += parts.target_tokens
        with _timed(spent, "backward"):
            parts.loss_sum.backward()
    spent["rest of forward"] -= spent["tower"]
    with _timed(spent, "clip"):
        scale_and_clip(model, target_tokens=targets, clip_norm=OPTIM.clip_norm)
    with _timed(spent, "optimizer"):
        optimizer.step()
    return spent


@contextlib.contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - started


@contextlib.contextmanager
def _tower_timed(model: VisionLanguageModel, spent: dict[str, float]) -> Iterator[None]:
    began = [0.0]

    def before(*_: Any) -> None:
        began[0] = time.perf_counter()

    def after(*_: Any) -> None:
        spent["tower"] += time.perf_counter() - began[0]

    hooks = [model.vision_tower.register_forward_pre_hook(before), model.vision_tower.register_forward_hook(after)]
    yield
    for hook in hooks:
        hook.remove()


# --- the peer ---------------------------------------------------------------------------------------------------------


class _Clock(TrainerCallback):
    """Times each step, and counts what its batches hold."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.useful = self.padded = 0
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append(Step(useful=self.useful, padded=self.padded, seconds=time.perf_counter() - self.began))
        self.useful = self.padded = 0


class _CountedModel(VisionLanguageModel):
    clock: _Clock

    def forward(self, *arguments: Any, **named: Any) -> Any:
        mask = named["attention_mask"]
        self.clock.useful += int(mask.sum())
        self.clock.padded += mask.numel()
        return super().forward(*arguments, **named)


_CountedModel.forward.__signature__ = VisionLanguageModel.forward.__signature__  # type: ignore[attr-defined]


def _trainer(
    model: VisionLanguageModel, samples: Sequence[dict[str, Any]], each: int, steps: int, *, by_length: bool
) -> list[Step]:
    model.__class__ = _CountedModel
    clock = model.clock = _Clock()  # type: ignore[attr-defined]
    sampling = {"train_sampling_strategy": "group_by_length"} if by_length else {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=DOCUMENTS_A_BATCH,
            gradient_accumulation_steps=max(1, round(each / DOCUMENTS_A_BATCH)),
            max_steps=steps + 1,
            learning_rate=OPTIM.peak_lr,
            max_grad_norm=OPTIM.clip_norm,
            bf16=_precision() is Precision.BFLOAT16,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_num_workers=0,
            remove_unused_columns=False,
            length_column_name="length",
            **sampling,
        )
        trainer = Trainer(
            model=model, args=arguments, train_dataset=list(samples), data_collator=_padded, callbacks=[clock]
        )
        trainer.train()
    return clock.steps[1:]


def _padded(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    def rows(name: str, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([each[name] for each in samples], batch_first=True, padding_value=value)

    lengths = torch.tensor([each["length"] for each in samples])
    ids = rows("input_ids", 0)
    batch = {
        "input_ids": ids,
        "labels": rows("labels", IGNORED_LABEL),
        "attention_mask": (torch.arange(ids.shape[1])[None] < lengths[:, None]).long(),
    }
    pictures = [each["pixel_values"] for each in samples if each["pixel_values"] is not None]
    return batch | ({"pixel_values": torch.cat(pictures)} if pictures else {})


# --- the table --------------------------------------------------------------------------------------------------------


def _compared(name: str, ours: Sequence[Step], own: Sequence[Step]) -> Way:
    def speed(step: Step) -> float:
        return step.useful / step.seconds

    middle = statistics.median(map(speed, ours))
    ratios = [middle / speed(step) for step in own]
    return Way(
        name=name,
        useful_tokens_per_s=statistics.median(map(speed, own)),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        padding=1 - sum(step.useful for step in own) / sum(step.padded for step in own),
    )


def as_table(report: Report) -> str:
    lines = [
        f"{report.steps} steps of about {report.documents} documents and {report.tokens:,} tokens, {report.precision}, "
        f"{CORES} cores",
        f"{'way':<36} {'useful tokens/s':>16} {'ours is':>9} {'(range)':>14} {'padding':>8}",
    ]
    for way in report.ways:
        spread = f"({way.ratio_low:.2f}-{way.ratio_high:.2f})"
        lines.append(
            f"{way.name:<36} {way.useful_tokens_per_s:>16,.0f} {way.ratio:>8.2f}x {spread:>14} {way.padding:>8.1%}"
        )
    total = sum(value for name, value in report.parts_ms.items() if name != "batch")
    lines.append("")
    lines.append("our step: " + ", ".join(f"{name} {value:,.0f} ms" for name, value in report.parts_ms.items()))
    lines.append(f"  all but making the batch, which threads do beforehand: {total:,.0f} ms")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
