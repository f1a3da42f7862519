"""Model output becomes well-formed HTML that stands alone.

A real parser (html5lib, which follows the WHATWG standard as browsers do) reads whatever was written; its tree is
written out again with every tag closed and every value quoted. On the way everything is removed that runs, or that
reaches outside the page. Compact: runs of white space become one space (but in `pre`, `textarea` and where the element
itself says `white-space`), none at the edge of an element that is always a block, no comments, boolean attributes
without a value. HTML that is already so comes back unchanged, whether a whole document, a `body` element or a fragment
of one.

Writing and reading again changes some odd trees (a form in a table), so this is repeated until nothing changes.
"""

import enum
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser as TagReader
from typing import Any, NamedTuple

import html5lib

from lensmith.data.webpages.markup.outside import (
    css_reaches_out,
    css_without_outside,
    is_inline_picture,
    is_local_link,
    is_place_on_page,
)

VOID_ELEMENTS = frozenset("area base br col embed hr img input link meta param source track wbr".split())
WHITE_SPACE = re.compile(r"[ \t\n\f\r]+")

_IMPLIED = frozenset({"<html", "<head", "<body", "<tbody", "<colgroup"})  # a parser adds these where they are missing


def is_well_formed(html: str) -> bool:
    """Whether a document, a `body` element or a fragment says what it means: it parses without a single error, every
    element that can be closed is closed by its own end tag, in order, and the parser moves nothing to another place.

    Judged by two parsers: html5lib, and Python's tag reader, which takes tags as they stand. Where both see the same
    elements and the same text in the same order, nothing was mended.
    """
    parsed, read = parse(html), read_tags(html)
    if parsed.errors or not read.is_nested or read.open:
        return False
    return _outline(parsed.tokens, implied=_IMPLIED - set(read.outline)) == read.outline


class Shape(enum.Enum):
    """What a piece of HTML is."""

    DOCUMENT = enum.auto()
    BODY = enum.auto()
    FRAGMENT = enum.auto()


class ParseError(NamedTuple):
    code: str
    name: str


class Parsed(NamedTuple):
    shape: Shape
    tokens: Iterable[Mapping[str, Any]]
    errors: list[ParseError]


def parse(html: str) -> Parsed:
    """Read as a fragment; if that meets tags that only a page has, as a page."""
    parser, walk = html5lib.HTMLParser(namespaceHTMLElements=False), html5lib.getTreeWalker("etree")
    tree = parser.parseFragment(html, container="body")
    errors = _errors(parser)
    page_tags = {error.name for error in errors if error.name in ("html", "head", "body")}
    page_tags |= {"html" for error in errors if error.code in ("non-html-root", "unexpected-doctype")}
    if not page_tags:
        return Parsed(Shape.FRAGMENT, walk(tree), errors)
    tree = parser.parse(html)
    errors = _errors(parser)
    if page_tags == {"body"} and errors[:1] == [ParseError("expected-doctype-but-got-start-tag", "body")]:
        return Parsed(Shape.BODY, walk(tree), errors[1:])
    return Parsed(Shape.DOCUMENT, walk(tree), errors)


def _errors(parser: html5lib.HTMLParser) -> list[ParseError]:
    return [ParseError(code, str(details.get("name", ""))) for _, code, details in parser.errors]


class Tags(TagReader):
    """Follows tags as they stand: what begins in which order, and whether each end tag closes what was begun last."""

    def __init__(self) -> None:
        super().__init__()
        self.outline: list[str] = []
        self.open: list[str] = []
        self.is_nested = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outline.append(f"<{tag}")
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outline.append(f"<{tag}")  # whether an element may close itself so, html5lib judges

    def handle_endtag(self, tag: str) -> None:
        self.is_nested = self.is_nested and bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        _add_text(self.outline, data)


def read_tags(html: str) -> Tags:
    reader = Tags()
    reader.feed(html)
    reader.close()
    return reader


