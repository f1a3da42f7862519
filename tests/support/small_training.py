"""A small run of pre-training on files made here; as a program, under torchrun or alone: `OUT SOURCES STEPS [KILL_AT]`.

`KILL_AT`: the second process kills itself after so many updates, as a machine that is lost would.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lensmith.data.mixture import Mixture
from lensmith.data.sources import JsonlConfig, TarConfig
from lensmith.data.sources.tars import CaptionRecord, write_shard
from lensmith.recipes import recipe_named
from lensmith.recipes.pretraining import NamedSource
from lensmith.train import Precision
from lensmith.train.processes import joined
from lensmith.workflows.training.pretraining import train_pretraining
from lensmith.workflows.training.runs import Limits
from tests.support.documents import picture

COLOURS = ("red", "green", "blue", "black", "white", "gray", "yellow", "purple")
SIDES_PX = (16, 24, 48)


def write_sources(folder):
    """A shard of coloured squares, one of three that are held out, and a file of sentences."""
    records = [
        CaptionRecord(
            key=f"{colour}-{side_px}",
            caption=f"{colour} square",
            picture=picture(colour, side_px),
            suffix="png",
            group=colour,
        )
        for colour in COLOURS
        for side_px in SIDES_PX
    ]
    write_shard(records, folder / "captions.tar")
    write_shard(records[:3], folder / "held_out.tar")
    lines = [
        json.dumps({"text": f"Sentence number {index} of a small text. " * (1 + index % 9)}) for index in range(40)
    ]
    (folder / "text.jsonl").write_text("\n".join(lines))


def small_recipe(folder, *, steps=4, text_share=0.5):
    """`mm1_test` on these files, in float32."""
    recipe = recipe_named("mm1_test")
    (stage,) = recipe.stages
    train = replace(stage.train, schedule=replace(stage.train.schedule, total_steps=steps), precision=Precision.FLOAT32)
    return replace(
        recipe,
        sources=(
            NamedSource(name="captions", source=TarConfig(paths=(folder / "captions.tar",))),
            NamedSource(name="text", source=JsonlConfig(paths=(folder / "text.jsonl",))),
        ),
        held_out=NamedSource(name="held_out", source=TarConfig(paths=(folder / "held_out.tar",))),
        mixture=Mixture.of(captions=1 - text_share, text=text_share),
        stages=(replace(stage, train=train),),
    )


def main(out, sources, total_steps, kill_at=None, steps=None):
    torch.set_num_threads(1)
    recipe = small_recipe(Path(sources), steps=int(total_steps))
    (stage,) = recipe.stages
    every = replace(stage.train, checkpoint_every_steps=2, validate_every_steps=0)
    recipe = replace(recipe, held_out=None, stages=(replace(stage, train=every),))
    with joined() as processes:
        limits = Limits(steps=int(steps) if steps else None)
        if kill_at and int(kill_at) and processes.rank == 1:
            _die_after(int(kill_at))
        train_pretraining(recipe, Path(out), limits, processes=processes)


def _die_after(updates):
    step, made = torch.optim.AdamW.step, []

    def counted(self, *arguments):
        made.append(1)
        if len(made) > updates:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments)

    torch.optim.AdamW.step = counted


if __name__ == "__main__":
    main(*sys.argv[1:])
