"""What the parts of a page are for: lists, tables, navigation, fields of forms, landmarks.

Told from how things repeat, how they are framed and where they stand; a part that could be two things stays a plain
box.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum

from lensmith.core.types import Rgb
from lensmith.layout.blocks import Passage
from lensmith.layout.pictures import Cutout
from lensmith.layout.surfaces import Surface
from lensmith.layout.tables import find_tables
from lensmith.layout.tree import Flow, Node, union

_FEWEST_ENTRIES = 3
_SAME_PLACE_PX, _SAME_PITCH_PX = 2.0, 2.5
_FIELD_HEIGHTS_PX, _NARROWEST_FIELD_PX = (22, 64), 80
_HIGHEST_AREA_PX = 320
_TICK_PX = (10, 26)
_LABEL_GAP_PX, _LABEL_BEFORE_PX, _BESIDE_PX = 14, 80, 16
_LABEL_APART_PX = 8
_DIM_SHARE = 0.8
"""Placeholders stand out from what is behind them by less than so much of what the page's text does."""
_ENTRY_WORDS, _MOST_WORDS = 3, 8
"""Texts of more words are no entries of a navigation, or of a list that nothing marks."""


class Role(Enum):
    """What a part is; the value is the element that says so."""

    LIST = "ul"
    NAVIGATION = "nav"
    BUTTON = "button"
    FIELD = "input"
    CHOICE = "select"
    AREA = "textarea"
    CHECK = "checkbox"
    RADIO = "radio"
    HEADER = "header"
    FOOTER = "footer"
    MAIN = "main"
    ASIDE = "aside"


def name_parts(root: Node) -> dict[int, Role]:
    """The roles of nodes, by `id`. Entries that follow each other in a stack are moved into a node of their own."""
    roles: dict[int, Role] = {}
    for node in list(root.walk()):
        if not node.is_leaf and node.flow is Flow.STACK:
            _gather_tables(node)
    _name_controls(root, roles)
    for node in list(root.walk()):
        if node.is_leaf or id(node) in roles:
            continue
        if node.flow is Flow.STACK:
            for entries in _gather_entries(node, roles, may_be_one=node is not root):
                roles[id(entries)] = Role.LIST
        elif node.flow is Flow.ROW and _is_navigation(node, root):
            roles[id(_alone(node))] = Role.NAVIGATION
    _name_landmarks(root, roles)
    return roles


# --- forms ------------------------------------------------------------------------------------------------------------


def _name_controls(root: Node, roles: dict[int, Role]) -> None:
    texts = [node for node in root.walk() if isinstance(node.content, Passage)]
    usual = _usual_colour(texts)
    for node in root.walk():
        if node.surface is None or node.backdrop is not None:
            continue
        if _is_button(node):
            roles[id(node)] = Role.BUTTON
            continue
        role = _control(node, node.surface, texts, usual)
        if role is not None:
            roles[id(node)] = role


def _control(node: Node, surface: Surface, texts: Sequence[Node], usual: Rgb) -> Role | None:
    frame = node.frame
    inside = [leaf for leaf in node.walk() if leaf is not node and not leaf.is_plain]
    passages = [leaf for leaf in inside if isinstance(leaf.content, Passage)]
    pictures = [leaf for leaf in inside if isinstance(leaf.content, Cutout)]
    if len(inside) != len(passages) + len(pictures):
        return None
    is_framed = surface.border is not None and min(surface.border.widths) > 0
    least, most = _TICK_PX
    if least <= frame.height <= most and abs(frame.width - frame.height) <= 2:
        is_ticked = len(pictures) == 1
        if passages or not (is_framed or is_ticked) or not _has_text_beside(node, texts):
            return None
        return Role.RADIO if surface.radius_px >= frame.height / 2 - 2 else Role.CHECK
    if not is_framed or surface.until is not None or frame.width < _NARROWEST_FIELD_PX:
        return None
    label = label_of(node, texts)
    if not inside:
        is_high = frame.height > _FIELD_HEIGHTS_PX[1]
        if is_high and frame.height <= _HIGHEST_AREA_PX and label is not None:
            return Role.AREA
        return Role.FIELD if _is_as_high_as_a_field(node) else None
    if not _is_as_high_as_a_field(node) or len(passages) > 1 or len(pictures) > 1:
        return None
    if pictures and not _is_arrow(pictures[0], node):
        return None
    if passages and not _is_entry_of_field(passages[0], node, usual, is_labelled=label is not None or bool(pictures)):
        return None
    return Role.CHOICE if pictures else Role.FIELD


