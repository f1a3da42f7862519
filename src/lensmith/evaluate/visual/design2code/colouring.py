"""Copies of a page in which every element with text has a colour of its own, and which text got which.

Design2Code finds text without OCR: it renders two such copies, whose colours lie 50 levels apart, and takes for text
what differs by that. Colours come from a grid of 16 x 16 x 16, from its light end on; all backgrounds become
transparent.

Elements outside its list of tags (`label`, `strong`, `em`, `input` and others) get none: their text shows the colour of
the element around them. Where the page colours such an element itself, its text is found only if it shows that very
colour and yet differs between the copies, which is to say never.

The grid has 4,096 colours, and Design2Code's code ends with an error on a page with more elements. Here such a page has
several pairs of copies: in each the next 4,096 elements have the grid's colours, and all others are black.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import ImageColor

from lensmith.core.types import Rgb
from lensmith.evaluate.visual.design2code.markup import MarkupElement, MarkupString, read, write

GRID_FIRST, GRID_STEP, GRID_SIDE = 10, 16, 16
SHIFT = 50
"""How many levels the two copies of a page lie apart, in each channel, modulo 256."""

_TAGS = frozenset("p h1 h2 h3 h4 h5 h6 div span a b li table td th button footer header figcaption".split())
_CLEAR = "rgba(255, 255, 255, 0.0)"
_BLACK = "#000000"
_LEVELS = range(GRID_FIRST, GRID_FIRST + GRID_STEP * GRID_SIDE, GRID_STEP)
_GRID = [(red, green, blue) for red in _LEVELS for green in _LEVELS for blue in _LEVELS][::-1]
_HEX_START = re.compile(r"#*([0-9a-fA-F]{6})")


class ColouredText(NamedTuple):
    """A string of the page, and the colour in which the first copy shows it. `order`: its place among all strings."""

    text: str
    colour: Rgb
    order: int


class Copies(NamedTuple):
    """Two copies of a page, and the strings that may be found in them."""

    first: str
    second: str
    texts: tuple[ColouredText, ...]


def coloured_copies(html: str) -> tuple[Copies, ...]:
    """The pairs of copies of a page: one, but for pages with more than 4,096 elements that have text."""
    root = read(html)
    elements = list(root.elements())
    for element in elements:
        _set_style(element, "background-color", _CLEAR)
    tagged = [element for element in elements if element.name in _TAGS]
    return tuple(
        _copies(root, tagged, tagged[begin : begin + len(_GRID)]) for begin in range(0, max(1, len(tagged)), len(_GRID))
    )


def _copies(root: MarkupElement, tagged: Sequence[MarkupElement], chosen: Sequence[MarkupElement]) -> Copies:
    if len(chosen) < len(tagged):
        for element in tagged:
            _paint(element, _BLACK)
    written = []
    for shift in (0, SHIFT):
        for element, colour in zip(chosen, _GRID, strict=False):
            red, green, blue = ((level + shift) % 256 for level in colour)
            _paint(element, f"#{red:02X}{green:02X}{blue:02X}")
        written.append(write(root))
    # Read again, as there: what was written may be understood otherwise.
    return Copies(written[0], written[1], tuple(_coloured_texts(read(written[0]))))


def _paint(element: MarkupElement, colour: str) -> None:
    _set_style(element, "color", colour)
    _set_style(element, "opacity", "1.0")


def _set_style(element: MarkupElement, name: str, value: str) -> None:
    declarations = element.attributes.get("style", "").split(";")
    kept = [one for one in declarations if one.strip() and not one.strip().startswith(name)]
    element.attributes["style"] = "; ".join([*kept, f"{name}: {value} !important"]).strip()


def _coloured_texts(root: MarkupElement) -> Iterator[ColouredText]:
    """Strings in the first `body`, without comments, in the order of the markup. Without a `body` there are none."""
    body = next((element for element in root.elements() if element.name == "body"), None)
    if body is None:
        return
    order = 0
    stack: list[tuple[MarkupElement | MarkupString, str]] = [(body, _BLACK)]
    while stack:
        node, inherited = stack.pop()
        if isinstance(node, MarkupElement):
            colour = _own_colour(node.attributes.get("style", "")) or inherited
            stack.extend((child, colour) for child in reversed(node.children))
            continue
        text = node.data.strip()
        if text and not node.is_comment:
            shown = _HEX_START.match(inherited)
            if shown:
                yield ColouredText(text, _rgb(shown[1]), order)
            order += 1


def _own_colour(style: str) -> str | None:
    """The last colour among an element's declarations, of borders too, in hexadecimal; None if it cannot be told.

    Where a declaration is broken ("color" without a value), Design2Code's code ends with an error.
    """
    colours = [one for one in style.split(";") if "color" in one and "background-color" not in one]
    value = colours[-1].partition(":")[2].partition(":")[0].strip().replace(" !important", "") if colours else ""
    if not value or value.startswith("#"):
        return value or None
    try:
        if value.startswith("rgb"):
            red, green, blue, *_ = map(int, value[4:-1].split(","))
        else:
            red, green, blue, *_ = ImageColor.getrgb(value)
    except ValueError:
        return None
    return f"#{red:02x}{green:02x}{blue:02x}"


def _rgb(digits: str) -> Rgb:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue
