"""How a rebuilt page's style sheet is written: classes for what looks alike, colours as variables, lengths in px."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from lensmith.core.types import Rgb
from lensmith.layout.surfaces import Border

Css = dict[str, str]
Look = tuple[tuple[str, str], ...]
"""Declarations, as a class has them."""

_PLACING = frozenset(
    "margin margin-top margin-left margin-right margin-inline padding width max-width height flex grid-area align-self "
    "align-items justify-self".split()
)
"""What says where an element stands, not how it looks."""
_FLOWS = {"row": "flex", "layers": "grid"}
"""The classes of boxes whose children stand side by side, or lie on each other."""
_OF_BOXES = ("background", "border", "box-shadow")
"""The beginnings of the properties that say how a box looks; the others say how its letters do."""
_VARIABLES = {"colour": r"#[0-9a-f]{6}\b", "font": r"(?<=font-family:)[^;}\n]+", "shadow": r"(?<=box-shadow:)[^;}\n]+"}
"""What is a variable where it comes again. Long lists of families, said with every text, would also be taken for text
that repeats itself by those who read a style sheet as text."""
_MARK = "\0"
_LINES_STAY = 0.92
"""From this share of the screenshot's width on, texts of one line do not break."""
_BASE = """*{{box-sizing:border-box}}
body{{margin:0;overflow-wrap:anywhere;{body}}}
h1,h2,h3,p,ul,hr{{margin:0;padding:0;font-weight:inherit;font-size:inherit}}
ul{{list-style:none}}
hr{{border:0}}
a{{color:inherit;text-decoration:none}}
code{{font:inherit}}
img{{display:block;max-width:100%;min-width:0;height:auto}}
button,input,select,textarea{{font:inherit;color:inherit;letter-spacing:inherit;margin:0;display:block;max-width:100%}}
input,select{{appearance:none}}
::placeholder{{color:inherit;opacity:1}}
button>span{{display:block}}
table{{table-layout:fixed;border-spacing:0;max-width:100%}}
td,th{{padding:0;vertical-align:top;text-align:left;font-weight:inherit}}
"""


@dataclass(frozen=True, kw_only=True)
class _Element:
    """How an element looks, where it stands, and the classes that its children's flow gives it."""

    role: str
    look: Look
    place: Css
    flows: tuple[str, ...]


@dataclass(kw_only=True)
class Sheet:
    """The style sheet of a page, told of its elements as they are written, and made when all are known.

    What looks alike shares a class. What looks like nothing else shares one for its letters, or for its box, where
    others have that; what it has alone stands in its `style`, as where it stands does.
    """

    _elements: list[_Element] = field(default_factory=list)

    def named(self, role: str, css: Css, *, is_line: bool = False) -> str:
        """A mark in the place of the attributes that give an element this style: `finished` writes them.

        `is_line`: text of one line.
        """
        place = {name: value for name, value in css.items() if name in _PLACING or "url(" in value}
        look = tuple((name, value) for name, value in css.items() if name not in place and name != "display")
        flows = [name for name, value in _FLOWS.items() if css.get("display") == value] + ["line"] * is_line
        self._elements.append(_Element(role=role, look=look, place=place, flows=tuple(flows)))
        return f"{_MARK}{len(self._elements) - 1}{_MARK}"

    def finished(self, body: Css, width_px: int, markup: str) -> tuple[str, str]:
        """The style sheet of a page that was so wide, and its markup with its attributes."""
        names = _names(self._elements)
        styles = []
        classes = []
        for element in self._elements:
            own = [look for look in _looks_of(element, names) if look in names]
            alone = [pair for pair in element.look if not any(pair in look for look in own)]
            styles.append(_declarations(dict(alone) | element.place))
            classes.append([names[look] for look in own] + list(element.flows))
        rules = [f".{name}{{{_declarations(dict(look))}}}" for look, name in names.items()]
        variables = _variables("\n".join([_declarations(body), *rules, *styles]))

        def attributes(mark: re.Match[str]) -> str:
            number = int(mark[1])
            style = escape(_with_variables(styles[number], variables))
            named = f' class="{" ".join(classes[number])}"' if classes[number] else ""
            return named + (f' style="{style}"' if style else "")

        root = ";".join(f"{name}:{value}" for value, name in variables.items())
        sheet = _BASE.format(body=_declarations(body)) + "\n".join(rules) + _narrow(width_px)
        css = (f":root{{{root}}}\n" if root else "") + _with_variables(sheet, variables)
        return css, re.sub(f"{_MARK}(\\d+){_MARK}", attributes, markup)