def label_of(node: Node, texts: Sequence[Node]) -> Node | None:
    """The text of one line that stands over a field, flush with it, or before it on one height."""
    single = [text for text in texts if isinstance(text.content, Passage) and len(text.content.lines) == 1]
    for text in single:
        gap = node.frame.top - text.solid.bottom
        if 0 <= gap <= _LABEL_GAP_PX and abs(text.solid.left - node.frame.left) <= 4:
            return text
    middle = node.frame.middle[1]
    for text in single:
        gap = node.frame.left - text.solid.right
        if (
            _LABEL_APART_PX <= gap <= _LABEL_BEFORE_PX
            and abs(text.solid.middle[1] - middle) <= 0.25 * node.frame.height
        ):
            return text
    return None


def _is_as_high_as_a_field(node: Node) -> bool:
    least, most = _FIELD_HEIGHTS_PX
    return least <= node.frame.height <= most and node.frame.width >= 2.2 * node.frame.height


def _is_arrow(picture: Node, node: Node) -> bool:
    """A small thing at the right end."""
    return picture.frame.width <= 20 and 0 <= node.frame.right - picture.frame.right <= 32


def _is_entry_of_field(text: Node, node: Node, usual: Rgb, *, is_labelled: bool) -> bool:
    block = text.content
    assert isinstance(block, Passage)
    assert node.surface is not None
    left, right = text.solid.left - node.frame.left, node.frame.right - text.solid.right
    if len(block.lines) > 1 or left > 24 or right < 4 or left > right + 4:
        return False
    dimness = _contrast(block.style.colour, node.surface.colour) / max(1, _contrast(usual, node.surface.colour))
    return dimness <= _DIM_SHARE or is_labelled


def _has_text_beside(node: Node, texts: Sequence[Node]) -> bool:
    middle = node.frame.middle[1]
    return any(
        0 <= text.solid.left - node.frame.right <= _BESIDE_PX and text.frame.top <= middle <= text.frame.bottom
        for text in texts
    )


def _is_button(node: Node) -> bool:
    """A small surface with one line of text in its middle."""
    if len(node.children) != 1 or not isinstance(node.children[0].content, Passage):
        return False
    block, frame = node.children[0].content, node.frame
    text = node.children[0].frame
    is_low = frame.height <= 4.5 * block.style.size_px and len(block.lines) == 1
    centred = abs(text.middle[0] - frame.middle[0]) <= 4 and abs(text.middle[1] - frame.middle[1]) <= 4
    return is_low and centred and frame.width <= 420 and frame.height >= 1.6 * block.style.size_px


def _usual_colour(texts: Sequence[Node]) -> Rgb:
    letters: Counter[Rgb] = Counter()
    for text in texts:
        if isinstance(text.content, Passage):
            letters[text.content.style.colour] += len(text.content.text)
    return letters.most_common(1)[0][0] if letters else (0, 0, 0)


def _contrast(first: Rgb, second: Rgb) -> int:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


# --- what repeats -----------------------------------------------------------------------------------------------------


def _gather_tables(stack: Node) -> None:
    """Makes one node of the rows of each table."""
    for run in reversed(find_tables(stack)):
        cells = [cell.node for row in run.table.rows for cell in row.cells if cell.node is not None]
        frame = run.table.frame
        stack.children[run.start : run.stop] = [Node(frame=frame, solid=frame, content=run.table, children=cells)]


def _gather_entries(stack: Node, roles: dict[int, Role], *, may_be_one: bool) -> Iterator[Node]:
    """Moves each run of entries of a stack into a node below it, and yields that. `may_be_one`: whether it may itself
    be a list."""
    children: list[Node] = []
    for run in _runs_of_entries(stack.children, roles):
        is_marked = isinstance(run[0].content, Passage) and run[0].content.is_marked
        if len(run) < _FEWEST_ENTRIES and not is_marked:
            children += run
            continue
        if len(run) == len(stack.children) and stack.is_plain and may_be_one:
            yield stack
            return
        entries = Node(
            frame=union(child.frame for child in run), solid=union(child.solid for child in run), children=run
        )
        children.append(entries)
        yield entries
    stack.children = children


def _runs_of_entries(children: Sequence[Node], roles: dict[int, Role]) -> Iterator[list[Node]]:
    run: list[Node] = []
    for child in children:
        if run and (id(child) in roles or not _goes_on(run, child)):
            yield run
            run = []
        run.append(child)
    if run:
        yield run


def _goes_on(run: Sequence[Node], child: Node) -> bool:
    """Whether a part is one more of what the run is made of: the same inside, at one edge, at an even pitch."""
    last = run[-1]
    if _kind(last) != _kind(child) or _kind(child) is None:
        return False
    edges = zip(_edges(last), _edges(child), strict=True)
    if min(abs(a - b) for a, b in edges) > _SAME_PLACE_PX:
        return False
    if isinstance(child.content, Passage) and child.content.is_marked:
        return child.frame.top - last.frame.bottom <= 3 * child.content.pitch_px
    if len(run) == 1:
        return child.frame.top - last.frame.bottom <= 2 * max(last.frame.height, child.frame.height)
    pitch = last.frame.top - run[-2].frame.top
    return abs(child.frame.top - last.frame.top - pitch) <= _SAME_PITCH_PX


