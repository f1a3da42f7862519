"""Tables: rows of a stack whose cells stand below each other.

A table is known by three rows or more with as many cells each, which share their edges or middles from row to row, most
of them texts. Where its rows begin and end the lines between them say, or the middle of the gap.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from lensmith.layout.blocks import Passage
from lensmith.layout.surfaces import Separator
from lensmith.layout.tree import Flow, Node, Region, Table, TableCell, TableRow, union

_FEWEST_ROWS = 3
_SAME_EDGE_PX = 3.0
_ALIGNED_SHARE = 0.8
_WIDEST_PADDING_PX = 24.0


@dataclass(frozen=True, kw_only=True)
class TableRun:
    """Neighbours in a stack, [start, stop), that are a table."""

    start: int
    stop: int
    table: Table


def find_tables(stack: Node) -> list[TableRun]:
    """The tables among the children of a stack."""
    runs: list[TableRun] = []
    start, children = 0, stack.children
    while start < len(children):
        stop = _end_of_rows(children, start)
        whole = _found(children, start, stop)
        runs += [whole] if whole is not None else _within(children, start, stop)
        start = max(stop, start + 1)
    return runs


def _found(children: Sequence[Node], start: int, stop: int, *, needs_lines: bool = False) -> TableRun | None:
    table = _table(children[start:stop], needs_lines=needs_lines) if stop - start >= _FEWEST_ROWS else None
    return None if table is None else TableRun(start=start, stop=stop, table=table)


def _within(children: Sequence[Node], start: int, stop: int) -> Iterable[TableRun]:
    """Tables in a run of rows that is none as a whole: where neighbours have as many cells each, and lines part or
    frame them. Without lines these would as well be columns of cards below another row."""
    rows = [place for place in range(start, stop) if _is_row(children[place])]
    for _, group in itertools.groupby(rows, key=lambda place: len(children[place].children)):
        places = list(group)
        found = _found(children, places[0], places[-1] + 1, needs_lines=True)
        if found is not None:
            yield found


def _end_of_rows(children: Sequence[Node], start: int) -> int:
    """Where the rows that begin at `start` end. Lines may stand between them, not after them."""
    stop = place = start
    while place < len(children):
        child = children[place]
        if _is_row(child):
            stop = place + 1
        elif not (isinstance(child.content, Separator) and place > start and place == stop):
            break
        place += 1
    return stop


def _is_row(node: Node) -> bool:
    return not node.is_leaf and node.backdrop is None and node.flow is Flow.ROW and len(node.children) >= 2


def _table(parts: Sequence[Node], *, needs_lines: bool) -> Table | None:
    rows = [part for part in parts if _is_row(part)]
    usual = Counter(len(row.children) for row in rows).most_common(1)[0][0]
    whole = [row for row in rows if len(row.children) == usual]
    if len(whole) < _FEWEST_ROWS or len(whole) < _ALIGNED_SHARE * len(rows):
        return None
    framed = [_is_framed(cell, row) for row in whole for cell in row.children]
    is_framed = sum(framed) >= _ALIGNED_SHARE * len(framed)
    columns = [_solids([row.children[number] for row in whole], is_framed=is_framed) for number in range(usual)]
    has_lines = is_framed or len(parts) > len(rows) or any(row.surface is not None for row in rows)
    texts = sum(
        sum(isinstance(_inside(row.children[n]).content, Passage) for row in whole) > 0.5 * len(whole)
        for n in range(usual)
    )
    if not all(map(_is_aligned, columns)) or texts < 2 or (not has_lines and (needs_lines or usual < 3)):
        return None
    extents = [(min(s.left for s in column), max(s.right for s in column)) for column in columns]
    if any(before[1] > after[0] for before, after in itertools.pairwise(extents)):
        return None
    cells = [
        _framed_cells(row) if is_framed and row in whole else _cells(row, extents, is_framed=is_framed) for row in rows
    ]
    if any(found is None for found in cells):
        return None
    sides = _framed_sides(whole) if is_framed else _sides(extents, parts)
    tops = _tops(parts, rows, is_framed=is_framed)
    made = []
    for number, (row, found) in enumerate(zip(rows, cells, strict=True)):
        assert found is not None
        made.append(
            TableRow(
                top=tops[number],
                bottom=tops[number + 1],
                cells=tuple(found),
                rule=_rule_above(parts, row),
                box=row if row.surface is not None else None,
            )
        )
    return Table(sides=sides, texts=tuple(extents), rows=tuple(made))


def _is_framed(cell: Node, row: Node) -> bool:
    """Whether a part of a row is a surface as high as it, with no more than one thing in it."""
    return cell.surface is not None and cell.frame.height >= row.frame.height - 3 and len(cell.children) <= 1


def _inside(cell: Node) -> Node:
    """What stands in a frame, or the frame where that is empty or a part without one."""
    return cell.children[0] if cell.surface is not None and len(cell.children) == 1 else cell


def _solids(cells: Sequence[Node], *, is_framed: bool) -> list[Region]:
    """What is seen in the cells of a column. Where frames are the cells', what stands in them; empty ones count where
    there is nothing else."""
    if not is_framed:
        return [cell.solid for cell in cells]
    return [_inside(cell).solid for cell in cells if _inside(cell) is not cell] or [cell.solid for cell in cells]


def _framed_cells(row: Node) -> list[TableCell]:
    """Each part in a column of its own; of a frame what stands in it."""
    cells = []
    for part in row.children:
        if part.surface is None or not part.children:
            cells.append(TableCell(node=part if part.surface is None else None, surface=part.surface))
        elif len(part.children) == 1:
            cells.append(TableCell(node=part.children[0], surface=part.surface))
        else:
            inner = Node(
                frame=union(child.frame for child in part.children),
                solid=union(child.solid for child in part.children),
                children=part.children,
                flow=part.flow,
            )
            cells.append(TableCell(node=inner, surface=part.surface))
    return cells


def _framed_sides(rows: Sequence[Node]) -> tuple[float, ...]:
    lefts = [median(row.children[number].frame.left for row in rows) for number in range(len(rows[0].children))]
    return *lefts, median(row.children[-1].frame.right for row in rows)


def _is_aligned(column: Sequence[Region]) -> bool:
    for edges in ([s.left for s in column], [s.right for s in column], [s.middle[0] for s in column]):
        usual = median(edges)
        if sum(abs(edge - usual) <= _SAME_EDGE_PX for edge in edges) >= _ALIGNED_SHARE * len(edges):
            return True
    return False


def _cells(row: Node, extents: Sequence[tuple[float, float]], *, is_framed: bool) -> list[TableCell] | None:
    """The cells of a row; None where two of its parts stand in one column. Where cells have no frames, a surface in one
    is a part of what stands there: a badge."""
    cells: list[TableCell] = []
    column = 0
    for part in row.children:
        child = _inside(part) if is_framed else part
        taken = [
            n for n, (left, right) in enumerate(extents) if child.solid.left <= right and left <= child.solid.right
        ]
        if not taken or taken[0] < column:
            return None
        cells += [TableCell(node=None)] * (taken[0] - column)
        cells.append(TableCell(node=child, columns=len(taken), surface=part.surface if child is not part else None))
        column = taken[-1] + 1
    return cells + [TableCell(node=None)] * (len(extents) - column)


def _sides(extents: Sequence[tuple[float, float]], parts: Sequence[Node]) -> tuple[float, ...]:
    """The sides of the columns: half way in the gaps, near the texts where these are wide."""
    around = union(part.frame for part in parts)
    sides = [min(around.left, extents[0][0])]
    for (_, left), (right, _) in itertools.pairwise(extents):
        sides.append(right - min(_WIDEST_PADDING_PX, (right - left) / 2))
    return *sides, max(around.right, extents[-1][1])


def _tops(parts: Sequence[Node], rows: Sequence[Node], *, is_framed: bool) -> list[float]:
    """Where each row begins, and where the last ends."""
    tops = []
    for number, row in enumerate(rows):
        rule = _rule_above(parts, row)
        if row.surface is not None or is_framed:
            tops.append(row.frame.top)
        elif rule is not None:
            tops.append(float(rule.rect.top))
        elif number == 0:
            tops.append(row.frame.top)
        elif rows[number - 1].surface is not None:
            tops.append(rows[number - 1].frame.bottom)
        else:
            tops.append((rows[number - 1].frame.bottom + row.frame.top) / 2)
    return [*tops, rows[-1].frame.bottom]


def _rule_above(parts: Sequence[Node], row: Node) -> Separator | None:
    place = next(number for number, part in enumerate(parts) if part is row)
    above = parts[place - 1].content if place else None
    return above if isinstance(above, Separator) else None
