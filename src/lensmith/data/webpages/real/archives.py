"""What is in a package's archive, read in one pass and never unpacked: an archive cannot write anywhere.

Kept are pages, stylesheets and small fonts; of pictures, only their size. Limits hold while reading, so that an archive
which grows without end is given up.
"""

import json
import posixpath
import re
import subprocess
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote, urlsplit

from lensmith.core.errors import InputError
from lensmith.data.webpages.real.packages import Package, Registry, client
from lensmith.data.webpages.real.pictures import PictureSize, size_of_picture

Value = TypeVar("Value")

FONT_KINDS = {"woff2": "font/woff2", "woff": "font/woff", "ttf": "font/ttf", "otf": "font/otf"}
_PICTURE_KINDS = frozenset("png jpg jpeg jfif gif webp bmp svg".split())
_PAGE_KINDS = frozenset("html htm xhtml".split())
MOST_BYTES = {
    **dict.fromkeys(FONT_KINDS, 256 << 10),
    **dict.fromkeys(_PICTURE_KINDS, 16 << 20),
    **dict.fromkeys(_PAGE_KINDS, 1 << 20),
    "css": 4 << 20,
}
"""The largest file of each kind that is read, by the end of its name."""
MOST_TOTAL_BYTES = 2 << 30
_TELLS_LICENSE = re.compile(r"package\.json|licen[cs]e(?:\.md|\.txt)?|usr/share/doc/[^/]+/copyright", re.IGNORECASE)
_MOST_TOLD_BYTES = 1 << 20
_MOST_LINKS = 20
_DEBIAN_LICENSE = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class PackageFiles:
    """The files of a package that pages are made of, by path. `license` is what the package says; "" for nothing."""

    content: Mapping[str, bytes]
    picture_sizes: Mapping[str, PictureSize] = field(default_factory=dict)
    license: str = ""

    @property
    def pages(self) -> tuple[str, ...]:
        """Paths of what may be pages, sorted."""
        return tuple(sorted(path for path in self.content if _kind(path) in _PAGE_KINDS))

    def found(self, address: str, base: str) -> str:
        """The path of the file that an address names on the page, or in the stylesheet, at `base`; "" for none.

        An address that begins with / counts from the package's top, or from the lowest folder above `base` where it
        leads to a file: a package does not tell from which folder it is served.
        """
        try:
            parts = urlsplit(address.strip())
        except ValueError:
            return ""
        if parts.scheme or parts.netloc or not parts.path:
            return ""
        folder, path = posixpath.dirname(base), unquote(parts.path)
        if not path.startswith("/"):
            return self._held(posixpath.normpath(posixpath.join(folder, path)))
        while True:
            if found := self._held(posixpath.normpath(posixpath.join(folder, path.lstrip("/")))):
                return found
            if not folder:
                return ""
            folder = posixpath.dirname(folder)

    def _held(self, path: str) -> str:
        return path if path in self.content or path in self.picture_sizes else ""


def read_package(package: Package) -> PackageFiles:
    """Reads a package's archive. Raises InputError for one that is damaged, too large, or names a file outside it."""
    problem = f"{package.name} cannot be read"
    try:
        if package.name.registry is Registry.NPM:
            with package.path.open("rb") as file:
                return _read(file, "r|*", problem, top=True)
        return _read_debian(package.path, problem)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        hint = f"delete {package.path}, so that it is fetched again"
        raise InputError(f"{problem}: its archive is damaged", actual=error, hint=hint) from error


def _read_debian(path: Path, problem: str) -> PackageFiles:
    program = client("dpkg-deb", problem, install="install dpkg, which Debian has")
    command = [program, "--fsys-tarfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        assert process.stdout is not None  # a pipe
        try:
            return _read(process.stdout, "r|", problem, top=False)
        finally:
            process.kill()


def _read(file: IO[bytes], mode: str, problem: str, *, top: bool) -> PackageFiles:
    """`top`: whether all files lie in one folder that is not part of their paths, as in npm's tarballs."""
    content: dict[str, bytes] = {}
    sizes: dict[str, PictureSize] = {}
    links: dict[str, str] = {}
    told: dict[str, bytes] = {}
    total = 0
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]  # a mode of a stream
        for member in archive:
            path = _inside(member.name, problem)
            path = path.partition("/")[2] if top else path
            total += member.size
            if total > MOST_TOTAL_BYTES:
                raise InputError(f"{problem}: it holds too much", expected=f"at most {MOST_TOTAL_BYTES:,} bytes")
            if member.issym() and not top:
                links[path] = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), member.linkname))[1:]
            elif member.isfile() and member.size <= _MOST_TOLD_BYTES and _TELLS_LICENSE.fullmatch(path):
                told[path] = _content(archive, member)
            elif member.isfile() and member.size <= MOST_BYTES.get(_kind(path), 0):
                data = _content(archive, member)
                if _kind(path) not in _PICTURE_KINDS:
                    content[path] = data
                elif (size := size_of_picture(data)) is not None:
                    sizes[path] = size
    _follow(links, content)
    _follow(links, sizes)
    return PackageFiles(content=content, picture_sizes=sizes, license=_license(told))


def _inside(name: str, problem: str) -> str:
    """A member's path. Raises InputError where it leads out of the archive."""
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path == "..":
        raise InputError(f"{problem}: it names a file outside itself", actual=name, hint="do not trust this package")
    return path


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # of what is a file
    return file.read()


def _follow(links: Mapping[str, str], found: dict[str, Value]) -> None:
    """Puts what symbolic links in the archive point at where they stand, files and folders."""
    for link, target in links.items():
        for _ in range(_MOST_LINKS):
            if target not in links:
                break
            target = links[target]  # noqa: PLW2901  # a link to a link
        inside = [(path, value) for path, value in found.items() if path == target or path.startswith(f"{target}/")]
        for path, value in inside:
            found.setdefault(link + path[len(target) :], value)


def _kind(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _license(told: Mapping[str, bytes]) -> str:
    """What package.json says, else all that Debian's copyright file names, else the first line of a LICENSE file."""
    found = ""
    for path, data in sorted(told.items(), reverse=True):  # usr/..., package.json, LICENSE
        text = data.decode("utf-8", "replace")
        if path == "package.json":
            found = _npm_license(text)
        elif path.startswith("usr/"):
            found = ", ".join(dict.fromkeys(name.strip() for name in _DEBIAN_LICENSE.findall(text)))
        else:
            found = text.strip().partition("\n")[0].strip("# ").strip()
        if found:
            break
    return found[:200]


def _npm_license(text: str) -> str:
    try:
        said = json.loads(text)
    except ValueError:
        return ""
    license_name = said.get("license", "") if isinstance(said, dict) else ""
    license_name = license_name.get("type", "") if isinstance(license_name, dict) else license_name
    return license_name if isinstance(license_name, str) else ""
