"""Vision towers: pictures to one token a patch."""

from lensmith.models.towers.base import FEATURES, TowerConfig, VisionFeatures, encode
from lensmith.models.towers.clip import ClipTowerConfig
from lensmith.models.towers.conv import ConvTowerConfig
from lensmith.models.towers.efficientnet import EfficientNetTowerConfig
from lensmith.models.towers.hybrid import HybridTowerConfig
from lensmith.models.towers.sam import SamTowerConfig
from lensmith.models.towers.siglip import SiglipTowerConfig

TOWERS: dict[str, type[TowerConfig]] = {
    "clip": ClipTowerConfig,
    "conv": ConvTowerConfig,
    "efficientnet": EfficientNetTowerConfig,
    "hybrid": HybridTowerConfig,
    "sam": SamTowerConfig,
    "siglip": SiglipTowerConfig,
}
"""The configuration of each tower, by the `kind` that a saved model names."""

PICTURE_INPUTS: tuple[str, ...] = (
    *dict.fromkeys(name for tower in TOWERS.values() for name in tower.input_names),
    FEATURES,
)
"""Whatever a tower may read of pictures, by the names under which processors give it; last, what it made of them."""

__all__ = [
    "PICTURE_INPUTS",
    "TOWERS",
    "ClipTowerConfig",
    "ConvTowerConfig",
    "EfficientNetTowerConfig",
    "HybridTowerConfig",
    "SamTowerConfig",
    "SiglipTowerConfig",
    "TowerConfig",
    "VisionFeatures",
    "encode",
]
