"""A small model that is trained on coloured shapes looks at them: what no model without eyes can do."""

from dataclasses import replace

import pytest
import torch

from lensmith.data.mixture import Mixture
from lensmith.data.sources import ShapesConfig
from lensmith.data.sources.base import Portion
from lensmith.models.connectors import CAbstractorConfig
from lensmith.models.families.mm1 import LlamaDecoderConfig, Mm1Parts
from lensmith.models.towers import ClipTowerConfig
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import NamedSource
from lensmith.train import OptimConfig, ScheduleConfig
from lensmith.train.log import read
from lensmith.workflows.training.pretraining import train_pretraining

STEPS = 240


@pytest.mark.slow
def test_captions_lose_a_nat_and_more_behind_other_pictures(tmp_path):
    recipe = recipe_named("mm1_test")
    (stage,) = recipe.stages
    train = replace(
        stage.train,
        optim=OptimConfig(peak_lr=3e-3),
        schedule=ScheduleConfig(total_steps=STEPS, warmup_steps=20),
        log_every_steps=20,
        validate_every_steps=STEPS,
    )
    recipe = replace(
        recipe,
        name="shapes",
        sources=(NamedSource(name="shapes", source=ShapesConfig(portion=Portion.TRAIN)),),
        held_out=NamedSource(name="held_out", source=ShapesConfig(portion=Portion.HELD_OUT)),
        mixture=Mixture.of(shapes=1.0),
        parts=Mm1Parts(
            tower=ClipTowerConfig(width=64, hidden_width=128, layers=2, heads=2, patch_px=16, native_px=64),
            connector=CAbstractorConfig(side=2, depth=1, hidden_width=64, grid_side=4),
            decoder=LlamaDecoderConfig(width=64, layers=2, inner_width=128, head_width=32, max_positions=512),
        ),
        packing=replace(recipe.packing, max_pictures=32),
        stages=(replace(stage, train=train),),
    )
    torch.manual_seed(0)
    train_pretraining(recipe, tmp_path / "run", on_progress=lambda _: None)
    last = list(read(tmp_path / "run" / "pretraining"))[-1]
    found = {name.removeprefix("validate/held_out_"): value for name, value in last.items() if "held_out" in name}
    # The end of the interval; a model without eyes has none of it. So few steps do not make it name whole pictures.
    assert found["nats_by_picture_low"] > 1
