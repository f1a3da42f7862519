"""SigLIP at a picture's own aspect ratio: transformers' encoder, with positions and attention for each picture's grid.

SigLIP (arXiv 2303.15343) learned one position a patch of one square size. Here the table is interpolated to the grid
that each picture really has, padding aside, and padding is masked out of attention, as NaViT (arXiv 2307.06304) and
Idefics2 (arXiv 2405.02246, section 3.2) do; so a picture gives the same tokens alone and in a batch.

Where we differ from Idefics2: positions are interpolated (bicubic, as transformers' SigLIP itself does for other sizes)
and not looked up by rounded fractions of the side, so a full square at native size gives SigLIP's own output, and
neighbouring patches never share a position. Weights come from and go to `SiglipVisionModel` under their own names; the
pooling head is left out.

Legend: N pictures, H W pixels, Hp Wp patch grid, P patches = Hp*Wp, V tower width, s side of the learned table.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.masking_utils import create_bidirectional_mask

from lensmith.core.errors import ConfigError
from lensmith.models.towers.base import INPUT_NAMES, VisionFeatures, picture_extents

_TRANSFORMERS_NAMES = {
    "width": "hidden_size",
    "hidden_width": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "patch_px": "patch_size",
    "native_px": "image_size",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}


@dataclass(frozen=True, kw_only=True)
class SiglipTowerConfig:
    """The defaults are SigLIP-B/16 at 224 px. `native_px` is the side of the square it learned its positions for."""

    kind: ClassVar[str] = "siglip"
    input_names: ClassVar[tuple[str, ...]] = INPUT_NAMES
    width: int = 768
    hidden_width: int = 3072
    layers: int = 12
    heads: int = 12
    patch_px: int = 16
    native_px: int = 224
    activation: str = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError("width: not a multiple of heads", expected=f"k * {self.heads}", actual=self.width)
        if self.native_px < self.patch_px:
            raise ConfigError("native_px: less than a patch", expected=f">= {self.patch_px}", actual=self.native_px)

    @classmethod
    def from_transformers(cls, config: SiglipVisionConfig) -> "SiglipTowerConfig":
        """The tower into which the weights of a `SiglipVisionModel` of this configuration fit."""
        return cls(**{own: getattr(config, theirs) for own, theirs in _TRANSFORMERS_NAMES.items()})

    def to_transformers(self) -> SiglipVisionConfig:
        """The same as transformers says it, without the pooling head."""
        values: dict[str, Any] = {theirs: getattr(self, own) for own, theirs in _TRANSFORMERS_NAMES.items()}
        return SiglipVisionConfig(**values, vision_use_head=False)

    def build(self) -> "SiglipTower":
        return SiglipTower(self)


class SiglipTower(nn.Module):
    """Pixels to one token a patch; see `TowerConfig` for the contract."""

    def __init__(self, config: SiglipTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.siglip: Any = SiglipVisionModel(config.to_transformers())

    def forward(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor) -> VisionFeatures:
        """Normalised pixels and the mask of real patches to tokens (N, P, V) and their mask (N, P)."""
        mask_NP = patch_mask_NHpWp.flatten(1)
        patches_NPV = self.siglip.embeddings.patch_embedding(pixels_N3HW).flatten(2).transpose(1, 2)
        hidden_NPV = patches_NPV + self._positions(patch_mask_NHpWp)
        attention_mask = create_bidirectional_mask(
            config=self.siglip.config, inputs_embeds=hidden_NPV, attention_mask=mask_NP
        )
        encoded = self.siglip.encoder(inputs_embeds=hidden_NPV, attention_mask=attention_mask)
        return VisionFeatures(self.siglip.post_layernorm(encoded.last_hidden_state), mask_NP)

    def _positions(self, patch_mask_NHpWp: Tensor) -> Tensor:
        """The table at each picture's own grid (N, P, V); zero in the padding."""
        count, rows, columns = patch_mask_NHpWp.shape
        table_PV = self.siglip.embeddings.position_embedding.weight
        extents = picture_extents(patch_mask_NHpWp)
        grids = list(zip(extents.rows_N.tolist(), extents.columns_N.tolist(), strict=True))
        # Each size once: most batches hold many pictures of few sizes.
        by_grid = {grid: _interpolated(table_PV, *grid) for grid in set(grids)}
        padded = [
            nn.functional.pad(by_grid[own_rows, own_columns], (0, 0, 0, columns - own_columns, 0, rows - own_rows))
            for own_rows, own_columns in grids
        ]
        return torch.stack(padded).reshape(count, rows * columns, -1)


def _interpolated(table_PV: Tensor, rows: int, columns: int) -> Tensor:
    """The square table (s*s, V) as a grid (rows, columns, V); itself at native size."""
    side = int(table_PV.shape[0] ** 0.5)
    table_ssV = table_PV.reshape(side, side, -1)
    if (rows, columns) == (side, side):
        return table_ssV
    channels_first = table_ssV.permute(2, 0, 1).unsqueeze(0)
    resized = nn.functional.interpolate(channels_first, size=(rows, columns), mode="bicubic", align_corners=False)
    return resized.squeeze(0).permute(1, 2, 0)
