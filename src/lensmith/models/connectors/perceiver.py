"""Perceiver connector: a fixed number of latents read a picture of any size.

The resampler of Idefics2 (arXiv 2405.02246, section 3.1), after Flamingo (arXiv 2204.14198, section 3.1.1): a gated
layer brings patches to the language model's width; then in each block the latents attend to the patches and to
themselves, with fewer heads for keys and values than for queries.

Where we differ from Idefics2 as transformers has it: latents start random, since equal ones would stay equal while
training from scratch; and the width of the gated layer is set here instead of taken from the language model.

Legend: N pictures, P patches, V tower width, K latents, L language width, S keys = P + K, h heads, d head width,
F = N*K.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from lensmith.core.errors import ConfigError
from lensmith.models.connectors.base import ConnectorOutput
from lensmith.models.towers.base import VisionFeatures


@dataclass(frozen=True, kw_only=True)
class PerceiverConnectorConfig:
    """The defaults are Idefics2's; `hidden_width` is that of the gated layer in front (None: the language model's)."""

    kind: ClassVar[str] = "perceiver"
    latents: int = 64
    depth: int = 3
    heads: int = 16
    key_heads: int = 4
    head_width: int = 96
    hidden_width: int | None = None
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("latents", "depth", "heads", "key_heads", "head_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: at least one is needed", expected=">= 1", actual=getattr(self, name))
        if self.heads % self.key_heads:
            raise ConfigError("heads: not shared out evenly", expected=f"k * {self.key_heads}", actual=self.heads)

    @property
    def tokens_per_picture(self) -> int | None:
        return self.latents

    def build(self, *, tower_width: int, language_width: int) -> "PerceiverConnector":
        return PerceiverConnector(self, tower_width=tower_width, language_width=language_width)


class PerceiverConnector(nn.Module):
    def __init__(self, config: PerceiverConnectorConfig, *, tower_width: int, language_width: int) -> None:
        super().__init__()
        self.config = config
        self.project = GatedMlp(tower_width, config.hidden_width or language_width, language_width)
        self.latents = nn.Parameter(torch.randn(config.latents, language_width) * 0.02)
        self.blocks = nn.ModuleList(PerceiverBlock(config, language_width) for _ in range(config.depth))
        self.norm = nn.RMSNorm(language_width, eps=config.norm_eps)

    def forward(self, features: VisionFeatures) -> ConnectorOutput:
        """Patches (N, P, V) to K tokens a picture; patches outside the mask have no influence."""
        context_NPL = self.project(features.tokens_NPV)
        pictures = context_NPL.shape[0]
        latents_NKL = self.latents.unsqueeze(0).expand(pictures, -1, -1)
        mask_NS: Tensor | None = None
        if not bool(features.mask_NP.all()):
            mask_NS = torch.cat([features.mask_NP, features.mask_NP.new_ones(pictures, self.config.latents)], dim=1)
        for block in self.blocks:
            latents_NKL = block(latents_NKL, context_NPL, mask_NS)
        counts_N = torch.full((pictures,), self.config.latents, device=context_NPL.device)
        return ConnectorOutput(features_FL=self.norm(latents_NKL).flatten(0, 1), counts_N=counts_N)


class GatedMlp(nn.Module):
    """SiLU(gate) * up, then down; no biases."""

    def __init__(self, width_in: int, hidden_width: int, width_out: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width_in, hidden_width, bias=False)
        self.up = nn.Linear(width_in, hidden_width, bias=False)
        self.down = nn.Linear(hidden_width, width_out, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.down(nn.functional.silu(self.gate(hidden)) * self.up(hidden)))


class PerceiverBlock(nn.Module):
    """Latents attend to patches and latents, then a gated layer; both added to the latents."""

    def __init__(self, config: PerceiverConnectorConfig, width: int) -> None:
        super().__init__()
        self.latents_norm = nn.RMSNorm(width, eps=config.norm_eps)
        self.context_norm = nn.RMSNorm(width, eps=config.norm_eps)
        self.attention = LatentAttention(config, width)
        self.mlp_norm = nn.RMSNorm(width, eps=config.norm_eps)
        self.mlp = GatedMlp(width, 4 * width, width)

    def forward(self, latents_NKL: Tensor, context_NPL: Tensor, mask_NS: Tensor | None) -> Tensor:
        normed_NKL = self.latents_norm(latents_NKL)
        latents_NKL = latents_NKL + self.attention(normed_NKL, self.context_norm(context_NPL), mask_NS)
        return cast(Tensor, latents_NKL + self.mlp(self.mlp_norm(latents_NKL)))


class LatentAttention(nn.Module):
    """Queries from the latents; keys and values from the patches, then the latents."""

    def __init__(self, config: PerceiverConnectorConfig, width: int) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.query = nn.Linear(width, config.heads * config.head_width, bias=False)
        self.key = nn.Linear(width, config.key_heads * config.head_width, bias=False)
        self.value = nn.Linear(width, config.key_heads * config.head_width, bias=False)
        self.out = nn.Linear(config.heads * config.head_width, width, bias=False)

    def forward(self, latents_NKL: Tensor, context_NPL: Tensor, mask_NS: Tensor | None) -> Tensor:
        seen_NSL = torch.cat([context_NPL, latents_NKL], dim=1)
        mixed_NhKd = nn.functional.scaled_dot_product_attention(
            self._heads(self.query(latents_NKL)),
            self._heads(self.key(seen_NSL)),
            self._heads(self.value(seen_NSL)),
            attn_mask=None if mask_NS is None else mask_NS[:, None, None, :],
            enable_gqa=True,
        )
        return cast(Tensor, self.out(mixed_NhKd.transpose(1, 2).flatten(2)))

    def _heads(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], -1, self.head_width).transpose(1, 2)
