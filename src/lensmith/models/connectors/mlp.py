"""MLP connector: each real patch becomes one visual token.

Two linear layers with a GELU between them, as LLaVA-1.5 (arXiv 2310.03744, section 3.3) has them; `depth` adds more.
Where we differ: patches outside the mask are left out before the first layer, so they cost nothing.

Legend: N pictures, P patches, V tower width, F real patches of all pictures, L language width.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lensmith.core.errors import ConfigError
from lensmith.models.connectors.base import ConnectorOutput
from lensmith.models.towers.base import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class MlpConnectorConfig:
    """`depth` linear layers, all but the first as wide as the language model, a GELU between them.

    `norm` puts a LayerNorm before the first: wanted where the tower's last layer is not normalised.
    """

    kind: ClassVar[str] = "mlp"
    depth: int = 2
    norm: bool = False

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError("depth: an mlp connector has at least one layer", expected=">= 1", actual=self.depth)

    @property
    def tokens_per_picture(self) -> int | None:
        return None

    def build(self, *, tower_width: int, language_width: int) -> "MlpConnector":
        return MlpConnector(self, tower_width=tower_width, language_width=language_width)


class MlpConnector(nn.Module):
    def __init__(self, config: MlpConnectorConfig, *, tower_width: int, language_width: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.LayerNorm(tower_width)] if config.norm else []
        layers.append(nn.Linear(tower_width, language_width))
        for _ in range(config.depth - 1):
            layers += [nn.GELU(), nn.Linear(language_width, language_width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: VisionFeatures) -> ConnectorOutput:
        """Real patches, picture by picture and row by row, to as many visual tokens."""
        real_FV = features.tokens_NPV[features.mask_NP]
        return ConnectorOutput(features_FL=self.layers(real_FV), counts_N=features.mask_NP.sum(dim=1))
