"""Draws docs/architecture.svg from the code, or checks that it is up to date (`--check`).

Rows are the layers of pyproject.toml, boxes the packages with what their `__init__` says and the folders inside, arrows
what one imports of another. A package that uses nearly all others, or is used by nearly all, is a band without arrows.
"""

import ast
import itertools
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
BAND = 8
"""Packages from which on a package's arrows would hide the others."""
WIDTH, MARGIN, GAP, ROW_GAP, LINE = 1240, 20, 28, 46, 17
LANE = 5

STYLE = """
text{font:13px system-ui,'Segoe UI','Liberation Sans',Arial,sans-serif;fill:#5b6877}
.name{font-weight:700;font-size:16px;fill:#17202b}.inside{font-size:12px;fill:#2456c8}
rect{fill:#fff;stroke:#c9d2dc}.band{fill:#eef2f6}.ground{fill:#f7f9fb;stroke:none}
path{fill:none;stroke:#7d8b9a;stroke-width:1.6}marker path{fill:#7d8b9a;stroke:none}
@media(prefers-color-scheme:dark){text{fill:#9aa7b6}.name{fill:#e6ebf1}.inside{fill:#7ea6ff}
rect{fill:#161d26;stroke:#3a4756}.band{fill:#222c38}.ground{fill:#0e141b}path{stroke:#8796a7}marker path{fill:#8796a7}}
"""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package right below lensmith: the first sentence of its docstring, its folders, the packages that it uses."""

    name: str
    says: str
    inside: tuple[str, ...]
    uses: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Box:
    """Where a package is drawn, in pixels, and its lines of text with their classes."""

    left: float
    top: float
    width: float
    height: float
    lines: tuple[tuple[str, str], ...]

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


def layers(root: Path) -> list[list[str]]:
    """The rows of the picture, the highest first, as the import contract states them."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rows,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["lensmith"]]
    return [[name.strip() for name in row.split("|")] for row in rows]


def package(root: Path, name: str) -> Package:
    """What the code says of a package."""
    folder = root / "src" / "lensmith" / name
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    sentence = " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."
    inside = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
    uses = {used for path in folder.rglob("*.py") for used in _imported(ast.parse(path.read_text()))}
    return Package(name=name, says=sentence, inside=tuple(inside), uses=frozenset(uses - {name}))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}".split(".")[1] for alias in node.names if _is_ours(node.module))
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lensmith."))


def _is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "lensmith"


def bands(packages: Mapping[str, Package]) -> set[str]:
    """Packages without arrows of their own."""
    used = {name: sum(name in other.uses for other in packages.values()) for name in packages}
    return {name for name, each in packages.items() if len(each.uses) >= BAND or used[name] >= BAND}


def arrows(packages: Mapping[str, Package]) -> list[tuple[str, str]]:
    """(who imports, what is imported), bands left out."""
    plain = packages.keys() - bands(packages)
    return sorted((name, used) for name in plain for used in packages[name].uses & plain)


