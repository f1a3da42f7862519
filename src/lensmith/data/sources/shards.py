"""Documents of any source in tar archives that hold all that they need: read by their place, written once.

    00000.tar
      00000007.json     {"key": ..., "pieces": ["text", {"picture": "0.jpg", "sha256": ...}, ...]}
      00000007.0.jpg    or, of a conversation, {"key": ..., "turns": [{"role": "user", "pieces": [...]}, ...]}

A record's members stand in a row and are named by its number in the source that was packed, so webdataset's readers
find it as one sample, too. A picture is the bytes that the source gave, and its hash is in its record: one that is not
the one that was packed is a bad record when it is read.

`packed.jsonl`, beside the archives, has a line for each: which records are in it, and which were left out, and why. So
packing that was stopped goes on behind the last whole archive.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lensmith.core.errors import ImageError, InputError
from lensmith.core.files import alone_in, open_output, sha256_of_bytes, write_atomic
from lensmith.core.images import open_picture
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.documents import (
    AnyDocument,
    BadRecordError,
    Conversation,
    ConversationTurn,
    Document,
    PictureRef,
    Pieces,
    Source,
)
from lensmith.data.sources.base import Portion, files_named, well_formed
from lensmith.data.sources.members import Index, ends_of, index_of, members, read_at
from lensmith.data.sources.stores import suffix_of

PACKED_FILE = "packed.jsonl"
_FORM = "documents-1"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """Archives that `pack_shards` wrote, or folders of them. A record is held out by its key."""

    kind: ClassVar[str] = "shards"
    paths: tuple[Path, ...]
    portion: Portion = Portion.ALL

    def open(self) -> "ShardsSource":
        """Raises InputError where there is no archive, or one is compressed, damaged or cut short."""
        return ShardsSource(self)


class ShardsSource:
    """The documents that were packed. Made by `ShardsConfig.open`, and as fast as its indexes are.

    The fingerprint is that of all records, which hold the hashes of their pictures, and of both ends of each picture.
    """

    def __init__(self, config: ShardsConfig) -> None:
        self._files = files_named(config.paths, ".tar")
        indexes = [index_of(path, _build, form=_FORM) for path in self._files]
        self._rows = pa.concat_tables([index.rows for index in indexes]).combine_chunks()
        self._file_N = np.repeat(np.arange(len(indexes)), [index.rows.num_rows for index in indexes])
        keys = self._rows["key"].to_pylist()
        self._number_K = np.flatnonzero([config.portion.takes(key) for key in keys])
        said = [*(index.fingerprint for index in indexes), config.portion.value]
        self.fingerprint = sha256_of_bytes("\n".join(said).encode())

    def __len__(self) -> int:
        return len(self._number_K)

    def document(self, index: int) -> AnyDocument:
        number = int(self._number_K[index])
        where = f"{self._files[self._file_N[number]].name}, {self._rows['name'][number].as_py()}"
        values = self._values(number, where)
        key = well_formed(values["key"])
        try:
            if "turns" not in values:
                return Document(key=key, pieces=_read_pieces(values["pieces"], number))
            turns = [
                ConversationTurn(role=turn["role"], pieces=_read_pieces(turn["pieces"], number))
                for turn in values["turns"]
            ]
        except (KeyError, TypeError) as error:
            raise BadRecordError("its record is none of a packed document", actual=where) from error
        return Conversation(key=key, turns=tuple(turns))

    def picture(self, ref: PictureRef) -> bytes:
        number, name, digest = ref.place.split("/")
        row = {column: self._rows[column][int(number)].as_py() for column in ("members", "at", "bytes")}
        if name not in row["members"]:
            raise BadRecordError("a picture is not in its archive", actual=ref.place)
        place = row["members"].index(name)
        content = read_at(self._files[self._file_N[int(number)]], row["at"][place], row["bytes"][place])
        if sha256_of_bytes(content) != digest:
            raise BadRecordError("a picture is not the one that was packed", actual=ref.place)
        return content

    def _values(self, number: int, where: str) -> dict[str, Any]:
        names = self._rows["members"][number].as_py()
        if names.count("json") != 1:
            problem = "its key stands twice" if "json" in names else "it has no record"
            raise BadRecordError(problem, actual=where)
        place = names.index("json")
        at, size = (self._rows[column][number].as_py()[place] for column in ("at", "bytes"))
        try:
            values = json.loads(read_at(self._files[self._file_N[number]], at, size))
        except (ValueError, RecursionError) as error:
            raise BadRecordError("its JSON cannot be read", actual=where) from error
        if not isinstance(values, dict) or not isinstance(values.get("key"), str):
            raise BadRecordError("its record is none of a packed document", actual=where)
        return values


def _read_pieces(written: object, number: int) -> Pieces:
    """Raises KeyError or TypeError for what is none."""
    if not isinstance(written, list) or not written:
        raise TypeError("no pieces")
    return tuple(well_formed(piece) if isinstance(piece, str) else _read_picture(piece, number) for piece in written)


def _read_picture(piece: Any, number: int) -> PictureRef:
    name, digest = piece["picture"], piece["sha256"]
    if not isinstance(name, str) or not isinstance(digest, str) or "/" in name + digest:
        raise TypeError("no picture")
    return PictureRef(place=f"{number}/{name}/{digest}")


def _build(path: Path) -> Index:
    """A row a record: its name, its key (its name where there is none), and what its members are called and where."""
    records: dict[str, dict[str, Any]] = {}
    digest = hashlib.sha256()
    for member in members(path):
        name, _, rest = well_formed(member.name).partition(".")
        digest.update(f"{member.name}\n{member.size}\n".encode("utf-8", "surrogateescape"))
        row = records.setdefault(name, {"name": name, "key": name, "members": [], "at": [], "bytes": []})
        for column, value in (("members", rest), ("at", member.offset_data), ("bytes", member.size)):
            row[column].append(value)
        content = ends_of(path, member)
        if rest == "json":
            content = read_at(path, member.offset_data, member.size)
            row["key"] = _key(content) or name
        digest.update(content)
    kinds = {"at": pa.list_(pa.int64()), "bytes": pa.list_(pa.int64()), "members": pa.list_(pa.string())}
    schema = pa.schema({"name": pa.string(), "key": pa.large_string(), **kinds})
    return Index(rows=pa.Table.from_pylist(list(records.values()), schema=schema), fingerprint=digest.hexdigest())


def _key(content: bytes) -> str:
    try:
        key = json.loads(content).get("key")
    except (ValueError, RecursionError, AttributeError):
        return ""  # whoever reads the document says so
    return well_formed(key) if isinstance(key, str) else ""


# --- packing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PackedShard:
    """One archive: records `first` up to `stop` of the source, but for the `bad` ones (number, cause, what it says)."""

    file: str
    first: int
    stop: int
    documents: int
    pictures: int
    bytes: int
    bad: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PackedReport:
    """What is packed in all, runs before this one included. `bad`: records that were left out, by cause."""

    shards: int
    records: int
    documents: int
    pictures: int
    bytes: int
    bad: dict[str, int]

    def __str__(self) -> str:
        lines = [
            f"{self.documents:,} of {self.records:,} documents with {self.pictures:,} pictures in {self.shards:,} "
            f"shards, {self.bytes / 1e6:,.1f} MB"
        ]
        return "\n".join([*lines, *(f"  {count:,} left out: {cause}" for cause, count in self.bad.items())])


def pack_shards(
    source: Source, folder: Path, *, shard_bytes: int = 256 << 20, on_progress: OnProgress = unwatched
) -> PackedReport:
    """Writes all documents that can be used into archives of up to `shard_bytes`, or of one larger document.

    Every picture is decoded once to see that it can be. A shard is held in memory until it is written, whole or not at
    all. What is packed already is kept. Raises InputError where `folder` holds what was packed from another source, or
    by another size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        made_from = {"format": _FORMAT, "source": source.fingerprint, "shard_bytes": shard_bytes}
        shards = _packed_before(folder, made_from)
        first = shards[-1].stop if shards else 0
        filling = _Shard(first=first)
        for index in range(first, len(source)):
            files = filling.files_of(source, index)
            size = sum(map(_member_bytes, files.values()))
            if filling.files and filling.size_bytes + size > shard_bytes:
                shards.append(_written(filling, folder, len(shards), index))
                _note(folder, made_from, shards)
                filling = _Shard(first=index)
            filling.add(files, size)
            on_progress(index + 1, len(source))
        if filling.files or filling.bad or not shards:
            shards.append(_written(filling, folder, len(shards), len(source)))
        _note(folder, made_from, shards)
    causes = Counter(cause for shard in shards for _, cause, _ in shard.bad)
    return PackedReport(
        shards=sum(bool(shard.file) for shard in shards),
        records=len(source),
        documents=sum(shard.documents for shard in shards),
        pictures=sum(shard.pictures for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        bad=dict(causes.most_common()),
    )


@dataclass
class _Shard:
    """An archive that is being filled."""

    first: int
    size_bytes: int = 0
    documents: int = 0
    pictures: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    bad: list[tuple[int, str, str]] = field(default_factory=list)

    def files_of(self, source: Source, index: int) -> dict[str, bytes]:
        """A record's members; none for a bad one, which is noted."""
        try:
            return _members_of(source, source.document(index), index)
        except BadRecordError as error:
            self.bad.append((index, error.problem, "" if error.actual is None else str(error.actual)))
            return {}

    def add(self, files: dict[str, bytes], size: int) -> None:
        self.files |= files
        self.size_bytes += size
        self.documents += bool(files)
        self.pictures += max(0, len(files) - 1)


def _members_of(source: Source, document: AnyDocument, index: int) -> dict[str, bytes]:
    """The record first. A picture that stands twice in a document is there twice."""
    name, pictures = f"{index:08}", dict[str, bytes]()

    def written(pieces: Pieces) -> list[Any]:
        return [piece if isinstance(piece, str) else packed(piece) for piece in pieces]

    def packed(ref: PictureRef) -> dict[str, str]:
        content = source.picture(ref)
        try:
            open_picture(content)
        except ImageError as error:
            raise BadRecordError(error.problem, actual=document.key) from error
        member = f"{len(pictures)}.{suffix_of(content)}"
        pictures[member] = content
        return {"picture": member, "sha256": sha256_of_bytes(content)}

    about: dict[str, Any] = {"key": document.key}
    if isinstance(document, Conversation):
        about["turns"] = [{"role": turn.role, "pieces": written(turn.pieces)} for turn in document.turns]
    else:
        about["pieces"] = written(document.pieces)
    record = well_formed(json.dumps(about, ensure_ascii=False)).encode()
    return {f"{name}.json": record, **{f"{name}.{member}": content for member, content in pictures.items()}}


def _member_bytes(content: bytes) -> int:
    """What a member takes in an archive: a header, and whole blocks."""
    return tarfile.BLOCKSIZE + -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _written(shard: _Shard, folder: Path, number: int, stop: int) -> PackedShard:
    """The archive, written; none where all its records are bad."""
    file = f"{number:05}.tar" if shard.files else ""
    if file:
        with open_output(folder / file) as stream, tarfile.TarFile(fileobj=stream, mode="w") as archive:
            for name, content in shard.files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return PackedShard(
        file=file,
        first=shard.first,
        stop=stop,
        documents=shard.documents,
        pictures=shard.pictures,
        bytes=(folder / file).stat().st_size if file else 0,
        bad=tuple(shard.bad),
    )


def _note(folder: Path, made_from: dict[str, Any], shards: list[PackedShard]) -> None:
    lines = [json.dumps(values) for values in (made_from, *map(asdict, shards))]
    write_atomic(folder / PACKED_FILE, "\n".join(lines) + "\n")


def _packed_before(folder: Path, made_from: dict[str, Any]) -> list[PackedShard]:
    path = folder / PACKED_FILE
    if not path.exists():
        return []
    try:
        was, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        shards = [PackedShard(**{**line, "bad": tuple(tuple(each) for each in line["bad"])}) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} cannot be read", expected="what `lensmith data pack-shards` wrote", actual=error
        ) from error
    if was != made_from:
        raise InputError(
            f"{folder} holds what was packed from something else",
            expected=made_from,
            actual=was,
            hint="pack into another folder, or remove this one",
        )
    return shards
