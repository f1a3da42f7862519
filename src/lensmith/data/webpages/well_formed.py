"""HTML as two parsers read it, and whether they agree that it is well-formed.

html5lib builds the tree that a browser would (WHATWG HTML, chapter 13.2), errors and all; Python's tag reader takes
tags as they stand. Where the two see the same elements and the same text in the same order, nothing was mended.
"""

import enum
import re
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser as TagReader
from typing import Any, NamedTuple

import html5lib

VOID_ELEMENTS = frozenset("area base br col embed hr img input link meta param source track wbr".split())
WHITE_SPACE = re.compile(r"[ \t\n\f\r]+")

_IMPLIED = frozenset({"<html", "<head", "<body", "<tbody", "<colgroup"})  # a parser adds these where they are missing


def is_well_formed(html: str) -> bool:
    """Whether a document, a `body` element or a fragment says what it means: it parses without a single error, every
    element that can be closed is closed by its own end tag, in order, and the parser moves nothing to another place.

    Judged by two parsers: html5lib, and Python's tag reader, which takes tags as they stand.
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
