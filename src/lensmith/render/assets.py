"""What a page from a file may read: files in one folder, its own by default, and nothing else.

The page gets an address that mirrors its place in the folder. So relative addresses, those of its stylesheets too, lead
where they lead in a browser that opens the file, and `..` cannot be mistaken for something below the folder: what lies
above is at addresses too, with `-` for the names, which the page need not learn. Each request is answered with a file,
or refused and noted.

A file is read where it really lies, after all links; opening it follows none, so that nothing can be put in its place
in between. Only plain files are opened. Absolute paths and `file:` addresses are refused even where they lead into the
folder: pages that name them are made for one machine.
"""

import asyncio
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Self
from urllib.parse import quote, unquote, unquote_to_bytes

from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import is_stream
from lensmith.core.types import NotLoaded, WhyNotLoaded

ORIGIN = "https://page.invalid"
MAX_ADDRESSES = 10
"""The most addresses that a note names."""
_SHOWN_CHARS = 120
_SERVERS = ("http", "https", "ws", "wss", "ftp")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC

# As Chromium has them for files, whatever this machine's own table says.
_KINDS = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".html": "text/html",
    ".htm": "text/html",
    ".shtml": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".xht": "application/xhtml+xml",
    ".xml": "text/xml",
    ".txt": "text/plain",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".apng": "image/apng",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jfif": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".ico": "image/x-icon",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".otf": "font/otf",
}


@dataclass(frozen=True, kw_only=True)
class Assets:
    """The folder that a page may read, where the page lies in it, and limits on what is read for the one page.

    `page` need not be there: it is what addresses are relative to. Raises ConfigError unless it lies below `root`.
    """

    root: Path
    page: Path
    max_files: int = 1000
    max_file_bytes: int = 32_000_000
    max_bytes: int = 64_000_000
    """Of all files together."""

    def __post_init__(self) -> None:
        if min(self.max_files, self.max_file_bytes, self.max_bytes) < 1:
            limits = f"max_files={self.max_files}, max_file_bytes={self.max_file_bytes}, max_bytes={self.max_bytes}"
            raise ConfigError("the limits on what a page may read must be at least 1", actual=limits)
        _located(self.root, self.page)

    @classmethod
    def beside(cls, page: Path, root: Path | None = None) -> Self | None:
        """What the file `page` may read: `root`, or its own folder; None for a stream, which lies in no folder.

        With a `root`, a stream counts as lying in it. Raises InputError unless `root` is a folder above the page.
        """
        if root is not None and not root.is_dir():
            raise InputError(f"{root} holds no assets", expected="a folder", actual="no folder of this name")
        if is_stream(page):
            return None if root is None else cls(root=root, page=root / page.name)
        return cls(root=root or page.parent, page=page)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file to answer with; `kind` is its MIME type, "" where its name does not tell."""

    content: bytes
    kind: str


class AssetDoor:
    """Answers the requests of one page while it is loaded, and remembers what it refused. Lives in one event loop."""

    def __init__(self, assets: Assets) -> None:
        root, place = _located(assets.root, assets.page)
        self._mount = (*["-"] * (1 + len(root.parents)), root.name or "-")
        self.address = "/".join([ORIGIN, *map(_quoted, (*self._mount, *place.parts))])
        self.has_styles = False
        """Whether a stylesheet was read."""
        self._root = root.resolve()
        self._assets = assets
        self._files, self._bytes = 0, 0
        self._noted: dict[WhyNotLoaded, _Noted] = {}
        self._one_at_a_time = asyncio.Lock()  # so that no more than one file of a page waits in memory

    async def read(self, url: str) -> Asset | None:
        """The file at `url`; None, which is noted, where there is none that this page may read."""
        try:
            names = self._names_at(url)
            async with self._one_at_a_time:
                content = await self._content(names)
        except _RefusedError as error:
            self._note(url, error.reason)
            return None
        kind = _KINDS.get(PurePath(names[-1]).suffix.lower(), "")
        self.has_styles |= kind == "text/css"
        return Asset(content=content, kind=kind)

    def refuse(self, url: str) -> None:
        """Notes what the browser itself did not let the page ask for."""
        scheme = url.partition(":")[0].lower()
        if scheme != "file" and scheme not in _SERVERS:
            return  # data:, blob: and such name nothing outside the page
        try:
            self._names_at(url)
        except _RefusedError as error:
            self._note(url, error.reason)
        else:
            self._note(url, "refused")

    def notes(self) -> tuple[NotLoaded, ...]:
        """What the page was not given, a note a reason."""
        return tuple(
            NotLoaded(reason=reason, count=len(noted.seen), addresses=tuple(noted.first))
            for reason, noted in sorted(self._noted.items())
        )

    def _names_at(self, url: str) -> tuple[str, ...]:
        """The steps from the folder to the file that an address names. Raises _RefusedError."""
        if not url.startswith(f"{ORIGIN}/"):
            raise _RefusedError("elsewhere" if url.partition(":")[0].lower() in _SERVERS else "outside")
        # By bytes, because a name on the disk need not be text.
        steps = tuple(os.fsdecode(unquote_to_bytes(step)) for step in _path_of(url).split("/")[1:])
        below = len(self._mount)
        if steps[:below] != self._mount:
            raise _RefusedError("above" if steps[0] == "-" else "outside")
        names = tuple(filter(None, steps[below:]))
        if any("/" in name or "\0" in name or name in (".", "..") for name in names):
            raise _RefusedError("outside")
        if not names:
            raise _RefusedError("unreadable")
        return names

    async def _content(self, names: Sequence[str]) -> bytes:
        limits = self._assets
        if self._files >= limits.max_files:
            raise _RefusedError("too-large")
        limit_bytes = min(limits.max_file_bytes, limits.max_bytes - self._bytes)
        content = await asyncio.to_thread(_read_below, self._root, names, limit_bytes)
        self._files += 1
        self._bytes += len(content)
        return content

    def _note(self, url: str, reason: WhyNotLoaded) -> None:
        noted = self._noted.setdefault(reason, _Noted())
        named = hash(_path_of(url) if url.startswith(f"{ORIGIN}/") else url)
        if named in noted.seen:
            return
        noted.seen.add(named)
        if len(noted.first) < MAX_ADDRESSES:
            noted.first.append(self._shown(url))

    def _shown(self, url: str) -> str:
        path = _path_of(url) if url.startswith(f"{ORIGIN}/") else ""
        if path.startswith("/-/"):
            here = _path_of(self.address).rpartition("/")[0]
            url = posixpath.relpath(path, here)
        elif path:
            url = path
        # What does not print, or would steer a terminal, stays percent-encoded.
        readable = unquote(url)
        shown = readable if readable.isprintable() else quote(url, safe="/:?&=#%@+,;~!$'()*[]")
        return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."


class _RefusedError(Exception):
    def __init__(self, reason: WhyNotLoaded) -> None:
        super().__init__(reason)
        self.reason = reason


class _Noted:
    """Addresses refused for one reason. Hashes rather than texts, because a page may name a million long ones."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.first: list[str] = []


