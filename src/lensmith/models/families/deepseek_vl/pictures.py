"""DeepSeek-VL's pictures: scaled to fit a square, padded to it with a plain colour, scaled to 0..1, normalised or not.

Source: the code that the weights were published with (github.com/deepseek-ai/DeepSeek-VL, `image_processing_vlm.py`);
the paper (arXiv 2403.05525) says only the sizes. `Exactness.ORIGINAL` does what that code does, bit by bit; with
`Exactness.TRANSFORMERS` it is transformers' image processors (their Pillow versions) that are followed:

| | original | transformers |
| --- | --- | --- |
| shorter side | cut down to whole pixels | rounded, halves to even |
| 7B, large picture | 0..1, the towers normalise | normalised here |
| 7B, small picture | made in the tower, of float values | made here, of the 8-bit large picture |
| EXIF rotation | ignored | applied |

About half of all sizes come out one pixel row or column different. Both drop transparency: what is under it shows,
which for many a logo is black. `Decoding.AS_SEEN` is ours: upright, and on white, as a browser shows a picture. Where
a picture is not read so and looks another way for it, a warning says so, once.

Legend: N pictures, H W pixels, h w of the small pictures, C colours.
"""

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from lensmith.core.errors import ConfigError, ImageError
from lensmith.core.images import (
    DEFAULT_LIMITS,
    ImageLimits,
    decode_picture,
    on_white,
    open_picture,
    orientation,
    upright,
)
from lensmith.models.families.deepseek_vl.options import Decoding, Exactness
from lensmith.models.pictures import PictureInput, Pixels, image_of
from lensmith.models.towers.hybrid import HIGH_MEAN, HIGH_STD

Colour = tuple[float, float, float]
Size = tuple[int, int]

HALF: Colour = (0.5, 0.5, 0.5)

_log = logging.getLogger("lensmith.pictures")


@dataclass(frozen=True, kw_only=True)
class DeepseekPictureConfig:
    """How pictures become pixels. The defaults are those of the 1.3B models; `hybrid` gives those of the 7B ones.

    `image_px` is the side of the square, `min_px` the least that the shorter side of a picture is scaled to. The plain
    colour is `mean` times 255, cut down. `low_px`: the side of the small picture of a hybrid tower, None for other
    towers; the values after it are those with which transformers makes it. `normalise` None: where the published models
    do. `decoding` is by default that of `exact`. Raises ConfigError for values that cannot be.
    """

    image_px: int = 384
    low_px: int | None = None
    low_mean: Colour = HALF
    low_std: Colour = HALF
    low_filter: Image.Resampling = Image.Resampling.BILINEAR
    min_px: int = 14
    mean: Colour = HALF
    std: Colour = HALF
    normalise: bool | None = None
    exact: Exactness = Exactness.ORIGINAL
    decoding: Decoding | None = None
    patch_px: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.min_px <= self.image_px:
            raise ConfigError("min_px: more than the square", expected=f"1 to {self.image_px}", actual=self.min_px)
        for name, std in (("std", self.std), ("low_std", self.low_std)):
            if min(std) <= 0:
                raise ConfigError(f"{name}: cannot be divided by", expected="> 0", actual=std)
        if self.low_px is not None and self.low_px < 1:
            raise ConfigError("low_px: no picture", expected="1 or more", actual=self.low_px)

    @classmethod
    def hybrid(
        cls, *, image_px: int = 1024, low_px: int = 384, exact: Exactness = Exactness.ORIGINAL, min_px: int = 14
    ) -> "DeepseekPictureConfig":
        """Of the 7B models: SAM's square with the mean and deviation of CLIP, and SigLIP's with 0.5."""
        return cls(image_px=image_px, low_px=low_px, min_px=min_px, mean=HIGH_MEAN, std=HIGH_STD, exact=exact)

    @property
    def background(self) -> tuple[int, int, int]:
        """The plain colour: 127, 127, 127, or 122, 116, 104 for a hybrid tower."""
        red, green, blue = (int(value * 255) for value in self.mean)
        return red, green, blue

    @property
    def normalises(self) -> bool:
        """Whether pixels are normalised here; if not, the tower does so, and gets them from 0 to 1."""
        if self.normalise is not None:
            return self.normalise
        return self.low_px is None or self.exact is Exactness.TRANSFORMERS

    @property
    def makes_low(self) -> bool:
        """Whether the small picture is made here; if not, the tower makes it."""
        return self.low_px is not None and self.exact is Exactness.TRANSFORMERS

    @property
    def reads(self) -> Decoding:
        if self.decoding is not None:
            return self.decoding
        return Decoding.STORED if self.exact is Exactness.ORIGINAL else Decoding.UPRIGHT


