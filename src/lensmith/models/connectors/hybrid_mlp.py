"""Hybrid MLP connector: two streams in one token are projected apart and go on together.

DeepSeek-VL 7B's adaptor as its code has it: one linear layer for each stream, to half the language model's width; the
high resolution first, then GELU and a linear layer. The paper (arXiv 2403.05525, section 3.1) says concatenation first,
which the published weights do not fit.

Legend: N pictures, P tokens, V width of both streams, F tokens of all pictures, L language width.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from lensmith.core.errors import ConfigError
from lensmith.models.connectors.base import ConnectorOutput
from lensmith.models.towers.base import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class HybridMlpConnectorConfig:
    """The first `high_width` values of a token are the high resolution's stream, the others the low one's.

    `depth` counts linear layers one behind the other: the two projections, then `depth - 1` as wide as the language
    model, each after a GELU.
    """

    kind: ClassVar[str] = "hybrid_mlp"
    high_width: int = 1024
    depth: int = 2

    def __post_init__(self) -> None:
        for name in ("high_width", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: at least one is needed", expected=">= 1", actual=getattr(self, name))

    @property
    def tokens_per_picture(self) -> int | None:
        return None

    def build(self, *, tower_width: int, language_width: int) -> "HybridMlpConnector":
        """Raises ConfigError where the widths leave a stream nothing."""
        if tower_width <= self.high_width:
            raise ConfigError(
                "high_width: nothing left for the low stream", expected=f"< {tower_width}", actual=self.high_width
            )
        if language_width % 2:
            raise ConfigError("the language model's width has no half", expected="even", actual=language_width)
        return HybridMlpConnector(self, tower_width=tower_width, language_width=language_width)


class HybridMlpConnector(nn.Module):
    def __init__(self, config: HybridMlpConnectorConfig, *, tower_width: int, language_width: int) -> None:
        super().__init__()
        self.config = config
        self.high_proj = nn.Linear(config.high_width, language_width // 2)
        self.low_proj = nn.Linear(tower_width - config.high_width, language_width // 2)
        layers: list[nn.Module] = []
        for _ in range(config.depth - 1):
            layers += [nn.GELU(), nn.Linear(language_width, language_width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: VisionFeatures) -> ConnectorOutput:
        """Real tokens, picture by picture and row by row, to as many visual tokens."""
        real_FV = features.tokens_NPV[features.mask_NP]
        high_FL = self.high_proj(real_FV[:, : self.config.high_width])
        low_FL = self.low_proj(real_FV[:, self.config.high_width :])
        mixed_FL = self.layers(torch.cat([high_FL, low_FL], dim=-1))
        return ConnectorOutput(features_FL=mixed_FL, counts_N=features.mask_NP.sum(dim=1))
