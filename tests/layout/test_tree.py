"""Structure from boxes alone: rows, columns, what lies in what, what lies on what."""

from lensmith.layout.blocks import Align, Passage
from lensmith.layout.ocr import Line
from lensmith.layout.pictures import Cutout
from lensmith.layout.surfaces import Rect, Surface
from lensmith.layout.tree import Flow, Node, PageParts, build_tree
from lensmith.layout.typography import SetLine, Style, families


def tree_of(*rects: Rect, surfaces: tuple[Rect, ...] = ()) -> Node:
    parts = PageParts(
        width=1000,
        height=1000,
        surfaces=[Surface(rect=rect, colour=(200, 200, 200)) for rect in surfaces],
        rules=[],
        blocks=[],
        pictures=[Cutout(rect=rect) for rect in rects],
    )
    return build_tree(parts)


def outline(node: Node) -> object:
    """A leaf's left and top, or the flow and what it holds."""
    if node.is_leaf:
        return int(node.frame.left), int(node.frame.top)
    return node.flow.value, [outline(child) for child in node.children]


def test_one_below_the_other_is_a_stack_and_beside_it_a_row():
    assert outline(tree_of(Rect(0, 0, 9, 9), Rect(0, 20, 9, 29))) == ("stack", [(0, 0), (0, 20)])
    assert outline(tree_of(Rect(0, 0, 9, 9), Rect(20, 0, 29, 9))) == ("row", [(0, 0), (20, 0)])


def test_columns_of_lines_stay_columns():
    # Lanes of 100 px between columns, of 6 between lines.
    rects = [Rect(x, y, x + 50, y + 10) for x in (0, 150) for y in (0, 16, 32)]
    assert outline(tree_of(*rects)) == (
        "row", [("stack", [(0, 0), (0, 16), (0, 32)]), ("stack", [(150, 0), (150, 16), (150, 32)])]
    )  # fmt: skip


def test_a_grid_is_cut_into_rows():
    rects = [Rect(x, y, x + 100, y + 100) for y in (0, 120) for x in (0, 120)]
    assert outline(tree_of(*rects)) == (
        "stack", [("row", [(0, 0), (120, 0)]), ("row", [(0, 120), (120, 120)])]
    )  # fmt: skip


def test_what_lies_on_a_surface_is_in_it():
    root = tree_of(Rect(110, 110, 150, 150), Rect(500, 110, 550, 150), surfaces=(Rect(100, 100, 200, 200),))
    assert root.flow is Flow.ROW
    card, other = root.children
    assert card.surface is not None
    assert [outline(child) for child in card.children] == [(110, 110)]
    assert outline(other) == (500, 110)


def test_surfaces_nest():
    root = tree_of(surfaces=(Rect(0, 0, 900, 900), Rect(100, 100, 800, 800), Rect(200, 200, 300, 300)))
    depth, node = 0, root
    while node.children:
        [node] = node.children
        depth += 1
    assert depth == 3


def test_what_no_lane_parts_is_laid_on_each_other_and_nothing_is_lost():
    rects = (Rect(0, 0, 100, 100), Rect(50, 50, 150, 150), Rect(120, 20, 200, 90), Rect(90, 10, 130, 60))
    root = tree_of(*rects)
    assert root.flow is Flow.OVERLAY
    assert sorted(outline(child) for child in root.children) == sorted((r.left, r.top) for r in rects)


def flow_of_two_texts(first: Rect, second: Rect) -> Flow:
    style = Style(family=families()[0], size_px=40, is_bold=False, colour=(0, 0, 0))
    passages = []
    for rect in (first, second):
        line = Line(text="words", left=rect.left, top=rect.top, right=rect.right, bottom=rect.bottom, confidence=1.0)
        advance = float(rect.right - rect.left)
        written = SetLine(
            line=line, style=style, baseline=rect.bottom - 8, origin=rect.left, advance=advance, behind=(255, 255, 255)
        )
        passages.append(Passage(lines=(written,), style=style, pitch_px=46, align=Align.LEFT))
    return build_tree(PageParts(width=1000, height=1000, surfaces=[], rules=[], blocks=passages, pictures=[])).flow


def test_texts_that_reach_a_little_into_each_other_are_one_below_or_beside_the_other():
    first = Rect(0, 0, 300, 40)
    assert flow_of_two_texts(first, Rect(20, 34, 250, 74)) is Flow.STACK
    assert flow_of_two_texts(first, Rect(290, 8, 400, 40)) is Flow.ROW
    assert flow_of_two_texts(first, Rect(20, 15, 250, 55)) is Flow.OVERLAY
