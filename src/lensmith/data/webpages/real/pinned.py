"""The test sets of real pages: which pages of which packages, pinned by hash; nothing of the pages themselves.

`pinned.json` was chosen with `lensmith data pages` and is written by `scripts/pin_pages.py`. The split is by maker, so
that no theme, and no maker's habits, is in both: `tune` is for looking at while something is made better, `test` for
the number that is told.
"""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, TypeVar

from lensmith.core import config
from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_bytes, write_atomic
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.packages import FETCH_LIMIT_S, PackageName, Registry, fetch_package
from lensmith.data.webpages.real.archives import PackageFiles, read_package
from lensmith.data.webpages.real.prepare import Preparer

Item = TypeVar("Item")

PINNED = "pinned.json"


class Split(enum.Enum):
    """Which of the two sets."""

    TUNE = "tune"
    TEST = "test"


@dataclass(frozen=True, kw_only=True)
class PinnedPage:
    """The page at `path` in its package; `sha256` is that of what `Preparer` makes of it, kept as `file`."""

    file: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PinnedPackage:
    """A package, and its pages that are in a set; `sha256` is that of its file, `stylesheets` as in `Preparer`."""

    registry: Registry
    name: str
    version: str
    sha256: str
    license: str
    split: Split
    stylesheets: tuple[str, ...] = ()
    pages: tuple[PinnedPage, ...]

    @property
    def exact_name(self) -> PackageName:
        return PackageName(registry=self.registry, name=self.name, version=self.version)


@dataclass(frozen=True, kw_only=True)
class PinnedList:
    """All that is pinned."""

    packages: tuple[PinnedPackage, ...]


class RealPage(NamedTuple):
    """A page of a set: its package, its path there, and its prepared HTML in the cache."""

    package: str
    path: str
    file: Path


def pinned_packages(split: Split | None = None) -> tuple[PinnedPackage, ...]:
    """What is pinned, of one split or of both."""
    text = files("lensmith.data.webpages.real").joinpath(PINNED).read_bytes()
    packages = config.from_json(PinnedList, text, source=PINNED).packages
    return tuple(package for package in packages if split in (None, package.split))


def real_pages(
    split: Split, *, count: int | None = None, cache_dir: Path | None = None, on_progress: OnProgress = unwatched
) -> list[RealPage]:
    """The first `count` pages of a set (None: all), prepared, as files in the cache.

    In an order that takes a page of each package in turn. What is not in the cache is fetched, and only that; a run
    that was stopped goes on where it was. Raises InputError, which names the package, where it cannot be fetched or is
    not the one that was pinned.
    """
    folder = cache_dir or default_cache_dir()
    packages = pinned_packages(split)
    wanted = mixed([[(package, page) for page in package.pages] for package in packages])[:count]
    for done, package in enumerate(packages):
        _complete(package, [page for owner, page in wanted if owner == package], folder)
        on_progress(done + 1, len(packages))
    return [RealPage(package.name, page.path, _place(folder, package, page)) for package, page in wanted]


def real_pages_named(text: str) -> list[RealPage]:
    """What `real:tune`, `real:test`, or with `:N` the first N of them name. Raises InputError, also as `real_pages`."""
    said = re.fullmatch(rf"real:({'|'.join(split.value for split in Split)})(?::([1-9]\d*))?", text)
    if said is None:
        raise InputError("this names no set of real pages", expected="real:tune, real:test, real:test:N", actual=text)
    return real_pages(Split(said[1]), count=int(said[2]) if said[2] else None)


def mixed(groups: Sequence[Sequence[Item]]) -> list[Item]:
    """One item of each group in turn, until none is left."""
    rounds = range(max(map(len, groups), default=0))
    return [group[index] for index in rounds for group in groups if index < len(group)]


def real_page(package: str, path: str, *, cache_dir: Path | None = None, limit_s: float = FETCH_LIMIT_S) -> str:
    """One page of a pinned package as prepared HTML, whether or not it is in a set.

    Raises as `real_pages`, and where the package is not fetched within `limit_s`.
    """
    found = next((pinned for pinned in pinned_packages() if pinned.name == package), None)
    if found is None:
        raise InputError(
            "no such package is pinned", expected=", ".join(p.name for p in pinned_packages()), actual=package
        )
    held = _read(found, cache_dir or default_cache_dir(), limit_s)
    if path not in held.content:
        raise InputError(f"{found.exact_name} does not hold a file", expected=path)
    return Preparer(held, stylesheets=found.stylesheets).prepare(path)


def _place(folder: Path, package: PinnedPackage, page: PinnedPage) -> Path:
    return folder / "pages" / package.split.value / page.file


def _read(package: PinnedPackage, folder: Path, limit_s: float = FETCH_LIMIT_S) -> PackageFiles:
    return read_package(fetch_package(package.exact_name, folder, sha256=package.sha256, limit_s=limit_s))


def _complete(package: PinnedPackage, pages: Sequence[PinnedPage], folder: Path) -> None:
    """Sees that the pages are in the cache. Raises InputError."""
    missing = [page for page in pages if not _is_whole(_place(folder, package, page), page.sha256)]
    if not missing:
        return
    preparer = Preparer(_read(package, folder), stylesheets=package.stylesheets)
    for page in missing:
        data = preparer.prepare(page.path).encode("utf-8", "replace")
        if sha256_of_bytes(data) != page.sha256:
            raise InputError(
                f"{page.path} of {package.exact_name} is not prepared as it was when it was pinned",
                expected=f"sha256 {page.sha256}",
                actual=f"sha256 {sha256_of_bytes(data)}",
                hint="install the html5lib that lensmith was tested with; after a change of the preparation, pin anew",
            )
        write_atomic(_place(folder, package, page), data)


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return sha256_of_bytes(path.read_bytes()) == sha256
    except OSError:
        return False
