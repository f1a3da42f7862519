"""Indexes: where each record of a large file lies, found in one pass and kept in a file beside it.

An index belongs to a file of one size and one time of change. It is made anew when either differs or it cannot be
read, and is in the cache where the file's folder cannot be written to.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_bytes, write_atomic

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
            if (kept := _read(place, stamp)) is not None:
                return kept
        index = build(path)
    except OSError as error:
        raise InputError(f"cannot read {path}", actual=error.strerror) from error
    _write(index, places, stamp)
    return index


def _read(place: Path, stamp: dict[str, str]) -> Index | None:
    try:
        rows = pq.read_table(pa.BufferReader(place.read_bytes()))
    except (OSError, pa.ArrowException):  # there is none, or what is there was damaged
        return None
    said = {key.decode(): value.decode() for key, value in (rows.schema.metadata or {}).items()}
    if {key: said.get(key) for key in stamp} != stamp:
        return None
    return Index(rows=rows.combine_chunks(), fingerprint=said["fingerprint"])


def _write(index: Index, places: tuple[Path, ...], stamp: dict[str, str]) -> None:
    stream = pa.BufferOutputStream()
    pq.write_table(index.rows.replace_schema_metadata(stamp | {"fingerprint": index.fingerprint}), stream)
    for place in places:
        try:
            write_atomic(place, stream.getvalue().to_pybytes())
        except OSError as error:
            _log.info("no index can be kept as %s: %s", place, error.strerror)
        else:
            return
