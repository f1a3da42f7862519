"""Captioned pictures in webdataset tar archives, read and written as img2dataset writes them.

A record is all members whose names are alike up to the first dot of the last part: its picture (.jpg, .jpeg, .png,
.webp), its caption (.txt, or a text of its .json). Other members are passed over.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import TarInfo
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Document, PictureRef
from lensmith.data.sources.base import HeldOutBy, Portion, files_named, well_formed
from lensmith.data.sources.members import Index, ends_of, index_of, members, read_at, write_tar

_PARTS = {**dict.fromkeys(("jpg", "jpeg", "png", "webp"), "picture"), "txt": "text", "json": "json"}
_MOST_TEXT_BYTES = 1 << 20
_FORM = "captions-2"


@dataclass(frozen=True, kw_only=True)
class TarConfig:
    """Shards, or folders of them. `caption_field` is a field of the .json; without it, the .txt is the caption.

    What is held out is decided by the `group` that a record's .json names, else its folder in the archive, else its
    key; or by its key alone.
    """

    kind: ClassVar[str] = "tars"
    paths: tuple[Path, ...]
    caption_field: str = ""
    portion: Portion = Portion.ALL
    held_out_by: HeldOutBy = HeldOutBy.GROUPS

    def open(self) -> "TarSource":
        """Raises InputError where there is no shard, or one is compressed, damaged or cut short."""
        return TarSource(self)


class TarSource:
    """Documents of a picture and its caption. Made by `TarConfig.open`, and as fast as its indexes are.

    The fingerprint is that of all members' names and sizes, of all captions, and of both ends of each picture: see
    `ends_of` for what it does not see.
    """

    def __init__(self, config: TarConfig) -> None:
        self._field = config.caption_field
        self._shards = files_named(config.paths, ".tar")
        indexes = [index_of(path, _build, form=_FORM) for path in self._shards]
        self._rows = pa.concat_tables([index.rows for index in indexes]).combine_chunks()
        self._shard_N = np.repeat(np.arange(len(indexes)), [index.rows.num_rows for index in indexes])
        groups = self._rows["group" if config.held_out_by is HeldOutBy.GROUPS else "key"].to_pylist()
        takes = {group: config.portion.takes(group) for group in set(groups)}
        self._number_K = np.flatnonzero([takes[group] for group in groups])
        said = [index.fingerprint for index in indexes]
        said += [self._field, config.portion.value, config.held_out_by.value]
        self.fingerprint = sha256_of_bytes("\n".join(said).encode())

    def __len__(self) -> int:
        return len(self._number_K)

    def document(self, index: int) -> Document:
        number = int(self._number_K[index])
        key = self._said("key", number)
        if len(self._shards) > 1:
            key = f"{self._shards[self._shard_N[number]].stem}/{key}"
        try:
            if problem := self._said("problem", number):
                raise BadRecordError(problem)
            if (size := self._said("picture_bytes", number)) <= 0:
                raise BadRecordError("it has no picture" if size else "its picture is empty")
            caption = self._from_json(number) if self._field else self._text("text", number)
            caption = well_formed(caption.strip())
            if not caption:
                raise BadRecordError("its caption is empty")
        except BadRecordError as error:
            raise BadRecordError(error.problem, actual=key) from error
        return Document(key=key, pieces=(PictureRef(place=str(number)), caption))

    def picture(self, ref: PictureRef) -> bytes:
        return self._content("picture", int(ref.place))

    def _from_json(self, number: int) -> str:
        try:
            values = json.loads(self._text("json", number))
        except (ValueError, RecursionError) as error:
            raise BadRecordError("its JSON cannot be read") from error
        caption = values.get(self._field) if isinstance(values, dict) else None
        if not isinstance(caption, str):
            raise BadRecordError(f"its JSON has no text {self._field!r}")
        return caption

    def _text(self, part: str, number: int) -> str:
        if self._said(f"{part}_bytes", number) < 0:
            raise BadRecordError("it has no caption")
        try:
            return self._content(part, number).decode()
        except UnicodeDecodeError as error:
            raise BadRecordError("its caption is not UTF-8") from error

    def _content(self, part: str, number: int) -> bytes:
        at, size = (self._said(f"{part}_{name}", number) for name in ("at", "bytes"))
        return read_at(self._shards[self._shard_N[number]], at, size)

    def _said(self, column: str, number: int) -> Any:
        return self._rows[column][number].as_py()


@dataclass(slots=True)
class _Record:
    """What the headers say of a record: where each part begins and how long it is."""

    group: str
    problem: str = ""
    suffixes: list[str] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, suffix: str, member: TarInfo) -> None:
        part = _PARTS[suffix]
        if suffix in self.suffixes:
            self.problem = "its key stands twice"
        elif part in self.places:
            self.problem = self.problem or "it has several pictures"
        elif part != "picture" and member.size > _MOST_TEXT_BYTES:
            self.problem = self.problem or "its text is too long"
        self.suffixes.append(suffix)
        self.places.setdefault(part, (member.offset_data, member.size))


def _build(path: Path) -> Index:
    records: dict[str, _Record] = {}
    digest = hashlib.sha256()
    for member in members(path):
        digest.update(f"{member.name}\n{member.size}\n".encode("utf-8", "surrogateescape"))
        folder, slash, name = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = name.partition(".")
        suffix = suffix.lower()
        if suffix not in _PARTS:
            continue
        key = f"{folder}{slash}{stem}"
        record = records.setdefault(key, _Record(group=folder or key))
        record.add(suffix, member)
        if _PARTS[suffix] != "picture" and member.size <= _MOST_TEXT_BYTES:
            content = read_at(path, member.offset_data, member.size)
            digest.update(content)
            record.group = (suffix == "json" and _group(content)) or record.group
        else:
            digest.update(ends_of(path, member))
    return Index(rows=_rows(records), fingerprint=digest.hexdigest())


def _group(content: bytes) -> str:
    """The group that a record's .json names; "" for none."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return ""  # whoever reads a caption from it says so
    group = values.get("group") if isinstance(values, dict) else None
    return group if isinstance(group, str) else ""


