"""SAM's image encoder as DeepSeek-VL uses it: a square of 1024 px to 24 x 24 tokens.

SAM-B (arXiv 2304.02643, appendix A) with its neck; the map of 64 x 64 cells is resized to 96 x 96 and brought down to
24 x 24 by two convolutions (DeepSeek-VL, arXiv 2403.05525, section 3.1). The paper does not say, but its code and
weights do, that what the first global layer gives takes the same way through a neck of its own and is added, times a
learned number that starts at zero (`neck_hd`, `alpha`).

Where we differ: resize and downsampling are linear and have no bias, so both ways are added in front of them instead of
behind, which saves one of two passes (5e-7 relative, float32). For the bias of attention see `sam_parts`.
transformers' port resizes in the model's precision, the original in float32 (`Exactness`). In bfloat16 on a CPU this
changes one value in 8000, since the neck leaves its map with channels last; it would be 45% of a map in rows. Softmax
sums in float32 either way; the original rounds the logits to the model's precision first, ours and transformers' do
not.

Parameters (transformers' names, with `high_res_vision_neck`, `high_res_vision_proj` and `high_res_vision_alpha` as
`neck_hd`, `proj` and `alpha`):
    pos_embed (1, Hp, Wp, C); patch_embed.projection.{weight,bias};
    layers.N.{layer_norm1,layer_norm2}.{weight,bias}; layers.N.attn.{qkv,proj}.{weight,bias};
    layers.N.attn.{rel_pos_h,rel_pos_w} (2s - 1, d); layers.N.mlp.{lin1,lin2}.{weight,bias};
    neck.{conv1,conv2}.weight; neck.{layer_norm1,layer_norm2}.{weight,bias}; neck_hd.* as neck.*;
    proj.{conv1,conv2}.weight; alpha (1,).

Legend: N pictures, H W pixels, Hp Wp patch grid, C trunk width, d head width, s side of a layer's grid (window or
patch grid), O neck width, t side of the square of tokens, P = t*t tokens, V = 4*O token width.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lensmith.core.errors import ConfigError, ShapeError
from lensmith.models.exactness import Exactness
from lensmith.models.towers.base import VisionFeatures
from lensmith.models.towers.sam_parts import SamDownsampling, SamLayer, SamNeck, SamPatches


@dataclass(frozen=True, kw_only=True)
class SamTowerConfig:
    """The defaults are those of DeepSeek-VL 7B. `window` is in patches, `global_layers` attend over all of them;
    the first of these feeds the second neck. `tokens_side`: t."""

    kind: ClassVar[str] = "sam"
    image_px: int = 1024
    patch_px: int = 16
    trunk_width: int = 768
    hidden_width: int = 3072
    layers: int = 12
    heads: int = 12
    window: int = 14
    global_layers: tuple[int, ...] = (2, 5, 8, 11)
    neck_width: int = 256
    tokens_side: int = 24
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.trunk_width % self.heads:
            raise ConfigError(
                "trunk_width: not a multiple of heads", expected=f"k * {self.heads}", actual=self.trunk_width
            )
        if self.image_px < self.patch_px or self.image_px % self.patch_px:
            raise ConfigError("image_px: not whole patches", expected=f"k * {self.patch_px}", actual=self.image_px)
        for name in ("window", "neck_width", "tokens_side"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: at least one is needed", expected=">= 1", actual=getattr(self, name))
        if not self.global_layers or not all(0 <= layer < self.layers for layer in self.global_layers):
            raise ConfigError(
                "global_layers: at least one of the layers, counted from 0",
                expected=f"0 to {self.layers - 1}",
                actual=self.global_layers,
            )

    @property
    def width(self) -> int:
        return 4 * self.neck_width

    @property
    def grid_side(self) -> int:
        """Patches a side."""
        return self.image_px // self.patch_px

    @property
    def tokens_per_picture(self) -> int:
        return self.tokens_side**2

    def build(self) -> "SamTower":
        return SamTower(self)


class SamTower(nn.Module):
    """Pixels to P tokens a picture. Pictures are squares of one size: a partial mask is refused."""

    def __init__(self, config: SamTowerConfig, exact: Exactness = Exactness.ORIGINAL) -> None:
        super().__init__()
        self.config = config
        self.exact = exact
        side, width = config.grid_side, config.trunk_width
        self.patch_embed = SamPatches(width, config.patch_px)
        self.pos_embed = nn.Parameter(torch.randn(1, side, side, width) * 0.02)
        self.layers = nn.ModuleList(
            SamLayer(
                width=width,
                hidden_width=config.hidden_width,
                heads=config.heads,
                window=0 if index in config.global_layers else config.window,
                side=side,
                norm_eps=config.norm_eps,
            )
            for index in range(config.layers)
        )
        self.neck = SamNeck(width, config.neck_width, config.norm_eps)
        self.neck_hd = SamNeck(width, config.neck_width, config.norm_eps)
        self.proj = SamDownsampling(config.neck_width)
        self.alpha = nn.Parameter(torch.zeros(1))

    @property
    def width(self) -> int:
        return self.config.width

    def forward(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor) -> VisionFeatures:
        """Normalised pixels and a mask that is true everywhere to tokens (N, P, V), all real.

        Raises ShapeError for another size, or where the mask leaves something out.
        """
        check_square(pixels_N3HW, patch_mask_NHpWp, self.config.image_px)
        hidden_NHpWpC = self.patch_embed(pixels_N3HW) + self.pos_embed
        early_NOHW: Tensor | None = None
        for index, layer in enumerate(self.layers):
            hidden_NHpWpC = layer(hidden_NHpWpC)
            if index == min(self.config.global_layers):
                early_NOHW = self.neck_hd(hidden_NHpWpC)
        assert early_NOHW is not None
        tokens_NVtt = self.proj(self._resized(self.neck(hidden_NHpWpC), early_NOHW))
        tokens_NPV = tokens_NVtt.flatten(2).transpose(1, 2)
        return VisionFeatures(tokens_NPV, tokens_NPV.new_ones(tokens_NPV.shape[:2], dtype=torch.bool))

    def _resized(self, late_NOHW: Tensor, early_NOHW: Tensor) -> Tensor:
        precision = torch.float32 if self.exact is Exactness.ORIGINAL else late_NOHW.dtype
        both_NOHW = late_NOHW.to(precision) + self.alpha.to(precision) * early_NOHW.to(precision)
        side = 4 * self.config.tokens_side
        resized = nn.functional.interpolate(both_NOHW, size=(side, side), mode="bilinear", align_corners=False)
        return resized.to(late_NOHW.dtype)


def check_square(pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor, image_px: int) -> None:
    """Raises ShapeError unless all pictures are squares of this size without padding."""
    height_px, width_px = pixels_N3HW.shape[-2:]
    if (height_px, width_px) != (image_px, image_px):
        raise ShapeError(
            "pictures have the wrong size for this tower",
            expected=f"{image_px} x {image_px} px",
            actual=f"{width_px} x {height_px} px",
            hint="pad pictures to a square of this size; the family's processor does",
        )
    if not bool(patch_mask_NHpWp.all()):
        raise ShapeError(
            "this tower reads whole squares", expected="a patch mask that is true everywhere", actual="patches left out"
        )
