"""A convolutional tower that learns to read: fine columns inside, one token a patch outside.

Screens are small print on flat colour. A patch embedding sees 16 px at once and learns letters slowly; a convolutional
stem that keeps cells of 4 x 8 px learns them in minutes when each cell is asked which character it shows (see
`train.reading`). A patch token is its cells side by side, plus where the patch stands on the page, so nothing the stem
has read is averaged away. Own design; that resolution and the encoder's loss matter most is MM1's finding
(arXiv 2403.09611, section 3.2).

Legend: N pictures, H W pixels, q quarters of 4 x 4 px, h w cells of 8 x 4 px, Hp Wp patches, P = Hp * Wp, C stem width,
V tower width.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmith.core.errors import ConfigError, ShapeError
from lensmith.models.towers.base import INPUT_NAMES, VisionFeatures, picture_extents

CELL_HEIGHT_PX = 8
CELL_WIDTH_PX = 4


@dataclass(frozen=True, kw_only=True)
class ConvTowerConfig:
    """`patch_px` is a multiple of 8; `max_rows` x `max_columns` bounds a picture in patches."""

    kind: ClassVar[str] = "conv"
    input_names: ClassVar[tuple[str, ...]] = INPUT_NAMES
    width: int = 320
    stem_width: int = 96
    stem_blocks: int = 4
    patch_px: int = 16
    max_rows: int = 64
    max_columns: int = 24

    def __post_init__(self) -> None:
        if self.patch_px < CELL_HEIGHT_PX or self.patch_px % CELL_HEIGHT_PX:
            raise ConfigError(
                "patch_px: not whole cells", expected=f"multiple of {CELL_HEIGHT_PX}", actual=self.patch_px
            )

    @property
    def cells_per_patch(self) -> int:
        return (self.patch_px // CELL_HEIGHT_PX) * (self.patch_px // CELL_WIDTH_PX)

    def build(self) -> "ConvTower":
        return ConvTower(self)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each cell, so that a cell's value depends on no other picture or cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, cells_NChw: Tensor) -> Tensor:
        cells_NhwC = cells_NChw.permute(0, 2, 3, 1)
        normed_NhwC: Tensor = F.layer_norm(cells_NhwC, self.weight.shape, self.weight, self.bias)
        return normed_NhwC.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Norm, 3x3 convolution, GELU, 3x3 convolution, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, cells_NChw: Tensor, inside_N1hw: Tensor | None) -> Tensor:
        hidden = F.gelu(self.conv_in(inside(self.norm(cells_NChw), inside_N1hw)))
        added_NChw: Tensor = self.conv_out(inside(hidden, inside_N1hw))
        return cells_NChw + added_NChw


class InsideMasks(NamedTuple):
    """1 inside each picture and 0 beyond it, at both sizes; None where every picture fills the batch."""

    quarters_N1qq: Tensor | None
    cells_N1hw: Tensor | None


def inside(cells_NChw: Tensor, inside_N1hw: Tensor | None) -> Tensor:
    """Zero beyond each picture's edge, as a convolution's own padding is: a batch gives what one by one gives."""
    return cells_NChw if inside_N1hw is None else cells_NChw * inside_N1hw


class PatchColours(nn.Module):
    """The darkest and the lightest value of each channel in a patch: on a screen, ink and what lies behind it.

    Norms and convolutions tell shapes from each other whatever their colour, and blur the colour. Each value is spread
    over `LEVELS` overlapping levels, so that a linear layer can tell palettes apart. Starts as zero.
    """

    LEVELS = 9

    def __init__(self, config: ConvTowerConfig) -> None:
        super().__init__()
        self.patch_px = config.patch_px
        self.hidden = nn.Linear(6 * self.LEVELS, 128)
        self.out = nn.Linear(128, config.width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """Normalised pixels (N, 3, H, W) to (N, Hp, Wp, V)."""
        lightest = F.max_pool2d(pixels_N3HW, self.patch_px)
        darkest = -F.max_pool2d(-pixels_N3HW, self.patch_px)
        values_NHpWp6 = torch.cat([lightest, darkest], dim=1).permute(0, 2, 3, 1)
        levels = torch.linspace(-1, 1, self.LEVELS, device=pixels_N3HW.device, dtype=pixels_N3HW.dtype)
        spread = torch.exp(-(((values_NHpWp6[..., None] - levels) * (self.LEVELS - 1) / 2) ** 2)).flatten(3)
        coloured: Tensor = self.out(F.gelu(self.hidden(spread)))
        return coloured


class ConvTower(nn.Module):
    """Pixels to one token a patch. The picture's bottom right patch must be kept in the mask: it marks the extent."""

    def __init__(self, config: ConvTowerConfig) -> None:
        super().__init__()
        self.config = config
        quarter = config.stem_width * 2 // 3
        self.conv_quarter = nn.Conv2d(12, quarter, 4, stride=2, padding=1)
        self.conv_cell = nn.Conv2d(quarter, config.stem_width, (4, 3), stride=(2, 1), padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(config.stem_width) for _ in range(config.stem_blocks))
        self.norm = ChannelNorm(config.stem_width)
        self.to_token = nn.Linear(config.stem_width * config.cells_per_patch, config.width)
        self.colours = PatchColours(config)
        self.row_embedding = nn.Embedding(config.max_rows, config.width)
        self.column_embedding = nn.Embedding(config.max_columns, config.width)
        for table in (self.row_embedding, self.column_embedding):
            nn.init.normal_(table.weight, std=0.5)

    def read_cells(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor | None = None) -> Tensor:
        """Cells of 4 x 8 px (N, C, H / 8, W / 4): what the stem sees, before patches are formed."""
        masks = self._inside_masks(pixels_N3HW, patch_mask_NHpWp)
        # Pairs of pixels become channels first: a convolution over 3 channels at full size takes four times as long as
        # all the rest, and the pixels beyond a picture are zero as they come.
        pairs = F.pixel_unshuffle(pixels_N3HW, 2).contiguous(memory_format=torch.channels_last)
        quarters_NCqq = inside(F.gelu(self.conv_quarter(pairs)), masks.quarters_N1qq)
        cells_NChw: Tensor = inside(self.conv_cell(quarters_NCqq), masks.cells_N1hw)
        for block in self.blocks:
            cells_NChw = block(cells_NChw, masks.cells_N1hw)
        read_NChw: Tensor = self.norm(cells_NChw)
        return read_NChw

    def _inside_masks(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor | None) -> InsideMasks:
        if patch_mask_NHpWp is None:
            return InsideMasks(None, None)
        rows_N, columns_N = picture_extents(patch_mask_NHpWp)
        if bool((rows_N == patch_mask_NHpWp.shape[1]).all()) and bool((columns_N == patch_mask_NHpWp.shape[2]).all()):
            return InsideMasks(None, None)
        height, width, patch = pixels_N3HW.shape[2], pixels_N3HW.shape[3], self.config.patch_px
        masks = []
        for down, right in ((4, 4), (CELL_HEIGHT_PX, CELL_WIDTH_PX)):
            ys = torch.arange(height // down, device=pixels_N3HW.device)
            xs = torch.arange(width // right, device=pixels_N3HW.device)
            row_inside = ys[None] < (rows_N * (patch // down))[:, None]
            column_inside = xs[None] < (columns_N * (patch // right))[:, None]
            masks.append((row_inside[:, None, :, None] & column_inside[:, None, None, :]).to(pixels_N3HW.dtype))
        return InsideMasks(*masks)

    def to_patches(self, cells_NChw: Tensor, pixels_N3HW: Tensor) -> Tensor:
        """Cells to patch tokens (N, P, V), row by row, with the colours and the place of each patch added."""
        down = self.config.patch_px // CELL_HEIGHT_PX
        right = self.config.patch_px // CELL_WIDTH_PX
        count, channels, height, width = cells_NChw.shape
        rows, columns = height // down, width // right
        most_rows, most_columns = self.config.max_rows, self.config.max_columns
        if rows > most_rows or columns > most_columns:
            raise ShapeError(
                "the picture is larger than the tower's table of places",
                expected=f"at most {most_rows} rows and {most_columns} columns of patches of {self.config.patch_px} px",
                actual=f"{rows} rows and {columns} columns",
                hint="let the processor scale or cut the picture",
            )
        grid = cells_NChw.permute(0, 2, 3, 1).reshape(count, rows, down, columns, right, channels)
        patches = grid.transpose(2, 3).reshape(count, rows, columns, down * right * channels)
        tokens: Tensor = self.to_token(patches)
        places = self.row_embedding.weight[:rows, None] + self.column_embedding.weight[None, :columns]
        colours = self.colours(pixels_N3HW)
        placed: Tensor = tokens + colours + places
        return placed.reshape(count, rows * columns, self.config.width)

    def forward(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor) -> VisionFeatures:
        """Pixels (N, 3, H, W), H and W multiples of `patch_px`, to tokens (N, P, V) and their mask (N, P)."""
        tokens = self.to_patches(self.read_cells(pixels_N3HW, patch_mask_NHpWp), pixels_N3HW)
        return VisionFeatures(tokens, patch_mask_NHpWp.flatten(1), columns=patch_mask_NHpWp.shape[2])
