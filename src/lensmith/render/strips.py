"""One PNG from the strips of a page that is too high to be painted at once.

Strip by strip, so that memory holds one of them and what is compressed, however high the page.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {"RGB": 2, "RGBA": 6}
_UP = 2  # the filter that codes a row as its difference from the row above: most rows of a page become zeros


class PngJoiner:
    """Takes PNGs of one width from top to bottom, and gives the PNG of all."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(level=1)  # as quick as the browser's own
        self._data: list[bytes] = []
        self._above_W: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = None
        self._mode = ""
        self._width_px = self._height_px = 0

    def add(self, png: bytes) -> None:
        """The strip below those before. It has their width and mode."""
        with Image.open(io.BytesIO(png)) as strip:
            mode = strip.mode if strip.mode in _COLOUR_TYPES else "RGB"
            pixels_HW = np.asarray(strip.convert(mode)).reshape(strip.height, -1)
            width_px, height_px = strip.size
        if self._above_W is None:
            self._mode, self._width_px, self._above_W = mode, width_px, np.zeros_like(pixels_HW[0])
        assert (mode, width_px) == (self._mode, self._width_px), "strips of one page"
        rows_HW = np.empty((height_px, 1 + pixels_HW.shape[1]), np.uint8)
        rows_HW[:, 0] = _UP
        rows_HW[0, 1:] = pixels_HW[0] - self._above_W
        rows_HW[1:, 1:] = pixels_HW[1:] - pixels_HW[:-1]
        self._above_W = pixels_HW[-1].copy()
        self._height_px += height_px
        self._data.append(self._compressor.compress(rows_HW.tobytes()))

    def png(self) -> bytes:
        """The whole picture. Nothing may be added afterwards."""
        header = struct.pack(">IIBBBBB", self._width_px, self._height_px, 8, _COLOUR_TYPES[self._mode], 0, 0, 0)
        body = b"".join((*self._data, self._compressor.flush()))
        return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b"")))


def strips(height_px: int, strip_height_px: int, scale: float) -> Iterator[tuple[int, int]]:
    """Top and height of each strip in CSS pixels, top to bottom.

    Strips are at most `strip_height_px` high at `scale`, and begin at whole rows of the scaled picture.
    """
    # Whole rows, for any scale that is a fraction of small numbers.
    unit = Fraction(scale).limit_denominator(1000).denominator
    step = max(int(strip_height_px / scale) // unit * unit, unit)
    for top in range(0, height_px, step):
        yield top, min(step, height_px - top)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
