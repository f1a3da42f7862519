"""The pictures of a page: inside it, in files beside it, or boxes in their places.

Engines write pages that hold their pictures themselves, as data URLs. Here these are taken out of any page, whoever
wrote it. The page is changed at such addresses and nowhere else: tags are found by Python's tag reader, addresses in
CSS by its tokens, so that a text which only looks like an address stays.
"""

import base64
import binascii
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from html import escape, unescape
from html.parser import HTMLParser as TagReader
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from lensmith.core.errors import ImageError, InputError
from lensmith.core.files import is_stream, sha256_of_bytes, write_atomic
from lensmith.core.images import open_picture

_ENDINGS = {
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg",
    "image/jpg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/x-icon": "ico",
    "image/vnd.microsoft.icon": "ico",
    "image/svg+xml": "svg",
}
"""Files of other kinds would not be known for pictures by their names: these stay in the page."""
_ADDRESSES = frozenset({"src", "srcset", "poster", "background", "data", "href", "xlink:href"})
_LINKS = frozenset({"a", "area", "base"})
"""Elements whose `href` shows nothing."""
_ATTRIBUTE = re.compile(r"""([^\s/>="']+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s>]*))?""")
_CSS_ADDRESS = re.compile(
    r"""/\*.*?(?:\*/|\Z)
      | (?<![\w-])url\(\s*
        (?P<url>"[^"\\]*(?:\\.[^"\\]*)*" | '[^'\\]*(?:\\.[^'\\]*)*' | [^)\\"'\s]*(?:\\.[^)\\"'\s]*)*)
        \s*\)
      | "[^"\\\n]*(?:\\.[^"\\\n]*)*"
      | '[^'\\\n]*(?:\\.[^'\\\n]*)*'""",
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)
_CSS_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})[ \t\n\f]?|\n|(.))", re.DOTALL)
_IN_SET = re.compile(r"data:image/[^\s]+?(?=,?(?:\s|$))", re.IGNORECASE)
_STYLE_END = re.compile(r"</style", re.IGNORECASE)
_SVG_TAG = re.compile(r"<svg\b[^>]*>", re.IGNORECASE)
_SVG_SIDE = re.compile(r"""\s(width|height)\s*=\s*["']\s*([0-9.]+)(?:px)?\s*["']""")
_SVG_BOX = re.compile(r"""\sviewBox\s*=\s*["']\s*[-0-9.e]+[\s,]+[-0-9.e]+[\s,]+([0-9.e]+)[\s,]+([0-9.e]+)""")
_USUAL_SIZE = (300, 150)
"""What CSS takes for a picture that has no size of its own, in px."""
_BOX_COLOUR, _WORDS_COLOUR = "#d5dae1", "#46505c"
_LETTERS_PX, _LETTER_WIDTH = 16.0, 0.6


class PictureMode(StrEnum):
    """What becomes of a page's pictures."""

    EMBED = "embed"
    """They stay inside it."""
    FILES = "files"
    """Each is a file, in a folder beside the page."""
    NONE = "none"
    """Boxes of one grey, of their sizes and with their alternative texts, stand in their places."""


@dataclass(frozen=True, kw_only=True)
class InlinePicture:
    """A picture that a page holds: its MIME type, the content of its file, and its alternative text, if it has one."""

    kind: str
    content: bytes
    alternative: str = ""


@dataclass(frozen=True, kw_only=True)
class PageWithPictures:
    """A page, and the files that it needs, by paths from its own folder. `pictures` of it were taken out."""

    html: str
    files: dict[str, bytes]
    pictures: int


