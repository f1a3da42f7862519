"""Pooling connector: the mean of the patches in each cell of a square grid, then one linear layer.

The average pooling of MM1 (arXiv 2403.09611, section 3.1), after Emu2 (arXiv 2312.13286). It is adaptive: cells overlap
where the patches do not divide into them (27 x 27 to 12 x 12 at 378 px), and a picture is pooled on its own grid.

Legend: N pictures, G pictures of one grid, h w its rows and columns, k cells a side, K tokens a picture = k*k, V tower
width, L language width, F = N*K.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lensmith.core.errors import ConfigError
from lensmith.models.connectors.base import ConnectorOutput
from lensmith.models.connectors.grids import on_own_grids
from lensmith.models.towers.base import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class PoolConnectorConfig:
    """`side` x `side` tokens a picture. The default is MM1's larger number."""

    kind: ClassVar[str] = "pool"
    side: int = 12

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ConfigError("side: at least one is needed", expected=">= 1", actual=self.side)

    @property
    def tokens_per_picture(self) -> int | None:
        return self.side**2

    def build(self, *, tower_width: int, language_width: int) -> "PoolConnector":
        return PoolConnector(self, tower_width=tower_width, language_width=language_width)


class PoolConnector(nn.Module):
    def __init__(self, config: PoolConnectorConfig, *, tower_width: int, language_width: int) -> None:
        super().__init__()
        self.config = config
        self.proj = nn.Linear(tower_width, language_width)

    def forward(self, features: VisionFeatures) -> ConnectorOutput:
        """Patches (N, P, V) to K tokens a picture, row by row. Raises ShapeError where a picture is no rectangle."""
        pooled_NVkk = on_own_grids(features, self._pooled)
        features_NKL = self.proj(pooled_NVkk.flatten(2).transpose(1, 2))
        counts_N = torch.full(features_NKL.shape[:1], self.config.side**2, device=features_NKL.device)
        return ConnectorOutput(features_FL=features_NKL.flatten(0, 1), counts_N=counts_N)

    def _pooled(self, map_GVhw: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(map_GVhw, self.config.side)
