"""A small run of pre-training on files made here; as a program, under torchrun or alone: `OUT SOURCES STEPS`.

`--kill-at`: the second process kills itself after so many updates, as a machine that is lost would.
`--apart`: the first half of each step's sequences has pictures and the second half none, so that one of two processes
never sees a picture.
`--experts`: its second layer has experts. `--accumulate`: so many micro-batches a step.
`--recipe`: this one with its own stages and steps, on the same files.
"""

import argparse
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import torch

from lensmith.data.mixture import Mixture
from lensmith.data.plan.reading import Plan
from lensmith.data.sources import JsonlConfig, TarConfig
from lensmith.data.sources.tars import CaptionRecord, write_shard
from lensmith.models.language.experts import ExpertsConfig
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


def with_experts(recipe):
    """The recipe with four experts in its second layer."""
    decoder = replace(recipe.parts.decoder, experts=ExpertsConfig(count=4, every=2))
    return replace(recipe, parts=replace(recipe.parts, decoder=decoder))


def on_files(recipe, folder):
    """A recipe of the toys' packages on these files instead, in float32; nothing is held out."""
    captions, text = TarConfig(paths=(folder / "captions.tar",)), JsonlConfig(paths=(folder / "text.jsonl",))
    places = {"openmoji": captions, "fluent": captions, "interleaved": captions, "faq": text, "reference": text}
    stages = tuple(
        replace(stage, train=replace(stage.train, precision=Precision.FLOAT32, validate_every_steps=0))
        for stage in recipe.stages
    )
    return replace(
        recipe,
        sources=tuple(NamedSource(name=each.name, source=places[each.name]) for each in recipe.sources),
        held_out=None,
        stages=stages,
    )


def main(out, sources, total_steps, *, kill_at=0, steps=None, apart=False, experts=False, accumulate=1, recipe=None):
    torch.set_num_threads(1)
    if recipe is not None:
        with joined() as processes:
            train_pretraining(on_files(recipe_named(recipe), sources), out, Limits(steps=steps), processes=processes)
        return
    recipe = small_recipe(sources, steps=total_steps)
    (stage,) = recipe.stages
    every = replace(stage.train, checkpoint_every_steps=2, validate_every_steps=0, accumulate=accumulate)
    recipe = replace(recipe, held_out=None, stages=(replace(stage, train=every),))
    if experts:
        recipe = with_experts(recipe)
    if apart:
        _set_apart(recipe.sequences_per_step)
    with joined() as processes:
        if kill_at and processes.rank == 1:
            _die_after(kill_at)
        train_pretraining(recipe, out, Limits(steps=steps), processes=processes)


def _die_after(updates):
    step, made = torch.optim.AdamW.step, []

    def counted(self, *arguments):
        made.append(1)
        if len(made) > updates:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments)

    torch.optim.AdamW.step = counted


def _set_apart(sequences_per_step):
    """Plans are read in another order: of each step the first half from `captions`, the second from `text`."""
    planned = Plan.sequence
    half = sequences_per_step // 2

    def sequence(self, number):
        step, place = divmod(number, sequences_per_step)
        of_kind = [
            found
            for found in (planned(self, index) for index in range(len(self)))
            if found.source == ("captions" if place < half else "text")
        ]
        return of_kind[(step * half + place % half) % len(of_kind)]

    Plan.sequence = sequence


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path)
    parser.add_argument("total_steps", type=int)
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--experts", action="store_true")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--recipe")
    main(**vars(parser.parse_args()))