def _located(root: Path, page: Path) -> tuple[Path, PurePath]:
    """The folder, absolute, and the page's path in it. Raises ConfigError."""
    folder, beside = _absolute(root), _absolute(page.parent)
    for above, below in ((folder, beside), (folder.resolve(), beside.resolve())):
        if below.is_relative_to(above):
            return above, below.relative_to(above) / page.name
    raise ConfigError(f"{page} does not lie in the folder that it may read", expected=f"a file below {root}")


def _absolute(folder: Path) -> Path:
    """Links stay as they are named, as a browser leaves them; but `..` is where the system says, which follows them."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def _quoted(name: str) -> str:
    return quote(os.fsencode(name), safe="")


def _path_of(url: str) -> str:
    """The path of an address of ours, without query and fragment."""
    return url.removeprefix(ORIGIN).partition("#")[0].partition("?")[0]


def _read_below(root: Path, names: Sequence[str], limit_bytes: int) -> bytes:
    """The content of a plain file that lies below `root` (a path without links). Raises _RefusedError."""
    try:
        place = root.joinpath(*names).resolve()
        if not place.is_relative_to(root):
            raise _RefusedError("outside")
        with os.fdopen(_open_below(root, place.relative_to(root).parts), "rb") as file:
            size = _plain_size(os.fstat(file.fileno()))
            if size > limit_bytes:
                raise _RefusedError("too-large")
            content = file.read(size + 1)
            if len(content) > size:  # it grows, or is one whose size the system does not know
                content += file.read(limit_bytes + 1 - len(content))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _RefusedError("missing") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a ring, before Python 3.13
        raise _RefusedError("unreadable") from error
    if len(content) > limit_bytes:
        raise _RefusedError("too-large")
    return content


def _open_below(root: Path, names: Sequence[str]) -> int:
    """A descriptor, reached step by step without following any link. Raises OSError and _RefusedError."""
    if not names:
        raise _RefusedError("unreadable")
    folder = os.open(root, _FOLDER)
    try:
        for name in names[:-1]:
            inner = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Before it is opened, which some devices take for an order, and after, which is what counts.
        _plain_size(os.stat(names[-1], dir_fd=folder, follow_symlinks=False))
        return os.open(names[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _plain_size(status: os.stat_result) -> int:
    """The size in bytes of a plain file. Raises _RefusedError for anything else."""
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("unreadable")
    return status.st_size