class SquarePictures(NamedTuple):
    """Pixels (N, 3, H, W) of squares, and the small ones (N, 3, h, w) where they are made here."""

    pixels_N3HW: Pixels
    low_pixels_N3hw: Pixels | None


def scaled_size(width_px: int, height_px: int, config: DeepseekPictureConfig) -> Size:
    """Width and height to which a picture is scaled; the longer is the square's side."""
    longer_px = max(width_px, height_px)
    return _scaled(width_px, longer_px, config), _scaled(height_px, longer_px, config)


def prepare_squares(pictures: Sequence[PictureInput], config: DeepseekPictureConfig) -> SquarePictures:
    """Pictures to one batch. Raises ImageError where one cannot be read, or there is none."""
    if not pictures:
        raise ImageError("there are no pictures", expected="at least one", actual=0)
    squares = [_square(_to_image(picture, config), config) for picture in pictures]
    mean, std = (config.mean, config.std) if config.normalises else (None, None)
    pixels_N3HW = np.stack([_pixels(square, mean, std) for square in squares])
    if config.low_px is None or not config.makes_low:
        return SquarePictures(pixels_N3HW, None)
    small_size = (config.low_px, config.low_px)
    small = [square.resize(small_size, config.low_filter) for square in squares]
    low_mean, low_std = (config.low_mean, config.low_std) if config.normalises else (None, None)
    return SquarePictures(pixels_N3HW, np.stack([_pixels(picture, low_mean, low_std) for picture in small]))


def open_as(
    source: str | os.PathLike[str] | bytes, decoding: Decoding, limits: ImageLimits = DEFAULT_LIMITS
) -> Image.Image:
    """A picture from a file or encoded bytes, as RGB. Raises ImageError as `core.images.open_picture` does."""
    if decoding is Decoding.AS_SEEN:
        return open_picture(source, limits)
    return decode_picture(source, functools.partial(_decoded, decoding=decoding), limits)


def _scaled(side_px: int, longer_px: int, config: DeepseekPictureConfig) -> int:
    # The order of operations is that of each code: floating point decides at the boundaries.
    if config.exact is Exactness.ORIGINAL:
        return max(int(side_px / longer_px * config.image_px), config.min_px)
    return max(round(side_px * (config.image_px / longer_px)), config.min_px)


def _square(picture: Image.Image, config: DeepseekPictureConfig) -> Image.Image:
    size = scaled_size(*picture.size, config)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    width_px, height_px = size
    if width_px == height_px:
        return picture
    side_px = max(size)
    square = Image.new("RGB", (side_px, side_px), config.background)
    square.paste(picture, ((side_px - width_px) // 2, (side_px - height_px) // 2))
    return square


def _pixels(picture: Image.Image, mean: Colour | None, std: Colour | None) -> Pixels:
    """Channels first (3, H, W). Each of 256 values is computed once, in the order of operations of both codes."""
    values_256: Pixels = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    pixels_3HW = np.asarray(picture).transpose(2, 0, 1)
    if mean is None or std is None:
        scaled_3HW: Pixels = values_256[pixels_3HW]
        return scaled_3HW
    mean_C, std_C = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
    normal_C256: Pixels = ((values_256[:, None] - mean_C) / std_C).T
    return np.stack([normal_256[pixels_HW] for normal_256, pixels_HW in zip(normal_C256, pixels_3HW, strict=True)])


def _to_image(picture: PictureInput, config: DeepseekPictureConfig) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return image_of(picture)
    if not isinstance(picture, Image.Image):
        return open_as(picture, config.reads)
    return _decoded(picture, config.reads)


def _decoded(picture: Image.Image, decoding: Decoding) -> Image.Image:
    if decoding is not Decoding.STORED:
        picture = upright(picture)
    elif orientation(picture) != 1:
        say_once("a picture that its EXIF tag says to turn is read as it is stored")
    if decoding is Decoding.AS_SEEN:
        return on_white(picture)
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        say_once("a picture is read without its transparency: what lies under it shows")
    return picture.convert("RGB")


@functools.cache
def say_once(what: str) -> None:
    """Warns, once: of a thousand pictures from one phone, one line is enough."""
    _log.warning("%s, as the published code does; with picture decoding as-seen it is read as a person sees it", what)
