"""The HTML of a page's structure: flow, flex and grid, classes with names, colours as variables. No absolute positions.

Every distance is a margin or a padding that was measured, and stands with its element; how things look is in classes,
which are shared by what looks alike. Below the width that the screenshot had, columns shrink, and on a phone they wrap.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from lensmith.core.types import Rgb
from lensmith.layout.blocks import Align, Passage
from lensmith.layout.pictures import Cutout
from lensmith.layout.surfaces import Border, Separator, Surface
from lensmith.layout.tree import Flow, Node, Region
from lensmith.layout.typography import line_height

PictureUrl = Callable[[Cutout], str]
"""Where the page finds a picture: a data URL, or a file beside it."""

Css = dict[str, str]

_PLACING = frozenset(
    "margin margin-top margin-left margin-right margin-inline padding width max-width height flex grid-area align-self "
    "align-items justify-self".split()
)
"""What says where an element stands, not how it looks."""
_FLOWS = {"row": "flex", "layers": "grid"}
"""The classes of boxes whose children stand side by side, or lie on each other."""
_FLUSH_PX = 1.5
_CENTRED_PX = 3.0
_LINES_STAY = 0.92
"""From this share of the screenshot's width on, texts of one line do not break."""
_BASE = """*{{box-sizing:border-box}}
body{{margin:0;overflow-wrap:anywhere;{body}}}
h1,h2,h3,p,ul,hr{{margin:0;padding:0;font-weight:inherit;font-size:inherit}}
ul{{list-style:none}}
hr{{border:0}}
a{{color:inherit;text-decoration:none}}
img{{display:block;max-width:100%}}
button,input{{font:inherit;color:inherit;margin:0}}
button>span{{display:block}}
"""


@dataclass(frozen=True, kw_only=True)
class Markup:
    """A page: its document, and the nodes that its elements stand for, in the order in which these begin."""

    html: str
    nodes: tuple[Node, ...]


