"""Coloured shapes with captions that follow from what is drawn: a source without files, whose information is known.

A caption names one shape, or two and how they lie: "a red circle", "a blue star above an orange square". Everything in
it is in the picture and nothing else is, and colours, shapes and places are drawn evenly. So a model that does not see
can know no more of a caption than how often such captions are, and one that sees can know it all: the distance between
them is `blind_nats`. Of two shapes the upper or the left one is named first: no picture has two captions.
"""

import hashlib
import io
import math
import random
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image, ImageDraw

from lensmith.core.config import hash_of_values, to_dict
from lensmith.core.errors import ConfigError
from lensmith.data.documents import BadRecordError, Document, PictureRef
from lensmith.data.sources.base import Portion

_FORM = 1
"""Raised when other pictures are drawn, so that no older plan is taken for one of them."""
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 150, 70),
    "blue": (50, 80, 220),
    "yellow": (245, 215, 50),
    "orange": (245, 135, 35),
    "purple": (140, 60, 175),
    "pink": (250, 150, 195),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
PLACES = ("above", "left of")
_ALONE_SHARE = 0.25
_DRAWN_TIMES = 4
"""Drawn so much larger, and then made smaller: edges are smooth, as those of other drawings."""


@dataclass(frozen=True, kw_only=True)
class ShapesConfig:
    """`count` drawings, `side_px` square on white; the same `seed` and number give the same picture and caption.

    Which are held out is decided by the number: most of their captions stand under other pictures too.
    """

    kind: ClassVar[str] = "shapes"
    count: int = 10_000
    side_px: int = 64
    seed: int = 0
    portion: Portion = Portion.ALL

    def __post_init__(self) -> None:
        for name in ("count", "side_px"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive", expected="at least 1", actual=getattr(self, name))

    @property
    def blind_nats(self) -> float:
        """What a caption is worth: the least loss, in nats a caption, of a model that does not see."""
        things = math.log(len(COLOURS) * len(SHAPES))
        alone = _ALONE_SHARE * (things - math.log(_ALONE_SHARE))
        pair = 2 * things + math.log(len(PLACES)) - math.log(1 - _ALONE_SHARE)
        return alone + (1 - _ALONE_SHARE) * pair

    def open(self) -> "ShapesSource":
        return ShapesSource(self)


@dataclass(frozen=True)
class _Thing:
    """A shape, where its middle is and how far it reaches, in parts of the side."""

    colour: str
    shape: str
    x: float
    y: float
    reach: float

    @property
    def name(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"


@dataclass(frozen=True)
class _Scene:
    things: tuple[_Thing, ...]
    place: str

    @property
    def caption(self) -> str:
        return f" {self.place} ".join(thing.name for thing in self.things)


class ShapesSource:
    """Made by `ShapesConfig.open`. The fingerprint is the configuration's: another Pillow may draw edges otherwise."""

    def __init__(self, config: ShapesConfig) -> None:
        self._config = config
        self._numbers = [number for number in range(config.count) if config.portion.takes(str(number))]
        self.fingerprint = hash_of_values({"form": _FORM, **to_dict(config)})

    def __len__(self) -> int:
        return len(self._numbers)

    def document(self, index: int) -> Document:
        number = self._numbers[index]
        pieces = (PictureRef(place=str(number)), self._scene(number).caption)
        return Document(key=f"shapes {number}", pieces=pieces)

    def picture(self, ref: PictureRef) -> bytes:
        if not ref.place.isdecimal() or int(ref.place) >= self._config.count:
            raise BadRecordError("there is no such drawing", actual=ref.place)
        stream = io.BytesIO()
        _drawn(self._scene(int(ref.place)), self._config.side_px).save(stream, "PNG")
        return stream.getvalue()

    def _scene(self, number: int) -> _Scene:
        digest = hashlib.blake2b(f"shapes {self._config.seed} {number}".encode()).digest()
        draw = random.Random(int.from_bytes(digest[:16]))
        if draw.random() < _ALONE_SHARE:
            return _Scene((_thing(draw, draw.uniform(0.35, 0.65), draw.uniform(0.35, 0.65)),), "")
        place = draw.choice(PLACES)
        # Apart from each other along one side, and near each other across it.
        along = [draw.uniform(0.22, 0.30), draw.uniform(0.70, 0.78)]
        across = draw.uniform(0.35, 0.65)
        beside = [across + draw.uniform(-0.08, 0.08) for _ in along]
        ways = zip(beside, along, strict=True) if place == "above" else zip(along, beside, strict=True)
        return _Scene(tuple(_thing(draw, x, y) for x, y in ways), place)


def _thing(draw: random.Random, x: float, y: float) -> _Thing:
    return _Thing(draw.choice(tuple(COLOURS)), draw.choice(SHAPES), x, y, draw.uniform(0.14, 0.2))


def _drawn(scene: _Scene, side_px: int) -> Image.Image:
    large_px = _DRAWN_TIMES * side_px
    picture = Image.new("RGB", (large_px, large_px), "white")
    brush = ImageDraw.Draw(picture)
    for thing in scene.things:
        x, y, reach = (large_px * part for part in (thing.x, thing.y, thing.reach))
        if thing.shape == "circle":
            brush.ellipse((x - reach, y - reach, x + reach, y + reach), fill=COLOURS[thing.colour])
        else:
            outline = [(x + reach * right, y + reach * down) for right, down in _OUTLINES[thing.shape]]
            brush.polygon(outline, fill=COLOURS[thing.colour])
    return picture.resize((side_px, side_px), Image.Resampling.BOX)


def _around(corners: int, *reaches: float) -> tuple[tuple[float, float], ...]:
    """Corners at even angles from the top, as far from the middle as `reaches` say in turn."""
    turns = [2 * math.pi * corner / corners for corner in range(corners)]
    far = [reaches[corner % len(reaches)] for corner in range(corners)]
    return tuple((reach * math.sin(turn), -reach * math.cos(turn)) for turn, reach in zip(turns, far, strict=True))


_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": _around(3, 1.1),
    "diamond": ((0.0, -1.1), (0.7, 0.0), (0.0, 1.1), (-0.7, 0.0)),
    "cross": (
        *((-0.3, -1.0), (0.3, -1.0), (0.3, -0.3), (1.0, -0.3), (1.0, 0.3), (0.3, 0.3)),
        *((0.3, 1.0), (-0.3, 1.0), (-0.3, 0.3), (-1.0, 0.3), (-1.0, -0.3), (-0.3, -0.3)),
    ),
    "star": _around(10, 1.1, 0.45),
}
"""Corners of each shape around its middle, right and down, in reaches."""
