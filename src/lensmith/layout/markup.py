"""The HTML of a page's structure: flow, flex and grid, classes with names, colours as variables. No absolute positions.

Every distance is a margin or a padding that was measured, and stands with its element; how things look is in classes,
which are shared by what looks alike. Below the width that the screenshot had, columns shrink, and on a phone they wrap.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape

from lensmith.core.types import Rgb
from lensmith.layout.blocks import Align, Passage, StyledText, pieces_of
from lensmith.layout.css import Css, Sheet, border_css, box_sides, far, hexed, px
from lensmith.layout.pictures import Cutout
from lensmith.layout.roles import Role, label_of, name_parts
from lensmith.layout.surfaces import Separator, Surface
from lensmith.layout.tree import Flow, Node, Region, Table, TableCell, TableRow
from lensmith.layout.typography import Style, line_height

PictureUrl = Callable[[Cutout], str]
"""Where the page finds a picture: a data URL, or a file beside it."""

_FLUSH_PX = 1.5
_CENTRED_PX = 3.0
_LINK_LEVELS = 60
"""Words of another colour than those around them are a link if its channels differ by so much."""


_CONTROLS = frozenset({Role.FIELD, Role.CHOICE, Role.AREA, Role.CHECK, Role.RADIO})
_CLASSES_OF_TEXT = {"li": "entry", "a": "link", "td": "cell", "th": "head"}


@dataclass(frozen=True, kw_only=True)
class Markup:
    """A page: its document, and the nodes that its elements stand for, in the order in which these begin."""

    html: str
    nodes: tuple[Node, ...]


class MarkupWriter:
    """Writes one page."""

    def __init__(self, root: Node, ground: Rgb, picture_url: PictureUrl) -> None:
        self._root = root
        self._ground = ground
        self._picture_url = picture_url
        self._sheet = Sheet()
        self._is_inline = False
        self._written: list[Node] = []
        self._rooms: dict[int, float] = {}
        self._roles = name_parts(root)
        self._texts = [node for node in root.walk() if isinstance(node.content, Passage)]
        blocks = [node.content for node in self._texts if isinstance(node.content, Passage)]
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
        body = "\n".join(self._children(self._root, self._root.frame))
        padding = self._padding(self._root)
        base: Css = (
            {
                "background": hexed(self._ground),
                "color": hexed(self._colour),
                "font-family": self._family,
                "font-size": px(self._size, digits=1),
                "line-height": f"{self._line_height:g}",
            }
            | padding
            | ({} if self._root.children else {"height": px(self._root.frame.height)})
            | {name: value for name, value in _flow_css(self._root).items() if name != "display"}
        )
        title = self._title()
        flow = self._sheet.named("body", {"display": _flow_css(self._root).get("display", "")})
        css, content = self._sheet.finished(base, round(self._root.frame.width), f"<body{flow}>\n{body}\n</body>")
        html = (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
            f"<style>\n{css}\n</style>\n</head>\n{content}\n</html>\n"
        )
        return Markup(html=html, nodes=tuple(self._written))

    def _title(self) -> str:
        blocks = [node.content for node in self._texts if isinstance(node.content, Passage)]
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
        room = self._rooms.get(id(node), frame.width)
        return {"padding": box_sides(sides, room)} if max(sides) >= 0.5 else {}

    def _children(self, node: Node, outer: Region) -> list[str]:
        """The markup of what a box holds; `outer` is the box's own frame."""
        inner = self._inner(node, outer)
        for child in node.children:
            self._rooms[id(child)] = inner.width
        if node.flow is Flow.ROW:
            return self._row(node, inner)
        if node.flow is Flow.OVERLAY:
            return [self._placed(child, inner) for child in node.children]
        pieces, end = [], inner.top
        tag = "li" if self._roles.get(id(node)) is Role.LIST else ""
        for child in node.children:
            css: Css = {}
            gap = child.frame.top - end
            if abs(gap) >= 0.5:
                css["margin-top"] = px(gap)
            pieces.append(self._stacked(child, inner, css, tag))
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

    def _stacked(self, node: Node, inner: Region, css: Css, tag: str) -> str:
        """A child of a stack: a block in its place between the sides."""
        left, right = node.frame.left - inner.left, inner.right - node.frame.right
        is_centred = abs(left - right) <= _CENTRED_PX and left > 4 * _CENTRED_PX
        if isinstance(node.content, Passage):
            return self._text(node, css | _aligned(node, left, right, inner.width), tag)
        if node.is_plain and node.flow is not Flow.OVERLAY:
            if is_centred:
                css |= {"width": px(node.frame.width + 1), "max-width": "100%", "margin-inline": "auto"}
            elif left > _FLUSH_PX:
                css["margin-left"] = far(left, inner.width)
            frame = (
                node.frame if is_centred else Region(node.frame.left, node.frame.top, inner.right, node.frame.bottom)
            )
            return self._box(node, frame, css, tag)
        fills = left <= _FLUSH_PX and right <= _FLUSH_PX
        if not fills:
            css |= {"width": px(node.frame.width), "max-width": "100%"}
            if is_centred:
                css["margin-inline"] = "auto"
            elif right <= _FLUSH_PX:
                css["margin-left"] = "auto"
            elif abs(left) > _FLUSH_PX:
                css |= _beside(far(left, inner.width))
        return self._any(node, css, tag)

    def _row(self, node: Node, inner: Region) -> list[str]:
        """Children side by side. Their own sizes hold as far as there is room."""
        alignment = _row_alignment(node)
        tag = "a" if self._roles.get(id(node)) is Role.NAVIGATION else ""
        pieces, end = [], inner.left
        last = node.children[-1]
        for child in node.children:
            css: Css = {}
            gap = child.frame.left - end
            if child is last and child is not node.children[0] and abs(inner.right - child.frame.right) <= _FLUSH_PX:
                css["margin-left"] = "auto"
            elif abs(gap) >= 0.5:
                css["margin-left"] = far(gap, inner.width)
            down = child.frame.top - inner.top
            if alignment == "flex-start" and abs(down) >= 0.5:
                css["margin-top"] = px(down)
            end = child.frame.right
            if isinstance(child.content, Passage):
                if len(child.content.lines) > 1:
                    css["flex"] = f"0 1 {px(_column(child.content))}"
                    css |= {"text-align": child.content.align.value} if child.content.align is not Align.LEFT else {}
                pieces.append(self._text(child, css, tag))
            else:
                width = child.frame.width + (1 if child.is_plain else 0)
                end += width - child.frame.width
                css["flex"] = f"0 1 {px(width)}"
                if isinstance(child.content, Cutout) and alignment == "stretch":
                    css["align-self"] = "flex-start"  # a picture would be stretched too
                pieces.append(self._any(child, css, ""))
        return pieces

    def _placed(self, node: Node, inner: Region) -> str:
        """One of several that lie on each other: all in one cell of a grid."""
        css: Css = {"grid-area": "1/1", "align-self": "start"}
        left, down = node.frame.left - inner.left, node.frame.top - inner.top
        if abs(left) >= 0.5:
            css |= _beside(far(left, inner.width))
        if abs(down) >= 0.5:
            css["margin-top"] = px(down)
        if isinstance(node.content, Passage):
            css.pop("max-width", None)
            css |= {"justify-self": "start"}
            if len(node.content.lines) > 1:
                css["max-width"] = px(_column(node.content))
            return self._text(node, css, "")
        return self._any(node, {"max-width": "100%"} | css | {"width": px(node.frame.width)}, "")

    def _any(self, node: Node, css: Css, tag: str) -> str:
        match node.content:
            case Cutout():
                return _wrapped(self._picture(node.content, node, css), tag)
            case Separator():
                return self._rule(node, node.content, css)
            case Passage():
                return self._text(node, css, tag)
            case Table():
                return self._table(node, node.content, css)
        return self._box(node, node.frame, css, tag)

    def _box(self, node: Node, frame: Region, css: Css, tag: str) -> str:
        role = self._roles.get(id(node))
        if role in _CONTROLS:
            return self._control(node, role, css)
        self._written.append(node)
        css = css | self._looks(node) | _flow_css(node)
        if node.children:
            css |= self._padding(node)
        else:
            css["height"] = px(node.frame.height)
        was_inline = self._is_inline
        self._is_inline = was_inline or role is Role.BUTTON
        inside = "".join(f"\n{piece}" for piece in self._children(node, frame))
        self._is_inline = was_inline
        if role is Role.LIST and _is_marked(node):
            css["list-style"] = "disc"
        if role is Role.BUTTON:
            css = {"border": "0"} | css | {"text-align": "inherit"}
        tag = tag or ("div" if role is None else role.value)
        attributes = self._sheet.named(_class_of(node, role), css)
        return f"<{tag}{attributes}>{inside}\n</{tag}>" if inside else f"<{tag}{attributes}></{tag}>"

    def _looks(self, node: Node) -> Css:
        css: Css = {}
        surface = node.surface
        if surface is not None:
            css["background"] = hexed(surface.colour)
            if surface.until is not None:
                css["background"] = (
                    f"linear-gradient(to {surface.towards},{hexed(surface.colour)},{hexed(surface.until)})"
                )
            if surface.border is not None:
                css |= border_css(surface.border)
            if surface.shadow is not None:
                down, blur, strength = surface.shadow
                css["box-shadow"] = f"0 {px(down)} {px(blur)} rgb(0 0 0/{strength:g})"
            if surface.radius_px > 1:
                css["border-radius"] = px(surface.radius_px)
        if node.backdrop is not None:
            css["background"] = f"url({self._picture_url(node.backdrop)}) center/cover"
        return css

    def _control(self, node: Node, role: Role, css: Css) -> str:
        """A field of a form. What stands in it is what it suggests, or its choice."""
        self._written.append(node)
        css = css | self._looks(node)
        leaves = [leaf for leaf in node.walk() if leaf is not node]
        text = next((leaf for leaf in leaves if isinstance(leaf.content, Passage)), None)
        picture = next((leaf for leaf in leaves if isinstance(leaf.content, Cutout)), None)
        label = label_of(node, self._texts)
        if picture is not None and isinstance(picture.content, Cutout):
            place = f"right {px(node.frame.right - picture.frame.right)} center" if role is Role.CHOICE else "center"
            css["background"] = f"{css['background']} url({self._picture_url(picture.content)}) no-repeat {place}"
        if role in {Role.CHECK, Role.RADIO}:
            size = px(node.frame.height)
            css |= {"width": size, "height": size, "flex": "none", "padding": "0"}
            is_ticked = " checked" if picture is not None else ""
            return f'<input type="{role.value}"{self._sheet.named(role.value, css)}{is_ticked}>'
        css["height"] = px(node.frame.height)
        if "width" not in css and "flex" not in css:
            css["width"] = "100%"
        words, left = "", 12.0
        if text is not None and isinstance(text.content, Passage):
            words = text.content.text
            left = text.frame.left - node.frame.left - _border(node.surface)[3]
            css |= self._letters_css(text.content.style)
        css["padding"] = f"0 {px(min(left, 12))} 0 {px(left)}"
        named = escape(label.content.text if label is not None and isinstance(label.content, Passage) else words)
        attributes = self._sheet.named("field", css) + (f' aria-label="{named}"' if named else "")
        if role is Role.CHOICE:
            return f"<select{attributes}><option>{escape(words)}</option></select>"
        if role is Role.AREA:
            return f"<textarea{attributes}></textarea>"
        suggested = f' placeholder="{escape(words)}"' if words else ""
        return f"<input{attributes}{suggested}>"

    def _table(self, node: Node, table: Table, css: Css) -> str:
        self._written.append(node)
        css |= {"width": px(node.frame.width)}
        if any(_is_bordered(row) or any(cell.surface is not None for cell in row.cells) for row in table.rows):
            css["border-collapse"] = "collapse"
        sides = table.sides
        whole = (sides[-1] - sides[0]) / 100
        columns = "".join(f'<col style="width:{(b - a) / whole:.2f}%">' for a, b in itertools.pairwise(sides))
        is_headed = _has_head(table)
        rows = "\n".join(
            self._table_row(table, row, "th" if is_headed and not number else "td")
            for number, row in enumerate(table.rows)
        )
        return f"<table{self._sheet.named('table', css)}>\n<colgroup>{columns}</colgroup>\n{rows}\n</table>"

    def _table_row(self, table: Table, row: TableRow, tag: str) -> str:
        css: Css = {"height": px(row.bottom - row.top)}
        if row.box is not None and row.box.surface is not None:
            css["background"] = hexed(row.box.surface.colour)
            css |= border_css(row.box.surface.border) if row.box.surface.border is not None else {}
        cells, column = [], 0
        for cell in row.cells:
            cells.append(self._table_cell(table, row, cell, column, tag))
            column += cell.columns
        return f"<tr{self._sheet.named('record', css)}>\n{chr(10).join(cells)}\n</tr>"

    def _table_cell(self, table: Table, row: TableRow, cell: TableCell, column: int, tag: str) -> str:
        last = column + cell.columns - 1
        extent = Region(table.texts[column][0], row.top, table.texts[last][1], row.bottom)
        css: Css = {}
        above = 0.0
        if row.rule is not None:
            above = float(row.rule.rect.height)
            css["border-top"] = f"{px(above)} solid {hexed(row.rule.colour)}"
        span = f' colspan="{cell.columns}"' if cell.columns > 1 else ""
        child = cell.node
        if cell.surface is not None:
            css["background"] = hexed(cell.surface.colour)
            css |= border_css(cell.surface.border) if cell.surface.border is not None else {}
            above = float(_border(cell.surface)[0])
        if child is None:
            return f"<{tag}{self._sheet.named('cell', css)}></{tag}>"
        down = child.frame.top - row.top - above
        left, right = extent.left - table.sides[column], table.sides[last + 1] - extent.right
        inner = extent._replace(top=child.frame.top)
        own: Css = {}
        if isinstance(child.content, Passage):
            own = _aligned(child, child.frame.left - inner.left, inner.right - child.frame.right, inner.width)
            if "text-align" not in own:
                left, right = child.frame.left - table.sides[column], 0.0
        else:
            right = 0.0
            inner = inner._replace(right=table.sides[last + 1])  # a box would fill what is no padding
        css["padding"] = box_sides((max(0.0, down), max(0.0, right), 0.0, max(0.0, left)), table.frame.width)
        if isinstance(child.content, Passage) and ("text-align" not in own or len(own) == 1):
            aligned = {name: value for name, value in own.items() if name == "text-align"}
            return self._text(child, css | aligned, tag, attributes=span)
        attributes = self._sheet.named("cell", css) + span
        return f"<{tag}{attributes}>{self._stacked(child, inner, {}, '')}</{tag}>"

    # --- leaves ---------------------------------------------------------------------------------------------------

    def _text(self, node: Node, css: Css, tag: str, *, attributes: str = "") -> str:
        block = node.content
        assert isinstance(block, Passage)
        self._written.append(node)
        css = css | self._letters_css(block.style)
        ratio = round(block.pitch_px / block.style.size_px, 2)
        if ratio != self._line_height:
            css["line-height"] = f"{ratio:g}"
        usual, role = _text_tag(block, self._size)
        if self._is_inline:
            usual, role = "span", "label"
        elif tag:
            usual, role = tag, _CLASSES_OF_TEXT[tag]
        lines = [pieces_of(line) for line in block.lines] if node.is_broken else [block.pieces]
        words = "<br>".join("".join(self._piece(piece, block.style) for piece in line) for line in lines)
        if usual == "a":
            attributes += ' href="#"'
        named = self._sheet.named(role, css, is_line=len(block.lines) == 1)
        return f"<{usual}{named}{attributes}>{words}</{usual}>"

    def _piece(self, piece: StyledText, of_all: Style) -> str:
        """Words in a text, which may be set otherwise than the others of it."""
        words, style = escape(piece.text), piece.style
        if not words.strip() or replace(style, size_px=of_all.size_px, spacing_px=of_all.spacing_px) == of_all:
            return words
        css: Css = {}
        if style.plate is not None and style.plate != of_all.plate:
            css |= {"background": hexed(style.plate), "border-radius": "3px"}
        if style.colour != of_all.colour:
            css["color"] = hexed(style.colour)
        if style.is_underlined != of_all.is_underlined:
            css["text-decoration"] = "underline" if style.is_underlined else "none"
        hues = [abs(a - b) for a, b in zip(style.colour, of_all.colour, strict=True)]
        if self._is_inline:
            tag = "span"
        elif style.plate is not None:
            tag = "code"
        elif style.is_underlined or max(hues) - min(hues) >= _LINK_LEVELS:
            tag = "a"
        else:
            tag = "strong" if style.is_bold and not of_all.is_bold else "span"
        if style.is_bold != of_all.is_bold and tag != "strong":
            css["font-weight"] = "700" if style.is_bold else "400"
        link = ' href="#"' if tag == "a" else ""
        return f"<{tag}{self._sheet.named('link' if link else 'marked', css)}{link}>{words}</{tag}>"

    def _letters_css(self, style: Style) -> Css:
        """What of a style is not the page's own."""
        css: Css = {}
        if style.family.css != self._family:
            css["font-family"] = style.family.css
        if style.size_px != self._size:
            css["font-size"] = px(style.size_px, digits=1)
        if style.is_bold:
            css["font-weight"] = "700"
        if style.colour != self._colour:
            css["color"] = hexed(style.colour)
        if style.is_underlined:
            css["text-decoration"] = "underline"
        if abs(style.spacing_px) >= 0.02:
            css["letter-spacing"] = px(style.spacing_px, digits=2)
        return css

    def _rule(self, node: Node, rule: Separator, css: Css) -> str:
        self._written.append(node)
        css |= {"background": hexed(rule.colour), "height": px(node.frame.height)}
        if node.frame.width < node.frame.height:
            css |= {"width": px(node.frame.width)}
        return f"<hr{self._sheet.named('rule', css)}>"

    def _picture(self, cutout: Cutout, node: Node, css: Css) -> str:
        self._written.append(node)
        # Its own width stands in its element, and that it never is wider than its room, in the style sheet.
        css = {key: value for key, value in css.items() if key != "width" and value != "100%"}
        name = self._sheet.named("picture", css)
        size = f'width="{round(node.frame.width)}" height="{round(node.frame.height)}"'
        return f'<img{name} src="{self._picture_url(cutout)}" {size} alt="{escape(cutout.words)}">'


