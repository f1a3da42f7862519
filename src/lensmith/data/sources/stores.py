"""Pictures that documents name: in folders, in tar archives, and in folders that `fetch_pictures` has filled.

In a folder a picture's name is its path from there, in an archive its member's name, and of what was fetched its
address. Only what is there when the store is opened is found, so that no name leads out of it.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lensmith.core.errors import InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError
from lensmith.data.fetching.ledger import LEDGER_FILE, Outcome, read_ledger
from lensmith.data.sources.members import index_of, named_members, read_at

PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_FORM = "members-1"
_BEGINNINGS = {
    b"\x89PNG": "png",
    b"\xff\xd8": "jpg",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"RIFF": "webp",
}
"""How pictures that `core.images` reads begin."""


def suffix_of(picture: bytes) -> str:
    """The suffix, without the dot, of a picture that can be read."""
    return next((suffix for begin, suffix in _BEGINNINGS.items() if picture.startswith(begin)), "bin")


class _Place(NamedTuple):
    """Bytes of a file; `sha256` is that of a fetched picture, else ""."""

    path: Path
    at: int
    size: int
    sha256: str


class PictureStore:
    """Pictures by name, of `paths` that are searched in their order.

    The fingerprint is of all names and contents of what was fetched, of `named_members` in archives, and of names and
    sizes in folders: a picture of a folder in whose place another one of the same size is put is not seen. Raises
    InputError for a path that is neither folder nor archive, and as `members` does.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._places: dict[str, _Place] = {}
        said = []
        for path in paths:
            if path.is_dir():
                found = dict(_fetched(path) if (path / LEDGER_FILE).exists() else _in_folder(path))
                said += [f"{name}\n{place.size}\n{place.sha256}" for name, place in sorted(found.items())]
            elif path.is_file():
                index = index_of(path, partial(named_members, read_whole=frozenset()), form=_FORM)
                columns = (index.rows[name].to_pylist() for name in ("name", "at", "bytes"))
                found = {name: _Place(path, at, size, "") for name, at, size in zip(*columns, strict=True)}
                said.append(index.fingerprint)
            else:
                raise InputError("there are no pictures", expected="a folder, or a tar archive", actual=path)
            self._places = found | self._places
        self.fingerprint = sha256_of_bytes("\n".join(said).encode("utf-8", "surrogatepass"))

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, name: str) -> bytes:
        """The bytes. Raises BadRecordError where there is no such picture any more, or another one."""
        place = self._places.get(name)
        if place is None:
            raise BadRecordError("a picture is not there", actual=name)
        try:
            content = read_at(place.path, place.at, place.size)
        except BadRecordError:
            raise
        except InputError as error:
            raise BadRecordError("a picture is not there any more", actual=name) from error
        if place.sha256 and sha256_of_bytes(content) != place.sha256:
            raise BadRecordError("a picture is not the one that was fetched", actual=name)
        return content


def _fetched(folder: Path) -> Iterator[tuple[str, _Place]]:
    for each in read_ledger(folder):
        if each.outcome is Outcome.OK:
            yield each.url, _Place(folder / each.file, 0, each.size_bytes, each.sha256)


def _in_folder(folder: Path) -> Iterator[tuple[str, _Place]]:
    seen: set[tuple[int, int]] = set()
    # Links are followed: collections are put together from them.
    for place, folders, names in os.walk(folder, followlinks=True):
        found = Path(place).stat()
        if (found.st_dev, found.st_ino) in seen:  # a link leads back to it
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        for name in names:
            path = Path(place) / name
            if path.suffix[1:].lower() in PICTURE_SUFFIXES and path.is_file():
                yield path.relative_to(folder).as_posix(), _Place(path, 0, path.stat().st_size, "")
