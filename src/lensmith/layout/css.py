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

_PLACING = frozenset(
    "margin margin-top margin-left margin-right margin-inline padding width max-width height flex grid-area align-self "
    "align-items justify-self".split()
)
"""What says where an element stands, not how it looks."""
_FLOWS = {"row": "flex", "layers": "grid"}
"""The classes of boxes whose children stand side by side, or lie on each other."""
_VARIABLES = {"colour": r"#[0-9a-f]{6}\b", "font": r"(?<=font-family:)[^;}]+", "shadow": r"(?<=box-shadow:)[^;}]+"}
"""What is a variable where it comes again. Long lists of families, said with every text, would also be taken for text
that repeats itself by those who read a style sheet as text."""
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


@dataclass(kw_only=True)
class Sheet:
    """The classes of a page: what looks alike shares one. Where an element stands is its own affair, in its `style`."""

    names: dict[tuple[tuple[str, str], ...], str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def named(self, role: str, css: Css, *, is_line: bool = False) -> str:
        """The attributes that give an element this style, empty where there is none. `is_line`: text of one line."""
        place = {name: value for name, value in css.items() if name in _PLACING or "url(" in value}
        key = tuple((name, value) for name, value in css.items() if name not in place and name != "display")
        if key and key not in self.names:
            self.counts[role] += 1
            number = self.counts[role]
            self.names[key] = role if number == 1 else f"{role}-{number}"
        flows = [name for name, value in _FLOWS.items() if css.get("display") == value]
        classes = ([self.names[key]] if key else []) + flows + (["line"] if is_line else [])
        attributes = f' class="{" ".join(classes)}"' if classes else ""
        return attributes + (f' style="{escape(_declarations(place))}"' if place else "")

    def text(self, body: Css, width_px: int) -> str:
        """The whole style sheet, of a page that was so wide."""
        rules = [
            f".{name}{{{_declarations(dict(key))}}}" for key, name in sorted(self.names.items(), key=lambda e: e[1])
        ]
        return _with_palette(_BASE.format(body=_declarations(body)) + "\n".join(rules) + _narrow(width_px))


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


def _with_palette(css: str) -> str:
    """Colours, families and shadows that stand in it more than once, as variables."""
    names: dict[str, str] = {}
    for kind, pattern in _VARIABLES.items():
        values = Counter(re.findall(pattern, css)).most_common()
        names |= {value: f"--{kind}-{number}" for number, (value, count) in enumerate(values, 1) if count > 1}
    for value, name in names.items():
        css = css.replace(value, f"var({name})")
    if not names:
        return css
    return f":root{{{';'.join(f'{name}:{value}' for value, name in names.items())}}}\n{css}"