@dataclass(kw_only=True)
class _Sheet:
    """The classes of a page: what looks alike shares one. Where an element stands is its own affair, in its `style`."""

    names: dict[tuple[tuple[str, str], ...], str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def named(self, role: str, css: Css, *, is_line: bool = False) -> str:
        """The attributes that give an element this style, empty where there is none. `is_line`: text of one line."""
        place = {name: value for name, value in css.items() if name in _PLACING or value.startswith("url(")}
        key = tuple((name, value) for name, value in css.items() if name not in place and name != "display")
        if key and key not in self.names:
            self.counts[role] += 1
            number = self.counts[role]
            self.names[key] = role if number == 1 else f"{role}-{number}"
        flows = [name for name, value in _FLOWS.items() if css.get("display") == value]
        classes = ([self.names[key]] if key else []) + flows + (["line"] if is_line else [])
        attributes = f' class="{" ".join(classes)}"' if classes else ""
        return attributes + (f' style="{escape(_declarations(place))}"' if place else "")


class MarkupWriter:
    """Writes one page."""

    def __init__(self, root: Node, ground: Rgb, picture_url: PictureUrl) -> None:
        self._root = root
        self._ground = ground
        self._picture_url = picture_url
        self._sheet = _Sheet()
        self._is_inline = False
        self._written: list[Node] = []
        blocks = [node.content for node in root.walk() if isinstance(node.content, Passage)]
        letters: Counter[tuple[str, float, Rgb]] = Counter()
        for block in blocks:
            letters[block.style.family.css, block.style.size_px, block.style.colour] += len(block.text)
        usual = letters.most_common(1)[0][0] if letters else ("Arial, Helvetica, sans-serif", 16.0, (0, 0, 0))
        self._family, self._size, self._colour = usual
        self._line_height = next(
            (line_height(block.style.family) for block in blocks if block.style.family.css == self._family), 1.2
        )

    def write(self) -> Markup:
        """The document."""
        landmarks = _landmarks(self._root)
        body = "\n".join(self._children(self._root, self._root.frame, landmarks=landmarks))
        padding = self._padding(self._root)
        base: Css = (
            {
                "background": _hex(self._ground),
                "color": _hex(self._colour),
                "font-family": self._family,
                "font-size": _px(self._size, digits=1),
                "line-height": f"{self._line_height:g}",
            }
            | padding
            | ({} if self._root.children else {"height": _px(self._root.frame.height)})
            | _flow_css(self._root)
        )
        width = round(self._root.frame.width)
        rules = [
            f".{name}{{{_declarations(dict(key))}}}"
            for key, name in sorted(self._sheet.names.items(), key=lambda e: e[1])
        ]
        css = _BASE.format(body=_declarations(base)) + "\n".join(rules) + _narrow(width)
        css = _with_palette(css)
        title = self._title()
        html = (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
            f"<style>\n{css}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
        )
        return Markup(html=html, nodes=tuple(self._written))

    def _title(self) -> str:
        blocks = [node.content for node in self._root.walk() if isinstance(node.content, Passage)]
        largest = max(blocks, key=lambda block: block.style.size_px, default=None)
        return "Page" if largest is None else largest.text[:80]

    # --- boxes ----------------------------------------------------------------------------------------------------

    def _padding(self, node: Node) -> Css:
        """The distances from a box's sides to what it holds, written as padding."""
        inner = _content(node)
        if inner is None:
            return {}
        frame, border = node.frame, _border(node.surface)
        top = inner.top - frame.top - border[0]
        bottom = frame.bottom - inner.bottom - border[2]
        left = inner.left - frame.left - border[3]
        right = frame.right - inner.right - border[1]
        if node.flow is not Flow.OVERLAY and abs(left - right) <= _CENTRED_PX:
            left = right = min(left, right)  # what is centred in it centres itself
        if right > left:
            right = min(left, right)  # what stands left does not need the room, and text may want it
        sides = [max(0.0, side) for side in (top, right, bottom, left)]
        return {"padding": _sides(sides, round(frame.width))} if max(sides) >= 0.5 else {}

    def _children(self, node: Node, outer: Region, landmarks: Mapping[int, str] | None = None) -> list[str]:
        """The markup of what a box holds; `outer` is the box's own frame."""
        inner = self._inner(node, outer)
        if node.flow is Flow.ROW:
            return self._row(node, inner)
        if node.flow is Flow.OVERLAY:
            return [self._placed(child, inner) for child in node.children]
        pieces, end = [], inner.top
        for child in node.children:
            css: Css = {}
            gap = child.frame.top - end
            if abs(gap) >= 0.5:
                css["margin-top"] = _px(gap)
            pieces.append(self._stacked(child, inner, css, (landmarks or {}).get(id(child), "")))
            end = child.frame.bottom
        return pieces

    def _inner(self, node: Node, outer: Region) -> Region:
        """The room inside a box's border and padding."""
        padding = self._padding(node)
        if not padding:
            border = _border(node.surface)
            return Region(
                outer.left + border[3], outer.top + border[0], outer.right - border[1], outer.bottom - border[2]
            )
        inner = _content(node)
        if inner is None:
            return outer
        border = _border(node.surface)
        left, right = inner.left - outer.left - border[3], outer.right - inner.right - border[1]
        if node.flow is not Flow.OVERLAY and abs(left - right) <= _CENTRED_PX:
            left = right = min(left, right)
        right = min(left, right) if right > left else right
        return Region(
            outer.left + border[3] + max(0.0, left), inner.top, outer.right - border[1] - max(0.0, right), inner.bottom
        )

    def _stacked(self, node: Node, inner: Region, css: Css, landmark: str) -> str:
        """A child of a stack: a block in its place between the sides."""
        left, right = node.frame.left - inner.left, inner.right - node.frame.right
        is_centred = abs(left - right) <= _CENTRED_PX and left > 4 * _CENTRED_PX
        if isinstance(node.content, Passage):
            return self._text(node, css | _aligned(node, left, right, inner.width))
        if node.is_plain and node.flow is not Flow.OVERLAY:
            if is_centred:
                css |= {"width": _px(node.frame.width + 1), "max-width": "100%", "margin-inline": "auto"}
            elif left > _FLUSH_PX:
                css["margin-left"] = _far(left, inner.width)
            frame = (
                node.frame if is_centred else Region(node.frame.left, node.frame.top, inner.right, node.frame.bottom)
            )
            return self._box(node, frame, css, landmark)
        fills = left <= _FLUSH_PX and right <= _FLUSH_PX
        if not fills:
            css |= {"width": _px(node.frame.width), "max-width": "100%"}
            if is_centred:
                css["margin-inline"] = "auto"
            elif right <= _FLUSH_PX:
                css["margin-left"] = "auto"
            elif abs(left) > _FLUSH_PX:
                css["margin-left"] = _far(left, inner.width)
        if isinstance(node.content, Cutout):
            css.pop("max-width", None)
        return self._any(node, css, landmark)

    def _row(self, node: Node, inner: Region) -> list[str]:
        """Children side by side. Their own sizes hold as far as there is room."""
        alignment = _row_alignment(node)
        pieces, end = [], inner.left
        last = node.children[-1]
        for child in node.children:
            css: Css = {}
            gap = child.frame.left - end
            if child is last and child is not node.children[0] and abs(inner.right - child.frame.right) <= _FLUSH_PX:
                css["margin-left"] = "auto"
            elif abs(gap) >= 0.5:
                css["margin-left"] = _far(gap, inner.width)
            down = child.frame.top - inner.top
            if alignment == "flex-start" and abs(down) >= 0.5:
                css["margin-top"] = _px(down)
            end = child.frame.right
            if isinstance(child.content, Passage):
                if len(child.content.lines) > 1:
                    css["flex"] = f"0 1 {_px(_column(child.content))}"
                    css |= {"text-align": child.content.align.value} if child.content.align is not Align.LEFT else {}
                pieces.append(self._text(child, css))
            else:
                width = child.frame.width + (1 if child.is_plain else 0)
                end += width - child.frame.width
                css["flex"] = f"0 1 {_px(width)}"
                pieces.append(self._any(child, css, ""))
        return pieces

    def _placed(self, node: Node, inner: Region) -> str:
        """One of several that lie on each other: all in one cell of a grid."""
        css: Css = {"grid-area": "1/1", "align-self": "start"}
        left, down = node.frame.left - inner.left, node.frame.top - inner.top
        if abs(left) >= 0.5:
            css["margin-left"] = _far(left, inner.width)
        if abs(down) >= 0.5:
            css["margin-top"] = _px(down)
        if isinstance(node.content, Passage):
            css |= {"justify-self": "start"}
            if len(node.content.lines) > 1:
                css["max-width"] = _px(_column(node.content))
            return self._text(node, css)
        return self._any(node, css | {"width": _px(node.frame.width), "max-width": "100%"}, "")

    def _any(self, node: Node, css: Css, landmark: str) -> str:
        match node.content:
            case Cutout():
                return self._picture(node.content, node, css)
            case Separator():
                self._written.append(node)
                css |= {"background": _hex(node.content.colour), "height": _px(node.frame.height)}
                if node.frame.width < node.frame.height:
                    css |= {"width": _px(node.frame.width)}
                return f"<hr{self._sheet.named('rule', css)}>"
            case Passage():
                return self._text(node, css)
        return self._box(node, node.frame, css, landmark)

    def _box(self, node: Node, frame: Region, css: Css, landmark: str) -> str:
        self._written.append(node)
        role = landmark or _role(node)
        css = css | self._looks(node)
        css |= _flow_css(node)
        if node.children:
            css |= self._padding(node)
        else:
            css["height"] = _px(node.frame.height)
        tag = landmark or ("button" if role == "button" else "div")
        self._is_inline = tag == "button"
        inside = "".join(f"\n{piece}" for piece in self._children(node, frame))
        self._is_inline = False
        if tag == "button":
            css = {"border": "0"} | css | {"text-align": "inherit"}
        attributes = self._sheet.named(role, css)
        return f"<{tag}{attributes}>{inside}\n</{tag}>" if inside else f"<{tag}{attributes}></{tag}>"

    def _looks(self, node: Node) -> Css:
        css: Css = {}
        surface = node.surface
        if surface is not None:
            css["background"] = _hex(surface.colour)
            if surface.until is not None:
                css["background"] = (
                    f"linear-gradient(to {surface.towards},{_hex(surface.colour)},{_hex(surface.until)})"
                )
            if surface.border is not None:
                css |= _border_css(surface.border)
            if surface.radius_px > 1:
                css["border-radius"] = _px(surface.radius_px)
        if node.backdrop is not None:
            css["background"] = f"url({self._picture_url(node.backdrop)}) center/cover"
        return css

    # --- leaves ---------------------------------------------------------------------------------------------------

    def _text(self, node: Node, css: Css) -> str:
        block = node.content
        assert isinstance(block, Passage)
        self._written.append(node)
        style = block.style
        if style.family.css != self._family:
            css["font-family"] = style.family.css
        if style.size_px != self._size:
            css["font-size"] = _px(style.size_px, digits=1)
        if style.is_bold:
            css["font-weight"] = "700"
        if style.colour != self._colour:
            css["color"] = _hex(style.colour)
        if abs(style.spacing_px) >= 0.02:
            css["letter-spacing"] = _px(style.spacing_px, digits=2)
        ratio = round(block.pitch_px / style.size_px, 2)
        if ratio != self._line_height:
            css["line-height"] = f"{ratio:g}"
        tag, role = ("span", "label") if self._is_inline else _text_tag(block, self._size)
        parts = [line.line.text for line in block.lines] if node.is_broken else [block.text]
        words = "<br>".join(map(escape, parts))
        return f"<{tag}{self._sheet.named(role, css, is_line=len(block.lines) == 1)}>{words}</{tag}>"

    def _picture(self, cutout: Cutout, node: Node, css: Css) -> str:
        self._written.append(node)
        css = {key: value for key, value in css.items() if key not in {"width", "flex"}}
        name = self._sheet.named("picture", css | {"flex": "none"} if css else css)
        size = f'width="{round(node.frame.width)}" height="{round(node.frame.height)}"'
        return f'<img{name} src="{self._picture_url(cutout)}" {size} alt="">'


def _content(node: Node) -> Region | None:
    if not node.children:
        return None
    frames = [child.frame for child in node.children]
    lefts, tops, rights, bottoms = zip(*frames, strict=True)
    return Region(min(lefts), min(tops), max(rights), max(bottoms))


def _border(surface: Surface | None) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if surface is None or surface.border is None else surface.border.widths


def _border_css(border: Border) -> Css:
    sides = [
        f"{width}px solid {_hex(colour)}" if width else "0"
        for width, colour in zip(border.widths, border.colours, strict=True)
    ]
    usual = max(sides, key=sides.count)
    css = {"border": usual}
    for name, side in zip(("top", "right", "bottom", "left"), sides, strict=True):
        if side != usual:
            css[f"border-{name}"] = side
    return css


def _flow_css(node: Node) -> Css:
    """How a box sets out its children."""
    if len(node.children) > 1 and node.flow is Flow.ROW:
        alignment = _row_alignment(node)
        return {"display": "flex"} | ({} if alignment == "stretch" else {"align-items": alignment})
    return {"display": "grid"} if len(node.children) > 1 and node.flow is Flow.OVERLAY else {}


def _row_alignment(node: Node) -> str:
    tops = [child.frame.top for child in node.children]
    bottoms = [child.frame.bottom for child in node.children]
    middles = [child.frame.middle[1] for child in node.children]
    inner_top, inner_bottom = min(tops), max(bottoms)
    if all(child.frame.top - inner_top <= 1 and inner_bottom - child.frame.bottom <= 1 for child in node.children):
        return "stretch"
    if max(middles) - min(middles) <= 1.2:
        return "center"
    return "flex-start"


def _aligned(node: Node, left: float, right: float, room: float) -> Css:
    """How a block of text stands between the sides of a stack, and how wide its column is."""
    block = node.content
    assert isinstance(block, Passage)
    css: Css = {}
    narrowest, widest = block.widths
    is_single = len(block.lines) == 1 or node.is_broken
    if block.align is Align.CENTRE or (is_single and abs(left - right) <= _CENTRED_PX and left > 12):
        css["text-align"] = "center"
        if not is_single and not narrowest <= room < widest:
            css |= {"width": _px(_column(block)), "max-width": "100%", "margin-inline": "auto"}
        elif abs(left - right) > _CENTRED_PX and left > right:
            css["margin-left"] = _px(left - right)
        elif abs(left - right) > _CENTRED_PX:
            css["margin-right"] = _px(right - left)
        return css
    if block.align is Align.RIGHT or (is_single and abs(right) <= _FLUSH_PX and left > 24):
        css["text-align"] = "right"
        if right > _FLUSH_PX:
            css["margin-right"] = _px(right)
        return css
    if abs(left) > 0.7:
        css["margin-left"] = _far(left, room)
    if not is_single and not narrowest <= room - left < widest:
        css["max-width"] = _px(_column(block))
    return css


def _column(block: Passage) -> float:
    """A width in which the lines break where they do on the screenshot."""
    narrowest, widest = block.widths
    return math.ceil(min((narrowest + widest) / 2, narrowest + block.style.size_px))


def _role(node: Node) -> str:
    if node.surface is not None:
        if _is_button(node):
            return "button"
        if node.surface.border is not None or node.surface.radius_px > 1:
            return "card"
        return "band" if node.frame.width > 4 * node.frame.height else "panel"
    if node.backdrop is not None:
        return "backdrop"
    return "stack"


def _is_button(node: Node) -> bool:
    """A small surface with one line of text in its middle."""
    if len(node.children) != 1 or not isinstance(node.children[0].content, Passage) or node.surface is None:
        return False
    block, frame = node.children[0].content, node.frame
    text = node.children[0].frame
    is_low = frame.height <= 4.5 * block.style.size_px and len(block.lines) == 1
    centred = abs(text.middle[0] - frame.middle[0]) <= 4 and abs(text.middle[1] - frame.middle[1]) <= 4
    return is_low and centred and frame.width <= 420 and frame.height >= 1.6 * block.style.size_px


def _text_tag(block: Passage, usual_px: float) -> tuple[str, str]:
    size = block.style.size_px / usual_px
    if size >= 1.9:
        return "h1", "title"
    if size >= 1.35:
        return "h2", "heading"
    if size >= 1.1 and block.style.is_bold:
        return "h3", "subheading"
    return ("p", "text") if len(block.lines) > 1 or len(block.text.split()) > 6 else ("div", "label")


def _landmarks(root: Node) -> dict[int, str]:
    """What the rows of the page are: the first is its header, the last its footer, if they are no more than that."""
    if root.flow is not Flow.STACK or len(root.children) < 3:
        return {}
    found = {}
    first, last = root.children[0], root.children[-1]
    if not first.is_leaf and first.frame.height <= 0.2 * root.frame.height:
        found[id(first)] = "header"
    if not last.is_leaf and last.frame.height <= 0.3 * root.frame.height:
        found[id(last)] = "footer"
    return found


# --- CSS ----------------------------------------------------------------------------------------------------------


def _narrow(width: int) -> str:
    """What changes where there is less room than the screenshot had: rows wrap, and nothing lies on each other."""
    return (
        "\n.row{display:flex}\n.layers{display:grid}"
        f"\n@media(min-width:{math.floor(_LINES_STAY * width)}px){{.line{{white-space:nowrap}}}}"
        f"\n@media(max-width:{min(800, round(0.7 * width))}px){{\n"
        ".row{flex-wrap:wrap}\n.row>*{max-width:100%}\n.layers>*{grid-area:auto!important}\n}"
    )


def _declarations(css: Mapping[str, str]) -> str:
    return ";".join(f"{name}:{value}" for name, value in css.items())


def _with_palette(css: str) -> str:
    """Colours that stand in it more than once, as variables."""
    colours = Counter(re.findall(r"#[0-9a-f]{6}\b", css))
    names = {
        colour: f"--colour-{number}" for number, (colour, count) in enumerate(colours.most_common(), 1) if count > 1
    }
    for colour, name in names.items():
        css = css.replace(colour, f"var({name})")
    if not names:
        return css
    return f":root{{{';'.join(f'{name}:{colour}' for colour, name in names.items())}}}\n{css}"


def _sides(sides: Sequence[float], width: int) -> str:
    top, right, bottom, left = (_px(side) for side in sides)
    if sides[1] > 48:
        right = _far(sides[1], width)
    if sides[3] > 48:
        left = _far(sides[3], width)
    if right == left:
        return f"{top} {right}" if top == bottom else f"{top} {right} {bottom}"
    if top == right == bottom == left:
        return top
    return f"{top} {right} {bottom} {left}"


def _far(px: float, room: float) -> str:
    """A distance to a side; a long one gives way where there is less room than here."""
    if px <= 48 or room <= 0:
        return _px(px)
    return f"min({_px(px)},{math.ceil(1000 * px / room + 1) / 10:g}%)"


def _px(value: float, digits: int = 0) -> str:
    rounded = round(value, digits)
    return f"{rounded:g}px" if rounded else "0"


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
