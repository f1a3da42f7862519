"""A matrix that lies in a file, read and turned into float32 a few rows at a time.

The blocks of GGUF are turned into floats by the `gguf` package. Headers (GGUF specification, versions 2 and 3,
little-endian) are read here: every length in a file is checked against the file's size before it is believed, since it
may be truncated, or anything, and a tokenizer's words are skipped, where that package's reader keeps an object of each.
bf16 is the upper half of a float32.

Legend: N rows, C columns.
"""

import functools
import mmap
import struct
from collections.abc import Callable, Sequence
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
    """How numbers are stored: `numbers` of them in a block of `size` bytes, and how rows of bytes become float32
    (N, C)."""

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
        return self.format.read(np.ascontiguousarray(raw))


def _plain(kind: str) -> _Read:
    return lambda rows: rows.view(kind).astype(np.float32)


def _bf16(rows: Bytes) -> Float32Array:
    return (rows.view("<u2").astype(np.uint32) << 16).view(np.float32)


F64 = Format(name="F64", numbers=1, size=8, read=_plain("<f8"))
F32 = Format(name="F32", numbers=1, size=4, read=_plain("<f4"))
F16 = Format(name="F16", numbers=1, size=2, read=_plain("<f2"))
BF16 = Format(name="BF16", numbers=1, size=2, read=_bf16)
_PLAIN_FORMATS = {0: F32, 1: F16, 28: F64, 30: BF16}


@functools.cache
def gguf_format(kind: int) -> Format | None:
    """How numbers of ggml's type `kind` are stored; None for a type that the `gguf` package cannot turn into floats."""
    if kind in _PLAIN_FORMATS:
        return _PLAIN_FORMATS[kind]
    import gguf  # noqa: PLC0415 - only blocks need it

    try:
        known = gguf.GGMLQuantizationType(kind)
        numbers, size = gguf.GGML_QUANT_SIZES[known]
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), known)
    except (ValueError, KeyError, NotImplementedError):
        return None
    return Format(
        name=known.name,
        numbers=numbers,
        size=size,
        read=lambda rows: np.asarray(gguf.quants.dequantize(rows, known), dtype=np.float32),
    )


_SIMPLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_TOKENIZER, _TOKENS = b"tokenizer.ggml.model", b"tokenizer.ggml.tokens"
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


def read_gguf_tokens(path: Path) -> tuple[bytes, list[bytes]]:
    """The kind of tokenizer that the file names, and its tokens by id; empty where it holds none. Raises as
    `read_gguf_header`."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data, path.name, wanted=(_TOKENIZER, _TOKENS))
        cursor.header()
        kind = cursor.found.get(_TOKENIZER, [b""])
        return kind[0], cursor.found.get(_TOKENS, [])


class _Cursor:
    """Goes through a header. `found`: of the metadata `wanted`, what are strings or lists of strings."""

    def __init__(self, data: mmap.mmap, name: str, wanted: Sequence[bytes] = ()) -> None:
        self.wanted = wanted
        self.found: dict[bytes, list[bytes]] = {}
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
            elif key in self.wanted and kind in {_STRING, _ARRAY}:
                self.found[key] = self.strings(kind)
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

    def strings(self, kind: int) -> list[bytes]:
        """One string, or a list of them. Raises InputError for a list of anything else."""
        if kind == _STRING:
            return [self.string()]
        inner = self.number("I")
        if inner != _STRING:
            raise InputError(f"{self.name}: a list of something else than text", expected=_STRING, actual=inner)
        return [self.string() for _ in range(self.count(8))]

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
