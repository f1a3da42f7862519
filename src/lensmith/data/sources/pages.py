"""HTML documents with their pictures, as text and pictures in reading order.

A page's text is what is read on it: blocks are lines; scripts, forms, navigation and what is hidden are left out, and
so is the text that stands for a picture. HTML is hostile: a page can name pictures of its own folder or archive alone.
"""

import hashlib
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element  # only the type: html5lib parses

from lensmith.core.config import content_hash
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.files import sha256_of_bytes
from lensmith.data.documents import BadRecordError, Document, PictureRef
from lensmith.data.sources.base import Portion
from lensmith.data.sources.members import index_of, named_members, read_at
from lensmith.data.webpages.real.pictures import size_of_picture

PAGE_KINDS = frozenset("html htm xhtml".split())
PICTURE_KINDS = frozenset("png jpg jpeg gif webp bmp".split())
MOST_PAGE_BYTES, MOST_PICTURE_BYTES = 4 << 20, 16 << 20
_MOST_TAGS = 20_000
"""Of a page that is parsed: the time that nested tags take grows with the square of their number."""
_KEPT_PAGES = 4096
_FORM = "files-2"

_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main ol p pre section summary table tbody tfoot thead "
    "tr ul".split()
)
_CELLS = frozenset(("td", "th"))
_NOT_READ = frozenset(
    "head script style template noscript nav iframe frame frameset object embed applet video audio canvas svg math map "
    "button select textarea input datalist dialog".split()
)
_NOT_READ_ROLES = frozenset("navigation banner contentinfo search menu menubar toolbar".split())
_NOT_READ_CLASSES = frozenset(
    "nav navbar navheader navfooter navigation breadcrumb breadcrumbs pagination toc toctree-wrapper sphinxsidebar "
    "headerlink".split()
)
"""As documentation is built: navheader, navfooter and toc by DocBook, the last three by Sphinx."""
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\n\r\f\xa0]+")


class PageContent(Enum):
    """What of a page is a document."""

    INTERLEAVED = "interleaved"
    TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class PageReadingConfig:
    """How a page is read.

    Pictures with a side below `least_px` are icons and left out; a page with less text than `least_characters` is a bad
    record.
    """

    content: PageContent = PageContent.INTERLEAVED
    least_px: int = 64
    least_characters: int = 1

    def __post_init__(self) -> None:
        if min(self.least_px, self.least_characters) < 1:
            actual = f"least_px={self.least_px}, least_characters={self.least_characters}"
            raise ConfigError("least_px and least_characters must be positive", expected="at least 1", actual=actual)


@dataclass(frozen=True, kw_only=True)
class PagesConfig:
    """A folder of HTML documents, or a tar archive of one. A page is held out by its path."""

    kind: ClassVar[str] = "pages"
    path: Path
    reading: PageReadingConfig = field(default_factory=PageReadingConfig)
    portion: Portion = Portion.ALL

    def open(self) -> "PagesSource":
        """Raises InputError where there is no page, or the archive is compressed or damaged."""
        return PagesSource(self)


class PagesSource:
    """A document for each page, in the order of their paths. Made by `PagesConfig.open`."""

    def __init__(self, config: PagesConfig) -> None:
        self._reading = config.reading
        self._files = _Folder(config.path) if config.path.is_dir() else _Archive(config.path)
        pages = sorted(path for path in self._files.sizes if kind_of(path) in PAGE_KINDS)
        if not pages:
            raise InputError(f"{config.path} holds no page", expected=", ".join(sorted(PAGE_KINDS)))
        self._pages = [path for path in pages if config.portion.takes(path)]
        self._shown: dict[str, bool] = {}
        # Parsing takes longer than all else that is done with a page.
        self._parsed = lru_cache(_KEPT_PAGES)(self._parse)
        said = [self._files.fingerprint, content_hash(config.reading), config.portion.value]
        self.fingerprint = sha256_of_bytes("\n".join(said).encode())

    def __len__(self) -> int:
        return len(self._pages)

    def document(self, index: int) -> Document:
        return self._parsed(self._pages[index])

    def picture(self, ref: PictureRef) -> bytes:
        return self._files.read(ref.place)

    def _parse(self, path: str) -> Document:
        html = self._files.read(path) if self._files.sizes[path] <= MOST_PAGE_BYTES else b""
        if not html or html.count(b"<") > _MOST_TAGS:
            raise BadRecordError("its page is empty or too large", actual=path)
        pieces = read_page(html, lambda address: self._picture_at(address, path))
        characters = sum(len(piece) for piece in pieces if isinstance(piece, str))
        if characters < self._reading.least_characters:
            raise BadRecordError("it has too little text", actual=path)
        return Document(key=path, pieces=pieces)

    def _picture_at(self, address: str, page: str) -> str | None:
        """Where the picture is that an address on a page names; None where it is not there, or not shown."""
        path = _resolved(address, page)
        if self._reading.content is PageContent.TEXT or kind_of(path) not in PICTURE_KINDS:
            return None
        if not 0 < self._files.sizes.get(path, 0) <= MOST_PICTURE_BYTES:
            return None
        if path not in self._shown:
            self._shown[path] = _least_side_px(self._files.read(path)) >= self._reading.least_px
        return path if self._shown[path] else None


