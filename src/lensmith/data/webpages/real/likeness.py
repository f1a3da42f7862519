"""How alike the markup of two pages is, and a choice of pages that differ.

Pages of one theme share their chrome: menus, sidebar, footer. Their likeness is the weighted Jaccard index of shingles:
for each element the tag path of its last four ancestors and itself, three elements in document order to a shingle.
Text, classes and attributes do not matter: a list of other products in the same cards is the same page.

Measured on startbootstrap-sb-admin-2, whose pages all have the same sidebar and menu but for the first pair: log in and
register 0.56, dashboard and table 0.22, buttons and cards 0.53, colours and borders 0.86, an empty page and "not found"
0.95.
"""

from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser as TagReader

from lensmith.data.webpages.markup.repair import VOID_ELEMENTS

PATH_TAGS = 5
SHINGLE_ELEMENTS = 3
_NOT_SHOWN = frozenset("head meta title style".split())

TagShape = Counter[tuple[str, ...]]


class _Paths(TagReader):
    """The tag path of each element of well-formed HTML, in document order."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _NOT_SHOWN:
            self.paths.append("/".join([*self._open[1 - PATH_TAGS :], tag]))
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass


def shape_of(html: str) -> TagShape:
    """The shingles of a page's tag paths, and how often each stands there."""
    reader = _Paths()
    reader.feed(html)
    reader.close()
    ends = range(SHINGLE_ELEMENTS, len(reader.paths) + 1)
    return Counter(tuple(reader.paths[end - SHINGLE_ELEMENTS : end]) for end in ends)


def likeness(one: TagShape, other: TagShape) -> float:
    """The weighted Jaccard index of two shapes, in [0, 1]; 1 for two that are empty."""
    shared = sum((one & other).values())
    return shared / total if (total := sum(one.values()) + sum(other.values()) - shared) else 1.0


def choose_different(
    shapes: Sequence[TagShape], *, most: int, near: float, known: Sequence[TagShape] = ()
) -> tuple[list[int], list[int]]:
    """Indices of at most `most` shapes of which none is nearer to another, or to a `known` one, than `near`; and of
    those that are too near to one of these.

    The next is always the one that differs most from what was chosen, the first in order among equals.
    """
    nearest = [max((likeness(shape, other) for other in known), default=0.0) for shape in shapes]
    chosen: list[int] = []
    while len(chosen) < most:
        left = [index for index in range(len(shapes)) if index not in chosen and nearest[index] <= near]
        if not left:
            break
        best = min(left, key=lambda index: nearest[index])
        chosen.append(best)
        nearest = [
            max(known_before, likeness(shapes[best], shape))
            for known_before, shape in zip(nearest, shapes, strict=True)
        ]
    return chosen, [index for index in range(len(shapes)) if index not in chosen and nearest[index] > near]
