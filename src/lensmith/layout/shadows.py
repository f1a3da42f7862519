"""Shadows below surfaces, from how the colour fades outside their sides.

A browser paints a shadow as the box, moved and blurred by a Gaussian whose standard deviation is half the blur radius
(CSS Backgrounds and Borders, level 3, section 6.1). So beyond a side its strength falls from a half to nothing over
about one blur radius, and how much further it reaches below than above is twice its move.

Legend: K steps of a pixel, outwards from a side; levels 0..255.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lensmith.core.arrays import Float64Array
from lensmith.layout.ocr import Rgb3Array

REACH_PX = 40
_LEAST_DROP_LEVELS = 3.0
_LEAST_FADE_PX = 3
_STEEPEST = 0.7
"""A step that takes more of the whole fall is the edge of a line."""
_EVEN_LEVELS = 0.8


class Shadow(NamedTuple):
    """A shadow: how far it is moved down, its blur radius (px), and how black it is, in (0, 1]."""

    down_px: int
    blur_px: int
    strength: float


class Fade(NamedTuple):
    """How the colour outside a side returns to that of what lies around: over how many px, and from how much darker,
    as a share of it."""

    length_px: int
    drop: float


def fade_of(levels_K: Float64Array) -> Fade | None:
    """The fade in levels that are read outwards from a side; None where there is none, or a line."""
    if len(levels_K) < _LEAST_FADE_PX + 2:
        return None
    steps = np.diff(levels_K)
    still = np.abs(steps) <= _EVEN_LEVELS / 2
    # It has ended where three steps on end change nothing.
    ended = np.flatnonzero(still[:-2] & still[1:-1] & still[2:]) if len(still) >= 3 else np.array([], dtype=np.intp)
    length = int(ended[0]) if len(ended) else 0  # what does not end is a gradient
    if length < _LEAST_FADE_PX:
        return None
    around, drop = float(levels_K[length]), float(levels_K[length] - levels_K[0])
    falls = steps[:length]
    if drop < _LEAST_DROP_LEVELS or falls.min() < -_EVEN_LEVELS or falls.max() > _STEEPEST * drop:
        return None
    return Fade(length, drop / max(around, 1.0))


def levels_outside(rgb_HW3: Rgb3Array, box: tuple[int, int, int, int], side: int, margin: int) -> Float64Array:
    """The middle grey levels (K) of the lines outside a side of a box (left, top, right, bottom): 0 top, 1 right,
    2 bottom, 3 left. `margin`: what is left out at both ends of the side. Ends at the side of the page."""
    left, top, right, bottom = box
    if side in (0, 2):
        along = slice(left + margin, right - margin)
        above, below = rgb_HW3[max(0, top - REACH_PX) : top, along][::-1], rgb_HW3[bottom : bottom + REACH_PX, along]
        return _middles(above if side == 0 else below)
    along = slice(top + margin, bottom - margin)
    before, after = rgb_HW3[along, max(0, left - REACH_PX) : left][:, ::-1], rgb_HW3[along, right : right + REACH_PX]
    return _middles((after if side == 1 else before).swapaxes(0, 1))


def _middles(lines_KN3: Rgb3Array) -> Float64Array:
    if not lines_KN3.size:
        return np.zeros(0)
    middles: Float64Array = np.median(lines_KN3.mean(axis=2), axis=1)
    return middles


def shadow_of(fades: Mapping[int, Fade]) -> Shadow | None:
    """The shadow that fades so outside the sides (0 top, 1 right, 2 bottom, 3 left); None where none fades below."""
    below = fades.get(2)
    if below is None:
        return None
    beside = [fades[side].length_px for side in (1, 3) if side in fades]
    above = fades[0].length_px if 0 in fades else 0
    if above:
        down, blur = (below.length_px - above) / 2, (below.length_px + above) / 2
    elif beside:
        blur = _mean(beside)
        down = below.length_px - blur
    else:  # as wide as the page: of all that fade so far, the usual
        down, blur = below.length_px / 4, 3 * below.length_px / 4
    down, blur = max(0.0, down), max(1.0, blur)
    at_side = 0.5 * (1 + math.erf(down / (blur / 2) / math.sqrt(2)))
    return Shadow(round(down), round(blur), round(min(1.0, below.drop / at_side), 3))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
