"""Training a Sightseer model: pages of the grammar, stages, weights. Stops at any point and goes on from there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from lensmith.core.config import content_hash, save
from lensmith.core.manifest import end_manifest, record_files, start_manifest
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.webpages.export import Columns, write_shards
from lensmith.recipes.sightseer import (
    Lesson,
    SightseerRecipe,
    StageConfig,
    build_model,
    build_processor,
    build_tokenizer,
)
from lensmith.train import LossFunction, Progress, StopReason
from lensmith.train.log import to_stderr
from lensmith.train.objectives.reading import ReadingModel, character_loss, page_loss
from lensmith.train.objectives.reading_batches import ReadingBatch, ReadingBatches, ReadingPage, load_pages
from lensmith.workflows.training.runs import (
    NO_LIMITS,
    RUN_FILE,
    Limits,
    RecipeResult,
    StageRun,
    export_model,
    require_run_of,
    run_stages,
)

LOSSES: dict[Lesson, LossFunction[ReadingModel, ReadingBatch]] = {
    Lesson.CHARACTERS: character_loss,
    Lesson.PAGES: page_loss,
}
# What the first lesson leaves alone: it ends before patches are formed.
BEYOND_THE_STEM = ("to_token", "colours", "row_embedding", "column_embedding")


def train_sightseer(
    recipe: SightseerRecipe,
    out_dir: Path,
    limits: Limits = NO_LIMITS,
    *,
    on_data: OnProgress = unwatched,
    on_progress: Callable[[Progress], None] = to_stderr,
) -> RecipeResult:
    """See `run_recipe`. `out_dir` gets the pages (`shards`), a folder a stage, the `model`, and `run.json`."""
    require_run_of(recipe, out_dir)
    manifest = start_manifest(f"train {recipe.name}", recipe)
    out_dir.mkdir(parents=True, exist_ok=True)
    save(manifest, out_dir / RUN_FILE)
    shards = write_shards(
        out_dir / "shards",
        count=recipe.pages,
        seed=recipe.page_seed,
        shard_pages=500,
        columns=Columns.READING,
        on_progress=on_data,
    )
    tokenizer = build_tokenizer(recipe)
    reader = ReadingModel(build_model(recipe, tokenizer), recipe.reading)
    pages = load_pages(shards.shards)
    result = run_stages(
        reader,
        (_stage(recipe, stage, reader, pages, tokenizer) for stage in recipe.stages),
        out_dir,
        limits,
        on_progress=on_progress,
    )
    if result.last.stop is not StopReason.FINISHED:
        return result
    model_dir = export_model(reader.model, build_processor(recipe, reader.model, tokenizer), out_dir / "model")
    save(end_manifest(manifest, record_files([model_dir], root=out_dir)), out_dir / RUN_FILE)
    return replace(result, model=model_dir)


def _stage(
    recipe: SightseerRecipe,
    stage: StageConfig,
    reader: ReadingModel,
    pages: Sequence[ReadingPage],
    tokenizer: PreTrainedTokenizerFast,
) -> StageRun:
    return StageRun(
        name=stage.name,
        train=stage.train,
        batches=stage_batches(recipe, stage, pages, tokenizer),
        loss=LOSSES[stage.lesson],
        prepare=lambda: set_lesson(reader, stage.lesson),
        identity={"recipe": content_hash(replace(recipe, stages=())), "batch_pages": stage.batch_pages},
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