def with_pictures(html: str, mode: PictureMode, folder: str) -> PageWithPictures:
    """The page with its pictures as `mode` says; `folder` is the name of one beside the page, for FILES.

    A picture that comes again is one file. A file's name holds a part of its content's hash.
    """
    files: dict[str, bytes] = {}
    names: dict[bytes, str] = {}
    count = 0

    def into_file(picture: InlinePicture) -> str:
        if picture.content not in names:
            ending, digest = _ENDINGS[picture.kind], sha256_of_bytes(picture.content)[:8]
            names[picture.content] = f"picture-{len(names) + 1:02}-{digest}.{ending}"
            files[f"{folder}/{names[picture.content]}"] = picture.content
        return f"{quote(folder, safe='')}/{names[picture.content]}"

    def into_box(picture: InlinePicture) -> str:
        nonlocal count
        count += 1
        return _box(picture)

    match mode:
        case PictureMode.EMBED:
            return PageWithPictures(html=html, files={}, pictures=0)
        case PictureMode.FILES:
            html = _readdressed(html, into_file)
            return PageWithPictures(html=html, files=files, pictures=len(files))
        case PictureMode.NONE:
            html = _readdressed(html, into_box)
            return PageWithPictures(html=html, files={}, pictures=count)


def check_place(out: Path, mode: PictureMode) -> None:
    """Raises InputError where files cannot lie beside a page that is written to `out`."""
    if mode is PictureMode.FILES and is_stream(out):
        raise InputError(
            "there is no place beside a stream for a page's pictures",
            expected="a file for the page",
            actual=out,
            hint="write the page into a file, or leave its pictures inside it",
        )


def write_page(out: Path, html: str, mode: PictureMode) -> PageWithPictures:
    """Writes a page, its pictures as `mode` says: files go into `NAME_files` beside `NAME.html`, before the page.

    No file is overwritten but the page: one of a picture's name that holds something else raises InputError, and
    nothing is written. Files that an earlier page needed stay. Raises OSError as `write_atomic` does.
    """
    check_place(out, mode)
    page = with_pictures(html, mode, f"{out.stem}_files")
    missing = {}
    for name, content in page.files.items():
        place = out.parent / name
        if not place.exists():
            missing[place] = content
        elif not place.is_file() or place.read_bytes() != content:
            raise InputError(
                f"{place} would be overwritten",
                expected="no file of this name, or the same picture",
                actual="something else, perhaps a picture that was changed by hand",
                hint="move it away, or give the page another name",
            )
    for place, content in missing.items():
        write_atomic(place, content)
    write_atomic(out, page.html.encode())
    return page


# --- where pictures are in a page -------------------------------------------------------------------------------------

NewAddress = Callable[[InlinePicture], str]
"""What takes a picture and gives the address that stands for it from now on, in characters that need no quoting."""


class _Change(NamedTuple):
    start: int
    end: int
    text: str


