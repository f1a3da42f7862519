"""A matrix that lies in a file, read and turned into float32 a few rows at a time.

The block formats are those of GGUF (ggml's `ggml-common.h`, and the Python reference in the `gguf` package, against
which the tests compare every one of them). bf16 is the upper half of a float32.

Legend: N rows, C columns, B blocks in a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.core.errors import InputError, ShapeError

Float32Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]
_Read = Callable[[Bytes], Float32Array]


@dataclass(frozen=True, kw_only=True)
class Format:
    """How numbers are stored: `numbers` of them in a block of `size` bytes, and how blocks (..., size) become float32
    (..., numbers)."""

    name: str
    numbers: int
    size: int
    read: _Read


@dataclass(frozen=True, kw_only=True)
class StoredMatrix:
    """A matrix of N x C numbers that begins at byte `offset` of a file, row after row. Nothing is read before it is
    asked for: `matrix[10:20]` is rows 10 to 19 as float32, `matrix.rows(ids)` any rows."""

    path: Path
    name: str
    shape: tuple[int, int]
    offset: int
    format: Format

    def __getitem__(self, rows: slice) -> Float32Array:
        return self._decoded(self._bytes()[rows])

    def rows(self, ids: NDArray[np.integer[Any]]) -> Float32Array:
        """These rows, in this order. Raises ShapeError for an id that is no row."""
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape[0]:
            raise ShapeError(
                f"{self.name} has no such row", expected=f"0 to {self.shape[0] - 1}", actual=int(ids.max())
            )
        return self._decoded(self._bytes()[ids])

    def _bytes(self) -> Bytes:
        row_bytes = self.shape[1] // self.format.numbers * self.format.size
        try:
            return np.memmap(self.path, np.uint8, "r", self.offset, (self.shape[0], row_bytes))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path.name}: {self.name} cannot be read", actual=error) from error

    def _decoded(self, raw: Bytes) -> Float32Array:
        blocks_NBS = np.ascontiguousarray(raw).reshape(len(raw), -1, self.format.size)
        return self.format.read(blocks_NBS).reshape(len(raw), self.shape[1])


def _plain(kind: str) -> _Read:
    def read(blocks: Bytes) -> Float32Array:
        return blocks.view(kind).astype(np.float32)

    return read


def _bf16(blocks: Bytes) -> Float32Array:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _half(blocks: Bytes, start: int) -> Float32Array:
    """The float16 at this byte of each block, as (..., 1)."""
    return np.ascontiguousarray(blocks[..., start : start + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> NDArray[np.int16]:
    """The low halves of all bytes, then the high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.int16)


def _fifth_bits(blocks: Bytes, start: int) -> NDArray[np.int16]:
    bits = np.unpackbits(blocks[..., start : start + 4], axis=-1, bitorder="little")
    return bits.astype(np.int16) << 4


def _q8_0(blocks: Bytes) -> Float32Array:
    return _half(blocks, 0) * np.ascontiguousarray(blocks[..., 2:]).view(np.int8)


def _q4_0(blocks: Bytes) -> Float32Array:
    return _half(blocks, 0) * (_nibbles(blocks[..., 2:]) - 8)


def _q4_1(blocks: Bytes) -> Float32Array:
    return _half(blocks, 0) * _nibbles(blocks[..., 4:]) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Float32Array:
    return _half(blocks, 0) * ((_nibbles(blocks[..., 6:]) | _fifth_bits(blocks, 2)) - 16)


def _q5_1(blocks: Bytes) -> Float32Array:
    return _half(blocks, 0) * (_nibbles(blocks[..., 8:]) | _fifth_bits(blocks, 4)) + _half(blocks, 2)


def _scales_and_minima(packed: Bytes) -> tuple[Float32Array, Float32Array]:
    """Eight scales and eight minima of 6 bits each, in 12 bytes."""
    low, middle, high = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=-1)
    minima = np.concatenate([middle & 63, (high >> 4) | ((middle >> 6) << 4)], axis=-1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_nibbles(packed: Bytes) -> Bytes:
    """128 bytes to 8 x 32 numbers: each 32 bytes hold one group in their low and the next in their high halves."""
    groups = packed.reshape(*packed.shape[:-1], 4, 1, 32)
    return np.concatenate([groups & 15, groups >> 4], axis=-2).reshape(*packed.shape[:-1], 8, 32)


def _scaled_groups(blocks: Bytes, numbers: NDArray[np.integer[Any]]) -> Float32Array:
    scales, minima = _scales_and_minima(blocks[..., 4:16])
    scales, minima = _half(blocks, 0) * scales, _half(blocks, 2) * minima
    result: Float32Array = scales[..., None] * numbers - minima[..., None]
    return result


def _q4_k(blocks: Bytes) -> Float32Array:
    return _scaled_groups(blocks, _k_nibbles(blocks[..., 16:144]))


def _q5_k(blocks: Bytes) -> Float32Array:
    high = blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return _scaled_groups(blocks, _k_nibbles(blocks[..., 48:176]) | high << 4)


def _q6_k(blocks: Bytes) -> Float32Array:
    halves = blocks.shape[:-1]
    low = blocks[..., :128].reshape(*halves, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=-2).reshape(*halves, 2, 4, 32)
    high = blocks[..., 128:192].reshape(*halves, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    numbers = (low | high << 4).astype(np.int16).reshape(*halves, 16, 16) - 32
    scales = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float32)
    result: Float32Array = (_half(blocks, 208) * scales)[..., None] * numbers
    return result


F64 = Format(name="F64", numbers=1, size=8, read=_plain("<f8"))
F32 = Format(name="F32", numbers=1, size=4, read=_plain("<f4"))
F16 = Format(name="F16", numbers=1, size=2, read=_plain("<f2"))
BF16 = Format(name="BF16", numbers=1, size=2, read=_bf16)

GGUF_FORMATS = {
    0: F32,
    1: F16,
    2: Format(name="Q4_0", numbers=32, size=18, read=_q4_0),
    3: Format(name="Q4_1", numbers=32, size=20, read=_q4_1),
    6: Format(name="Q5_0", numbers=32, size=22, read=_q5_0),
    7: Format(name="Q5_1", numbers=32, size=24, read=_q5_1),
    8: Format(name="Q8_0", numbers=32, size=34, read=_q8_0),
    12: Format(name="Q4_K", numbers=256, size=144, read=_q4_k),
    13: Format(name="Q5_K", numbers=256, size=176, read=_q5_k),
    14: Format(name="Q6_K", numbers=256, size=210, read=_q6_k),
    28: F64,
    30: BF16,
}
"""By ggml's type number."""
