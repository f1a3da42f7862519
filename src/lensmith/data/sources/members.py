"""Members of tar archives, found by their headers in one pass and read by their place; and indexes of large files.

Only plain files count, and only in archives that are not compressed: what is compressed can be read from its beginning
alone. An archive that is written here has the same bytes for the same files.

Fingerprints of archives are made of headers, texts, and both ends of pictures, so that a shard of many gigabytes is not
read through: see `ends_of`.

An index says where each record of a file lies, and is kept beside it. It belongs to a file of one size and one time of
change, is made anew when either differs or it cannot be read, and is in the cache where the file's folder cannot be
written to.
"""

import hashlib
import io
import logging
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, open_output, sha256_of_bytes, write_atomic
from lensmith.data.documents import BadRecordError
from lensmith.data.sources.base import well_formed

_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"PK\x03\x04": "unzip",
}
"""What unpacks a file, by how it begins."""
_END_BYTES = 4096
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Index:
    """A row for each record, and a hash of what the file holds."""

    rows: pa.Table
    fingerprint: str


def index_of(path: Path, build: Callable[[Path], Index], *, form: str) -> Index:
    """The index of a file; `build` makes it where there is none. `form` names what its rows are, and their version.

    Raises InputError where the file cannot be read, and as `build` does.
    """
    try:
        found = path.stat()
        stamp = {"form": form, "size": str(found.st_size), "changed_ns": str(found.st_mtime_ns)}
        name = f"{path.name}.{form}.index"
        in_cache = default_cache_dir() / "indexes" / f"{sha256_of_bytes(str(path.resolve()).encode())[:16]}-{name}"
        places = (path.with_name(name), in_cache)
        for place in places:
            if (kept := _kept_index(place, stamp)) is not None:
                return kept
        index = build(path)
    except OSError as error:
        raise InputError(f"cannot read {path}", actual=error.strerror) from error
    _keep(index, places, stamp)
    return index


def _kept_index(place: Path, stamp: dict[str, str]) -> Index | None:
    try:
        rows = pq.read_table(pa.BufferReader(place.read_bytes()))
    except (OSError, pa.ArrowException):  # there is none, or what is there was damaged
        return None
    said = {key.decode(): value.decode() for key, value in (rows.schema.metadata or {}).items()}
    if {key: said.get(key) for key in stamp} != stamp:
        return None
    return Index(rows=rows.combine_chunks(), fingerprint=said["fingerprint"])


def _keep(index: Index, places: tuple[Path, ...], stamp: dict[str, str]) -> None:
    stream = pa.BufferOutputStream()
    pq.write_table(index.rows.replace_schema_metadata(stamp | {"fingerprint": index.fingerprint}), stream)
    for place in places:
        try:
            write_atomic(place, stream.getvalue().to_pybytes())
        except OSError as error:
            _log.info("no index can be kept as %s: %s", place, error.strerror)
        else:
            return


def members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The plain files of an archive, in its order.

    Raises InputError where it is compressed, and, with the byte, where it is damaged or cut short; OSError.
    """
    with path.open("rb") as file:
        check_uncompressed(file, path)
        size = os.fstat(file.fileno()).st_size
        at = 0
        try:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # it holds nothing but the file
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it keeps all of them
                at, end = member.offset, member.offset_data + member.size
                if member.size < 0:
                    raise _damaged(path, at, f"{member.name} has a size of {member.size} bytes")
                if end > size:
                    raise _damaged(path, size, f"{member.name} ends at byte {end:,}, the file at byte {size:,}")
                if member.isreg() and not member.issparse():
                    yield member
            at = archive.offset
        except (tarfile.TarError, ValueError, LookupError, ArithmeticError) as error:  # as odd headers make tarfile do
            raise _damaged(path, at, error) from error
        _check_end(file, path, at)


def _check_end(file: BinaryIO, path: Path, at: int) -> None:
    """Raises InputError unless the archive's end is marked at `at`: without it, tarfile takes damage for the end."""
    block = os.pread(file.fileno(), tarfile.BLOCKSIZE, at)
    if len(block) < tarfile.BLOCKSIZE:
        raise _damaged(path, at, "the file ends, and the archive's end is not marked")
    if block.strip(b"\0"):
        raise _damaged(path, at, f"no header of a member: {block[:24]!r}")


def _damaged(path: Path, at: int, actual: object) -> InputError:
    return InputError(
        f"{path} is damaged or cut short at byte {at:,}",
        expected="a whole tar archive",
        actual=actual,
        hint="write or fetch it again, or leave it out",
    )


def check_uncompressed(file: BinaryIO, path: Path) -> None:
    """Raises InputError for a compressed file; `file` is then at its beginning."""
    start = file.read(8)
    file.seek(0)
    for mark, program in _COMPRESSED.items():
        if start.startswith(mark):
            raise InputError(
                f"{path} is compressed, so that nothing in it can be read by its place",
                expected="a file that is not compressed",
                hint=f"unpack it: {program} {path}",
            )


def read_at(path: Path, at: int, size: int) -> bytes:
    """Bytes of a file by their place. Raises InputError without the file, BadRecordError where it ends before them."""
    try:
        # Opened each time: there may be more shards than a process may hold open.
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, at)
    except OSError as error:
        raise InputError(f"cannot read {path}", actual=error.strerror) from error
    if len(data) != size:
        raise BadRecordError("its file has become shorter", expected=f"{path}: {at + size:,} bytes")
    return data


def ends_of(path: Path, member: tarfile.TarInfo) -> bytes:
    """The first and the last bytes of a member, all of a small one.

    Two pictures of one size differ there: they begin with what they are, and end in what was compressed last. Not seen
    is a change that leaves size and both ends as they were, such as a byte that a disk has lost.
    """
    size = member.size
    if size <= 2 * _END_BYTES:
        return read_at(path, member.offset_data, size)
    first = read_at(path, member.offset_data, _END_BYTES)
    return first + read_at(path, member.offset_data + size - _END_BYTES, _END_BYTES)


def named_members(path: Path, *, read_whole: frozenset[str]) -> Index:
    """An index of all members: `name` (from the archive's root), `at`, `bytes`.

    Members with a suffix of `read_whole` are in the fingerprint with their content, others with both ends. Raises as
    `members` does.
    """
    digest = hashlib.sha256()
    names, at, sizes = [], [], []
    for member in members(path):
        name = well_formed(posixpath.normpath(posixpath.join("/", member.name))[1:])
        digest.update(f"{name}\n{member.size}\n".encode())
        is_whole = name.rpartition(".")[2].lower() in read_whole
        digest.update(read_at(path, member.offset_data, member.size) if is_whole else ends_of(path, member))
        names.append(name)
        at.append(member.offset_data)
        sizes.append(member.size)
    rows = pa.table(
        {
            "name": pa.array(names, pa.large_string()),
            "at": pa.array(at, pa.int64()),
            "bytes": pa.array(sizes, pa.int64()),
        }
    )
    return Index(rows=rows, fingerprint=digest.hexdigest())


def write_tar(files: Iterable[tuple[str, bytes]], path: Path) -> None:
    """Writes files by name, sorted, as a tar archive, whole or not at all; only names and content are told of them."""
    with open_output(path) as file, tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
