"""Plain text: lines of JSON, a column of parquet, and the captions of pictures without them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Document, PictureRef, Source
from lensmith.data.sources.base import files_named, well_formed
from lensmith.data.sources.lines import JsonRecords
from lensmith.data.sources.packages import FluentEmojiConfig, OpenmojiConfig, TuxpaintConfig
from lensmith.data.sources.rows import TEXT, ParquetRows
from lensmith.data.sources.shapes import ShapesConfig
from lensmith.data.sources.tars import TarConfig


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
        self._records = JsonRecords(config.paths, ".jsonl")
        self.fingerprint = sha256_of_bytes(f"{self._records.fingerprint}\n{self._field}".encode())

    def __len__(self) -> int:
        return len(self._records)

    def document(self, index: int) -> Document:
        record = self._records.read(index)
        return _of_text(record.values.get(self._field), self._field, record.key)

    def picture(self, ref: PictureRef) -> bytes:
        raise _no_picture(ref)


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
