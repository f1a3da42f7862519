"""C-Abstractor: convolutions around an adaptive pooling, then an MLP. Locality stays, and the number of tokens is free.

Honeybee's (arXiv 2312.06742, section 3.2; github.com/kakaobrain/honeybee, `projectors.py`), which MM1 (arXiv
2403.09611, section 3.1) uses. Each patch gets a learned position; `depth` RegNet blocks (arXiv 2003.13678, with the
squeeze-excitation of its Y variant) bring patches to `hidden_width`, pooling makes `side` x `side` cells of them,
`depth` more blocks follow, then `mlp_depth` linear layers with a SiLU between them. A block is timm's `Bottleneck` with
layer norms for batch norms and one channel a group.

Where we differ: positions are interpolated where the grid is not the one that they were learned for, as MM1's higher
resolutions need it (Honeybee has one square only), and each picture is read on its own grid.

Legend: N pictures, G pictures of one grid, h w its rows and columns, k cells a side, K tokens a picture = k*k, V tower
width, C hidden width, S learned positions, L language width, F = N*K.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from lensmith.core.errors import ConfigError
from lensmith.models.connectors.base import ConnectorOutput
from lensmith.models.connectors.grids import on_own_grids
from lensmith.models.towers.base import VisionFeatures
from lensmith.models.towers.positions import positions_at

_SQUEEZED_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class CAbstractorConfig:
    """The defaults are Honeybee's with 144 tokens, for a tower of 24 x 24 patches (ViT-L/14 at 336 px).

    `grid_side` is the side of the square of patches for which positions are learned. `depth` 0 leaves positions,
    pooling and the MLP.
    """

    kind: ClassVar[str] = "c_abstractor"
    side: int = 12
    depth: int = 3
    hidden_width: int = 1024
    mlp_depth: int = 2
    grid_side: int = 24
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, least in (("side", 1), ("depth", 0), ("hidden_width", 1), ("mlp_depth", 1), ("grid_side", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: too few", expected=f">= {least}", actual=getattr(self, name))

    @property
    def tokens_per_picture(self) -> int | None:
        return self.side**2

    def build(self, *, tower_width: int, language_width: int) -> "CAbstractor":
        return CAbstractor(self, tower_width=tower_width, language_width=language_width)


class CAbstractor(nn.Module):
    def __init__(self, config: CAbstractorConfig, *, tower_width: int, language_width: int) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(torch.empty(config.grid_side**2, tower_width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.stage_in = _stage(config, tower_width)
        self.stage_out = _stage(config, config.hidden_width)
        layers: list[nn.Module] = [nn.Linear(config.hidden_width if config.depth else tower_width, language_width)]
        for _ in range(config.mlp_depth - 1):
            layers += [nn.SiLU(), nn.Linear(language_width, language_width)]
        self.mlp = nn.Sequential(*layers)

    def forward(self, features: VisionFeatures) -> ConnectorOutput:
        """Patches (N, P, V) to K tokens a picture, row by row. Raises ShapeError where a picture is no rectangle."""
        mixed_NCkk = self.stage_out(on_own_grids(features, self._pooled))
        features_NKL = self.mlp(mixed_NCkk.flatten(2).transpose(1, 2))
        counts_N = torch.full(features_NKL.shape[:1], self.config.side**2, device=features_NKL.device)
        return ConnectorOutput(features_FL=features_NKL.flatten(0, 1), counts_N=counts_N)

    def _pooled(self, map_GVhw: Tensor) -> Tensor:
        """Maps of one grid to (G, C, k, k)."""
        positions_Vhw = positions_at(self.positions, *map_GVhw.shape[2:]).permute(2, 0, 1)
        mixed_GChw = self.stage_in(map_GVhw + positions_Vhw)
        return nn.functional.adaptive_avg_pool2d(mixed_GChw, self.config.side)


def _stage(config: CAbstractorConfig, width_in: int) -> nn.Sequential:
    widths = [width_in, *[config.hidden_width] * config.depth]
    return nn.Sequential(
        *(RegNetBlock(own, config.hidden_width, norm_eps=config.norm_eps) for own in widths[: config.depth])
    )


class RegNetBlock(nn.Module):
    """Each cell, its 3 x 3 neighbours channel by channel, which channels count, each cell again; added to the input."""

    def __init__(self, width_in: int, width: int, *, norm_eps: float) -> None:
        super().__init__()
        self.conv_in = _convolution(width_in, width, norm_eps)
        self.conv_near = _convolution(width, width, norm_eps, is_spatial=True)
        self.excitation = SqueezeExcitation(width, max(1, round(width_in * _SQUEEZED_SHARE)))
        self.conv_out = _convolution(width, width, norm_eps)
        self.shortcut = nn.Identity() if width_in == width else _convolution(width_in, width, norm_eps)

    def forward(self, map_GVhw: Tensor) -> Tensor:
        """(G, V, h, w) to (G, C, h, w)."""
        hidden_GChw = nn.functional.silu(self.conv_in(map_GVhw))
        hidden_GChw = nn.functional.silu(self.conv_near(hidden_GChw))
        hidden_GChw = self.conv_out(self.excitation(hidden_GChw))
        return nn.functional.silu(hidden_GChw + self.shortcut(map_GVhw))


class SqueezeExcitation(nn.Module):
    """Each channel times a gate in 0..1, which follows from the means of all channels."""

    def __init__(self, width: int, squeezed_width: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, squeezed_width)
        self.excite = nn.Linear(squeezed_width, width)

    def forward(self, map_GChw: Tensor) -> Tensor:
        gates_GC = self.excite(nn.functional.silu(self.squeeze(map_GChw.mean(dim=(2, 3))))).sigmoid()
        return cast(Tensor, map_GChw * gates_GC[:, :, None, None])


class CellNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a map (G, C, h, w)."""

    def forward(self, map_GChw: Tensor) -> Tensor:
        return super().forward(map_GChw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _convolution(width_in: int, width: int, norm_eps: float, *, is_spatial: bool = False) -> nn.Sequential:
    """A convolution of each cell, or of 3 x 3 cells channel by channel, and a norm."""
    side, groups = (3, width) if is_spatial else (1, 1)
    convolution = nn.Conv2d(width_in, width, side, padding=side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, CellNorm(width, eps=norm_eps))
