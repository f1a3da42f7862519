"""What any model must beat: a blank page, and the nearest page of the training set by pixels.

A scorer that gives these high marks measures the wrong thing; a model that does not beat the second has learned to look
pages up. The search streams: only the nearest page so far is held for each query, so the training set may be larger
than memory.

Legend: Q queries, N training pages at a time, H x W thumbnail, D = H * W * 3.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from lensmith.core.arrays import Float64Array
from lensmith.core.errors import InputError, ShapeError
from lensmith.core.types import Box, ElementStyle, Page
from lensmith.evaluate.visual.pixels import PictureLike, RgbArray, rgb_array

T = TypeVar("T")

THUMBNAIL_WIDTH_PX, THUMBNAIL_HEIGHT_PX = 32, 80
_WHITE = (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Nearest(Generic[T]):
    """The training page nearest to a query, its place in the stream, and the root mean square difference in levels."""

    page: T
    index: int
    distance: float


def blank_page(width_px: int, height_px: int) -> Page:
    """A white page without any text and element, with its screenshot."""
    encoded = io.BytesIO()
    Image.new("RGB", (width_px, height_px), _WHITE).save(encoded, format="PNG")
    canvas = ElementStyle(
        tag="html",
        depth=0,
        position="static",
        box=Box(0, 0, width_px, height_px),
        fill=None,
        behind=_WHITE,
        borders=(None, None, None, None),
        is_picture=False,
    )
    return Page(width_px=width_px, height_px=height_px, png=encoded.getvalue(), styles=(canvas,))


def thumbnail(picture: PictureLike) -> RgbArray:
    """A screenshot as 32 x 80 cells, shape (80, 32, 3): scaled to the width, then cut or filled with white below.

    Pages of one width thus stay in register from the top, whatever their height.
    """
    full = Image.fromarray(rgb_array(picture))
    height = max(1, round(full.height * THUMBNAIL_WIDTH_PX / full.width))
    small = full.resize((THUMBNAIL_WIDTH_PX, height), Image.Resampling.BOX)
    canvas = Image.new("RGB", (THUMBNAIL_WIDTH_PX, THUMBNAIL_HEIGHT_PX), _WHITE)
    canvas.paste(small, (0, 0))
    return np.asarray(canvas)


def nearest_pages(
    queries: Sequence[RgbArray], pages: Iterable[tuple[RgbArray, T]], *, at_once: int = 512
) -> list[Nearest[T]]:
    """For each query thumbnail the page whose thumbnail has the least squared difference; of equals the first.

    `pages` yields (thumbnail, page), all thumbnails (and queries) of one shape (H, W, 3); `page` may be a Page or
    whatever stands for one. Raises InputError if there are no pages.
    """
    if not queries:
        return []
    queries_QD = _flat(queries, queries[0].shape)
    best_squared = np.full(len(queries), np.inf)
    best_index = np.zeros(len(queries), dtype=np.int64)
    best_page: dict[int, T] = {}
    seen = 0
    for chunk in _chunks(pages, at_once):
        squared_QN = _squared_distances(queries_QD, _flat([small for small, _ in chunk], queries[0].shape))
        nearest = squared_QN.argmin(axis=1)
        least = squared_QN[np.arange(len(queries)), nearest]
        for query in np.flatnonzero(least < best_squared):
            best_squared[query], best_index[query] = least[query], seen + nearest[query]
            best_page[int(query)] = chunk[nearest[query]][1]
        seen += len(chunk)
    if not seen:
        raise InputError("there are no training pages to look the target up in", expected="at least one page")
    distance = np.sqrt(best_squared / queries_QD.shape[1])
    return [
        Nearest(page=best_page[query], index=int(best_index[query]), distance=float(distance[query]))
        for query in range(len(queries))
    ]


def _chunks(pages: Iterable[tuple[RgbArray, T]], at_once: int) -> Iterator[list[tuple[RgbArray, T]]]:
    stream = iter(pages)
    while chunk := list(islice(stream, at_once)):
        yield chunk


def _flat(thumbnails: Sequence[RgbArray], shape: tuple[int, ...]) -> Float64Array:
    for small in thumbnails:
        if small.shape != shape:
            raise ShapeError("thumbnails must all have one shape", expected=shape, actual=small.shape)
    return np.stack(thumbnails).reshape(len(thumbnails), -1).astype(np.float64)


def _squared_distances(queries_QD: Float64Array, pages_ND: Float64Array) -> Float64Array:
    """|q - p|^2 = |q|^2 + |p|^2 - 2 q.p, exact here: whole numbers far below 2^53."""
    squares_Q, squares_N = (queries_QD**2).sum(axis=1), (pages_ND**2).sum(axis=1)
    distances: Float64Array = squares_Q[:, None] + squares_N - 2 * queries_QD @ pages_ND.T
    return distances
