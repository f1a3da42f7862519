"""Pre-training by a plan: sources, tokenizer, plan, stages, model. Stops at any point and goes on from there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch
from transformers import PreTrainedTokenizerFast

from lensmith.core.config import save
from lensmith.core.files import write_atomic
from lensmith.core.manifest import end_manifest, record_files, start_manifest
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.documents import Source
from lensmith.data.plan.reading import Plan
from lensmith.data.plan.tokens import Tokens
from lensmith.data.plan.writing import PlanReport, write_plan
from lensmith.models import VisionLanguageModel
from lensmith.models.language.isolation import isolated_documents
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.recipes.pretraining import (
    TOWER,
    PretrainingRecipe,
    PretrainingStage,
    build_model,
    build_processor,
    build_tokenizer,
)
from lensmith.train import Precision, Progress, StopReason
from lensmith.train.config import resolve
from lensmith.train.log import to_stderr
from lensmith.train.objectives.documents import DocumentBatches, Ranks, document_loss, tokens_of
from lensmith.train.objectives.pictures import FrozenFeatures, PicturesOf
from lensmith.train.processes import ALONE, Processes
from lensmith.workflows.training.held_out import HeldOut
from lensmith.workflows.training.plan_page import plan_page
from lensmith.workflows.training.runs import (
    NO_LIMITS,
    RUN_FILE,
    Limits,
    RecipeResult,
    StageRun,
    export_model,
    load_final_weights,
    require_run_of,
    run_stages,
)

PLAN_FILE, PLAN_PAGE = "plan.parquet", "plan.html"
TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """What a recipe's plan and its training share: its sources, open, and how their text becomes tokens."""

    sources: Mapping[str, Source]
    processor: VisionLanguageProcessor
    tokens: Tokens

    @classmethod
    def of(cls, recipe: PretrainingRecipe, out_dir: Path) -> Self:
        """Opens the sources; the tokenizer is made from them, or read where `out_dir` has it."""
        sources = {each.name: each.source.open() for each in recipe.sources}
        folder = out_dir / TOKENIZER_FOLDER
        if folder.is_dir():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        else:
            tokenizer = build_tokenizer(recipe, sources)
            tokenizer.save_pretrained(folder)
        processor = build_processor(recipe, tokenizer)
        return cls(sources=sources, processor=processor, tokens=tokens_of(processor))


def plan_pretraining(recipe: PretrainingRecipe, out_dir: Path, *, on_progress: OnProgress = unwatched) -> PlanReport:
    """The recipe's plan, written to `plan.parquet` in `out_dir`, or the one that is there; `plan.html` shows it.

    Raises CheckpointError where `out_dir` holds a run of another recipe, or a plan that was made from something else.
    """
    require_run_of(recipe, out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    prepared = PreparedData.of(recipe, out_dir)
    plan = _planned(recipe, prepared, out_dir, on_progress)
    decode = prepared.processor.tokenizer.decode
    write_atomic(out_dir / PLAN_PAGE, plan_page(plan, prepared.sources, prepared.tokens, decode, title=recipe.name))
    return plan.report


def train_pretraining(
    recipe: PretrainingRecipe,
    out_dir: Path,
    limits: Limits = NO_LIMITS,
    *,
    on_data: OnProgress = unwatched,
    on_progress: Callable[[Progress], None] = to_stderr,
    processes: Processes = ALONE,
) -> RecipeResult:
    """See `run_recipe`. `out_dir` gets `tokenizer`, `plan.parquet`, a folder a stage, the `model`, and `run.json`."""
    require_run_of(recipe, out_dir)
    manifest = start_manifest(f"train {recipe.name}", recipe)
    if processes.is_first:
        out_dir.mkdir(parents=True, exist_ok=True)
        save(manifest, out_dir / RUN_FILE)
    prepared = processes.first_then_all(lambda: PreparedData.of(recipe, out_dir))
    plan = processes.first_then_all(lambda: _planned(recipe, prepared, out_dir, on_data))
    model = build_model(recipe, prepared.processor).to(processes.device)
    with isolated_documents(model.language_model):
        result = run_stages(
            model,
            _stages(recipe, plan, prepared, model, out_dir=out_dir, processes=processes),
            out_dir,
            limits,
            on_progress=on_progress,
            processes=processes,
        )
    if result.last.stop is not StopReason.FINISHED:
        return result
    if not processes.is_first:
        return replace(result, model=out_dir / "model")
    if processes.count > 1:  # what this process holds is a share
        model = build_model(recipe, prepared.processor)
        load_final_weights(model, recipe.stages[-1].train, result.last.checkpoint)
    model_dir = export_model(model, prepared.processor, out_dir / "model")
    save(end_manifest(manifest, record_files([model_dir], root=out_dir)), out_dir / RUN_FILE)
    return replace(result, model=model_dir)


def _planned(recipe: PretrainingRecipe, prepared: PreparedData, out_dir: Path, on_progress: OnProgress) -> Plan:
    path = out_dir / PLAN_FILE
    if not path.exists():
        write_plan(path, recipe.plan, prepared.sources, prepared.tokens, on_progress=on_progress)
    plan = Plan(path)
    plan.check(prepared.sources, prepared.tokens, recipe.plan)
    return plan


def _stages(
    recipe: PretrainingRecipe,
    plan: Plan,
    prepared: PreparedData,
    model: VisionLanguageModel,
    *,
    out_dir: Path,
    processes: Processes,
) -> Iterator[StageRun]:
    first, is_frozen = 0, processes.count == 1 and recipe.tower_weights is not None
    for stage, planned in zip(recipe.stages, recipe.plan.stages, strict=True):
        # Of a tower that has learnt before, and does not from here on. With several processes it may be in shares.
        is_frozen = is_frozen and not stage.train.optim.lr_factor(TOWER)
        batches = DocumentBatches(
            plan,
            prepared.sources,
            prepared.tokens,
            prepared.processor,
            sequences_per_step=planned.sequences_per_step,
            accumulate=stage.train.accumulate,
            first=first,
            ranks=Ranks(rank=processes.rank, ranks=processes.count),
            pictures_of=_features(stage, model, prepared.processor, processes.device) if is_frozen else None,
        )
        first += planned.sequences
        yield StageRun(
            name=stage.name,
            train=stage.train,
            batches=batches,
            loss=partial(document_loss, router_losses=recipe.router_losses),
            # What the stage before has frozen learns again; what this one freezes, its configuration says.
            prepare=partial(model.requires_grad_, True),
            identity={"plan": plan.hash, "model": recipe.model_hash},
            validate=_held_out(recipe, batches, out_dir / stage.name) if stage.train.validate_every_steps else None,
        )


def _features(
    stage: PretrainingStage, model: VisionLanguageModel, processor: VisionLanguageProcessor, device: torch.device
) -> PicturesOf:
    """What a tower that does not learn makes of pictures, made once."""
    is_short = resolve(stage.train.precision, device) is Precision.BFLOAT16
    return FrozenFeatures(model, processor, dtype=torch.bfloat16 if is_short else torch.float32)


def _held_out(recipe: PretrainingRecipe, batches: DocumentBatches, folder: Path) -> HeldOut | None:
    if recipe.held_out is None:
        return None
    return HeldOut(
        name=recipe.held_out.name,
        source=recipe.held_out.source.open(),
        batches=batches,
        folder=folder,
        keeps_samples=batches.ranks.rank == 0,
    )
