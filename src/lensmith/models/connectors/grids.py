"""Pictures on grids of their own: for connectors that pool or convolve over a picture's patches.

A batch is padded to its largest picture. Here each picture is cut out at its own extent, so that nothing beside it has
an influence, and pictures of one grid are read together: most batches have one grid.

Legend: N pictures, P patches, Hp Wp the batch's grid, V tower width, G pictures of one grid, h w its rows and columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lensmith.core.errors import ShapeError
from lensmith.models.towers.base import VisionFeatures, picture_extents


def on_own_grids(features: VisionFeatures, read: Callable[[Tensor], Tensor]) -> Tensor:
    """What `read` makes of maps (G, V, h, w), one result (G, ...) of the same shape for any grid, as (N, ...).

    Raises ShapeError where the tower does not say how its tokens lie, a picture has none, or its real patches do not
    fill a rectangle.
    """
    (count, patches), columns = features.mask_NP.shape, features.columns
    if columns is None or patches % columns:
        raise ShapeError(
            "tokens without a grid",
            expected="VisionFeatures whose `columns` divide its tokens",
            actual=f"{patches} tokens, columns {columns}",
        )
    map_NVHpWp = features.tokens_NPV.transpose(1, 2).reshape(count, -1, patches // columns, columns)
    grids = _grids(features.mask_NP.reshape(count, -1, columns))
    places = {grid: [place for place, own in enumerate(grids) if own == grid] for grid in dict.fromkeys(grids)}
    if len(places) == 1:
        h, w = grids[0]
        return read(map_NVHpWp[:, :, :h, :w])
    results = [read(map_NVHpWp[chosen, :, :h, :w]) for (h, w), chosen in places.items()]
    order_N = torch.tensor([place for chosen in places.values() for place in chosen]).argsort()
    return torch.cat(results)[order_N.to(map_NVHpWp.device)]


def _grids(mask_NHpWp: Tensor) -> list[tuple[int, int]]:
    """Rows and columns of each picture."""
    extents = picture_extents(mask_NHpWp)
    real_N, whole_N = mask_NHpWp.sum(dim=(1, 2)), extents.rows_N * extents.columns_N
    grids = list(zip(extents.rows_N.tolist(), extents.columns_N.tolist(), strict=True))
    for place, (real, whole) in enumerate(zip(real_N.tolist(), whole_N.tolist(), strict=True)):
        if real != whole or not real:
            raise ShapeError(
                f"picture {place}: its real patches do not fill a rectangle",
                expected=f"{grids[place][0]} x {grids[place][1]} patches, at least one",
                actual=f"{real}",
                hint="this connector needs whole pictures: leave `drop_repeated_patches` off",
            )
    return grids
