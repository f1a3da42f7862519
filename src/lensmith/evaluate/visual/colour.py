"""How far apart two colours look: sRGB to CIE Lab, and CIEDE2000.

Source: Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula: Implementation Notes, Supplementary Test Data,
and Mathematical Observations" (Color Research and Application 30(1), 2005); sRGB as in IEC 61966-2-1, white D65 at two
degrees. Design2Code takes `max(0, 1 - distance / 100)` as likeness, and so do we.
"""

import numpy as np
from numpy.typing import ArrayLike

from lensmith.core.arrays import Float64Array

# Linear sRGB to XYZ, and the D65 white that it maps (1, 1, 1) to.
_XYZ_FROM_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE_XYZ = np.array([0.95047, 1.0, 1.08883])
_LAB_LINEAR_BELOW = (6 / 29) ** 3
_SEVENTH_POWER_OF_25 = 25.0**7


def lab_from_rgb(rgb: ArrayLike) -> Float64Array:
    """sRGB in 0..255, shape (..., 3), to CIE Lab of the same shape."""
    encoded = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    relative = linear @ _XYZ_FROM_RGB.T / _WHITE_XYZ
    curved = np.where(relative > _LAB_LINEAR_BELOW, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(curved, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(lab_first: ArrayLike, lab_second: ArrayLike) -> Float64Array:
    """CIEDE2000 distance of Lab colours, shapes (..., 3) that broadcast; k_L = k_C = k_H = 1."""
    l1, a1, b1 = np.moveaxis(np.asarray(lab_first, dtype=np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(lab_second, dtype=np.float64), -1, 0)
    stretch = 1.5 - 0.5 * _blue_weight((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = np.hypot(a1, b1), np.hypot(a2, b2)
    hue1, hue2 = _degrees(a1, b1), _degrees(a2, b2)
    grey = chroma1 * chroma2 == 0

    turn = hue2 - hue1
    turn = np.where(turn > 180, turn - 360, np.where(turn < -180, turn + 360, turn))
    turn = np.where(grey, 0.0, turn)
    hue_mean = np.where(grey, hue1 + hue2, _hue_mean(hue1, hue2))
    chroma_mean, lightness_mean = (chroma1 + chroma2) / 2, (l1 + l2) / 2

    lightness_weight = 1 + 0.015 * (lightness_mean - 50) ** 2 / np.sqrt(20 + (lightness_mean - 50) ** 2)
    chroma_weight = 1 + 0.045 * chroma_mean
    hue_weight = 1 + 0.015 * chroma_mean * _hue_dependence(hue_mean)
    rotation = -2 * _blue_weight(chroma_mean) * np.sin(np.radians(60 * np.exp(-(((hue_mean - 275) / 25) ** 2))))

    lightness_term = (l2 - l1) / lightness_weight
    chroma_term = (chroma2 - chroma1) / chroma_weight
    hue_term = 2 * np.sqrt(chroma1 * chroma2) * np.sin(np.radians(turn / 2)) / hue_weight
    squared = lightness_term**2 + chroma_term**2 + hue_term**2 + rotation * chroma_term * hue_term
    distance: Float64Array = np.sqrt(np.maximum(squared, 0.0))
    return distance


def colour_similarity(rgb_first: ArrayLike, rgb_second: ArrayLike) -> Float64Array:
    """Likeness in [0, 1] of sRGB colours in 0..255, shapes (..., 3) that broadcast: max(0, 1 - CIEDE2000 / 100)."""
    distance = ciede2000(lab_from_rgb(rgb_first), lab_from_rgb(rgb_second))
    return np.maximum(0.0, 1 - distance / 100)


def _blue_weight(chroma: Float64Array) -> Float64Array:
    seventh = chroma**7
    return np.sqrt(seventh / (seventh + _SEVENTH_POWER_OF_25))


def _degrees(a: Float64Array, b: Float64Array) -> Float64Array:
    return np.degrees(np.arctan2(b, a)) % 360


def _hue_mean(hue1: Float64Array, hue2: Float64Array) -> Float64Array:
    # The mean on the circle; past 180 degrees apart the short way round passes through 0 (Sharma et al., equation 14).
    total = hue1 + hue2
    wrapped = np.where(total < 360, total + 360, total - 360)
    return np.where(np.abs(hue1 - hue2) <= 180, total, wrapped) / 2


def _hue_dependence(hue: Float64Array) -> Float64Array:
    def cosine(multiple: float, offset: float) -> Float64Array:
        return np.cos(np.radians(multiple * hue + offset))

    return 1 - 0.17 * cosine(1, -30) + 0.24 * cosine(2, 0) + 0.32 * cosine(3, 6) - 0.20 * cosine(4, -63)
