"""Recipes from nothing to a model's folder: `lensmith data plan` and `lensmith train`."""

import os
from collections.abc import Callable, Set
from pathlib import Path

from lensmith.core.errors import ConfigError
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.plan.writing import PlanReport
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import PretrainingRecipe
from lensmith.train import Progress
from lensmith.train.log import to_stderr
from lensmith.train.processes import joined
from lensmith.workflows.training.pretraining import plan_pretraining, train_pretraining
from lensmith.workflows.training.runs import Limits, RecipeResult
from lensmith.workflows.training.sightseer import train_sightseer

__all__ = ["RecipeResult", "plan_recipe", "run_recipe"]


def run_recipe(
    name: str,
    out_dir: Path,
    *,
    deadline_s: float | None = None,
    steps: int | None = None,
    skip: Set[int] = frozenset(),
    on_data: OnProgress = unwatched,
    on_progress: Callable[[Progress], None] = to_stderr,
) -> RecipeResult:
    """Train recipe `name` into `out_dir`, or go on with it.

    `out_dir` gets the data or a plan of it, a folder of checkpoints for each stage, the `model`, and `run.json`.
    A stage that is not done after `deadline_s`, or after `steps` updates of this call, ends the run with a checkpoint,
    as Ctrl-C does. `skip`: steps of the stage under way that are passed over, numbered as in its log. Started by
    `torchrun`, the processes train one model together. Raises ConfigError where there is no such recipe,
    CheckpointError where `out_dir` holds a run of another one, and as `lensmith.train.train` does.
    """
    recipe = recipe_named(name)
    limits = Limits(deadline_s=deadline_s, steps=steps, skip=skip)
    if isinstance(recipe, PretrainingRecipe):
        with joined() as processes:
            return train_pretraining(
                recipe, out_dir, limits, on_data=on_data, on_progress=on_progress, processes=processes
            )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"the recipe {name!r} is trained by one process", expected="no torchrun")
    return train_sightseer(recipe, out_dir, limits, on_data=on_data, on_progress=on_progress)


def plan_recipe(name: str, out_dir: Path, *, on_progress: OnProgress = unwatched) -> PlanReport:
    """Write the plan that `run_recipe` of the same name and folder reads, or read the one that is there.

    Raises ConfigError where there is no such recipe, or it has no plan; otherwise as `plan_pretraining`.
    """
    recipe = recipe_named(name)
    if not isinstance(recipe, PretrainingRecipe):
        raise ConfigError(f"the recipe {name!r} has no plan", expected="a recipe of pre-training on documents")
    return plan_pretraining(recipe, out_dir, on_progress=on_progress)
