"""Learned positions at any grid: one square table, interpolated to the grid that a picture really has.

Bicubic, as transformers' CLIP and SigLIP do it for other sizes than their own.

Legend: N pictures, Hp Wp patch grid, P patches = Hp*Wp, s side of the learned square, S places = s*s, V width.
"""

import math

import torch
from torch import Tensor, nn

from lensmith.models.towers.base import picture_extents


def positions_at(table_SV: Tensor, rows: int, columns: int) -> Tensor:
    """The table at a grid (rows, columns, V); itself at its own."""
    side = math.isqrt(table_SV.shape[0])
    table_ssV = table_SV.reshape(side, side, -1)
    if (rows, columns) == (side, side):
        return table_ssV
    channels_first = table_ssV.permute(2, 0, 1).unsqueeze(0)
    resized = nn.functional.interpolate(channels_first, size=(rows, columns), mode="bicubic", align_corners=False)
    return resized.squeeze(0).permute(1, 2, 0)


def positions_of(table_SV: Tensor, patch_mask_NHpWp: Tensor) -> Tensor:
    """The table at each picture's own grid (N, P, V); zero in the padding."""
    count, rows, columns = patch_mask_NHpWp.shape
    extents = picture_extents(patch_mask_NHpWp)
    grids = list(zip(extents.rows_N.tolist(), extents.columns_N.tolist(), strict=True))
    # Each size once: most batches hold many pictures of few sizes.
    by_grid = {grid: positions_at(table_SV, *grid) for grid in set(grids)}
    padded = [
        nn.functional.pad(by_grid[own_rows, own_columns], (0, 0, 0, columns - own_columns, 0, rows - own_rows))
        for own_rows, own_columns in grids
    ]
    return torch.stack(padded).reshape(count, rows * columns, -1)