def ordered(rows: Sequence[Sequence[str]], drawn: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The rows, each in the order in which the arrows are shortest sideways; each row in turn until none changes."""
    found = [list(row) for row in rows]
    while True:
        before = [list(row) for row in found]
        for place, row in enumerate(found):
            best = min(
                itertools.permutations(sorted(row)),
                key=lambda order: _sideways([*found[:place], list(order), *found[place + 1 :]], drawn),
            )
            found[place] = list(best)
        if found == before:
            return found


def _sideways(rows: Sequence[Sequence[str]], drawn: Sequence[tuple[str, str]]) -> float:
    at = {name: (place + 0.5) / len(row) for row in rows for place, name in enumerate(row)}
    return round(sum(abs(at[one] - at[other]) for one, other in drawn), 9)


def boxes(rows: Sequence[Sequence[str]], packages: Mapping[str, Package]) -> dict[str, Box]:
    """Where each package is drawn. A band takes the room that the others in its row leave."""
    wide, found, top = bands(packages), {}, float(MARGIN)
    slot = (WIDTH - 2 * MARGIN - GAP * (max(map(len, rows)) - 1)) / max(map(len, rows))
    for row in rows:
        has_band = any(name in wide for name in row)
        room = WIDTH - 2 * MARGIN - GAP * (len(row) - 1)
        share = min(room / len(row), slot * 1.35)
        widths = [room - share * (len(row) - 1) if name in wide else share for name in row]
        left = MARGIN if has_band else (WIDTH - sum(widths) - GAP * (len(row) - 1)) / 2
        texts = [_lines(packages[name], width) for name, width in zip(row, widths, strict=True)]
        height = max(map(len, texts)) * LINE + 22
        for name, width, lines in zip(row, widths, texts, strict=True):
            found[name] = Box(left=left, top=top, width=width, height=height, lines=tuple(lines))
            left += width + GAP
        top += height + ROW_GAP
    return found


def _lines(each: Package, width: float) -> list[tuple[str, str]]:
    letters = int((width - 24) / 7.2)
    inside = textwrap.wrap(", ".join(each.inside), int(letters * 1.05))
    says = textwrap.wrap(each.says, letters)
    return [("name", each.name), *(("says", line) for line in says), *(("inside", line) for line in inside)]


def path(one: Box, other: Box, placed: Sequence[Box], ends: tuple[float, float], lane: float) -> str:
    """The arrow from one box down to another, between the boxes of the rows that it passes. `ends`: x of both; `lane`:
    how far beside the middle of such a gap it runs, so that arrows which share one can be told apart."""
    points = [(ends[0], one.top + one.height)]
    for top in sorted({box.top for box in placed if one.top < box.top < other.top}):
        row = sorted((box for box in placed if box.top == top), key=lambda box: box.left)
        edges = [row[0].left - GAP / 2, *(box.left + box.width + GAP / 2 for box in row)]
        wanted = points[-1][0] + (ends[1] - points[-1][0]) / 2
        x = min(edges, key=lambda edge: abs(edge - wanted)) + lane
        points += [(x, top - 6), (x, top + row[0].height + 6)]
    points.append((ends[1], other.top - 3))
    parts = [f"M{points[0][0]:.0f} {points[0][1]:.0f}"]
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        bend = (to_y - y) / 2
        parts.append(f"C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y:.0f}")
    return f'<path d="{" ".join(parts)}" marker-end="url(#tip)"/>'


def _spread(box: Box, others: Sequence[str], name: str, placed: Mapping[str, Box]) -> float:
    """Where on the box's edge the arrow from or to `name` stands, among those of `others`."""
    order = sorted(others, key=lambda other: placed[other].middle)
    return box.left + box.width * (order.index(name) + 1) / (len(order) + 1)


def picture(root: Path = ROOT) -> str:
    """The SVG."""
    rows = layers(root)
    packages = {name: package(root, name) for row in rows for name in row}
    drawn = arrows(packages)
    placed = boxes(ordered(rows, drawn), packages)
    height = max(box.top + box.height for box in placed.values()) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">',
        f"<title>The packages of lensmith, and which imports which</title><style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
        f'<rect class="ground" width="{WIDTH}" height="{height:.0f}"/>',
    ]
    for number, (one, other) in enumerate(drawn):
        down = _spread(placed[one], [end for begin, end in drawn if begin == one], other, placed)
        up = _spread(placed[other], [begin for begin, end in drawn if end == other], one, placed)
        parts.append(path(placed[one], placed[other], list(placed.values()), (down, up), LANE * (number % 5 - 2)))
    wide = bands(packages)
    for name, box in placed.items():
        kind = "band" if name in wide else "box"
        size = f'width="{box.width:.0f}" height="{box.height:.0f}"'
        parts.append(f'<rect class="{kind}" x="{box.left:.0f}" y="{box.top:.0f}" {size} rx="8"/>')
        for number, (style, line) in enumerate(box.lines):
            y = box.top + 24 + LINE * number
            parts.append(f'<text class="{style}" x="{box.left + 12:.0f}" y="{y:.0f}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main(arguments: Sequence[str], output: Path = PICTURE) -> int:
    """0 where the picture is drawn or up to date, 1 where `--check` finds it stale."""
    drawn = picture()
    if "--check" not in arguments:
        output.write_text(drawn, encoding="utf-8")
        return 0
    if not output.exists() or output.read_text(encoding="utf-8") != drawn:
        print(f"{output} is stale; type: make format", file=sys.stderr)
        return 1
    print(f"docs/architecture.svg is up to date ({drawn.count('marker-end')} arrows)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
