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
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError
from lensmith.data.sources.base import files_named
from lensmith.data.sources.members import Index, check_uncompressed, index_of, read_at
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


class _Cursor:
    """A place in a file's text: `at` is its byte. What is no UTF-8 keeps its bytes."""

    def __init__(self, file: BinaryIO, path: Path, digest: "hashlib._Hash") -> None:
        self._file, self._path, self._digest = file, path, digest
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        # Only ends are looked for: no number becomes one, and none is too long.
        self._json = json.JSONDecoder(parse_int=len, parse_float=len)
        self._text, self._place = "", 0
        self._is_whole = False
        self.at = 0

    def is_next(self, sign: str) -> bool:
        """Whether `sign` comes next, behind white space, which is passed over; "" is the end of the file."""
        while True:
            end = self._place
            while end < len(self._text) and self._text[end] in _SPACE:
                end += 1
            self._pass(end)
            if end < len(self._text) or not self._more():
                return self._text[end : end + 1] == sign

    def expect(self, sign: str) -> None:
        """Passes over `sign`. Raises InputError where something else comes."""
        if not self.is_next(sign):
            found = self._text[self._place : self._place + 20]
            raise self._damaged(f"{found!r} where {sign or 'the end'} belongs" if found else f"the end, not {sign}")
        self._pass(self._place + len(sign))

    def value(self) -> tuple[int, int]:
        """Passes over a value of any kind: the byte where it begins, and how many it has."""
        self.is_next("")
        while True:
            try:
                _, end = self._json.raw_decode(self._text, self._place)
            except RecursionError as error:
                raise self._damaged(error) from error
            except ValueError as error:
                if not self._more():
                    raise self._damaged(error) from error
                continue
            if end < len(self._text) or not self._more():  # else it may go on, as a number does
                begin = self.at
                self._pass(end)
                return begin, self.at - begin

    def pass_mark(self) -> None:
        """Passes over a byte order mark, if there is one."""
        self._more()
        if self._text.startswith("\ufeff"):
            self._pass(1)

    def _pass(self, end: int) -> None:
        self.at += len(self._text[self._place : end].encode("utf-8", "surrogateescape"))
        self._place = end

    def _more(self) -> bool:
        """Reads on, at least as much as is left. False at the file's end."""
        if self._is_whole:
            return False
        left = self._text[self._place :]
        content = self._file.read(max(_CHUNK_BYTES, len(left)))
        self._digest.update(content)
        self._is_whole = not content
        self._text, self._place = left + self._utf8.decode(content, final=self._is_whole), 0
        return True

    def _damaged(self, actual: object) -> InputError:
        return InputError(
            f"{self._path} is damaged or cut short at byte {self.at:,}",
            expected="one JSON array, or an object a line",
            actual=actual,
            hint="write or fetch it again, or leave it out",
        )


def _places_of_items(path: Path, digest: "hashlib._Hash") -> Iterator[tuple[int, int]]:
    with path.open("rb") as file:
        cursor = _Cursor(file, path, digest)
        cursor.pass_mark()
        cursor.expect("[")
        if not cursor.is_next("]"):
            yield cursor.value()
            while not cursor.is_next("]"):
                cursor.expect(",")
                yield cursor.value()
        cursor.expect("]")
        cursor.expect("")
