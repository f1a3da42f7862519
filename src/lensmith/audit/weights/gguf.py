"""A matrix that lies in a file, read and turned into float32 a few rows at a time.

The block formats are those of GGUF (ggml's `ggml-common.h`, and the Python reference in the `gguf` package, against
which the tests compare every one of them). bf16 is the upper half of a float32.

Legend: N rows, C columns, B blocks in a row.

The header of a GGUF file: which tensors lie where. (GGUF specification, versions 2 and 3, little-endian.)

Every length in the file is checked against its size before it is believed: the file may be truncated, or anything.
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.core.arrays import Float32Array
from lensmith.core.errors import InputError, ShapeError

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


_SIMPLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """One tensor: `shape` with the contiguous axis last, ggml's number of its `kind`, and its first byte."""

    shape: tuple[int, ...]
    kind: int
    offset: int


def read_gguf_header(path: Path) -> dict[str, GgufTensor]:
    """Tensors by name. Raises InputError for a file that is no GGUF, is truncated or contradicts itself."""
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise InputError(f"{path.name} is no GGUF file", expected="24 bytes or more", actual=path.stat().st_size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data, path.name).header()


class _Cursor:
    def __init__(self, data: mmap.mmap, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 0

    def header(self) -> dict[str, GgufTensor]:
        if self.take(4) != b"GGUF":
            raise InputError(f"{self.name} is no GGUF file", expected="the letters GGUF", actual=bytes(self.data[:4]))
        version = self.number("I")
        if version not in {2, 3}:
            raise InputError(f"{self.name}: unknown GGUF version", expected="2 or 3, little-endian", actual=version)
        tensors, pairs = self.count(24), self.count(12)
        alignment = 32
        for _ in range(pairs):
            key, kind = self.string(), self.number("I")
            if key == b"general.alignment" and kind == 4:
                alignment = self.number("I")
            else:
                self.skip_value(kind)
        found = [self.tensor() for _ in range(tensors)]
        if alignment < 1 or alignment > len(self.data):
            raise InputError(f"{self.name}: impossible alignment", actual=alignment)
        start = -(-self.at // alignment) * alignment
        return {name: GgufTensor(shape=shape, kind=kind, offset=start + offset) for name, shape, kind, offset in found}

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            expected = f"{size} more bytes at {self.at}"
            raise InputError(
                f"{self.name} is truncated or damaged",
                expected=expected,
                actual=f"{len(self.data) - self.at}",
                hint="download it again",
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind: str) -> int:
        return int(struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0])

    def count(self, smallest: int) -> int:
        """A count of things of at least `smallest` bytes each."""
        count = self.number("Q")
        if count * smallest > len(self.data) - self.at:
            left = len(self.data) - self.at
            raise InputError(
                f"{self.name} is truncated or damaged", expected=f"{count} entries", actual=f"{left} bytes"
            )
        return count

    def string(self) -> bytes:
        return self.take(self.count(1))

    def skip_value(self, kind: int, depth: int = 0) -> None:
        if kind in _SIMPLE:
            self.take(struct.calcsize("<" + _SIMPLE[kind]))
        elif kind == _STRING:
            self.string()
        elif kind == _ARRAY and depth < _MAX_DEPTH:
            inner, count = self.number("I"), self.count(1)
            if inner in _SIMPLE:
                self.take(count * struct.calcsize("<" + _SIMPLE[inner]))
            else:
                for _ in range(count):
                    self.skip_value(inner, depth + 1)
        else:
            raise InputError(f"{self.name}: unknown kind of metadata", expected="0 to 12", actual=kind)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self.string().decode(errors="replace"), self.number("I")
        if axes > 8:
            raise InputError(f"{self.name}: {name} has too many axes", expected="at most 8", actual=axes)
        shape = tuple(self.number("Q") for _ in range(axes))[::-1]
        return name, shape, self.number("I"), self.number("Q")
