"""How alike two screenshots are as pictures, without looking for text.

Most of a web page is background, so one minus the mean difference gives a blank page 0.9 against nearly any page. Here
the difference is taken relative to the *ink*: what stands out from the page's commonest colour. A blank page has none
and scores 0 against every page on the same background. The comparison is made at three scales (cells of 2, 8 and 32
pixels): the finest sees letters and edges, the middle one forgives a shift of a few pixels, the coarsest sees only
where the masses lie. This stands where Design2Code has CLIP, which needs weights and gives a failing page 0.77.

Beside it stands SSIM (Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
Transactions on Image Processing 13(4), 2004), as others report it for pages. It is high wherever both are plain, so it
gives a blank page a high mark: compare it with the one that the blank page has.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lensmith.core.arrays import Float64Array
from lensmith.core.errors import ShapeError
from lensmith.core.images import on_white

PictureLike = Image.Image | NDArray[np.uint8] | bytes
RgbArray = NDArray[np.uint8]

_FIRST_CELL_PX = 2
_NEXT_CELLS = (4, 4)  # each scale averages 4 x 4 cells of the one before: cells of 2, 8 and 32 px
_LARGE_PICTURE_VALUES = 300_000
_WHITE = (255, 255, 255)

_SSIM_SIGMA_PX, _SSIM_REACH_PX = 1.5, 5
"""A Gaussian window of 11 x 11, as in the paper."""
_SSIM_STEADY = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
_ROWS_AT_ONCE = 512


def rgb_array(picture: PictureLike) -> RgbArray:
    """Shape (height, width, 3), 8-bit sRGB; what is transparent shows white.

    Takes a pillow picture, encoded bytes (a `Page.png`), or an array (height, width[, 1, 3 or 4]) of uint8.
    """
    if isinstance(picture, bytes):
        with Image.open(io.BytesIO(picture)) as opened:
            return rgb_array(opened.copy())
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.size == 0:
            raise ShapeError(
                "this array is not a picture",
                expected="uint8 of shape (height, width), (height, width, 3) or (height, width, 4)",
                actual=f"{picture.dtype} of shape {picture.shape}",
            )
        if picture.ndim == 3 and picture.shape[2] == 3:
            return picture
        return rgb_array(Image.fromarray(picture.squeeze()))
    return np.asarray(picture if picture.mode == "RGB" else on_white(picture))


def background_colour(rgb: RgbArray) -> Float64Array:
    """The commonest colour of a picture (height, width, 3), as (3,) floats in 0..255.

    Colours are first counted in steps of 8, so that noise and gradients do not split the vote; of a large picture
    every second row and column is counted.
    """
    sampled = rgb[::2, ::2] if rgb.size > _LARGE_PICTURE_VALUES else rgb
    pixels = sampled.reshape(-1, 3)
    bins = _packed(pixels >> 3, bits=5)
    commonest = pixels[bins == np.bincount(bins).argmax()]
    within = int(np.bincount(_packed(commonest & 7, bits=3)).argmax())
    colour: Float64Array = (commonest[0] & 0xF8) + np.array(
        [within >> 6, within >> 3 & 7, within & 7], dtype=np.float64
    )
    return colour


def _packed(levels: NDArray[np.integer[Any]], *, bits: int) -> NDArray[np.uint16]:
    wide = levels.astype(np.uint16)
    return (wide[:, 0] << np.uint16(2 * bits)) | (wide[:, 1] << np.uint16(bits)) | wide[:, 2]


def pixel_similarity(first: PictureLike, second: PictureLike) -> float:
    """Likeness in [0, 1], symmetric; equal pictures give 1, a blank page against a full one 0.

    Pictures of different size are laid on one canvas at the top left, and what is missing is white. At each scale the
    likeness is 1 - sum|a - b| / sum(|a - background| + |b - background|) over cells and colour channels; the mean of
    all scales, and of the two pictures' backgrounds, is returned.
    """
    rgb_first, rgb_second = rgb_array(first), rgb_array(second)
    backgrounds = [background_colour(rgb_first), background_colour(rgb_second)]
    height, width = np.maximum(rgb_first.shape[:2], rgb_second.shape[:2])
    cells_first = _on_canvas(rgb_first, int(height), int(width)).reduce(_FIRST_CELL_PX)
    cells_second = _on_canvas(rgb_second, int(height), int(width)).reduce(_FIRST_CELL_PX)
    likenesses = _ink_likenesses(cells_first, cells_second, backgrounds)
    for factor in _NEXT_CELLS:
        cells_first, cells_second = cells_first.reduce(factor), cells_second.reduce(factor)
        likenesses += _ink_likenesses(cells_first, cells_second, backgrounds)
    return float(np.mean(likenesses))


def structural_similarity(first: PictureLike, second: PictureLike) -> float:
    """SSIM of the pictures' brightness (ITU-R 601), the mean over all windows that lie in the picture: 1 for equal
    ones, symmetric, at least -1.

    Pictures of different size are laid on one canvas as in `pixel_similarity`; it is at least a window in size.
    """
    rgb_first, rgb_second = rgb_array(first), rgb_array(second)
    side = 2 * _SSIM_REACH_PX + 1
    height, width = (int(max(side, *sizes)) for sizes in zip(rgb_first.shape[:2], rgb_second.shape[:2], strict=True))
    a, b = (np.asarray(_on_canvas(rgb, height, width).convert("L")) for rgb in (rgb_first, rgb_second))
    total = 0.0
    rows = height - 2 * _SSIM_REACH_PX
    for top in range(0, rows, _ROWS_AT_ONCE):
        strip = slice(top, min(top + _ROWS_AT_ONCE, rows) + 2 * _SSIM_REACH_PX)
        total += float(_ssim_map(a[strip].astype(np.float64), b[strip].astype(np.float64)).sum())
    return total / (rows * (width - 2 * _SSIM_REACH_PX))


def _ssim_map(a: Float64Array, b: Float64Array) -> Float64Array:
    """SSIM of each window, by the place of its middle."""
    mean_a, mean_b = _windowed(a), _windowed(b)
    spread_a, spread_b = _windowed(a * a) - mean_a**2, _windowed(b * b) - mean_b**2
    together = _windowed(a * b) - mean_a * mean_b
    level, contrast = _SSIM_STEADY
    above = (2 * mean_a * mean_b + level) * (2 * together + contrast)
    ssim: Float64Array = above / ((mean_a**2 + mean_b**2 + level) * (spread_a + spread_b + contrast))
    return ssim


def _windowed(values: Float64Array) -> Float64Array:
    """Weighted means of all windows that lie in the array."""
    steps = np.arange(-_SSIM_REACH_PX, _SSIM_REACH_PX + 1)
    weights = np.exp(-(steps**2) / (2 * _SSIM_SIGMA_PX**2))
    weights /= weights.sum()
    means = ndimage.correlate1d(ndimage.correlate1d(values, weights, axis=0), weights, axis=1)
    inside: Float64Array = means[_SSIM_REACH_PX:-_SSIM_REACH_PX, _SSIM_REACH_PX:-_SSIM_REACH_PX]
    return inside


def page_size_error(first_px: tuple[float, float], second_px: tuple[float, float]) -> float:
    """How far two page sizes (width, height) are apart, in [0, 1): 1 - smaller / larger, of the widths times of the
    heights. 0 for equal sizes; half the height gives 0.5."""
    ratios = [min(a, b) / max(a, b) for a, b in zip(first_px, second_px, strict=True)]
    return 1 - ratios[0] * ratios[1]


def _on_canvas(rgb: RgbArray, height: int, width: int) -> Image.Image:
    canvas = Image.new("RGB", (width, height), _WHITE)
    canvas.paste(Image.fromarray(rgb), (0, 0))
    return canvas


def _ink_likenesses(first: Image.Image, second: Image.Image, backgrounds: list[Float64Array]) -> list[float]:
    a, b = np.asarray(first, dtype=np.float32), np.asarray(second, dtype=np.float32)
    difference = float(np.abs(a - b).sum(dtype=np.float64))
    likenesses = []
    for background in backgrounds:
        level = background.astype(np.float32)
        ink = float(np.abs(a - level).sum(dtype=np.float64) + np.abs(b - level).sum(dtype=np.float64))
        likenesses.append(1 - min(1.0, difference / ink) if difference > 0 else 1.0)
    return likenesses