def _beside(distance: str) -> Css:
    """A distance to the left side, which is left free where there is less room too."""
    return {"margin-left": distance, "max-width": f"calc(100% - {distance})"} if distance != "0" else {}


def _wrapped(html: str, tag: str) -> str:
    return f"<{tag}>{html}</{tag}>" if tag else html


def _is_marked(entries: Node) -> bool:
    return all(isinstance(child.content, Passage) and child.content.is_marked for child in entries.children)


def _has_head(table: Table) -> bool:
    """Whether the first row's texts are all set otherwise than those below them."""
    head, body = table.rows[0], table.rows[1]
    pairs = [
        (above.node.content.style, below.node.content.style)
        for above, below in zip(head.cells, body.cells, strict=False)
        if above.node is not None
        and below.node is not None
        and isinstance(above.node.content, Passage)
        and isinstance(below.node.content, Passage)
    ]
    return bool(pairs) and all(above != below for above, below in pairs)


def _is_bordered(row: TableRow) -> bool:
    return row.box is not None and row.box.surface is not None and row.box.surface.border is not None


def _class_of(node: Node, role: Role | None) -> str:
    if role is not None:
        return {Role.LIST: "list"}.get(role, role.value)
    if node.surface is not None:
        if node.surface.border is not None or node.surface.radius_px > 1:
            return "card"
        return "band" if node.frame.width > 4 * node.frame.height else "panel"
    return "stack" if node.backdrop is None else "backdrop"


