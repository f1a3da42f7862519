"""Where on the page each character of the HTML shows.

A renderer knows the box of every character, so a reader can be taught, for free, which letter lies where and, while
it writes, where to look next. Legend: C characters of the HTML, H W pixels, h w cells of 4 x 8 px.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray

from lensmith.core.errors import InputError
from lensmith.core.types import CharBox, ElementBox, Page

CORNER_PX = 32.0  # an element without text of its own is recognised by its top left corner


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Per character of the HTML: left, top, right, bottom in px (C, 4), and whether it shows at all (C,)."""

    boxes_C4: NDArray[np.float32]
    shown_C: NDArray[np.bool_]


class _Source(HTMLParser):
    """Splits single-line HTML into start tags and text, each with its span in the source."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=False)
        self.text: list[tuple[int, int, str]] = []  # start, stop, characters
        self.starts: list[tuple[int, int, str]] = []  # start, stop, tag
        self._html = html
        self.feed(html)
        self.close()

    def _offset(self) -> int:
        line, column = self.getpos()
        if line != 1:
            raise InputError("aligned HTML must stand on one line", expected="no line breaks", actual=f"line {line}")
        return column

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        start = self._offset()
        self.starts.append((start, start + len(self.get_starttag_text() or ""), tag))

    def handle_data(self, data: str) -> None:
        start = self._offset()
        self.text.extend((start + i, start + i + 1, char) for i, char in enumerate(data))

    def handle_entityref(self, name: str) -> None:
        self._reference(f"&{name}")

    def handle_charref(self, name: str) -> None:
        self._reference(f"&#{name}")

    def _reference(self, reference: str) -> None:
        start = self._offset()
        stop = start + len(reference)
        stop += self._html.startswith(";", stop)
        self.text.extend((start, stop, char) for char in unescape(self._html[start:stop]))


def align(html: str, page: Page) -> Alignment:
    """Match the HTML's characters and start tags with the page's, which must have been captured with both.

    A start tag shows where the text right after it begins, or else at its element's top left corner. Raises InputError
    where the page's text is not the HTML's, character for character, or its elements are not the HTML's.
    """
    source = _Source(html)
    written = "".join(char for _, _, char in source.text)
    shown = "".join(char.char for char in page.chars)
    if written != shown:
        raise InputError("the page's text is not the HTML's", expected=repr(written[:80]), actual=repr(shown[:80]))
    boxes_C4 = np.zeros((len(html), 4), np.float32)
    for (start, stop, _), char in zip(source.text, page.chars, strict=True):
        boxes_C4[start:stop] = _edges(char)
    first_text = {start: boxes_C4[start] for start, _, _ in source.text}
    for (start, stop, _), element in _matched_elements(source, page):
        left, top, right, bottom = _edges(element)
        corner = (left, top, min(right, left + CORNER_PX), min(bottom, top + CORNER_PX))
        boxes_C4[start:stop] = first_text.get(stop, corner)
    shown_C = (boxes_C4[:, 2] > boxes_C4[:, 0]) & (boxes_C4[:, 3] > boxes_C4[:, 1])
    return Alignment(boxes_C4=boxes_C4, shown_C=shown_C)


def _edges(item: CharBox | ElementBox) -> tuple[float, float, float, float]:
    return item.box.left_px, item.box.top_px, item.box.right_px, item.box.bottom_px


def _matched_elements(source: _Source, page: Page) -> Iterator[tuple[tuple[int, int, str], ElementBox]]:
    """Start tags inside `body` with their elements, but for elements that the parser supplied (`tbody`)."""
    starts = [start for start in source.starts if start[2] != "body"]
    written = {tag for _, _, tag in starts}
    elements = [element for element in page.elements if element.tag.lower() in written]
    tags, shown = [tag for _, _, tag in starts], [element.tag.lower() for element in elements]
    if tags != shown:
        raise InputError(
            "the page's elements are not the HTML's",
            expected=f"{len(tags)}: {' '.join(tags[:20])}",
            actual=f"{len(shown)}: {' '.join(shown[:20])}",
        )
    return zip(starts, elements, strict=True)


def characters_by_cell(
    html: str,
    alignment: Alignment,
    *,
    width_px: int,
    height_px: int,
    cell_width_px: int,
    cell_height_px: int,
    index_of: Mapping[str, int],
    other: int,
) -> NDArray[np.int64]:
    """Which character lies under the middle of each cell (h, w): 0 for none, `other` for one without an index.

    White space counts as none: it looks like the background.
    """
    columns, rows = -(-width_px // cell_width_px), -(-height_px // cell_height_px)
    labels_hw = np.zeros((rows, columns), np.int64)
    cell_px = np.array([cell_width_px, cell_height_px, cell_width_px, cell_height_px], np.float32)
    # A cell belongs to the character that covers its middle.
    edges_C4 = np.maximum(np.ceil(alignment.boxes_C4 / cell_px - 0.5), 0).astype(np.int64)
    for start, _, char in _Source(html).text:
        if alignment.shown_C[start] and not char.isspace():
            left, top, right, bottom = edges_C4[start]
            labels_hw[top:bottom, left:right] = index_of.get(char, other)
    return labels_hw
