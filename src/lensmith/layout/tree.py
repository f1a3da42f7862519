"""The structure of a page: what lies in what, and what stands beside or below what.

Surfaces hold what lies on them. What a surface holds is cut, again and again, along the widest lanes that nothing
crosses: into rows that are stacked, or columns that stand side by side (a recursive XY cut; Nagy and Seth, 1984). What
no lane parts lies on top of each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from lensmith.layout.blocks import Passage
from lensmith.layout.pictures import Cutout
from lensmith.layout.surfaces import Rect, Separator, Surface

_TIGHT_EM = 0.25
"""By how much of its letters' size a text may reach into another, and still stands beside or below it."""
_TOUCHING_PX = 1
"""Neighbours may reach into each other by so much: letters' boxes are rounded."""
_FEWEST_ROWS = 3
_COLUMNS_BEFORE_ROWS = 1.3
"""Lanes between columns must be so many times as wide as those between rows to be cut first."""


class Region(NamedTuple):
    """A rectangle in px, with fractions."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


class Flow(Enum):
    """How a box sets out what it holds."""

    STACK = "stack"
    ROW = "row"
    OVERLAY = "overlay"


@dataclass(kw_only=True)
class Node:
    """A part of the page.

    `frame` is where the browser lays it out, `solid` what of it is seen (boxes of letters reach further than their
    ink). A leaf has `content`; a box has children, and perhaps a surface or a backdrop. A text that `is_broken` has its
    lines parted by hand. What stands in the cells of a table are its children.
    """

    frame: Region
    solid: Region
    content: "Passage | Cutout | Separator | Table | None" = None
    children: list["Node"] = field(default_factory=list)
    flow: Flow = Flow.STACK
    surface: Surface | None = None
    backdrop: Cutout | None = None
    is_broken: bool = False

    @property
    def is_leaf(self) -> bool:
        return self.content is not None

    @property
    def is_plain(self) -> bool:
        """A box that shows nothing itself."""
        return not self.is_leaf and self.surface is None and self.backdrop is None

    def walk(self) -> Iterable["Node"]:
        """The node and all below it, in the order of the markup."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """What stands in a cell, None in an empty one, how many columns it takes, and the surface that frames it."""

    node: Node | None
    columns: int = 1
    surface: Surface | None = None


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row from `top` to `bottom`. `rule` is the line above it, a part of it; `box` the surface that it stands on."""

    top: float
    bottom: float
    cells: tuple[TableCell, ...]
    rule: Separator | None = None
    box: Node | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: the sides of its columns, one more than there are columns, and its rows.

    `texts`: left and right of what stands in each column.
    """

    sides: tuple[float, ...]
    texts: tuple[tuple[float, float], ...]
    rows: tuple[TableRow, ...]

    @property
    def frame(self) -> Region:
        return Region(self.sides[0], self.rows[0].top, self.sides[-1], self.rows[-1].bottom)


@dataclass(frozen=True, kw_only=True)
class PageParts:
    """All that was measured on a page of so many px."""

    width: int
    height: int
    surfaces: Sequence[Surface]
    rules: Sequence[Separator]
    blocks: Sequence[Passage]
    pictures: Sequence[Cutout]


@dataclass(frozen=True, kw_only=True)
class Nudges:
    """What fitting found out, by the block of text (its place among `PageParts.blocks`): by how many px (x, y) it must
    be written elsewhere to stand where it shall, and which break at other words than on the screenshot."""

    moves: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    broken: frozenset[int] = frozenset()


def build_tree(parts: PageParts, nudges: Nudges | None = None) -> Node:
    """The page as one node. Every block, picture and rule of `parts` is in it once."""
    nudges = nudges or Nudges()
    page = Region(0, 0, parts.width, parts.height)
    root = Node(frame=page, solid=page)
    boxes = [_box(surface.rect, surface=surface) for surface in parts.surfaces]
    boxes += [_box(cutout.rect, backdrop=cutout) for cutout in parts.pictures if cutout.has_text]
    boxes.sort(key=lambda node: -node.frame.width * node.frame.height)
    placed: list[Node] = [root]
    for box in boxes:
        _parent(box.frame, placed).children.append(box)
        placed.append(box)
    for leaf in _leaves(parts, nudges):
        _parent(leaf.solid, placed).children.append(leaf)
    for node in placed:
        _arrange(node)
    return root


def _leaves(parts: PageParts, nudges: Nudges) -> list[Node]:
    leaves = []
    for number, block in enumerate(parts.blocks):
        x, y = nudges.moves.get(number, (0.0, 0.0))
        left, top, right, bottom = block.box
        frame = Region(left + x, top + y, right + x, bottom + y)
        solid = Region(*block.ink)
        leaves.append(Node(frame=frame, solid=solid, content=block, is_broken=number in nudges.broken))
    pictures = [cutout for cutout in parts.pictures if not cutout.has_text]
    others: list[Cutout | Separator] = [*parts.rules, *pictures]
    for content in others:
        frame = Region(*content.rect)
        leaves.append(Node(frame=frame, solid=frame, content=content))
    return leaves


def _box(rect: Rect, *, surface: Surface | None = None, backdrop: Cutout | None = None) -> Node:
    frame = Region(*rect)
    return Node(frame=frame, solid=frame, surface=surface, backdrop=backdrop)


def _parent(frame: Region, placed: Sequence[Node]) -> Node:
    """The smallest box that holds the middle of a frame, and most of it. `placed`: from the largest to the smallest."""
    x, y = frame.middle
    for node in reversed(placed):
        outer = node.frame
        if not (outer.left <= x <= outer.right and outer.top <= y <= outer.bottom):
            continue
        across = min(outer.right, frame.right) - max(outer.left, frame.left)
        down = min(outer.bottom, frame.bottom) - max(outer.top, frame.top)
        if across * down >= 0.9 * frame.width * frame.height:
            return node
    return placed[0]


def _arrange(node: Node) -> None:
    """Cuts what a box holds into rows and columns."""
    if len(node.children) > 1:
        cut = _cut(node.children)
        node.children, node.flow = cut.children, cut.flow


class _Cut(NamedTuple):
    children: list[Node]
    flow: Flow


def _cut(nodes: list[Node]) -> _Cut:
    rows, row_lane = _groups(nodes, axis=1)
    columns, column_lane = _groups(nodes, axis=0)
    if len(rows) == 1 and len(columns) == 1:
        rows, row_lane = _groups(nodes, axis=1, is_tight=True)
        columns, column_lane = _groups(nodes, axis=0, is_tight=True)
    if len(rows) == 1 and len(columns) == 1:
        # What comes later lies on top: letters lie on all else, and small things on large ones.
        lowest_first = sorted(nodes, key=lambda n: (isinstance(n.content, Passage), -n.solid.width * n.solid.height))
        return _Cut(lowest_first, Flow.OVERLAY)
    into_columns = len(rows) == 1 or (
        len(columns) > 1 and column_lane > _COLUMNS_BEFORE_ROWS * row_lane and not _is_grid(rows, columns)
    )
    flow, groups = (Flow.ROW, columns) if into_columns else (Flow.STACK, rows)
    return _Cut([_grouped(group) for group in groups], flow)


def _is_grid(rows: Sequence[Sequence[Node]], columns: Sequence[Sequence[Node]]) -> bool:
    """Whether nodes that part both ways are a table, not columns that happen to be in step: a cell in every place, and
    below its head each column is set in one way."""
    if len(rows) < _FEWEST_ROWS or len(columns) < 2 or any(len(row) != len(columns) for row in rows):
        return False
    even = [column for column in columns if len({_way(cell) for cell in column[1:]}) == 1 and _way(column[-1])]
    return len(even) >= max(2, len(columns) - 1)


def _way(node: Node) -> tuple[object, ...] | None:
    """How a cell's text is set; None where it is no single line."""
    if node.surface is not None and len(node.children) == 1:
        node = node.children[0]
    block = node.content
    if not isinstance(block, Passage) or len(block.lines) > 1:
        return None
    return block.style.size_px, block.style.is_bold


