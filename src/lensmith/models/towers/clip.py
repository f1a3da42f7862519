"""CLIP's vision transformer at a picture's own aspect ratio, over transformers' own.

CLIP (arXiv 2103.00020) learned one position a patch of one square size, and one more for a class token, which is put in
front and here taken off again. Positions are interpolated to each picture's grid and padding is masked out, as in
`siglip`; so a picture gives the same tokens alone and in a batch, and a full square at native size gives CLIP's own.

What MM1 (arXiv 2403.09611, section 3.2) and Honeybee (arXiv 2312.06742) read is the last layer's patches. In CLIP as
published only the class token goes through the norm behind that layer, and so it is here: `final_norm` puts the patches
through it too, which is for towers that learn from nothing. Weights come from and go to `CLIPVisionModel` under their
own names.

Legend: N pictures, H W pixels, Hp Wp patch grid, P patches = Hp*Wp, S the class token and patches = 1 + P, V tower
width.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel
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
class ClipTowerConfig:
    """The defaults are CLIP's ViT-L/14 at 336 px. `native_px` is the side of the square it learned its positions for.

    `activation`: "quick_gelu" in OpenAI's and Apple's weights, "gelu" in most others. `final_norm`: see above.
    """

    kind: ClassVar[str] = "clip"
    input_names: ClassVar[tuple[str, ...]] = INPUT_NAMES
    width: int = 1024
    hidden_width: int = 4096
    layers: int = 24
    heads: int = 16
    patch_px: int = 14
    native_px: int = 336
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    final_norm: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError("width: not a multiple of heads", expected=f"k * {self.heads}", actual=self.width)
        if self.native_px < self.patch_px:
            raise ConfigError("native_px: less than a patch", expected=f">= {self.patch_px}", actual=self.native_px)

    @property
    def grid_side(self) -> int:
        """Patches a side at native size."""
        return self.native_px // self.patch_px

    @classmethod
    def from_transformers(cls, config: CLIPVisionConfig) -> "ClipTowerConfig":
        """The tower into which the weights of a `CLIPVisionModel` of this configuration fit, but for its last norm."""
        return cls(**{own: getattr(config, theirs) for own, theirs in _TRANSFORMERS_NAMES.items()})

    def to_transformers(self) -> CLIPVisionConfig:
        """The same as transformers says it."""
        values: dict[str, Any] = {theirs: getattr(self, own) for own, theirs in _TRANSFORMERS_NAMES.items()}
        return CLIPVisionConfig(**values)

    def build(self) -> "ClipTower":
        return ClipTower(self)


class ClipTower(nn.Module):
    """Pixels to one token a patch; see `TowerConfig` for the contract."""

    def __init__(self, config: ClipTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.clip: Any = CLIPVisionModel(config.to_transformers())
        if not config.final_norm:
            # Weights that nothing reads would get no gradient.
            self.clip.post_layernorm = nn.Identity()

    def forward(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor) -> VisionFeatures:
        """Normalised pixels and the mask of real patches to tokens (N, P, V) and their mask (N, P)."""
        mask_NP = patch_mask_NHpWp.flatten(1)
        hidden_NSV = self.clip.pre_layrnorm(self._embedded(pixels_N3HW, patch_mask_NHpWp))
        attention_mask = create_bidirectional_mask(
            config=self.clip.config,
            inputs_embeds=hidden_NSV,
            attention_mask=nn.functional.pad(mask_NP, (1, 0), value=True),
        )
        encoded = self.clip.encoder(inputs_embeds=hidden_NSV, attention_mask=attention_mask)
        patches_NPV = self.clip.post_layernorm(encoded.last_hidden_state[:, 1:])
        return VisionFeatures(patches_NPV, mask_NP, columns=patch_mask_NHpWp.shape[2])

    def _embedded(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor) -> Tensor:
        """The class token and the patches (N, S, V), each at its position."""
        embeddings = self.clip.embeddings
        class_1V, table_PV = embeddings.position_embedding.weight.tensor_split([1])
        patches_NPV = embeddings.patch_embedding(pixels_N3HW).flatten(2).transpose(1, 2)
        class_N1V = (embeddings.class_embedding + class_1V).expand(len(patches_NPV), 1, -1)
        return torch.cat([class_N1V, patches_NPV + positions_of(table_PV, patch_mask_NHpWp)], dim=1)
