"""Pictures to pixels and patch masks, at their own aspect ratio, with numpy alone.

A picture is scaled down only where it is larger than the model reads, never up and never out of shape. It is extended
to whole patches by repeating its edge, and a batch is padded at the right and below to its largest picture. The mask
says which patches are real, as NaViT (arXiv 2307.06304) and Idefics2 (arXiv 2405.02246, section 3.2) have it.

Where we differ: patches that show nothing new can be left out of the mask. Half of a web page is plain background.

Legend: N pictures, H W pixels, p patch side, Hp Wp patch grid.
"""

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lensmith.core.errors import ConfigError, ImageError
from lensmith.core.images import on_white, open_picture

PictureInput = Image.Image | NDArray[np.uint8] | bytes | str | os.PathLike[str]
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SHARE_OF_UINT8 = 1 / 255


class TooTall(enum.Enum):
    """What happens to a picture that, at its allowed width, is taller than allowed."""

    SHRINK = "shrink"
    CROP = "crop"
    REFUSE = "refuse"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The size to which a picture is scaled, and the patches that it then lies on, from their top left."""

    picture_width_px: int
    picture_height_px: int
    columns: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How pictures become pixels.

    `drop_repeated_patches` leaves out of the mask a patch that equals, pixel for pixel, the patch above it or to its
    left: plain areas and straight borders, but for where they begin. The bottom right patch always stays and marks the
    picture's extent. `mean` and `std` are for values from 0 to 1.
    """

    patch_px: int = 16
    max_width_px: int = 384
    max_height_px: int = 1024
    too_tall: TooTall = TooTall.SHRINK
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    drop_repeated_patches: bool = False

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ConfigError("std: cannot be divided by", expected="> 0", actual=self.std)
        for name in ("patch_px", "max_width_px", "max_height_px"):
            side_px = getattr(self, name)
            if side_px < 1 or side_px % self.patch_px:
                raise ConfigError(
                    f"{name}: not whole patches", expected=f"a multiple of patch_px = {self.patch_px}", actual=side_px
                )

    def layout(self, width_px: int, height_px: int) -> Layout:
        """How a picture of this size is laid out, in whole numbers only, so that it is the same everywhere.

        It counts patches before any are dropped. Raises ImageError for a size without area.
        """
        if width_px < 1 or height_px < 1:
            raise ImageError("the picture has no pixels", actual=f"{width_px} x {height_px}")
        if width_px > self.max_width_px or height_px > self.max_height_px:
            if width_px * self.max_height_px >= height_px * self.max_width_px:
                width_px, height_px = self.max_width_px, _scaled(height_px, self.max_width_px, width_px)
            else:
                width_px, height_px = _scaled(width_px, self.max_height_px, height_px), self.max_height_px
        columns, rows = -(-width_px // self.patch_px), -(-height_px // self.patch_px)
        return Layout(picture_width_px=width_px, picture_height_px=height_px, columns=columns, rows=rows)


def _scaled(length_px: int, limit_px: int, longest_px: int) -> int:
    """`length_px * limit_px / longest_px`, rounded half up, at least one pixel."""
    return max(1, (2 * length_px * limit_px + longest_px) // (2 * longest_px))


class PictureBatch(NamedTuple):
    """Normalised pixels (N, 3, H, W), zero outside each picture, and the mask of real patches (N, Hp, Wp)."""

    pixels_N3HW: Pixels
    patch_mask_NHpWp: Mask

    @property
    def patches_per_picture(self) -> list[int]:
        return [int(count) for count in self.patch_mask_NHpWp.sum(axis=(1, 2))]


class _Patched(NamedTuple):
    """One picture, extended to whole patches: 8-bit pixels (H, W, 3) and its mask (Hp, Wp)."""

    pixels_HW3: NDArray[np.uint8]
    mask_HpWp: Mask


def visible_height_px(width_px: int, height_px: int, config: PictureConfig) -> int:
    """How much of a picture is read, from its top: all of it, unless it is too tall and is cropped.

    Raises ImageError where it is too tall and the configuration refuses that.
    """
    tallest_px = config.max_height_px * max(width_px, config.max_width_px) // config.max_width_px
    if height_px <= tallest_px or config.too_tall is TooTall.SHRINK:
        return height_px
    if config.too_tall is TooTall.CROP:
        return tallest_px
    raise ImageError(
        "the picture is too tall",
        expected=f"at most {tallest_px} px at a width of {width_px} px",
        actual=f"{width_px} x {height_px} px",
        hint="cut it into parts",
    )


def prepare_pictures(pictures: Sequence[PictureInput], config: PictureConfig) -> PictureBatch:
    """Pictures to one padded batch. Raises ImageError where one cannot be read, or there is none."""
    if not pictures:
        raise ImageError("there are no pictures", expected="at least one", actual=0)
    patched = [_to_patches(_to_rgb(picture), config) for picture in pictures]
    rows = max(part.mask_HpWp.shape[0] for part in patched)
    columns = max(part.mask_HpWp.shape[1] for part in patched)
    pixels = np.zeros((len(patched), 3, rows * config.patch_px, columns * config.patch_px), dtype=np.float32)
    masks = np.zeros((len(patched), rows, columns), dtype=np.bool_)
    mean, std = np.asarray(config.mean, dtype=np.float32), np.asarray(config.std, dtype=np.float32)
    scale, shift = np.float32(_SHARE_OF_UINT8) / std, mean / std
    for index, part in enumerate(patched):
        height_px, width_px, _ = part.pixels_HW3.shape
        pixels[index, :, :height_px, :width_px] = (part.pixels_HW3 * scale - shift).transpose(2, 0, 1)
        masks[index, : part.mask_HpWp.shape[0], : part.mask_HpWp.shape[1]] = part.mask_HpWp
    return PictureBatch(pixels, masks)


def informative_patches(pixels_HW3: NDArray[np.uint8], patch_px: int) -> Mask:
    """Which patches (Hp, Wp) show something new: they differ from the patch above and from the one to the left.

    `H` and `W` are multiples of `patch_px`. The bottom right patch always counts.
    """
    height_px, width_px, _ = pixels_HW3.shape
    rows, columns = height_px // patch_px, width_px // patch_px
    grid = pixels_HW3.reshape(rows, patch_px, columns, patch_px, 3)
    repeats = np.zeros((rows, columns), dtype=np.bool_)
    repeats[1:] |= (grid[1:] == grid[:-1]).all(axis=(1, 3, 4))
    repeats[:, 1:] |= (grid[:, :, 1:] == grid[:, :, :-1]).all(axis=(1, 3, 4))
    kept: Mask = ~repeats
    kept[-1, -1] = True
    return kept


def _to_rgb(picture: PictureInput) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return image_of(picture)
    if not isinstance(picture, Image.Image):
        return open_picture(picture)
    return picture if picture.mode == "RGB" else on_white(picture)


def image_of(array: NDArray[np.uint8]) -> Image.Image:
    """Raises ImageError for an array that is no picture."""
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ImageError(
            "an array is not a picture", expected="(height, width, 3), uint8", actual=f"{array.shape}, {array.dtype}"
        )
    return Image.fromarray(array)


def _to_patches(picture: Image.Image, config: PictureConfig) -> _Patched:
    visible_px = visible_height_px(*picture.size, config)
    if visible_px < picture.height:
        picture = picture.crop((0, 0, picture.width, visible_px))
    layout = config.layout(*picture.size)
    size = (layout.picture_width_px, layout.picture_height_px)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pixels_HW3 = np.asarray(picture)
    below, right = layout.rows * config.patch_px - size[1], layout.columns * config.patch_px - size[0]
    if below or right:
        pixels_HW3 = np.pad(pixels_HW3, ((0, below), (0, right), (0, 0)), mode="edge")
    if config.drop_repeated_patches:
        return _Patched(pixels_HW3, informative_patches(pixels_HW3, config.patch_px))
    return _Patched(pixels_HW3, np.ones((layout.rows, layout.columns), dtype=np.bool_))