class _Tags(TagReader):
    """Finds start tags with their places in the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[str, int, str]] = []
        self._lines = [0, *accumulate(len(line) + 1 for line in html.split("\n"))]
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        line, column = self.getpos()
        self.found.append((tag, self._lines[line - 1] + column, self.get_starttag_text() or ""))

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.handle_starttag(tag, attrs)


def _readdressed(html: str, new_address: NewAddress) -> str:
    """The page with a new address for each picture inside it, in the order of the markup."""
    pieces, done = [], 0
    for change in _changes(html, new_address):
        pieces += [html[done : change.start], change.text]
        done = change.end
    return "".join([*pieces, html[done:]])


def _changes(html: str, new_address: NewAddress) -> Iterator[_Change]:
    ends = [match.start() for match in _STYLE_END.finditer(html)]
    for tag, start, text in _Tags(html).found:
        attributes = list(_ATTRIBUTE.finditer(text, 1 + len(tag)))
        named = {attribute[1].lower(): _value(attribute) for attribute in attributes}
        for attribute in attributes:
            name, value = attribute[1].lower(), _value(attribute)
            new = value
            if name == "style":
                new = _css_readdressed(value, new_address)
            elif name in _ADDRESSES and not (name == "href" and tag in _LINKS):
                new = _address_readdressed(value, name, named.get("alt", ""), new_address)
            if new != value:
                first, last = attribute.span(2)
                yield _Change(start + first, start + last, f'"{escape(new)}"')
        if tag == "style":
            opened = start + len(text)
            following = bisect_left(ends, opened)
            closed = ends[following] if following < len(ends) else len(html)
            css = html[opened:closed]
            yield _Change(opened, closed, _css_readdressed(css, new_address))


def _value(attribute: re.Match[str]) -> str:
    raw = attribute[2] or ""
    return unescape(raw[1:-1] if raw[:1] in ("'", '"') else raw)


def _address_readdressed(value: str, name: str, alternative: str, new_address: NewAddress) -> str:
    def new(address: str) -> str:
        return _new_or_same(address, alternative, new_address)

    return _IN_SET.sub(lambda match: new(match[0]), value) if name == "srcset" else new(value)


def _css_readdressed(css: str, new_address: NewAddress) -> str:
    def replaced(match: re.Match[str]) -> str:
        written = match["url"]
        if not written:
            return match[0]
        plain = written[1:-1] if written[0] in ("'", '"') else written
        address = _CSS_ESCAPE.sub(_unescaped, plain) if "\\" in plain else plain
        new = _new_or_same(address, "", new_address)
        return match[0] if new == address else f"url({new})"

    return _CSS_ADDRESS.sub(replaced, css)


def _unescaped(match: re.Match[str]) -> str:
    code, character = match.groups()
    if code is None:
        return str(character or "")
    number = int(code, 16)
    return chr(number) if 0 < number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"


def _new_or_same(address: str, alternative: str, new_address: NewAddress) -> str:
    """The new address of a picture; the same where it is none, or of a kind that would not be one in a file."""
    plain = re.sub(r"[\t\n\r]", "", address.strip())
    head, comma, rest = plain.partition(",")
    scheme, _, said = head.partition(":")
    kind, *parameters = (part.strip().lower() for part in said.split(";"))
    if not comma or scheme.lower() != "data" or kind not in _ENDINGS:
        return address
    body, mark, place = rest.partition("#")
    content = unquote_to_bytes(body)
    if "base64" in parameters[-1:]:
        packed = re.sub(rb"\s", b"", content).rstrip(b"=")
        try:
            content = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
        except binascii.Error:
            return address  # it shows nothing, wherever it is
    picture = InlinePicture(kind=kind, content=content, alternative=alternative)
    return f"{new_address(picture)}{mark}{quote(place, safe='=,()&;')}"


# --- boxes ------------------------------------------------------------------------------------------------------------


def _box(picture: InlinePicture) -> str:
    """The address of a grey picture of the same size, which needs a few bytes."""
    width, height = _size(picture)
    words = ""
    if picture.alternative.strip():
        text = " ".join(picture.alternative.split())
        letters_px = min(_LETTERS_PX, width / (_LETTER_WIDTH * len(text)), 0.8 * height)
        words = (
            f'<text x="50%" y="50%" text-anchor="middle" dominant-baseline="middle" font-family="sans-serif" '
            f'font-size="{letters_px:.3g}" fill="{_WORDS_COLOUR}">{escape(text)}</text>'
        )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none"><rect width="100%" height="100%" fill="{_BOX_COLOUR}"/>{words}</svg>'
    )
    return f"data:image/svg+xml,{quote(svg, safe='=/:')}"


def _size(picture: InlinePicture) -> tuple[int, int]:
    """Its own width and height in px."""
    if picture.kind != "image/svg+xml":
        try:
            return open_picture(picture.content).size
        except ImageError:
            return _USUAL_SIZE
    tag = _SVG_TAG.search(picture.content.decode("utf-8", "replace"))
    sides = dict(_SVG_SIDE.findall(tag[0])) if tag else {}
    box = _SVG_BOX.search(tag[0]) if tag else None
    if len(sides) < 2 and box is not None:
        sides = {"width": box[1], "height": box[2]}
    try:
        width, height = (max(1, round(float(sides[side]))) for side in ("width", "height"))
    except (KeyError, ValueError, OverflowError):
        return _USUAL_SIZE
    return width, height
