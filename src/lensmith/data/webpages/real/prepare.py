"""A page of a package becomes one HTML file that stands alone and shows the same everywhere.

After Design2Code (arXiv 2403.03163, section 3.1): stylesheets stand in the page, every picture is the one placeholder,
what runs, plays or frames is gone, comments too, and links lead nowhere. Where we differ: a placeholder has its
picture's size and not one size for all (`pictures`), so the layout is that of the page with its pictures; inline SVG is
a picture as well. A page depends on nothing but its package: the same bytes on every machine.

What is not as its maker sees it: what scripts would draw is missing; fonts from elsewhere are, too, and large ones; a
document without a doctype gets one. Of other stylesheets, a page may lack those of others beside its own.
"""

import posixpath
import re
from xml.etree.ElementTree import Element  # only the type: html5lib parses

import html5lib

from lensmith.data.webpages.markup.repair import repair
from lensmith.data.webpages.real.archives import PackageFiles
from lensmith.data.webpages.real.pictures import COLOUR, PictureSize
from lensmith.data.webpages.real.stylesheets import Stylesheets, picture_size
from lensmith.data.webpages.real.unfit import Cause, UnfitPageError

MOST_TAGS = 8_000
"""Of a page that is worth parsing: hidden elements count here."""

_SVG = "{http://www.w3.org/2000/svg}svg"
_SHOWN_BY_OTHERS = frozenset("script noscript iframe frame video audio object embed applet source track".split())
_ADDRESSES_OF_PICTURES = ("src", "data-src", "data-original", "data-lazy-src", "data-lazy", "srcset", "data-srcset")
"""Where an `img` names its picture: a script fills `src` from the others as a person scrolls."""
_REMOVED = (*_ADDRESSES_OF_PICTURES[1:], "sizes", "loading", "autofocus", "background", "target", "download")
_OF_FONTS = re.compile(r"font|icon|typekit|glyph", re.IGNORECASE)
"""In the address of a stylesheet: without it a page has other letters, and its layout all the same."""
AT_REST = "*,::before,::after{transition:none!important}"
"""A page is pictured as it is at rest, not on its way from one width's layout to another's."""
_FEW_CSS_CHARS = 4_000
_NAMED_ICONS = re.compile(r"(?:^|\s)material-(?:icons|symbols)[\w-]*(?:\s|$)")
_PAGE = re.compile(rb"<(?:!doctype|html|body)\b", re.IGNORECASE)
_FRAMESET = re.compile(rb"<frameset\b", re.IGNORECASE)
_MARKS_IN_SOURCE = re.compile(rb"<\?php|<%|@@include\b|\{%|<!-- ?#include")
_MARKS_IN_TEXT = re.compile(r"\{\{[^{}<>]*\}\}|@yield\(|@extends\(")
_STYLE = re.compile(r"(<style\b[^>]*>)/\*(\d+)\*/(?=</style>)")