def _outline(tokens: Iterable[Mapping[str, Any]], implied: frozenset[str]) -> list[str]:
    """Tags ("<p") and the text between them (" words", without its white space) in the order of the tree."""
    outline: list[str] = []
    for token in tokens:
        if token["type"] in ("StartTag", "EmptyTag"):
            tag = f"<{token['name'].lower()}"
            outline += [] if tag in implied else [tag]
        elif token["type"] in ("Characters", "SpaceCharacters"):
            _add_text(outline, token["data"])
    return outline


def _add_text(outline: list[str], text: str) -> None:
    words = WHITE_SPACE.sub("", text)
    if words and outline and outline[-1].startswith(" "):
        outline[-1] += words
    elif words:
        outline.append(f" {words}")


__all__ = ["RepairedHtml", "is_well_formed", "repair"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DROPPED = _names(
    "script noscript template iframe frame noframes noembed embed param base link bgsound portal fencedframe"
)
_UNWRAPPED = _names("object applet frameset plaintext math")
_RENAMED = {"xmp": "pre", "listing": "pre"}  # obsolete elements with parsing rules of their own
_SVG = _names(
    "svg g path rect circle ellipse line polyline polygon text tspan textPath defs linearGradient radialGradient stop"
    " clipPath mask pattern symbol use marker"
)
_SVG_DROPPED = _names("script style title desc metadata animate animateMotion animateTransform set image")
_TABLE_PARTS = _names("table thead tbody tfoot tr colgroup")
_TABLE_CHILDREN = _names("caption colgroup col thead tbody tfoot tr td th style")
_RUBY_PARTS = _names("rt rp")
_PRESERVING = _names("pre textarea")
# White space beside these is never seen. Not here: what pages often set in a line, such as li, div and nav.
_BLOCKS = _names(
    "html head body title meta style header footer main section article aside h1 h2 h3 h4 h5 h6 p hr pre blockquote"
    " form fieldset legend ul ol dl table caption colgroup col thead tbody tfoot tr td th figure figcaption details"
    " option optgroup"
)
_BOOLEAN = _names(
    "allowfullscreen async autofocus autoplay checked controls default defer disabled formnovalidate hidden inert ismap"
    " loop multiple muted nomodule novalidate open playsinline readonly required reversed selected"
)
_LOADING = _names(
    "src srcset imagesrcset poster data background lowsrc dynsrc longdesc cite action formaction manifest codebase"
    " classid archive profile ping srcdoc icon"
)

_ELEMENT_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9.-]*)?")
_ATTRIBUTE_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.-]*")
_TAG_JUST_BEGUN = re.compile(r"(?:</?)+\Z")
# Controls, surrogates, non-characters, and the byte order mark, which a parser drops at the start and nowhere else.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff"
    + "".join(chr(plane + last) for plane in range(0x10000, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
    + "]"
)
_XLINK = "http://www.w3.org/1999/xlink"
_SVG_NAMESPACE = "http://www.w3.org/2000/svg"
_LEFT_OPEN = _names(
    "expected-closing-tag-but-got-eof expected-named-closing-tag-but-got-eof eof-in-table eof-in-select"
    " eof-in-innerhtml"
)
_MOST_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class RepairedHtml:
    """Well-formed HTML, and what was done to get there, each kind once; `changes` is empty if nothing had to be."""

    html: str
    changes: tuple[str, ...]


def repair(html: str) -> RepairedHtml:
    """Any text as well-formed HTML without scripts, event handlers, frames or references to the outside.

    A tag that was cut off at the end is dropped; elements left open are closed; visible text is kept. A document stays
    a document (with a doctype), a `body` element or a fragment stays one. Repairing twice changes nothing more.
    """
    changes: Counter[str] = Counter()
    source = _TAG_JUST_BEGUN.sub("", _FORBIDDEN.sub("", html))
    if source != html:
        changes["dropped what HTML cannot hold"] += 1
    current, written = source, _rewrite(source, changes)
    for _ in range(_MOST_ROUNDS):
        if written == current:
            break
        current, written = written, _rewrite(written, Counter())
    if written == html:
        return RepairedHtml(html=html, changes=())
    said = tuple(f"{change} ({count} times)" if count > 1 else change for change, count in changes.items())
    return RepairedHtml(html=written, changes=said or ("wrote tags and white space in the one compact way",))


def _rewrite(html: str, changes: Counter[str]) -> str:
    shape, tokens, errors = parse(html)
    for error in errors:
        changes[_explained(error)] += 1
    reader = read_tags(html)
    implied = {name for name in ("tbody", "colgroup") if f"<{name}" not in reader.outline}
    implied |= {"html", "head"} if shape is Shape.BODY else set()
    body = _Writer(changes, frozenset(implied)).write(tokens)
    return "<!doctype html>" + body if shape is Shape.DOCUMENT else body


def _explained(error: ParseError) -> str:
    if error.code in _LEFT_OPEN:
        return "closed elements left open at the end"
    if "eof" in error.code.lower():
        return "dropped an unfinished tag at the end"
    if "doctype" in error.code:
        return "set the doctype"
    return f"mended markup: {error.code}" + (f" <{error.name}>" if error.name else "")


class _Open(NamedTuple):
    """An element being written: its name as written ("" if only its content is), the element that its children are in
    for the parser, and how its text is treated."""

    name: str
    place: str
    preserves: bool
    dropped: bool


class _Writer:
    """Writes a token stream as HTML (WHATWG, "Serializing HTML fragments"), leaving out what must not be there.

    `implied` elements are not written: the parser puts them in (the `tbody` that nobody writes).
    """

    def __init__(self, changes: Counter[str], implied: frozenset[str]) -> None:
        self._changes = changes
        self._implied = implied
        self._out: list[str] = []
        self._text: list[str] = []
        self._open = [_Open("", "", preserves=False, dropped=False)]
        self._after_block = True

    def write(self, tokens: Iterable[Mapping[str, Any]]) -> str:
        for token in tokens:
            kind = token["type"]
            if kind in ("StartTag", "EmptyTag"):
                self._start(token["name"], token["namespace"], token["data"], is_void=kind == "EmptyTag")
            elif kind == "EndTag":
                self._end()
            elif kind in ("Characters", "SpaceCharacters"):
                if not self._open[-1].dropped:
                    self._text.append(token["data"])
            elif kind == "Comment":
                self._changes["removed a comment"] += 1
        self._flush(before_block=True)
        return "".join(self._out)

    def _start(
        self, name: str, namespace: str | None, attributes: Mapping[tuple[str | None, str], str], *, is_void: bool
    ) -> None:
        parent = self._open[-1]
        written = "" if parent.dropped else self._written_name(name, namespace, attributes)
        dropped = parent.dropped or written is None
        if written:
            self._flush(before_block=written in _BLOCKS)
            kept = dict(self._kept_attributes(written, namespace, attributes))
            self._out.append(f"<{written}{''.join(_attribute(*item) for item in kept.items())}>")
            self._after_block = written in _BLOCKS
            preserves = parent.preserves or written in _PRESERVING or _sets_white_space(kept)
        else:
            preserves = parent.preserves
        if not is_void:
            place = written or (name if name in self._implied else parent.place)
            self._open.append(_Open(written or "", place, preserves=preserves, dropped=dropped))

    def _end(self) -> None:
        element = self._open[-1]
        if element.name:
            self._flush(before_block=element.name in _BLOCKS)
            self._out.append(f"</{element.name}>")
            self._after_block = element.name in _BLOCKS
        self._open.pop()

    def _flush(self, *, before_block: bool) -> None:
        """Write the text gathered since the last tag."""
        text = _FORBIDDEN.sub("", "".join(self._text))
        self._text = []
        element = self._open[-1]
        if element.name == "style":
            kept = css_without_outside(text)
            if kept != text:
                self._changes["removed references to the outside from <style>"] += 1
            self._out.append(kept.strip())
            return
        if element.preserves:
            # A parser drops the first line end in these elements; one more keeps the one that is there.
            first = self._out and self._out[-1].startswith(("<pre", "<textarea")) and text.startswith("\n")
            text = "\n" + text if first else text
        else:
            text = WHITE_SPACE.sub(" ", text)
            text = text.removeprefix(" ") if self._after_block else text
            text = text.removesuffix(" ") if before_block else text
        if text:
            self._out.append(_escaped(text))
            self._after_block = False

    def _written_name(
        self, name: str, namespace: str | None, attributes: Mapping[tuple[str | None, str], str]
    ) -> str | None:
        """The name to write; "" to write only the content, None to drop that too."""
        if namespace is not None:
            return self._foreign_name(name, namespace)
        name = _RENAMED.get(name, name)
        refreshes = name == "meta" and (None, "http-equiv") in attributes
        if name in _DROPPED or refreshes:
            self._changes[f"removed <{name}>"] += 1
            return None
        if name in self._implied:
            return ""
        place = self._open[-1].place
        misplaced = (place in _TABLE_PARTS and name not in _TABLE_CHILDREN) or (name in _RUBY_PARTS and place != "ruby")
        if name in _UNWRAPPED or misplaced or not _ELEMENT_NAME.fullmatch(name):
            self._changes[f"kept only the content of <{name}>"] += 1
            return ""
        return name

    def _foreign_name(self, name: str, namespace: str) -> str | None:
        if namespace == _SVG_NAMESPACE and name in _SVG_DROPPED:
            self._changes[f"removed <{name}>"] += 1
            return None
        if namespace == _SVG_NAMESPACE and name in _SVG:
            return name
        self._changes[f"kept only the content of <{name}>"] += 1
        return ""

    def _kept_attributes(
        self, element: str, namespace: str | None, attributes: Mapping[tuple[str | None, str], str]
    ) -> Iterator[tuple[str, str]]:
        for (attribute_namespace, local), value in attributes.items():
            name = local if attribute_namespace is None else f"xlink:{local}"
            known = attribute_namespace in (None, _XLINK) and not local.startswith("xmlns")
            if not known or not _ATTRIBUTE_NAME.fullmatch(local) or local.lower().startswith("on"):
                self._changes[f"removed attribute {name} of <{element}>"] += 1
                continue
            kept = _inside_value(element, local, _FORBIDDEN.sub("", value), is_foreign=namespace is not None)
            if kept is None:
                self._changes[f"removed a reference to the outside: {name} of <{element}>"] += 1
                continue
            if kept != value:
                self._changes[f"kept {name} of <{element}> inside the page"] += 1
            yield name, kept


def _inside_value(element: str, attribute: str, value: str, *, is_foreign: bool) -> str | None:
    """The value without anything that reaches outside the page; None if nothing is left of it."""
    if attribute == "style":
        return css_without_outside(value).strip() or None
    if attribute == "href" and element in ("a", "area") and not is_foreign:
        return value if is_local_link(value) else "#"
    if attribute == "href":
        return value if is_place_on_page(value) else None
    if attribute in _LOADING:
        return value if attribute in ("src", "poster") and is_inline_picture(value) else None
    if is_foreign and css_reaches_out(value):
        return None
    return value


def _sets_white_space(attributes: Mapping[str, str]) -> bool:
    classes = attributes.get("class", "").split()
    return "white-space" in attributes.get("style", "") or any(name.startswith("whitespace-pre") for name in classes)


def _attribute(name: str, value: str) -> str:
    if name in _BOOLEAN and value.lower() in ("", name):
        return f" {name}"
    return f' {name}="{value.replace("&", "&amp;").replace(chr(0xA0), "&nbsp;").replace(chr(34), "&quot;")}"'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("\xa0", "&nbsp;").replace("<", "&lt;").replace(">", "&gt;")
