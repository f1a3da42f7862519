"""Records of JSON: an object a line, or the elements of one array, read by their place from any thread.

Where each record lies is found in one pass and kept beside the file. A record that cannot be read costs itself; an
array that is damaged or cut short is refused as a whole, since behind the damage no element's beginning is known.
"""

import codecs
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError
from lensmith.data.sources.base import files_named
from lensmith.data.sources.indexes import Index, index_of
from lensmith.data.sources.members import check_uncompressed, read_at
from lensmith.data.sources.rows import part_of

_LINES, _ITEMS = "lines-1", "items-1"
_CHUNK_BYTES = 1 << 20
_SPACE = " \t\r\n"


@dataclass(frozen=True, kw_only=True)
class JsonRecord:
    """An object's fields; `key` says where it is."""

    key: str
    values: dict[str, Any]


class JsonRecords:
    """The records of files, one file after the other: lines in .jsonl, in .json lines or an array.

    The fingerprint is that of all bytes. Raises InputError where there is no file, or one is compressed or no array
    that is whole.
    """

    def __init__(self, paths: Sequence[Path], *suffixes: str) -> None:
        self._files = files_named(paths, *suffixes)
        indexes = [_index(path) for path in self._files]
        self._places = [(index.rows["at"].to_numpy(), index.rows["bytes"].to_numpy()) for index in indexes]
        self._ends = list(itertools.accumulate(len(at_N) for at_N, _ in self._places))
        self.fingerprint = sha256_of_bytes("\n".join(index.fingerprint for index in indexes).encode())

    def __len__(self) -> int:
        return self._ends[-1]  # there is a file

    def read(self, index: int) -> JsonRecord:
        """Raises BadRecordError for what is no JSON object in UTF-8, or has two values under one name."""
        file, row = part_of(self._ends, index)
        at_N, bytes_N = self._places[file]
        key = f"{self._files[file].name}, byte {at_N[row]}"
        content = read_at(self._files[file], int(at_N[row]), int(bytes_N[row]))
        try:
            values = json.loads(content, object_pairs_hook=_without_duplicates)
        except UnicodeDecodeError as error:
            raise BadRecordError("its line is not UTF-8", actual=key) from error
        except BadRecordError as error:
            raise BadRecordError(error.problem, actual=f"{key}: {error.actual}") from error
        except (ValueError, RecursionError) as error:
            raise BadRecordError("its line is not JSON", actual=key) from error
        if not isinstance(values, dict):
            raise BadRecordError("its line is no JSON object", actual=key)
        return JsonRecord(key=key, values=values)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRecordError("a name stands twice in its JSON", actual=repr(twice[:80]))
    return values


def _index(path: Path) -> Index:
    is_array = path.suffix != ".jsonl" and _begins_as_array(path)
    return index_of(path, _items if is_array else _lines, form=_ITEMS if is_array else _LINES)


def _begins_as_array(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            begin = file.read(_CHUNK_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}", actual=error.strerror) from error
    return begin.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _lines(path: Path) -> Index:
    """A row for each line that is not empty."""
    at, places, digest = 0, [], hashlib.sha256()
    with path.open("rb") as file:
        check_uncompressed(file, path)
        for line in file:
            digest.update(line)
            if line.removeprefix(codecs.BOM_UTF8).strip():
                places.append((at, len(line)))
            at += len(line)
    return _placed(places, digest.hexdigest())


def _items(path: Path) -> Index:
    """A row for each element of the array that the file is."""
    digest = hashlib.sha256()
    places = list(_places_of_items(path, digest))
    return _placed(places, digest.hexdigest())


def _placed(places: Sequence[tuple[int, int]], fingerprint: str) -> Index:
    at_N2 = np.array(places, np.int64).reshape(-1, 2)
    return Index(rows=pa.table({"at": at_N2[:, 0], "bytes": at_N2[:, 1]}), fingerprint=fingerprint)


class _Text:
    """A file's text from byte `at` on, as much of it as was asked for. What is no UTF-8 keeps its bytes."""

    def __init__(self, path: Path, digest: "hashlib._Hash") -> None:
        self._file = path.open("rb")
        self._digest = digest
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.is_whole = False
        self.text, self.at = "", 0

    def __enter__(self) -> "_Text":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def more(self) -> bool:
        """Reads on, at least as much as there is. False at the file's end."""
        if self.is_whole:
            return False
        content = self._file.read(max(_CHUNK_BYTES, len(self.text)))
        self._digest.update(content)
        self.is_whole = not content
        self.text += self._decoder.decode(content, final=self.is_whole)
        return True

    def skip(self, count: int) -> int:
        """Forgets so many characters, and returns how many bytes they were."""
        size = len(self.text[:count].encode("utf-8", "surrogateescape"))
        self.text, self.at = self.text[count:], self.at + size
        return size


def _places_of_items(path: Path, digest: "hashlib._Hash") -> Iterator[tuple[int, int]]:
    decoder = json.JSONDecoder()
    with _Text(path, digest) as read:
        read.more()
        if read.text.startswith("\ufeff"):
            read.skip(1)
        place = _behind(read, 0, "[", path)
        place = _word(read, place)
        if read.text[place : place + 1] != "]":
            while True:
                place, end = _item(read, decoder, place, path)
                read.skip(place)
                begin = read.at
                yield begin, read.skip(end - place)
                place = _word(read, 0)
                if read.text[place : place + 1] == "]":
                    break
                place = _word(read, _behind(read, place, ",", path))
        place = _word(read, place + 1)
        if place < len(read.text):
            raise _damaged(read, place, path, "more behind the array's end")


def _word(read: _Text, place: int) -> int:
    """Where the next character is that is no space, or the end."""
    while True:
        while place < len(read.text) and read.text[place] in _SPACE:
            place += 1
        if place < len(read.text) or not read.more():
            return place


def _behind(read: _Text, place: int, sign: str, path: Path) -> int:
    place = _word(read, place)
    if read.text[place : place + 1] != sign:
        found = repr(read.text[place : place + 20]) if place < len(read.text) else "the end"
        raise _damaged(read, place, path, f"{found} where {sign!r} belongs")
    return place + 1


def _item(read: _Text, decoder: json.JSONDecoder, place: int, path: Path) -> tuple[int, int]:
    while True:
        try:
            _, end = decoder.raw_decode(read.text, place)
        except (ValueError, RecursionError) as error:
            if isinstance(error, RecursionError) or not read.more():
                raise _damaged(read, place, path, error) from error
            continue
        if end < len(read.text) or not read.more():  # else it may go on, as a number does
            return place, end


def _damaged(read: _Text, place: int, path: Path, actual: object) -> InputError:
    read.skip(place)
    return InputError(
        f"{path} is damaged or cut short at byte {read.at:,}",
        expected="one JSON array, or an object a line",
        actual=actual,
        hint="write or fetch it again, or leave it out",
    )