class Preparer:
    """Prepares pages of one package; its stylesheets are read once for all of them.

    `stylesheets` are paths in the package of what its pages' scripts would load: they go into each page that links no
    stylesheet.
    """

    def __init__(self, files: PackageFiles, *, stylesheets: tuple[str, ...] = ()) -> None:
        self._files = files
        self._styles = Stylesheets(files)
        self._loaded_by_scripts = [path for path in stylesheets if path in files.content]

    def prepare(self, path: str) -> str:
        """The page at `path` of the package as HTML that stands alone. Raises UnfitPageError for what is no whole page.

        Bytes are decoded as a renderer decodes them: by a byte order mark, else as their `meta` says, else as UTF-8.
        """
        source = self._files.content[path]
        _check_source(path, source)
        tree = html5lib.parse(
            source, treebuilder="etree", namespaceHTMLElements=False, likely_encoding="utf-8", useChardet=False
        )
        css = self._rewrite(tree, path)
        text = html5lib.serialize(tree, tree="etree", omit_optional_tags=False, quote_attr_values="always")
        html = repair(f"<!doctype html>{text}").html
        if _MARKS_IN_TEXT.search(html):
            raise UnfitPageError(f"{path} is a template", cause=Cause.TEMPLATE)
        # A stylesheet is a hundred times as long as a page, and parsers in Python are slow: it goes in afterwards.
        return _STYLE.sub(lambda match: match[1] + css[int(match[2])], html)

    def _rewrite(self, tree: Element, path: str) -> list[str]:
        """Changes the tree in place; its `style` elements then hold the index, as a comment, of what is returned."""
        css: list[str] = []
        path = _base(tree, path)
        if not any(_links_stylesheet(element) for element in tree.iter("link")):
            self._add_stylesheets(tree)
        self._check_styles(tree, path)
        for element in [each for each in tree.iter() if isinstance(each.tag, str)]:  # others are comments
            if element.tag in _SHOWN_BY_OTHERS:
                _drop(element)
            elif element.tag in ("link", "style"):
                self._style(element, path, css)
            elif element.tag == "img" or (element.tag == "input" and element.get("type", "").lower() == "image"):
                self._picture(element, path)
            elif element.tag == _SVG:
                _drawing(element)
            elif element.tag in ("a", "area") and "href" in element.attrib:
                element.set("href", "#")
            if len(element) == 0 and _NAMED_ICONS.search(element.get("class", "")):
                _named_icon(element)
            if "style" in element.attrib and element.tag != _SVG:
                element.set("style", self._styles.written(element.get("style", ""), path))
            for name in _REMOVED:
                element.attrib.pop(name, None)
        if css:
            _hold(still := Element("style"), css, AT_REST)
            _head(tree).append(still)
        return css

    def _check_styles(self, tree: Element, path: str) -> None:
        """Raises UnfitPageError for a page that does not show what it is: its own stylesheet is missing, or it has none
        but those of others, or next to none and scripts that may load one."""
        addresses = [link.get("href", "").strip() for link in tree.iter("link") if _links_stylesheet(link)]
        lost = [name for name in addresses if name and not self._files.found(name, path) and not _OF_FONTS.search(name)]
        own = [name for name in lost if "//" not in name]
        has_some = any(self._files.found(name, path) for name in addresses)
        written = sum(len(style.text or "") for style in tree.iter("style"))
        has_scripts = any("src" in script.attrib for script in tree.iter("script"))
        if own or (not has_some and (lost or (has_scripts and written < _FEW_CSS_CHARS))):
            raise UnfitPageError(f"{path} lacks its stylesheet", cause=Cause.UNSTYLED, actual=(own or lost)[:1])

    def _add_stylesheets(self, tree: Element) -> None:
        for index, stylesheet in enumerate(self._loaded_by_scripts):
            _head(tree).insert(index, Element("link", {"rel": "stylesheet", "href": f"/{stylesheet}"}))

    def _style(self, element: Element, path: str, css: list[str]) -> None:
        kind = element.get("type", "text/css").strip().lower() or "text/css"
        text = ""
        if element.tag == "style" and kind == "text/css":
            text = self._styles.written(element.text or "", path)
        elif element.tag == "link" and kind == "text/css" and _links_stylesheet(element):
            text = self._styles.linked(self._files.found(element.get("href", ""), path))
        if not text.strip():
            _drop(element)
            return
        media = element.get("media")
        element.tag = "style"
        element.attrib.clear()
        if media:
            element.set("media", media)
        _hold(element, css, text)

    def _picture(self, element: Element, path: str) -> None:
        names = [name for attribute in _ADDRESSES_OF_PICTURES if (name := element.get(attribute, "").strip())]
        if names:  # without any, it shows nothing in a browser either
            # What is inside the page already is often a dot that a script replaces.
            address = next((name for name in names if not name.startswith("data:")), names[0])
            address = address if address.startswith("data:") else address.split()[0].rstrip(",")
            element.set("src", picture_size(address, path, self._files, element.attrib).placeholder())


def _head(tree: Element) -> Element:
    head = tree.find("head")
    assert head is not None  # a parser makes one
    return head


def _links_stylesheet(link: Element) -> bool:
    """Whether a `link` styles the page on a screen."""
    relations, media = link.get("rel", "").lower().split(), link.get("media", "").strip().lower()
    others = "alternate" in relations or "disabled" in link.attrib or media in ("print", "speech")
    return "stylesheet" in relations and not others


def _base(tree: Element, path: str) -> str:
    """From where the page's addresses count: its own path, unless a `base` names another folder beside it."""
    base = tree.find("head/base")
    address = "" if base is None else base.get("href", "").strip()
    if not address or address.startswith("/") or ":" in address:
        return path
    return posixpath.normpath(
        posixpath.join(posixpath.dirname(path), posixpath.dirname(address), posixpath.basename(path))
    )


def _check_source(path: str, source: bytes) -> None:
    source = source.replace(b"\0", b"")  # of UTF-16, as far as marks go
    if not _PAGE.search(source) or _FRAMESET.search(source):
        raise UnfitPageError(f"{path} is no whole page", cause=Cause.FRAGMENT)
    if _MARKS_IN_SOURCE.search(source):
        raise UnfitPageError(f"{path} is a template", cause=Cause.TEMPLATE)
    tags = source.count(b"<") - source.count(b"</")
    if tags > MOST_TAGS:
        raise UnfitPageError(
            f"{path} has too many tags", cause=Cause.TOO_LARGE, expected=f"at most {MOST_TAGS}", actual=tags
        )


def _drop(element: Element) -> None:
    """Leaves an element to `repair`, which drops scripts; they may stand anywhere. The text behind it stays."""
    element.tag = "script"
    element.attrib.clear()
    _empty(element)


def _empty(element: Element) -> None:
    element.text = None
    for child in list(element):
        element.remove(child)


def _hold(element: Element, css: list[str], text: str) -> None:
    element.text = f"/*{len(css)}*/"
    css.append(text)


def _drawing(element: Element) -> None:
    """An inline SVG keeps its size and becomes a plain area."""
    _empty(element)
    style = element.get("style", "").strip().rstrip(";")
    element.set("style", f"{style};background:{COLOUR}".lstrip(";"))


def _named_icon(element: Element) -> None:
    """An icon that a font from elsewhere draws for the word in it: without that font the word would stand there."""
    _empty(element)
    icon = Element("img", {"src": PictureSize.of_pixels(24, 24).placeholder(), "style": "width:1em;height:1em"})
    element.append(icon)