def kind_of(path: str) -> str:
    """What a file's name ends in, without the dot."""
    return path.rpartition(".")[2].lower()


def _resolved(address: str, page: str) -> str:
    """The path that an address on a page names; what leads elsewhere names no file."""
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return ""
    if parts.scheme or parts.netloc or not parts.path:
        return ""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(page), unquote(parts.path)))[1:]


def _least_side_px(content: bytes) -> int:
    """The shorter side of a picture, as its header says; 0 for none."""
    size = size_of_picture(content)
    if size is None or not (size.width.isdecimal() and size.height.isdecimal()):
        return 0
    return min(int(size.width), int(size.height))


# --- reading a page -----------------------------------------------------------------------------------------------


def read_page(html: bytes, picture_at: Callable[[str], str | None]) -> tuple[str | PictureRef, ...]:
    """Texts and pictures of a page, in reading order, two texts never in a row.

    `picture_at` gives the place of the picture that an address names, None for one that is left out. Bytes are decoded
    by a byte order mark, else as the page's `meta` says, else as UTF-8.
    """
    import html5lib  # noqa: PLC0415  # of an extra, which other sources do without

    tree = html5lib.parse(
        html, treebuilder="etree", namespaceHTMLElements=False, likely_encoding="utf-8", useChardet=False
    )
    return _Reader(picture_at).read(tree)


class _Reader:
    """Gathers what is read of one page: finished pieces, the finished lines of the text since, and the last line."""

    def __init__(self, picture_at: Callable[[str], str | None]) -> None:
        self._picture_at = picture_at
        self._pieces: list[str | PictureRef] = []
        self._lines: list[str] = []
        self._line = ""
        self._preformatted = 0

    def read(self, root: Element) -> tuple[str | PictureRef, ...]:
        # Not recursive: pages nest deeper than calls may.
        waiting = [(root, True)]
        while waiting:
            element, begins = waiting.pop()
            if begins and _is_read(element):
                self._begin(element)
                waiting.append((element, False))
                waiting += ((child, True) for child in reversed(element))
                continue
            if not begins:
                self._end(element)
            self._add(element.tail or "")
        self._end_text()
        return tuple(self._pieces)

    def _begin(self, element: Element) -> None:
        if element.tag in _BLOCKS or element.tag == "br":
            self._end_line()
        self._preformatted += element.tag == "pre"
        if element.tag == "img" and (place := self._picture_at(element.get("src", ""))) is not None:
            self._end_text()
            self._pieces.append(PictureRef(place=place))
        self._add(element.text or "")

    def _end(self, element: Element) -> None:
        self._preformatted -= element.tag == "pre"
        if element.tag in _BLOCKS:
            self._end_line()
        elif element.tag in _CELLS:
            self._add(" ")

    def _add(self, text: str) -> None:
        if not self._preformatted:
            text = _SPACE.sub(" ", text)
            self._line += text.lstrip(" ") if not self._line or self._line[-1].isspace() else text
            return
        *lines, last = text.split("\n")
        for line in lines:
            self._line += line
            self._end_line()
        self._line += last

    def _end_line(self) -> None:
        if line := self._line.rstrip():
            self._lines.append(line)
        self._line = ""

    def _end_text(self) -> None:
        self._end_line()
        if self._lines:
            self._pieces.append("\n".join(self._lines))
        self._lines = []


def _is_read(element: Element) -> bool:
    if not isinstance(element.tag, str) or element.tag.rpartition("}")[2] in _NOT_READ:  # a comment has no name
        return False
    if "hidden" in element.attrib or _HIDDEN.search(element.get("style", "")):
        return False
    roles, classes = element.get("role", "").lower().split(), element.get("class", "").lower().split()
    return _NOT_READ_ROLES.isdisjoint(roles) and _NOT_READ_CLASSES.isdisjoint(classes)


# --- where the files of pages are ---------------------------------------------------------------------------------


class _Folder:
    """Pages and pictures below a folder. What a link leads to outside it is not there.

    The fingerprint is that of the pages, and of the names and sizes of the pictures.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        digest = hashlib.sha256()
        self.sizes: dict[str, int] = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            kind = kind_of(name)
            if kind not in PAGE_KINDS | PICTURE_KINDS or not path.is_file():
                continue
            if not path.resolve().is_relative_to(self._folder):
                continue
            self.sizes[name] = path.stat().st_size
            digest.update(f"{name}\n{self.sizes[name]}\n".encode("utf-8", "surrogateescape"))
            if kind in PAGE_KINDS:
                digest.update(path.read_bytes())
        self.fingerprint = digest.hexdigest()

    def read(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except OSError as error:
            raise BadRecordError("its file is gone", actual=path) from error


class _Archive:
    """Pages and pictures in a tar archive; the fingerprint is that of `named_members`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        index = index_of(path, partial(named_members, read_whole=PAGE_KINDS), form=_FORM)
        names, at, size = (index.rows[column].to_pylist() for column in ("name", "at", "bytes"))
        self._places = dict(zip(names, zip(at, size, strict=True), strict=True))
        self.sizes = {name: size for name, (_, size) in self._places.items()}
        self.fingerprint = index.fingerprint

    def read(self, path: str) -> bytes:
        return read_at(self._path, *self._places[path])
