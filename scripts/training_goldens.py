"""Writes tests/golden/training_losses.json: the losses of each stage of the recipes for tests, on files made here.

    PYTHONPATH=src:. python scripts/training_goldens.py

Written again only where a change means to change what a recipe trains; see tests/golden/README.md.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from lensmith.recipes import recipe_named
from lensmith.train.log import read
from lensmith.workflows.training.pretraining import train_pretraining
from tests.support.small_training import on_files, write_sources

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "training_losses.json"
RECIPES = ("deepseek_vl_hybrid_test", "deepseek_vl_test", "mm1_test")


def losses(name: str, folder: Path) -> dict[str, list[float]]:
    """By stage, a loss an update, to seven digits."""
    recipe = on_files(recipe_named(name), folder)
    train_pretraining(recipe, folder / name, on_progress=lambda progress: None)
    return {
        stage.name: [float(f"{line['loss']:.7g}") for line in read(folder / name / stage.name)]
        for stage in recipe.stages
    }


def main() -> int:
    """0; the file is written whole."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder))
        kept = {name: losses(name, Path(folder)) for name in RECIPES}
    GOLDEN.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
