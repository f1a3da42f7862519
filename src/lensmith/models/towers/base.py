"""What every vision tower is: pixels and a patch mask in, one token a patch out.

A tower sees pictures at their own aspect ratio: a batch is padded at the right and below to its largest picture, and
the mask says which patches are real. Patches outside the mask may be padding, or patches that the processor left out
because they show nothing; a picture's bottom right patch is always kept, so the mask also tells the picture's extent.

A few towers (`sam`, `hybrid`) read squares of one size without padding, and refuse everything else. They may make
another number of tokens than there are patches: then P stands for that number.

What a tower makes of pictures may be given in their place, where it was made before: that of a tower which does not
learn need be made only once.

Legend: N pictures, H W pixels, p patch side, Hp Wp patch grid (H/p, W/p), P patches = Hp*Wp (row by row), V width, r c
rows and columns of tokens.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from lensmith.core.errors import InputError, ShapeError

PIXELS: Final = "pixel_values"
PATCH_MASK: Final = "patch_mask"
FEATURES: Final = "tower_features"
INPUT_NAMES: Final = (PIXELS, PATCH_MASK)
"""What every tower reads of pictures, by the names under which processors give it."""


class VisionFeatures(NamedTuple):
    """One token a patch (N, P, V), which of them are real (N, P, bool), and how many lie side by side.

    `columns` is what connectors need that pool or convolve; None where it is not known.
    """

    tokens_NPV: Tensor
    mask_NP: Tensor
    columns: int | None = None


class TowerConfig(Protocol):
    """A frozen dataclass that says how a tower is built. `kind` is its key in `TOWERS`.

    A tower is a module whose `forward(pixels_N3HW, patch_mask_NHpWp)` takes normalised pixels (N, 3, H, W), zero in the
    padding, and the mask of real patches (N, Hp, Wp, bool), and returns `VisionFeatures`. What else it reads it takes
    by name, as `input_names` lists it behind `INPUT_NAMES`. A picture gives the same tokens alone and in a batch. The
    constructor leaves random weights: nothing else initialises them.
    """

    kind: ClassVar[str]
    input_names: ClassVar[tuple[str, ...]]

    @property
    def width(self) -> int:
        """V, the length of a token."""
        ...

    @property
    def patch_px(self) -> int:
        """p, how many pixels a token stands for, both ways."""
        ...

    def build(self) -> nn.Module:
        """A tower with random weights."""
        ...


def encode(tower: nn.Module, config: TowerConfig, pictures: Mapping[str, Tensor]) -> VisionFeatures:
    """What a tower makes of pictures, given by the names in its `input_names`, wherever and in whatever precision.

    Or what it has made of them, given as `tower_features` (N, r, c, V) alone: tokens of whole pictures, row by row.
    Raises InputError where there is no `pixel_values` among them, or one that the tower does not read; ShapeError where
    mask and pixels, or features and tower, do not fit.
    """
    if FEATURES in pictures:
        return _made_before(tower, config, pictures)
    given = ", ".join(name for name in pictures if name != PIXELS)
    if PIXELS not in pictures:
        raise InputError(f"{given} without {PIXELS}", expected=f"{PIXELS} beside it", actual=given)
    if unread := [name for name in pictures if name not in config.input_names]:
        raise InputError(
            f"{', '.join(unread)} are given, but the tower {config.kind!r} does not read them",
            expected=", ".join(config.input_names),
            actual=given,
        )
    parameter = next(tower.parameters())
    placed = {
        name: value.to(device=parameter.device, dtype=parameter.dtype if value.is_floating_point() else None)
        for name, value in pictures.items()
    }
    pixels_N3HW = placed.pop(PIXELS)
    mask_NHpWp = patch_mask_for(pixels_N3HW, placed.pop(PATCH_MASK, None), config.patch_px)
    return cast(VisionFeatures, tower(pixels_N3HW, mask_NHpWp, **placed))


def _made_before(tower: nn.Module, config: TowerConfig, pictures: Mapping[str, Tensor]) -> VisionFeatures:
    if len(pictures) > 1:
        raise InputError("pictures are given twice", expected=f"{FEATURES} alone", actual=", ".join(pictures))
    features_NrcV = pictures[FEATURES]
    if features_NrcV.ndim != 4 or features_NrcV.shape[3] != config.width:
        raise ShapeError(
            f"{FEATURES} are not this tower's",
            expected=f"(N, rows, columns, {config.width})",
            actual=tuple(features_NrcV.shape),
        )
    parameter = next(tower.parameters())
    tokens_NPV = features_NrcV.to(device=parameter.device, dtype=parameter.dtype).flatten(1, 2)
    mask_NP = torch.ones(tokens_NPV.shape[:2], dtype=torch.bool, device=parameter.device)
    return VisionFeatures(tokens_NPV, mask_NP, columns=features_NrcV.shape[2])


class PictureExtents(NamedTuple):
    """How many rows and columns of patches each picture covers (N), padding aside."""

    rows_N: Tensor
    columns_N: Tensor


def picture_extents(patch_mask_NHpWp: Tensor) -> PictureExtents:
    """The extents up to each picture's last real patch, down and to the right."""
    _, rows, columns = patch_mask_NHpWp.shape
    device = patch_mask_NHpWp.device
    last_row_N = (patch_mask_NHpWp.any(dim=2) * torch.arange(1, rows + 1, device=device)).amax(dim=1)
    last_column_N = (patch_mask_NHpWp.any(dim=1) * torch.arange(1, columns + 1, device=device)).amax(dim=1)
    return PictureExtents(last_row_N, last_column_N)


def patch_mask_for(pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor | None, patch_px: int) -> Tensor:
    """The mask as bool, all true where none is given. Raises ShapeError where it does not fit the pixels."""
    if pixels_N3HW.ndim != 4 or pixels_N3HW.shape[1] != 3:
        raise ShapeError("pixel_values has the wrong shape", expected="(N, 3, H, W)", actual=tuple(pixels_N3HW.shape))
    count, _, height_px, width_px = pixels_N3HW.shape
    if height_px % patch_px or width_px % patch_px:
        raise ShapeError(
            "pictures do not divide into patches",
            expected=f"height and width that are multiples of {patch_px} px",
            actual=f"{width_px} x {height_px} px",
        )
    grid = (count, height_px // patch_px, width_px // patch_px)
    if patch_mask_NHpWp is None:
        return torch.ones(grid, dtype=torch.bool, device=pixels_N3HW.device)
    if tuple(patch_mask_NHpWp.shape) != grid:
        raise ShapeError(
            "patch_mask does not fit the pictures",
            expected=f"(N, Hp, Wp) = {grid}",
            actual=tuple(patch_mask_NHpWp.shape),
        )
    return patch_mask_NHpWp.to(device=pixels_N3HW.device, dtype=torch.bool)