def _names(elements: Sequence[_Element]) -> dict[Look, str]:
    """The looks that are classes, and their names, in the order of the style sheet: those that come again, and one of
    each role."""
    counts = Counter(element.look for element in elements if element.look)
    alone = [element for element in elements if counts[element.look] == 1]
    counts.update(part for element in alone for part in _parts(element.look) if part != element.look)
    roles: dict[Look, Counter[str]] = {}
    for element in elements:
        for look in {element.look, *_parts(element.look)}:
            if counts[look] > 1:
                roles.setdefault(look, Counter())[element.role] += 1
    named = {role for users in roles.values() for role in users}
    for element in alone:
        if element.role not in named:
            named.add(element.role)
            roles[element.look] = Counter([element.role])
    numbers: Counter[str] = Counter()
    names = {}
    for look, users in sorted(roles.items(), key=lambda entry: -entry[1].total()):
        role = users.most_common(1)[0][0]
        numbers[role] += 1
        names[look] = role if numbers[role] == 1 else f"{role}-{numbers[role]}"
    return dict(sorted(names.items(), key=lambda entry: (entry[1].rstrip("-0123456789"), len(entry[1]), entry[1])))


def _looks_of(element: _Element, names: Mapping[Look, str]) -> tuple[Look, ...]:
    """The looks that an element may have a class of: its own, or those of its parts."""
    return (element.look,) if element.look in names else _parts(element.look)


def _parts(look: Look) -> tuple[Look, ...]:
    """How its box looks, and how its letters do; without what it does not have."""
    box = tuple(pair for pair in look if pair[0].startswith(_OF_BOXES))
    letters = tuple(pair for pair in look if not pair[0].startswith(_OF_BOXES))
    return tuple(part for part in (box, letters) if part)


def border_css(border: Border) -> Css:
    """A border's declarations: the commonest side for all, then those that differ."""
    sides = [
        f"{width}px solid {hexed(colour)}" if width else "0"
        for width, colour in zip(border.widths, border.colours, strict=True)
    ]
    usual = max(sides, key=sides.count)
    css = {"border": usual}
    for name, side in zip(("top", "right", "bottom", "left"), sides, strict=True):
        if side != usual:
            css[f"border-{name}"] = side
    return css


def box_sides(sides: Sequence[float], room: float) -> str:
    """A padding of top, right, bottom, left, as short as CSS has it. Long ones at the sides give way where what holds
    the box, of which shares are taken, has less room than `room`."""
    top, right, bottom, left = (px(side) for side in sides)
    if sides[1] > 48:
        right = far(sides[1], room)
    if sides[3] > 48:
        left = far(sides[3], room)
    if right == left:
        if top == right == bottom:
            return top
        return f"{top} {right}" if top == bottom else f"{top} {right} {bottom}"
    return f"{top} {right} {bottom} {left}"


def far(distance_px: float, room: float) -> str:
    """A distance to a side; a long one gives way where there is less room than here."""
    if distance_px <= 48 or room <= 0:
        return px(distance_px)
    return f"min({px(distance_px)},{math.ceil(1000 * distance_px / room + 1) / 10:g}%)"


def px(value: float, digits: int = 0) -> str:
    """A length."""
    rounded = round(value, digits)
    return f"{rounded:g}px" if rounded else "0"


def hexed(colour: Rgb) -> str:
    """A colour."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _narrow(width: int) -> str:
    """What changes where there is less room than the screenshot had: rows wrap, and nothing lies on each other."""
    return (
        "\n.row{display:flex}\n.layers{display:grid;grid-template-columns:minmax(0,100%)}\n.row>*,.layers>*{min-width:0}"
        f"\n@media(min-width:{math.floor(_LINES_STAY * width)}px){{.line{{white-space:nowrap}}}}"
        f"\n@media(max-width:{min(800, round(0.7 * width))}px){{\n"
        ".row{flex-wrap:wrap}\n.row>*{max-width:100%}\n.layers>*{grid-area:auto!important}\n"
        "table,tbody,tr,td,th{display:block;width:auto!important;height:auto!important}\n}"
    )


def _declarations(css: Mapping[str, str]) -> str:
    return ";".join(f"{name}:{value}" for name, value in css.items())


def _variables(css: str) -> dict[str, str]:
    """Colours, families and shadows that stand in it more than once, and the variables that they become."""
    variables: dict[str, str] = {}
    for kind, pattern in _VARIABLES.items():
        values = Counter(re.findall(pattern, css)).most_common()
        variables |= {value: f"--{kind}-{number}" for number, (value, count) in enumerate(values, 1) if count > 1}
    return variables


def _with_variables(css: str, variables: Mapping[str, str]) -> str:
    for value, name in variables.items():
        css = css.replace(value, f"var({name})")
    return css
