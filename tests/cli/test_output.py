"""Results as JSON for machines, and options that agree with the library's defaults."""

import enum
import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensmith.cli import data, render
from lensmith.cli.output import show
from lensmith.core.errors import ImageError
from lensmith.data.webpages.export import write_shards
from lensmith.render import RenderConfig


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
    inner=(Inner(score=np.float32(0.5)), Inner(score=None)),
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
        "inner": [{"score": 0.5}, {"score": None}],
        "error": "broken",
        "counts": {"1": 2},
    }


def test_people_get_its_text(capsys):
    show(OUTER, as_json=False)
    assert capsys.readouterr().out == "for people\n"


def test_defaults_of_options_are_the_librarys():
    options = {name: parameter.default for name, parameter in inspect.signature(render.render).parameters.items()}
    assert options["width"] == RenderConfig().viewport_width_px
    assert options["height"] == RenderConfig().viewport_height_px
    library = inspect.signature(write_shards).parameters
    for name, parameter in inspect.signature(data.pages).parameters.items():
        if name in ("seed", "shard_pages"):
            assert parameter.default == library[name].default