def _rows(records: dict[str, _Record]) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "key": pa.array([well_formed(key) for key in records], pa.large_string()),
        "group": pa.array([well_formed(record.group) for record in records.values()], pa.large_string()),
        "problem": pa.array([record.problem for record in records.values()], pa.large_string()),
    }
    for part in dict.fromkeys(_PARTS.values()):
        places = [record.places.get(part, (-1, -1)) for record in records.values()]
        columns[f"{part}_at"] = pa.array([at for at, _ in places], pa.int64())
        columns[f"{part}_bytes"] = pa.array([size for _, size in places], pa.int64())
    return pa.table(columns)


# --- writing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CaptionRecord:
    """A picture's encoded bytes, of the kind that `suffix` says, and its caption.

    `group` is what it is one of, such as animals/birds: a group is held out as a whole.
    """

    key: str
    caption: str
    picture: bytes
    suffix: str
    group: str


def write_shard(records: Iterable[CaptionRecord], path: Path) -> int:
    """Writes records, in the order of their keys, and returns how many; they are held in memory until then.

    Raises InputError for a key that stands twice or whose last part has a dot, where a reader would cut it.
    """
    files: dict[str, bytes] = {}
    keys = set()
    for record in records:
        if "." in record.key.rpartition("/")[2] or record.key in keys:
            raise InputError("a shard's keys have no dot in their last part and differ", actual=record.key)
        keys.add(record.key)
        about = json.dumps({"group": record.group}, ensure_ascii=False)
        files[f"{record.key}.json"] = about.encode()
        files[f"{record.key}.{record.suffix}"] = record.picture
        files[f"{record.key}.txt"] = record.caption.encode()
    write_tar(files.items(), path)
    return len(keys)