def _grouped(group: list[Node]) -> Node:
    if len(group) == 1:
        return group[0]
    cut = _cut(group)
    return Node(
        frame=union(child.frame for child in cut.children),
        solid=union(child.solid for child in cut.children),
        children=cut.children,
        flow=cut.flow,
    )


def _groups(nodes: list[Node], *, axis: int, is_tight: bool = False) -> tuple[list[list[Node]], float]:
    """Nodes parted by lanes across an axis (0: x, 1: y), in its order, and the width of the widest lane.

    `is_tight`: texts may reach a little into one another, as large lines with little leading do.
    """
    spans = [(*_span(node, axis, is_tight), node) for node in nodes]
    groups: list[list[Node]] = []
    end, widest = float("-inf"), 0.0
    for start, stop, node in sorted(spans, key=lambda span: span[0]):
        if not groups or start >= end - _TOUCHING_PX:
            widest = max(widest, start - end) if groups else widest
            groups.append([])
        groups[-1].append(node)
        end = max(end, stop)
    return groups, widest


def _span(node: Node, axis: int, is_tight: bool) -> tuple[float, float]:
    start, stop = node.solid[axis], node.solid[axis + 2]
    if not is_tight or not isinstance(node.content, Passage):
        return start, stop
    give = min(_TIGHT_EM * node.content.style.size_px, (stop - start) / 3)
    return start + give, stop - give


def union(frames: Iterable[Region]) -> Region:
    """The smallest frame that holds all."""
    lefts, tops, rights, bottoms = zip(*frames, strict=True)
    return Region(min(lefts), min(tops), max(rights), max(bottoms))
