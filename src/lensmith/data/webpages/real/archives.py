"""What pages are made of, as it lies in a package: pages, stylesheets and small fonts; of pictures, only their size."""

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from lensmith.data.packages import Package, entries_in
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
    content: dict[str, bytes] = {}
    sizes: dict[str, PictureSize] = {}
    links: dict[str, str] = {}
    told: dict[str, bytes] = {}
    for entry in entries_in(package, _is_read):
        if entry.target is not None:
            links[entry.path] = entry.target
        elif _tells_license(entry.path, len(entry.content)):
            told[entry.path] = entry.content
        elif _kind(entry.path) not in _PICTURE_KINDS:
            content[entry.path] = entry.content
        elif (size := size_of_picture(entry.content)) is not None:
            sizes[entry.path] = size
    _follow(links, content)
    _follow(links, sizes)
    return PackageFiles(content=content, picture_sizes=sizes, license=_license(told))


def _is_read(path: str, size_bytes: int) -> bool:
    return _tells_license(path, size_bytes) or size_bytes <= MOST_BYTES.get(_kind(path), 0)


def _tells_license(path: str, size_bytes: int) -> bool:
    return size_bytes <= _MOST_TOLD_BYTES and _TELLS_LICENSE.fullmatch(path) is not None


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
