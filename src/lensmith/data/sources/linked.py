"""Captioned pictures as tables of addresses and captions: how LAION, COYO, DataComp and VeCap are published.

Parquet with two columns, or JSON: an object a line, or an array of them. What each picture is, is fetched first (see
`fetching`); a record whose picture could not be fetched is a bad one, and they are counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lensmith.core.errors import ConfigError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Document, PictureRef
from lensmith.data.sources.base import files_named, well_formed
from lensmith.data.sources.lines import JsonRecords
from lensmith.data.sources.rows import TEXT, ParquetRows
from lensmith.data.sources.stores import PictureStore

_JSON = (".json", ".jsonl")


@dataclass(frozen=True, kw_only=True)
class LinkedConfig:
    """Files of one kind, or folders of them; `url` and `caption` are the names of columns or fields."""

    kind: ClassVar[str] = "linked"
    paths: tuple[Path, ...]
    pictures: tuple[Path, ...] = ()
    url: str = "url"
    caption: str = "caption"

    def open(self) -> "LinkedSource":
        """Raises InputError where there is no file, or one has no such columns, or the pictures are not there."""
        return LinkedSource(self)

    def addresses(self) -> Iterator[str]:
        """Of all pictures, in order. Records that cannot be used have none."""
        table = _Table(self)
        for index in range(len(table)):
            try:
                yield table.row(index).address
            except BadRecordError:
                continue  # whoever reads its document says so


@dataclass(frozen=True, kw_only=True)
class _Row:
    key: str
    address: str
    caption: str


class _Table:
    """Rows of either kind of file."""

    def __init__(self, config: LinkedConfig) -> None:
        self._url, self._caption = config.url, config.caption
        files = files_named(config.paths, ".parquet", *_JSON)
        are_json = {file.suffix in _JSON for file in files}
        if len(are_json) > 1:
            raise ConfigError(
                "a source reads files of one kind",
                expected="files of .parquet, or of .json and .jsonl",
                actual=", ".join(sorted({file.suffix for file in files})),
            )
        columns = {config.url: TEXT, config.caption: TEXT}
        self._rows: JsonRecords | ParquetRows = (
            JsonRecords(files, *_JSON) if are_json.pop() else ParquetRows(files, columns)
        )
        self.fingerprint = self._rows.fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> _Row:
        """Raises BadRecordError for one without an address or a caption."""
        key, address, caption = self._read(index)
        for name, value in ((self._url, address), (self._caption, caption)):
            if not isinstance(value, str) or not value.strip():
                raise BadRecordError(f"it has no text {name!r}", actual=key)
        return _Row(key=key, address=str(address).strip(), caption=well_formed(str(caption).strip()))

    def _read(self, index: int) -> tuple[str, object, object]:
        if isinstance(self._rows, JsonRecords):
            record = self._rows.read(index)
            return record.key, record.values.get(self._url), record.values.get(self._caption)
        row = self._rows.row(index)
        try:
            return row.key, row.values[self._url].as_py(), row.values[self._caption].as_py()
        except UnicodeDecodeError as error:
            raise BadRecordError("its text is not UTF-8", actual=row.key) from error


class LinkedSource:
    """Documents of a picture and its caption. Made by `LinkedConfig.open`."""

    def __init__(self, config: LinkedConfig) -> None:
        self._table, self._pictures = _Table(config), PictureStore(config.pictures)
        said = [self._table.fingerprint, self._pictures.fingerprint, config.url, config.caption]
        self.fingerprint = sha256_of_bytes("\n".join(said).encode())

    def __len__(self) -> int:
        return len(self._table)

    def document(self, index: int) -> Document:
        row = self._table.row(index)
        if row.address not in self._pictures:
            raise BadRecordError("its picture was not fetched", actual=f"{row.key}: {row.address[:200]}")
        return Document(key=row.key, pieces=(PictureRef(place=row.address), row.caption))

    def picture(self, ref: PictureRef) -> bytes:
        return self._pictures.read(ref.place)
