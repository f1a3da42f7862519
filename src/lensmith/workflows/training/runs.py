"""A run of a recipe: its folder, its stages one after the other, and the model that comes out."""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lensmith.core.config import load, to_dict
from lensmith.core.errors import CheckpointError
from lensmith.core.manifest import Manifest
from lensmith.models import VisionLanguageModel
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.train import (
    Batches,
    LossFunction,
    Progress,
    StopReason,
    TrainConfig,
    TrainResult,
    Validate,
    load_weights,
    train,
)
from lensmith.train.checkpoint import AVERAGE_FILE, MODEL_FILE
from lensmith.train.log import to_stderr
from lensmith.train.processes import ALONE, Processes

RUN_FILE = "run.json"


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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a call ends before its run does, cleanly, with a checkpoint: `deadline_s` or `steps` into a stage.

    `skip`: steps of the stage under way, numbered from 1 as in its log, that are passed over with their batches.
    """

    deadline_s: float | None = None
    steps: int | None = None
    skip: Set[int] = frozenset()


NO_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """A stage, ready to run. `prepare` says which weights learn; `identity` is what must be equal on resume."""

    name: str
    train: TrainConfig
    batches: Batches[Any]
    loss: LossFunction[Any, Any]
    prepare: Callable[[], object]
    identity: Mapping[str, str | int | float]
    validate: Validate[Any] | None = None


def run_stages(
    model: nn.Module,
    stages: Iterable[StageRun],
    out_dir: Path,
    limits: Limits,
    *,
    on_progress: Callable[[Progress], None] = to_stderr,
    processes: Processes = ALONE,
) -> RecipeResult:
    """StageRun after stage, each in a folder of its name; the model ends with the last one's weights.

    The result names no model: the caller exports it where the last stage has finished.
    """
    skip = limits.skip
    for stage in stages:
        stage.prepare()
        result = train(
            model,
            stage.batches,
            stage.loss,
            replace(stage.train, deadline_s=limits.deadline_s),
            out_dir / stage.name,
            validate=stage.validate,
            identity=stage.identity,
            on_progress=on_progress,
            steps=limits.steps,
            skip=skip,
            processes=processes,
        )
        if result.stop is not StopReason.FINISHED:
            break
        if result.loss is not None:  # it was the stage under way: the numbers are of its steps
            skip = frozenset()
        load_final_weights(model, stage.train, result.checkpoint)
    return RecipeResult(stage=stage.name, last=result, model=None)


def load_final_weights(model: nn.Module, config: TrainConfig, checkpoint: Path) -> None:
    """What a stage ends with: its averaged weights, where it keeps an average, else its last ones."""
    load_weights(model, checkpoint / (MODEL_FILE if config.ema_decay is None else AVERAGE_FILE))


def require_run_of(recipe: object, out_dir: Path) -> None:
    """Raises CheckpointError where the run in `out_dir` is of another recipe; its stages may be longer or shorter."""
    path = out_dir / RUN_FILE
    if not path.exists():
        return
    was, now = load(Manifest, path).config, to_dict(recipe)
    different = sorted(key for key in {**was, **now} if key != "stages" and was.get(key) != now.get(key))
    if different:
        raise CheckpointError(
            f"{out_dir} belongs to another configuration; {', '.join(different)} differ",
            hint="train into another folder",
        )


def export_model(model: VisionLanguageModel, processor: VisionLanguageProcessor, out_dir: Path) -> Path:
    """The model in bfloat16 with its processor, as `from_pretrained` reads them; helping heads stay behind."""
    weights_dtype = model.dtype
    model.to(torch.bfloat16).save_pretrained(out_dir)
    processor.save_pretrained(out_dir)
    model.to(weights_dtype)
    return out_dir
