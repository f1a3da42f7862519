"""Vision towers: pictures to one token a patch."""

from lensmith.models.towers.base import TowerConfig, VisionFeatures
from lensmith.models.towers.conv import ConvTowerConfig
from lensmith.models.towers.hybrid import HybridTowerConfig
from lensmith.models.towers.sam import SamTowerConfig
from lensmith.models.towers.siglip import SiglipTowerConfig

TOWERS: dict[str, type[TowerConfig]] = {
    "conv": ConvTowerConfig,
    "hybrid": HybridTowerConfig,
    "sam": SamTowerConfig,
    "siglip": SiglipTowerConfig,
}
"""The configuration of each tower, by the `kind` that a saved model names."""

__all__ = [
    "TOWERS",
    "ConvTowerConfig",
    "HybridTowerConfig",
    "SamTowerConfig",
    "SiglipTowerConfig",
    "TowerConfig",
    "VisionFeatures",
]
