"""What passes between the layers: pages as rendered, messages, and how far work has come.

Pixels count from the top left of the page at scale 1. Colours are 8-bit sRGB.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Rgb = tuple[int, int, int]
OnProgress = Callable[[int, int], None]
"""Is told how much is done, and of how much in all."""


def unwatched(done: int, total: int) -> None:
    """An `OnProgress` where nobody looks."""


OnStep = Callable[[str], None]
"""Is told, as each step of one piece of work begins, what it is, for people to read."""


def untold(step: str) -> None:
    """An `OnStep` where nobody looks."""


class Box(NamedTuple):
    """A rectangle on a page in CSS pixels; fractions are kept as the browser reports them."""

    left_px: float
    top_px: float
    width_px: float
    height_px: float

    @property
    def right_px(self) -> float:
        return self.left_px + self.width_px

    @property
    def bottom_px(self) -> float:
        return self.top_px + self.height_px


class TextBlock(NamedTuple):
    """One visible text node: its text as the reader sees it, the box around its lines, its colour."""

    text: str
    box: Box
    colour: Rgb


class ElementBox(NamedTuple):
    """One element of the page in document order."""

    tag: str
    box: Box


class CharBox(NamedTuple):
    """One character of a text node, in document order. White space that the browser dropped has no area."""

    char: str
    box: Box


class LineBox(NamedTuple):
    """What one of a page's `texts` has in one line: its index there, and the box, which is as high as the font."""

    text: int
    box: Box


class BorderSide(NamedTuple):
    """One side of an element's border, as it shows over what is behind it."""

    width_px: float
    colour: Rgb


class ElementStyle(NamedTuple):
    """How one element is placed and what it paints itself, by its computed style.

    `depth`: 0 for `html`, 1 for `body`. `box` is what can be seen of its border box, without area where nothing can.
    `fill` is its own background over what is `behind` it, a gradient as the mean of its stops; None where it has none.
    The borders are top, right, bottom, left. `is_picture`: what it shows is a picture, an icon that a style
    puts into it, or a control that the browser draws, so that its own style does not tell its colours. The canvas is
    `html`'s: the whole page, and what covers it.
    """

    tag: str
    depth: int
    position: str
    box: Box
    fill: Rgb | None
    behind: Rgb
    borders: tuple[BorderSide | None, BorderSide | None, BorderSide | None, BorderSide | None]
    is_picture: bool


@dataclass(frozen=True, kw_only=True)
class CutOff:
    """The page is wider than its window: what lies further right is not in the picture."""

    kind: Literal["cut-off"] = field(default="cut-off", init=False)
    page_width_px: int
    window_width_px: int

    def __str__(self) -> str:
        return (
            f"the page is {self.page_width_px:,} px wide and the window {self.window_width_px:,}: "
            "what lies further right is not in the picture"
        )


@dataclass(frozen=True, kw_only=True)
class ScrolledAway:
    """A box scrolls what does not fit into it: so many pixels of its content are not in the picture."""

    kind: Literal["scrolled-away"] = field(default="scrolled-away", init=False)
    tag: str
    box: Box
    hidden_width_px: int
    hidden_height_px: int

    def __str__(self) -> str:
        hidden = [
            f"{px:,} px of its {side}"
            for px, side in ((self.hidden_height_px, "height"), (self.hidden_width_px, "width"))
            if px
        ]
        return (
            f"a <{self.tag}> at {self.box.left_px:.0f}, {self.box.top_px:.0f} scrolls: "
            f"{' and '.join(hidden)} are not in the picture"
        )


@dataclass(frozen=True, kw_only=True)
class MissingGlyphs:
    """No font has a glyph for some characters, which show as boxes: how many, and the first that differ."""

    kind: Literal["missing-glyphs"] = field(default="missing-glyphs", init=False)
    count: int
    characters: str

    def __str__(self) -> str:
        shown = " ".join(char if char.isprintable() else f"U+{ord(char):04X}" for char in self.characters)
        return f"no font has {self.count:,} of the characters, which show as boxes: {shown}"


WhyNotLoaded = Literal["missing", "above", "outside", "elsewhere", "unreadable", "too-large", "refused"]


@dataclass(frozen=True, kw_only=True)
class NotLoaded:
    """The page names files, or addresses on servers, that it was not given: why, how many, and the first of them.

    `missing`: not there. `above`: `..` leads out of the folder that the page may read. `outside`: a link, an absolute
    path or a `file:` address does. `elsewhere`: on a server. `unreadable`: a folder, a pipe, a device, or not to be
    opened. `too-large`: over a limit on size or number. `refused`: the browser does not load such a thing for a file.
    """

    kind: Literal["not-loaded"] = field(default="not-loaded", init=False)
    reason: WhyNotLoaded
    count: int
    addresses: tuple[str, ...]
    """Relative to the page where that is shorter; each is cut to a length that can be shown."""

    def __str__(self) -> str:
        more = self.count - len(self.addresses)
        named = ", ".join(self.addresses) + (f", and {more:,} more" if more else "")
        return f"not loaded, {_WHY_NOT_LOADED[self.reason]}: {named}"


_WHY_NOT_LOADED: dict[WhyNotLoaded, str] = {
    "missing": "no such file",
    "above": "above the folder that the page may read (an assets root that holds both lets it)",
    "outside": "outside the folder that the page may read",
    "elsewhere": "on a server, and none is asked",
    "unreadable": "no file that can be read",
    "too-large": "over the limit on the size or number of files",
    "refused": "not what a browser loads for a page from a file",
}

PageNote = CutOff | ScrolledAway | MissingGlyphs | NotLoaded


@dataclass(frozen=True, kw_only=True)
class Page:
    """A rendered page. Parts that were not asked for are empty.

    `png` is the screenshot (8-bit RGB or RGBA), `width_px` x `height_px` its size at scale 1. `texts` are those that
    show, in the order of the markup, in shadow trees and frames too. `chars` lists every character of every
    text node inside `body` in document order, exactly as it stands in the DOM. `lines` are those of `texts`, without
    what lies in frames. `styles` are those of `html`, `body` and of every element in it that is laid out, in document
    order, without the parts of drawings. `notes` say what the page holds and the picture does not show, whatever was
    asked for, and what a page that may read a folder named and was not given.
    """

    width_px: int
    height_px: int
    png: bytes = b""
    texts: tuple[TextBlock, ...] = ()
    elements: tuple[ElementBox, ...] = ()
    chars: tuple[CharBox, ...] = ()
    lines: tuple[LineBox, ...] = ()
    styles: tuple[ElementStyle, ...] = ()
    notes: tuple[PageNote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in a message: encoded bytes, or a place to read them from (an fsspec URL)."""

    data: bytes = b""
    url: str = ""


Part = str | Picture


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A tool that the assistant called. `arguments` is a JSON object as text; an answer names the call by `call_id`."""

    name: str
    arguments: str
    call_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation: text and pictures in reading order.

    An assistant's may hold `tool_calls`; a tool's answers the call of `tool_call_id`.
    """

    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""

    @property
    def is_of_tools(self) -> bool:
        """Whether it is part of a call of tools, which few models know."""
        return self.role == "tool" or bool(self.tool_calls)
