"""The header of a GGUF file: which tensors lie where. (GGUF specification, versions 2 and 3, little-endian.)

Every length in the file is checked against its size before it is believed: the file may be truncated, or anything.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.errors import InputError

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
