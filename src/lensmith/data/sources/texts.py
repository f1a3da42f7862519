"""Plain text: lines of JSON, a column of parquet, and the captions of pictures without them."""

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Document, PictureRef, Source
from lensmith.data.sources.base import files_named, well_formed
from lensmith.data.sources.indexes import Index, index_of
from lensmith.data.sources.members import check_uncompressed, read_at
from lensmith.data.sources.packages import FluentEmojiConfig, OpenmojiConfig, TuxpaintConfig
from lensmith.data.sources.rows import TEXT, ParquetRows, part_of
from lensmith.data.sources.shapes import ShapesConfig
from lensmith.data.sources.tars import TarConfig

_FORM = "lines-1"


@dataclass(frozen=True, kw_only=True)
class JsonlConfig:
    """Files of a JSON object a line, or folders of them; `field` holds the text. Empty lines are no records."""

    kind: ClassVar[str] = "jsonl"
    paths: tuple[Path, ...]
    field: str = "text"

    def open(self) -> "JsonlSource":
        """Raises InputError where there is no file, or one is compressed."""
        return JsonlSource(self)


class JsonlSource:
    """A document for each line. Made by `JsonlConfig.open`. The fingerprint is that of all bytes."""

    def __init__(self, config: JsonlConfig) -> None:
        self._field = config.field
        self._files = files_named(config.paths, ".jsonl")
        indexes = [index_of(path, _build, form=_FORM) for path in self._files]
        self._places = [(index.rows["at"].to_numpy(), index.rows["bytes"].to_numpy()) for index in indexes]
        self._ends = list(itertools.accumulate(len(at_N) for at_N, _ in self._places))
        self.fingerprint = sha256_of_bytes("\n".join([*(index.fingerprint for index in indexes), self._field]).encode())

    def __len__(self) -> int:
        return self._ends[-1]  # there is a file

    def document(self, index: int) -> Document:
        file, row = part_of(self._ends, index)
        at_N, bytes_N = self._places[file]
        key = f"{self._files[file].name}, byte {at_N[row]}"
        line = read_at(self._files[file], int(at_N[row]), int(bytes_N[row]))
        try:
            values = json.loads(line)
        except UnicodeDecodeError as error:
            raise BadRecordError("its line is not UTF-8", actual=key) from error
        except (ValueError, RecursionError) as error:
            raise BadRecordError("its line is not JSON", actual=key) from error
        return _of_text(values.get(self._field) if isinstance(values, dict) else None, self._field, key)

    def picture(self, ref: PictureRef) -> bytes:
        raise _no_picture(ref)


def _build(path: Path) -> Index:
    """A row for each line that is not empty."""
    at, places, digest = 0, [], hashlib.sha256()
    with path.open("rb") as file:
        check_uncompressed(file, path)
        for line in file:
            digest.update(line)
            if line.strip():
                places.append((at, len(line)))
            at += len(line)
    at_N2 = np.array(places, np.int64).reshape(-1, 2)
    return Index(rows=pa.table({"at": at_N2[:, 0], "bytes": at_N2[:, 1]}), fingerprint=digest.hexdigest())


@dataclass(frozen=True, kw_only=True)
class ParquetConfig:
    """Parquet files, or folders of them; the column `field` holds the text."""

    kind: ClassVar[str] = "parquet"
    paths: tuple[Path, ...]
    field: str = "text"

    def open(self) -> "ParquetSource":
        """Raises InputError where there is no file, or one is no parquet with such a column of text."""
        return ParquetSource(self)


class ParquetSource:
    """A document for each row. Made by `ParquetConfig.open`; see `ParquetRows`."""

    def __init__(self, config: ParquetConfig) -> None:
        self._field = config.field
        self._rows = ParquetRows(files_named(config.paths, ".parquet"), {config.field: TEXT})
        self.fingerprint = sha256_of_bytes(f"{self._rows.fingerprint}\n{self._field}".encode())

    def __len__(self) -> int:
        return len(self._rows)

    def document(self, index: int) -> Document:
        row = self._rows.row(index)
        try:
            text = row.values[self._field].as_py()
        except UnicodeDecodeError as error:
            raise BadRecordError("its text is not UTF-8", actual=row.key) from error
        return _of_text(text, self._field, row.key)

    def picture(self, ref: PictureRef) -> bytes:
        raise _no_picture(ref)


CaptionedConfig = FluentEmojiConfig | OpenmojiConfig | ShapesConfig | TarConfig | TuxpaintConfig


@dataclass(frozen=True, kw_only=True)
class CaptionTextsConfig:
    """The captions of `source` as texts: what can be known of them without their pictures."""

    kind: ClassVar[str] = "caption_texts"
    source: CaptionedConfig

    def open(self) -> "CaptionTexts":
        """Raises as the source's own `open`."""
        return CaptionTexts(self.source.open())


class CaptionTexts:
    """The documents of a source without their pictures. A document without text is a bad one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.fingerprint = sha256_of_bytes(f"caption texts\n{source.fingerprint}".encode())

    def __len__(self) -> int:
        return len(self._source)

    def document(self, index: int) -> Document:
        document = self._source.document(index)
        texts = tuple(piece for piece in document.pieces if isinstance(piece, str))
        if not texts:
            raise BadRecordError("its text is empty", actual=document.key)
        return Document(key=document.key, pieces=texts)

    def picture(self, ref: PictureRef) -> bytes:
        raise _no_picture(ref)


def _of_text(text: object, field: str, key: str) -> Document:
    if not isinstance(text, str):
        raise BadRecordError(f"it has no text {field!r}", actual=key)
    if not text.strip():
        raise BadRecordError("its text is empty", actual=key)
    return Document(key=key, pieces=(well_formed(text),))


def _no_picture(ref: PictureRef) -> BadRecordError:
    return BadRecordError("a source of text has no pictures", actual=ref.place)
