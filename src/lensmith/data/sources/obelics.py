"""Interleaved documents in parquet, as OBELICS (arXiv 2306.16527) lays them out.

A row is two lists of one length, `images` and `texts`, and at each place stands one of both. OBELICS itself holds
addresses of pictures: with `pictures`, where they were fetched to (see `fetching`), it is read as it is published. Or a
picture is its bytes, or a struct with a field `bytes`, as the library `datasets` stores pictures. A document does
without a picture that could not be fetched; one that has lost all that it names is a bad record.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Document, PictureRef
from lensmith.data.sources.base import files_named, well_formed
from lensmith.data.sources.rows import TEXT, ColumnKind, ParquetRow, ParquetRows
from lensmith.data.sources.stores import PictureStore


@dataclass(frozen=True, kw_only=True)
class ObelicsConfig:
    """Parquet files, or folders of them; `images` and `texts` are the columns' names, `pictures` what was fetched."""

    kind: ClassVar[str] = "obelics"
    paths: tuple[Path, ...]
    images: str = "images"
    texts: str = "texts"
    pictures: tuple[Path, ...] = ()

    def open(self) -> "ObelicsSource":
        """Raises InputError where there is no file, or one has no such columns, or addresses without `pictures`."""
        return ObelicsSource(self)

    def addresses(self) -> Iterator[str]:
        """Of all pictures, in order. Records that cannot be used have none."""
        rows = ParquetRows(files_named(self.paths, ".parquet"), {self.images: _ADDRESSES})
        for index in range(len(rows)):
            try:
                named = rows.row(index).values[self.images].as_py() or ()
            except UnicodeDecodeError:
                continue  # whoever reads its document says so
            yield from (address for address in named if address)


class ObelicsSource:
    """A document for each row. Made by `ObelicsConfig.open`; see `ParquetRows`."""

    def __init__(self, config: ObelicsConfig) -> None:
        self._images, self._texts = config.images, config.texts
        self._fetched = PictureStore(config.pictures) if config.pictures else None
        columns = {config.images: _PICTURES if self._fetched is None else _ADDRESSES, config.texts: _TEXTS}
        self._rows = ParquetRows(files_named(config.paths, ".parquet"), columns)
        said = [self._rows.fingerprint, config.images, config.texts]
        said += [] if self._fetched is None else [self._fetched.fingerprint]
        self.fingerprint = sha256_of_bytes("\n".join(said).encode())

    def __len__(self) -> int:
        return len(self._rows)

    def document(self, index: int) -> Document:
        row = self._rows.row(index)
        try:
            pieces = self._pieces(row, index)
        except UnicodeDecodeError as error:
            raise BadRecordError("its text is not UTF-8", actual=row.key) from error
        if not pieces:
            raise BadRecordError("it has no text and no picture", actual=row.key)
        return Document(key=row.key, pieces=pieces)

    def picture(self, ref: PictureRef) -> bytes:
        if self._fetched is not None:
            return self._fetched.read(ref.place)
        index, _, place = ref.place.partition("/")
        row = self._rows.row(int(index))
        return bytes(_content(row.values[self._images][int(place)]).as_py())

    def _pieces(self, row: ParquetRow, index: int) -> tuple[str | PictureRef, ...]:
        """Texts between which a picture is missing become one."""
        images, texts = row.values[self._images], row.values[self._texts]
        if not (images.is_valid and texts.is_valid) or len(images) != len(texts):
            raise BadRecordError("its lists of pictures and texts differ in length", actual=row.key)
        pieces: list[str | PictureRef] = []
        lost = 0
        for place, (image, text) in enumerate(zip(images, texts, strict=True)):
            has_picture, words = _content(image).is_valid, (text.as_py() or "").strip()
            if has_picture and words:
                raise BadRecordError("a picture and a text stand in one place", actual=row.key)
            if has_picture and self._fetched is None:
                pieces.append(PictureRef(place=f"{index}/{place}"))
            elif has_picture and self._fetched is not None:
                address = image.as_py()
                if address in self._fetched:
                    pieces.append(PictureRef(place=address))
                else:
                    lost += 1
            elif words and pieces and isinstance(pieces[-1], str):
                pieces[-1] += f"\n\n{well_formed(words)}"
            elif words:
                pieces.append(well_formed(words))
        if lost and all(isinstance(piece, str) for piece in pieces):
            raise BadRecordError("none of its pictures is there", actual=row.key)
        return tuple(pieces)


def _content(image: Any) -> Any:
    """The Arrow value that holds a picture's bytes."""
    return image["bytes"] if image.is_valid and pa.types.is_struct(image.type) else image


def _are_pictures(kind: Any) -> bool:
    if not _is_list(kind):
        return False
    held = kind.value_type
    if pa.types.is_struct(held) and held.get_field_index("bytes") >= 0:
        held = held.field("bytes").type
    return bool(pa.types.is_binary(held) or pa.types.is_large_binary(held))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


_PICTURES = ColumnKind(
    words="lists of pictures' bytes, or of structs with a field `bytes` (addresses: name the folder that "
    "`lensmith data fetch-pictures` has filled)",
    fits=_are_pictures,
)
_ADDRESSES = ColumnKind(words="lists of addresses", fits=lambda kind: _is_list(kind) and TEXT.fits(kind.value_type))
_TEXTS = ColumnKind(words="lists of texts", fits=lambda kind: _is_list(kind) and TEXT.fits(kind.value_type))
