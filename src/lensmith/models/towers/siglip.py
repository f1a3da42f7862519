"""SigLIP at a picture's own aspect ratio: transformers' encoder, with positions and attention for each picture's grid.

SigLIP (arXiv 2303.15343) learned one position a patch of one square size. Here the table is interpolated to the grid
that each picture really has, padding aside, and padding is masked out of attention, as NaViT (arXiv 2307.06304) and
Idefics2 (arXiv 2405.02246, section 3.2) do; so a picture gives the same tokens alone and in a batch.

Where we differ from Idefics2: positions are interpolated (bicubic, as transformers' SigLIP itself does for other sizes)
and not looked up by rounded fractions of the side, so a full square at native size gives SigLIP's own output, and
neighbouring patches never share a position. Weights come from and go to `SiglipVisionModel` under their own names; the
pooling head is left out.

Legend: N pictures, H W pixels, Hp Wp patch grid, P patches = Hp*Wp, V tower width.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.masking_utils import create_bidirectional_mask

from lensmith.core.errors import ConfigError
from lensmith.models.towers.base import INPUT_NAMES, VisionFeatures
from lensmith.models.towers.positions import positions_of

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
        hidden_NPV = patches_NPV + positions_of(self.siglip.embeddings.position_embedding.weight, patch_mask_NHpWp)
        attention_mask = create_bidirectional_mask(
            config=self.siglip.config, inputs_embeds=hidden_NPV, attention_mask=mask_NP
        )
        encoded = self.siglip.encoder(inputs_embeds=hidden_NPV, attention_mask=attention_mask)
        tokens_NPV = self.siglip.post_layernorm(encoded.last_hidden_state)
        return VisionFeatures(tokens_NPV, mask_NP, columns=patch_mask_NHpWp.shape[2])
