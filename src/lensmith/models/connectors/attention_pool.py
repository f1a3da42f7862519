"""Attention pooling: learned queries read the patches once.

MM1 (arXiv 2403.09611, section 3.1) compares it, with 64 and 144 queries, to average pooling and the C-Abstractor. The
paper says no more than "k learnable queries" and cross-attention; here that is one layer of it, with a norm over the
patches before and the projection to the language model behind. `perceiver` is the deeper kind: there the queries attend
to each other too, and each layer has an MLP.

The queries are learned as the heads use them: a matrix between would only be another way to write them.

Legend: N pictures, P patches, V tower width, K queries, h heads, d head width, L language width, F = N*K.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lensmith.core.errors import ConfigError
from lensmith.models.connectors.base import ConnectorOutput
from lensmith.models.towers.base import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class AttentionPoolConnectorConfig:
    """One token a query. The default number is MM1's larger one; heads and their width are ours."""

    kind: ClassVar[str] = "attention_pool"
    queries: int = 144
    heads: int = 16
    head_width: int = 64
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("queries", "heads", "head_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: at least one is needed", expected=">= 1", actual=getattr(self, name))

    @property
    def tokens_per_picture(self) -> int | None:
        return self.queries

    def build(self, *, tower_width: int, language_width: int) -> "AttentionPoolConnector":
        return AttentionPoolConnector(self, tower_width=tower_width, language_width=language_width)


class AttentionPoolConnector(nn.Module):
    def __init__(self, config: AttentionPoolConnectorConfig, *, tower_width: int, language_width: int) -> None:
        super().__init__()
        self.config = config
        inner_width = config.heads * config.head_width
        # Not small: queries near zero would all read the mean of the patches, and learn alike.
        self.queries = nn.Parameter(torch.randn(config.queries, inner_width))
        self.norm = nn.LayerNorm(tower_width, eps=config.norm_eps)
        self.key = nn.Linear(tower_width, inner_width, bias=False)
        self.value = nn.Linear(tower_width, inner_width, bias=False)
        self.out = nn.Linear(inner_width, language_width)

    def forward(self, features: VisionFeatures) -> ConnectorOutput:
        """Patches (N, P, V) to K tokens a picture; patches outside the mask have no influence, wherever they lie."""
        normed_NPV = self.norm(features.tokens_NPV)
        pictures = len(normed_NPV)
        mask_NP = None if bool(features.mask_NP.all()) else features.mask_NP
        read_NhKd = nn.functional.scaled_dot_product_attention(
            self._heads(self.queries.expand(pictures, -1, -1)),
            self._heads(self.key(normed_NPV)),
            self._heads(self.value(normed_NPV)),
            attn_mask=None if mask_NP is None else mask_NP[:, None, None, :],
        )
        features_NKL = self.out(read_NhKd.transpose(1, 2).flatten(2))
        counts_N = torch.full((pictures,), self.config.queries, device=features_NKL.device)
        return ConnectorOutput(features_FL=features_NKL.flatten(0, 1), counts_N=counts_N)

    def _heads(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], -1, self.config.head_width).transpose(1, 2)
