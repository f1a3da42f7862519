"""Results as JSON for machines, and options that agree with the library's defaults."""

import enum
import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lensmith.cli import data, demo, evaluate, html, render
from lensmith.cli.console.output import show
from lensmith.core.errors import ImageError
from lensmith.data.webpages.export import write_shards
from lensmith.render import RenderConfig
from lensmith.workflows.demo import run as workflows_demo
from lensmith.workflows.html import evaluate as html_evaluation
from lensmith.workflows.html.convert import convert_file


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Inner:
    score: object


@dataclass(frozen=True, kw_only=True)
class Outer:
    path: Path
    colour: Colour
    inner: tuple[Inner, ...]
    error: ImageError | None
    counts: dict[int, int]

    def __str__(self) -> str:
        return "for people"


OUTER = Outer(
    path=Path("a/b"),
    colour=Colour.RED,
    inner=(Inner(score=np.float32(0.5)), Inner(score=np.arange(2))),
    error=ImageError("broken"),
    counts={1: 2},
)


def test_json_is_one_object_on_one_line(capsys):
    show(OUTER, as_json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "path": "a/b",
        "colour": "red",
        "inner": [{"score": 0.5}, {"score": [0, 1]}],
        "error": "broken",
        "counts": {"1": 2},
    }


def test_people_get_its_text(capsys):
    show(OUTER, as_json=False)
    assert capsys.readouterr().out == "for people\n"


def test_the_window_of_render_is_the_librarys():
    options = inspect.signature(render.render).parameters
    assert options["width"].default == RenderConfig().viewport_width_px
    assert options["height"].default == RenderConfig().viewport_height_px


@pytest.mark.parametrize(
    ("command", "library", "shared"),
    [
        (data.pages, write_shards, {"count", "seed", "shard_pages"}),
        (html.html, convert_file, {"model", "samples", "seed"}),
        (evaluate.html, html_evaluation.run, {"model", "samples", "nearest_among", "report"}),
        (demo.demo, workflows_demo.run, {"picture", "model"}),
    ],
)
def test_options_default_to_what_the_library_does(command, library, shared):
    options, parameters = inspect.signature(command).parameters, inspect.signature(library).parameters
    for name in shared:
        if parameters[name].default is not inspect.Parameter.empty:
            assert options[name].default == parameters[name].default, name
