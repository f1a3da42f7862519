"""HTML as Beautiful Soup reads and writes it with Python's own parser.

Design2Code's scorer renders what that makes of a page, not the page: an element that nobody closed, a tag that is
closed twice or a `div` that closes itself stands in its copies as this parser understands it. So the tree, and what is
written of it, is here as there: a closing tag closes all up to the last element of its name, and is nothing where there
is none; an empty element has no content; of an attribute that stands twice the last counts; text that is white space
only becomes one space or one line break. Nothing is moved or added, as a browser would.

What differs: a page that Python's parser gives up on (an unknown marked section) is read up to there.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from html.entities import html5
from html.parser import HTMLParser
from typing import NamedTuple

_VOID = frozenset(
    (
        "area base basefont bgsound br col command embed frame hr image img input isindex keygen link menuitem meta "
        "nextid param source spacer track wbr"
    ).split()
)
UNESCAPED = ("script", "style")
_KEEPS_WHITE_SPACE = ("pre", "textarea")
_LISTS = {
    "class": None,
    "accesskey": None,
    "dropzone": None,
    "rel": ("a", "link", "area"),
    "rev": ("a", "link"),
    "headers": ("td", "th"),
    "accept-charset": ("form",),
    "archive": ("object",),
    "sizes": ("icon",),
    "sandbox": ("iframe",),
    "for": ("output",),
}
"""Attributes whose values are lists of words, and in which elements; None: in all."""

_ASCII_SPACES = " \n\t\f\r"
_NEWLINE = re.compile(r"\r\n?")


class MarkupString(NamedTuple):
    """A piece of text, or a comment or declaration with what stands around it."""

    data: str
    opening: str = ""
    closing: str = ""

    @property
    def is_comment(self) -> bool:
        return self.opening == "<!--"

    def written(self, *, escaped: bool) -> str:
        if self.opening or not escaped:
            return f"{self.opening}{self.data}{self.closing}"
        return _escaped(self.data)


@dataclass(eq=False, slots=True)
class MarkupElement:
    """An element; the root of a document has no name."""

    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["MarkupElement | MarkupString"] = field(default_factory=list)

    @property
    def start_tag(self) -> str:
        attributes = "".join(f" {name}={_quoted(value)}" for name, value in sorted(self.attributes.items()))
        return f"<{self.name}{attributes}{'/' if self.name in _VOID else ''}>"

    def elements(self) -> Iterator["MarkupElement"]:
        """Every element below this one, in the order of the markup."""
        stack = [self]
        while stack:
            element = stack.pop()
            if element is not self:
                yield element
            stack.extend(child for child in reversed(element.children) if isinstance(child, MarkupElement))


def read(html: str) -> MarkupElement:
    """The root of what is read. Never raises: whatever it is, it is taken for markup."""
    reader = _Reader()
    try:
        reader.feed(one_kind_of_newline(html))
        reader.close()
    except AssertionError:  # how html.parser gives up
        pass
    return reader.finished()


def write(root: MarkupElement) -> str:
    """The document again, with every element closed."""
    pieces: list[str] = []
    stack: list[MarkupElement | str] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            pieces.append(node)
            continue
        if node.name:
            pieces.append(node.start_tag)
            if node.name not in _VOID:
                stack.append(f"</{node.name}>")
        escaped = node.name not in UNESCAPED
        stack.extend(
            child.written(escaped=escaped) if isinstance(child, MarkupString) else child
            for child in reversed(node.children)
        )
    return "".join(pieces)


def one_kind_of_newline(html: str) -> str:
    """As Python reads a text file."""
    return _NEWLINE.sub("\n", html)


def _escaped(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(value: str) -> str:
    escaped = _escaped(value)
    if '"' not in escaped:
        return f'"{escaped}"'
    if "'" not in escaped:
        return f"'{escaped}'"
    return '"{}"'.format(escaped.replace('"', "&quot;"))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self._root = MarkupElement()
        self._open = [self._root]
        self._open_names = Counter[str]()
        self._closed_void = Counter[str]()
        self._data: list[str] = []

    def finished(self) -> MarkupElement:
        self._end_string()
        return self._root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs)
        if tag in _VOID:
            self._end(tag)
            self._closed_void[tag] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs)
        self._end(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._closed_void[tag]:
            self._closed_void[tag] -= 1
        else:
            self._end(tag)

    def handle_data(self, data: str) -> None:
        self._data.append(data)

    def handle_charref(self, name: str) -> None:
        self._data.append(unescape(f"&#{name};"))

    def handle_entityref(self, name: str) -> None:
        self._data.append(html5.get(name) or html5.get(f"{name};") or f"&{name}")

    def handle_comment(self, data: str) -> None:
        self._special(data, "<!--", "-->")

    def handle_decl(self, decl: str) -> None:
        self._special(decl[len("doctype ") :], "<!DOCTYPE ", ">\n")

    def unknown_decl(self, data: str) -> None:
        if data.upper().startswith("CDATA["):
            self._special(data[len("CDATA[") :], "<![CDATA[", "]]>")
        else:
            self._special(data, "<?", "?>")

    def handle_pi(self, data: str) -> None:
        self._special(data, "<?", ">")

    def _start(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_string()
        element = MarkupElement(tag, {name: _words(tag, name, value or "") for name, value in attrs})
        self._open[-1].children.append(element)
        self._open.append(element)
        self._open_names[tag] += 1

    def _end(self, tag: str) -> None:
        self._end_string()
        if not self._open_names[tag]:
            return
        while True:
            closed = self._open.pop().name
            self._open_names[closed] -= 1
            if closed == tag:
                return

    def _special(self, data: str, opening: str, closing: str) -> None:
        self._end_string()
        self._data.append(data)
        self._end_string(opening, closing)

    def _end_string(self, opening: str = "", closing: str = "") -> None:
        if not self._data:
            return
        data, self._data = "".join(self._data), []
        if not data.strip(_ASCII_SPACES) and not any(self._open_names[name] for name in _KEEPS_WHITE_SPACE):
            data = "\n" if "\n" in data else " "
        self._open[-1].children.append(MarkupString(data, opening, closing))


def _words(tag: str, name: str, value: str) -> str:
    tags = _LISTS.get(name, ())
    return " ".join(value.split()) if tags is None or tag in tags else value