def _content(node: Node) -> Region | None:
    if not node.children:
        return None
    frames = [child.frame for child in node.children]
    lefts, tops, rights, bottoms = zip(*frames, strict=True)
    return Region(min(lefts), min(tops), max(rights), max(bottoms))


def _border(surface: Surface | None) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if surface is None or surface.border is None else surface.border.widths


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
            css |= {"width": px(_column(block)), "max-width": "100%", "margin-inline": "auto"}
        elif abs(left - right) > _CENTRED_PX and left > right:
            css["margin-left"] = px(left - right)
        elif abs(left - right) > _CENTRED_PX:
            css["margin-right"] = px(right - left)
        return css
    if block.align is Align.RIGHT or (is_single and abs(right) <= _FLUSH_PX and left > 24):
        css["text-align"] = "right"
        if right > _FLUSH_PX:
            css["margin-right"] = px(right)
        return css
    if abs(left) > 0.7:
        css["margin-left"] = far(left, room)
    if not is_single and not narrowest <= room - left < widest:
        css["max-width"] = px(_column(block))
    return css


def _column(block: Passage) -> float:
    """A width in which the lines break where they do on the screenshot."""
    narrowest, widest = block.widths
    return math.ceil(min((narrowest + widest) / 2, narrowest + block.style.size_px))


def _text_tag(block: Passage, usual_px: float) -> tuple[str, str]:
    size = block.style.size_px / usual_px
    if size >= 1.9:
        return "h1", "title"
    if size >= 1.35:
        return "h2", "heading"
    if size >= 1.1 and block.style.is_bold:
        return "h3", "subheading"
    return ("p", "text") if len(block.lines) > 1 or len(block.text.split()) > 6 else ("div", "label")
