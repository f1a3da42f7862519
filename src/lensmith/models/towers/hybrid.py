"""DeepSeek-VL's hybrid tower: SAM for a picture's details, SigLIP for its meaning, side by side in one token.

DeepSeek-VL (arXiv 2403.05525, section 3.1); both encoders make the same square of tokens, and token by token the two
are joined, the high resolution first.

`makes_low`, as in the authors' code: one picture comes in, with values from 0 to 1 and not normalised. The small one is
made here, by a bilinear resize with antialiasing in float32, of what the model's precision left of the large one; then
each tower gets its own normalisation (SAM that of CLIP, SigLIP 0.5), in the model's precision. Otherwise, as in
transformers' port: both pictures come in normalised; the small one was made by the processor, of 8-bit values.

Where we differ from the original: its two LayerNorms `high_layer_norm` and `low_layer_norm`, which it never calls, are
left out.

Legend: N pictures, H W pixels of the large picture, h w of the small one, Hp Wp patch grid of the large one, P tokens,
V width of both tokens together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lensmith.core.config import from_dict
from lensmith.core.errors import ConfigError, InputError, ShapeError
from lensmith.models.towers.base import INPUT_NAMES, VisionFeatures, patch_mask_for
from lensmith.models.towers.sam import SamTowerConfig
from lensmith.models.towers.siglip import SiglipTowerConfig

HIGH_MEAN, HIGH_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LOW_MEAN, LOW_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


SIGLIP_L = SiglipTowerConfig(width=1024, hidden_width=4096, layers=24, heads=16, native_px=384, activation="gelu")
"""As DeepSeek-VL of either size has it."""


@dataclass(frozen=True, kw_only=True)
class HybridTowerConfig:
    """The defaults are those of DeepSeek-VL 7B. Raises ConfigError where the towers' tokens differ in number.

    `makes_low`: the tower makes the small picture itself, and normalises both.
    """

    kind: ClassVar[str] = "hybrid"
    input_names: ClassVar[tuple[str, ...]] = (*INPUT_NAMES, "low_pixel_values")
    high: SamTowerConfig = SamTowerConfig()  # noqa: RUF009 - frozen
    low: SiglipTowerConfig = SIGLIP_L
    makes_low: bool = True

    def __post_init__(self) -> None:
        if self.low.native_px != self.high.tokens_side * self.low.patch_px:
            raise ConfigError(
                "low: another number of tokens than high",
                expected=f"native_px = {self.high.tokens_side} * patch_px",
                actual=f"native_px {self.low.native_px}, patch_px {self.low.patch_px}",
            )

    @classmethod
    def from_saved(cls, values: Mapping[str, Any]) -> "HybridTowerConfig":
        """From JSON values, also of older versions, which said "original" or "transformers" under the key `exact`."""
        fields = dict(values)
        if "exact" in fields:
            is_original = fields.pop("exact") == "original"
            high = {"resizes_in_float32": is_original, **fields.get("high", {})}
            fields |= {"makes_low": is_original, "high": high}
        return from_dict(cls, fields)

    @property
    def width(self) -> int:
        return self.high.width + self.low.width

    @property
    def patch_px(self) -> int:
        """The patch of the large picture; a token stands for a larger square."""
        return self.high.patch_px

    @property
    def tokens_per_picture(self) -> int:
        return self.high.tokens_per_picture

    def build(self) -> "HybridTower":
        return HybridTower(self)


class HybridTower(nn.Module):
    """Pictures to P tokens each, high resolution first. Pictures are squares of one size."""

    def __init__(self, config: HybridTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.high = config.high.build()
        self.low = config.low.build()

    def forward(
        self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor, low_pixel_values: Tensor | None = None
    ) -> VisionFeatures:
        """Large pictures, and the small ones (N, 3, h, w) unless the tower makes them, to tokens (N, P, V).

        Raises InputError for a small picture too many or too few, ShapeError for sizes that do not fit.
        """
        if self.config.makes_low:
            if low_pixel_values is not None:
                raise InputError(
                    "low_pixel_values are given, but this tower makes them of pixel_values",
                    expected="pixel_values only, from 0 to 1",
                    hint="they belong to a tower with makes_low=False",
                )
            low_pixels_N3hw = normalised(self.small(pixels_N3HW), LOW_MEAN, LOW_STD)
            pixels_N3HW = normalised(pixels_N3HW, HIGH_MEAN, HIGH_STD)
        elif low_pixel_values is None:
            raise InputError("the small pictures are missing", expected="low_pixel_values beside pixel_values")
        else:
            low_pixels_N3hw = low_pixel_values
        _check_small(low_pixels_N3hw, pixels_N3HW.shape[0], self.config.low.native_px)
        high = self.high(pixels_N3HW, patch_mask_NHpWp)
        low = self.low(low_pixels_N3hw, patch_mask_for(low_pixels_N3hw, None, self.config.low.patch_px))
        return VisionFeatures(torch.cat([high.tokens_NPV, low.tokens_NPV], dim=-1), high.mask_NP, high.columns)

    def small(self, pixels_N3HW: Tensor) -> Tensor:
        """The small pictures (N, 3, h, w) of large ones, in their precision."""
        side = self.config.low.native_px
        small_N3hw = nn.functional.interpolate(
            pixels_N3HW.float(), size=(side, side), mode="bilinear", align_corners=False, antialias=True
        )
        return small_N3hw.to(pixels_N3HW.dtype)


def normalised(pixels_N3HW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Each channel less its mean, over its deviation, in the precision of the pixels."""
    mean_311 = pixels_N3HW.new_tensor(mean).view(-1, 1, 1)
    return (pixels_N3HW - mean_311) / pixels_N3HW.new_tensor(std).view(-1, 1, 1)


def _check_small(low_pixels_N3hw: Tensor, pictures: int, side_px: int) -> None:
    if tuple(low_pixels_N3hw.shape) != (pictures, 3, side_px, side_px):
        raise ShapeError(
            "low_pixel_values has the wrong shape",
            expected=(pictures, 3, side_px, side_px),
            actual=tuple(low_pixels_N3hw.shape),
        )