def _edges(node: Node) -> tuple[float, float]:
    return node.solid.left, node.solid.middle[0]


def _kind(node: Node) -> tuple[object, ...] | None:
    """What makes two parts of a kind; None for what no list is made of."""
    content = node.content
    if isinstance(content, Passage):
        style = content.style
        if not content.is_marked and (len(content.lines) > 1 or len(content.text.split()) > _MOST_WORDS):
            return None
        return "text", style.family, style.size_px, style.is_bold, content.is_marked
    if content is not None or not node.children or node.flow is Flow.OVERLAY:
        return None
    if node.surface is None and node.flow is Flow.STACK:
        return None
    look = None if node.surface is None else (node.surface.colour, node.surface.radius_px)
    return "box", look, node.flow, tuple(_brief(child) for child in node.children)


def _brief(node: Node) -> str:
    if isinstance(node.content, Passage):
        return "text"
    return type(node.content).__name__ if node.is_leaf else "box"


def _alone(row: Node) -> Node:
    """The row as a part of its surface, which may be a header or a footer, and not that surface itself."""
    if row.is_plain:
        return row
    inner = Node(
        frame=union(child.frame for child in row.children),
        solid=union(child.solid for child in row.children),
        children=row.children,
        flow=Flow.ROW,
    )
    row.children, row.flow = [inner], Flow.STACK
    return inner


def _is_navigation(row: Node, root: Node) -> bool:
    """A row of short texts of one style, at the page's top or bottom, or as many as no sentence has."""
    texts = [child.content for child in row.children if isinstance(child.content, Passage)]
    if len(texts) < _FEWEST_ENTRIES or len(texts) < len(row.children) - 1:
        return False
    if any(len(text.lines) > 1 or len(text.text.split()) > _ENTRY_WORDS for text in texts):
        return False
    sizes = Counter(text.style.size_px for text in texts)
    is_at_top = row.frame.bottom <= max(160.0, 0.08 * root.frame.height)
    is_at_bottom = row.frame.top >= root.frame.height - 160
    return sizes.most_common(1)[0][1] >= len(texts) - 1 and (is_at_top or is_at_bottom)


# --- landmarks --------------------------------------------------------------------------------------------------------


def _name_landmarks(root: Node, roles: dict[int, Role]) -> None:
    """Header, footer, what stands at the side, and what the page is about."""
    if root.flow is Flow.ROW:
        _name_columns(root, roles)
        return
    if root.flow is not Flow.STACK or len(root.children) < 2:
        return
    first, last = root.children[0], root.children[-1]
    rest = list(root.children)
    if _is_free(first, roles) and first.frame.height <= max(120.0, 0.2 * root.frame.height) and len(rest) > 1:
        roles[id(first)] = Role.HEADER
        rest.remove(first)
    if _is_free(last, roles) and _may_be_footer(last, root) and len(rest) > 1:
        roles[id(last)] = Role.FOOTER
        rest.remove(last)
    if len(rest) == len(root.children):
        return
    if len(rest) == 1 and rest[0].surface is None and rest[0].flow is Flow.ROW:
        _name_columns(rest[0], roles)
    else:
        main = Node(frame=union(n.frame for n in rest), solid=union(n.solid for n in rest), children=rest)
        root.children = [main if child is rest[0] else child for child in root.children if child not in rest[1:]]
        roles[id(main)] = Role.MAIN


def _may_be_footer(last: Node, root: Node) -> bool:
    """A band of its own, or a little text alone."""
    if last.surface is not None:
        return last.frame.width >= 0.9 * root.frame.width and last.frame.height <= 0.35 * root.frame.height
    leaves = [node for node in last.walk() if node.is_leaf]
    return last.frame.height <= 0.15 * root.frame.height and all(isinstance(leaf.content, Passage) for leaf in leaves)


def _name_columns(row: Node, roles: dict[int, Role]) -> None:
    boxes = [child for child in row.children if _is_free(child, roles) and child.frame.height >= 0.5 * row.frame.height]
    if len(boxes) < 2:
        return
    widest = max(boxes, key=lambda child: child.frame.width)
    if widest.frame.width < 0.5 * row.frame.width:
        return
    roles[id(widest)] = Role.MAIN
    for box in boxes:
        if box is not widest and box.frame.width <= 0.34 * row.frame.width:
            roles[id(box)] = Role.ASIDE


def _is_free(node: Node, roles: dict[int, Role]) -> bool:
    return not node.is_leaf and bool(node.children) and id(node) not in roles
