"""Interleaved documents as Multimodal C4 publishes them (arXiv 2304.06939): sentences, and pictures matched to them.

A line of JSON has `text_list`, the sentences, and `image_info`: for each picture `image_name`, `raw_url`, and
`matched_text_index`, the sentence that it goes with. The corpus does not say on which side of its sentence a picture
stood; here it is before it, unless it is asked for otherwise. Sentences are joined by a space: where paragraphs ended
is not kept in the corpus.

Published are addresses of pictures, not pictures. One is found by its name or its address where `pictures` has it (see
`stores`), and a document does without those that could not be fetched, but not without all of them. Files are
published as .jsonl.zip, and are unpacked first.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Document, PictureRef
from lensmith.data.sources.base import well_formed
from lensmith.data.sources.lines import JsonRecords
from lensmith.data.sources.stores import PictureStore


class PictureSide(enum.Enum):
    """Where a picture stands: before the sentence that it was matched to, or behind it."""

    BEFORE = "before"
    BEHIND = "behind"


@dataclass(frozen=True, kw_only=True)
class Mmc4Config:
    """Files of lines, or folders of them, and where their pictures are."""

    kind: ClassVar[str] = "mmc4"
    paths: tuple[Path, ...]
    pictures: tuple[Path, ...] = ()
    side: PictureSide = PictureSide.BEFORE

    def open(self) -> "Mmc4Source":
        """Raises InputError where there is no file, or one is compressed, or the pictures are not there."""
        return Mmc4Source(self)

    def addresses(self) -> Iterator[str]:
        """Of all pictures, in order. Records that cannot be used have none."""
        records = JsonRecords(self.paths, ".jsonl")
        for index in range(len(records)):
            try:
                record = records.read(index)
                named = _matched(record.values, record.key)
            except BadRecordError:
                continue  # whoever reads its document says so
            yield from (each.address for each in named if each.address)


class _Matched(NamedTuple):
    """A picture, and the sentence that it goes with."""

    name: str
    address: str
    sentence: int


class Mmc4Source:
    """A document for each line. Made by `Mmc4Config.open`."""

    def __init__(self, config: Mmc4Config) -> None:
        self._records = JsonRecords(config.paths, ".jsonl")
        self._pictures = PictureStore(config.pictures)
        self._side = config.side
        said = [self._records.fingerprint, self._pictures.fingerprint, config.side.value]
        self.fingerprint = sha256_of_bytes("\n".join(said).encode())

    def __len__(self) -> int:
        return len(self._records)

    def document(self, index: int) -> Document:
        record = self._records.read(index)
        sentences = _sentences(record.values, record.key)
        matched = _matched(record.values, record.key)
        beside: dict[int, list[str]] = {}
        for each in matched:
            if (name := self._found(each)) is not None:
                beside.setdefault(each.sentence, []).append(name)
        if matched and not beside:
            raise BadRecordError("none of its pictures is there", actual=record.key)
        pieces: list[str | PictureRef] = []
        for number, sentence in enumerate(sentences):
            shown = [PictureRef(place=name) for name in beside.get(number, ())]
            texts: list[str | PictureRef] = [sentence] if sentence else []
            for piece in (*shown, *texts) if self._side is PictureSide.BEFORE else (*texts, *shown):
                if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
                    pieces[-1] += f" {piece}"
                else:
                    pieces.append(piece)
        if not pieces:
            raise BadRecordError("it has no text and no picture", actual=record.key)
        return Document(key=record.key, pieces=tuple(pieces))

    def picture(self, ref: PictureRef) -> bytes:
        return self._pictures.read(ref.place)

    def _found(self, each: _Matched) -> str | None:
        return next((name for name in (each.name, each.address) if name and name in self._pictures), None)


def _sentences(values: dict[str, Any], key: str) -> list[str]:
    sentences = values.get("text_list")
    if not isinstance(sentences, list) or not all(isinstance(each, str) for each in sentences):
        raise BadRecordError("its text_list is no list of texts", actual=key)
    return [well_formed(each.strip()) for each in sentences]


def _matched(values: dict[str, Any], key: str) -> list[_Matched]:
    infos, count = values.get("image_info"), len(_sentences(values, key))
    if not isinstance(infos, list) or not all(isinstance(each, dict) for each in infos):
        raise BadRecordError("its image_info is no list of objects", actual=key)
    matched = []
    for info in infos:
        name, address, sentence = (info.get(field) for field in ("image_name", "raw_url", "matched_text_index"))
        if not isinstance(name, str) or not isinstance(address, str | None):
            raise BadRecordError("a picture of it has no name", actual=key)
        if type(sentence) is not int or not 0 <= sentence < count:
            raise BadRecordError("a picture of it is matched to no sentence", actual=key)
        matched.append(_Matched(name, address or "", sentence))
    return matched
