"""A recipe from nothing to a model folder: pages, stages, weights. Stops at any point and goes on from there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from lensmith.core.config import content_hash, load, save, to_dict
from lensmith.core.errors import CheckpointError
from lensmith.core.manifest import Manifest, end_manifest, record_files, start_manifest
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.webpages.export import Columns, write_shards
from lensmith.models import VisionLanguageModel
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.recipes import recipe_named
from lensmith.recipes.sightseer import (
    Lesson,
    SightseerRecipe,
    StageConfig,
    build_model,
    build_processor,
    build_tokenizer,
)
from lensmith.train import LossFunction, Progress, StopReason, TrainResult, load_weights, train
from lensmith.train.checkpoint import AVERAGE_FILE, MODEL_FILE
from lensmith.train.log import to_stderr
from lensmith.train.objectives.reading import ReadingModel, character_loss, page_loss
from lensmith.train.objectives.reading_batches import ReadingBatch, ReadingBatches, ReadingPage, load_pages

LOSSES: dict[Lesson, LossFunction[ReadingModel, ReadingBatch]] = {
    Lesson.CHARACTERS: character_loss,
    Lesson.PAGES: page_loss,
}
# What the first lesson leaves alone: it ends before patches are formed.
BEYOND_THE_STEM = ("to_token", "colours", "row_embedding", "column_embedding")


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """How a run ended: its last stage, how that ended, and the finished model's folder (None: it stopped before)."""

    stage: str
    last: TrainResult
    model: Path | None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM ended it; the command line then exits with 130."""
        return self.last.interrupted

    def __str__(self) -> str:
        loss = "" if self.last.loss is None else f", loss {self.last.loss:.4f}"
        if self.model is not None:
            return f"{self.model}: trained in {self.last.step} steps of stage {self.stage!r}{loss}"
        return (
            f"{self.last.stop.value} after step {self.last.step} of stage {self.stage!r}{loss}\n"
            f"  checkpoint: {self.last.checkpoint}\n"
            "  the same command goes on from there"
        )


def run_recipe(
    name: str,
    out_dir: Path,
    *,
    deadline_s: float | None = None,
    steps: int | None = None,
    on_pages: OnProgress = unwatched,
    on_progress: Callable[[Progress], None] = to_stderr,
) -> RecipeResult:
    """Train recipe `name` into `out_dir`, or go on with it.

    `out_dir` gets the pages (`shards`), a folder of checkpoints for each stage, the `model`, and `run.json`.
    A stage that is not done after `deadline_s`, or after `steps` updates of this call, ends the run with a checkpoint,
    as Ctrl-C does. Raises ConfigError where there is no such recipe, CheckpointError where `out_dir` holds a run of
    another one.
    """
    recipe = recipe_named(name)
    _require_run_of(recipe, out_dir / "run.json")
    manifest = start_manifest(f"train {name}", recipe)
    out_dir.mkdir(parents=True, exist_ok=True)
    save(manifest, out_dir / "run.json")
    shards = write_shards(
        out_dir / "shards",
        count=recipe.pages,
        seed=recipe.page_seed,
        shard_pages=500,
        columns=Columns.READING,
        on_progress=on_pages,
    )
    tokenizer = build_tokenizer(recipe)
    reader = ReadingModel(build_model(recipe, tokenizer), recipe.reading)
    pages = load_pages(shards.shards)
    for stage in recipe.stages:
        set_lesson(reader, stage.lesson)
        result = train(
            reader,
            stage_batches(recipe, stage, pages, tokenizer),
            LOSSES[stage.lesson],
            replace(stage.train, deadline_s=deadline_s),
            out_dir / stage.name,
            identity={"recipe": content_hash(replace(recipe, stages=())), "batch_pages": stage.batch_pages},
            on_progress=on_progress,
            steps=steps,
        )
        if result.stop is not StopReason.FINISHED:
            return RecipeResult(stage=stage.name, last=result, model=None)
        averaged = stage.train.ema_decay is not None
        load_weights(reader, result.checkpoint / (AVERAGE_FILE if averaged else MODEL_FILE))
    processor = build_processor(recipe, reader.model, tokenizer)
    model_dir = export_model(reader.model, processor, out_dir / "model")
    save(end_manifest(manifest, record_files([model_dir], root=out_dir)), out_dir / "run.json")
    return RecipeResult(stage=stage.name, last=result, model=model_dir)


def _require_run_of(recipe: SightseerRecipe, path: Path) -> None:
    """Raises CheckpointError where the manifest at `path` is of another recipe; its stages may be longer or shorter."""
    if not path.exists():
        return
    was, now = load(Manifest, path).config, to_dict(recipe)
    different = sorted(key for key in {**was, **now} if key != "stages" and was.get(key) != now.get(key))
    if different:
        raise CheckpointError(
            f"{path.parent} belongs to another configuration; {', '.join(different)} differ",
            hint="train into another folder",
        )


def stage_batches(
    recipe: SightseerRecipe, stage: StageConfig, pages: Sequence[ReadingPage], tokenizer: PreTrainedTokenizerFast
) -> ReadingBatches:
    """The stage's batches of the recipe's pages."""
    return ReadingBatches(
        pages,
        tokenizer,
        recipe.picture,
        image_token_id=int(tokenizer.convert_tokens_to_ids(recipe.image_token)),
        batch_pages=stage.batch_pages,
        accumulate=stage.train.accumulate,
        seed=stage.train.seed,
    )


def set_lesson(reader: ReadingModel, lesson: Lesson) -> None:
    """Let learn only what the lesson reaches."""
    for name, parameter in reader.named_parameters():
        in_stem = name.startswith("model.vision_tower.") and not any(part in name for part in BEYOND_THE_STEM)
        parameter.requires_grad_(lesson is Lesson.PAGES or in_stem or name.startswith("character_head."))


def export_model(model: VisionLanguageModel, processor: VisionLanguageProcessor, out_dir: Path) -> Path:
    """The model in bfloat16 with its processor, as `from_pretrained` reads them; the helping heads stay behind."""
    weights_dtype = model.dtype
    model.to(torch.bfloat16).save_pretrained(out_dir)
    processor.save_pretrained(out_dir)
    model.to(weights_dtype)
    return out_dir
