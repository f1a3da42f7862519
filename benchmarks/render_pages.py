"""Fifty web pages in the manner of WebSight v0.2, for the render benchmark: header, hero, cards, table, footer.

Each has a body of about 4 kB and a compiled utility stylesheet of about 12 kB inlined, as a page with Tailwind has
once its unused rules are gone. Number and seed decide every byte.
"""

import random

SHADES = {
    "gray": ("#f7fafc", "#e2e8f0", "#a0aec0", "#4a5568", "#1a202c"),
    "red": ("#fff5f5", "#fed7d7", "#fc8181", "#e53e3e", "#742a2a"),
    "green": ("#f0fff4", "#c6f6d5", "#68d391", "#38a169", "#22543d"),
    "blue": ("#ebf8ff", "#bee3f8", "#63b3ed", "#3182ce", "#2a4365"),
    "purple": ("#faf5ff", "#e9d8fd", "#b794f4", "#805ad5", "#44337a"),
    "yellow": ("#fffff0", "#fefcbf", "#f6e05e", "#d69e2e", "#744210"),
    "pink": ("#fff5f7", "#fed7e2", "#f687b3", "#d53f8c", "#702459"),
    "indigo": ("#ebf4ff", "#c3dafe", "#7f9cf5", "#5a67d8", "#3c366b"),
}
SPACES = {0: 0, 1: 4, 2: 8, 3: 12, 4: 16, 5: 20, 6: 24, 8: 32, 10: 40, 12: 48, 16: 64, 20: 80, 24: 96, 32: 128}
SIDES = {
    "": ("{}",), "t": ("{}-top",), "b": ("{}-bottom",), "l": ("{}-left",), "r": ("{}-right",),
    "x": ("{}-left", "{}-right"), "y": ("{}-top", "{}-bottom"),
}  # fmt: skip
SIZES = {"xs": 12, "sm": 14, "base": 16, "lg": 18, "xl": 20, "2xl": 24, "3xl": 30, "4xl": 36, "5xl": 48}
PLAIN = """*,::after,::before{box-sizing:border-box;border:0 solid #e2e8f0}
html{line-height:1.5;font-family:Arial,"Liberation Sans",sans-serif}
body,h1,h2,h3,p,ul,table{margin:0;padding:0}h1,h2,h3{font-size:inherit;font-weight:inherit}ul{list-style:none}
a{color:inherit;text-decoration:none}table{border-collapse:collapse;width:100%}th{text-align:left}
.container{max-width:1100px;margin-left:auto;margin-right:auto}.flex{display:flex}.grid{display:grid}
.items-center{align-items:center}.justify-between{justify-content:space-between}.grid-cols-3{grid-template-columns:repeat(3,minmax(0,1fr))}
.text-center{text-align:center}.uppercase{text-transform:uppercase}.font-bold{font-weight:700}.font-semibold{font-weight:600}
.border{border-width:1px}.border-b{border-bottom-width:1px}.rounded{border-radius:4px}.rounded-lg{border-radius:8px}
.rounded-full{border-radius:9999px}.shadow{box-shadow:0 1px 3px rgba(0,0,0,.1),0 1px 2px rgba(0,0,0,.06)}
.shadow-lg{box-shadow:0 10px 15px -3px rgba(0,0,0,.1),0 4px 6px -2px rgba(0,0,0,.05)}.leading-relaxed{line-height:1.625}
.bg-white{background-color:#fff}.text-white{color:#fff}.opacity-75{opacity:.75}.tracking-wide{letter-spacing:.025em}
.h-40{height:160px}.inline-block{display:inline-block}
"""
WORDS = (
    "fresh bread garden kitchen travel coffee studio repair light summer market quiet river design season team "
    "every with from local made for people who care about good work and fair prices since our first day open"
).split()
TRADES = ("Bakery", "Garage", "Clinic", "Studio", "Travel", "Books", "Coffee", "Gardens", "Law", "Fitness")


def make_pages(count: int = 50, seed: int = 0) -> list[str]:
    """`count` whole documents."""
    styles = _stylesheet()
    return [_page(random.Random(f"{seed}:{index}"), styles) for index in range(count)]


def _stylesheet() -> str:
    rules = [PLAIN]
    for letter, name in (("m", "margin"), ("p", "padding")):
        for side, properties in SIDES.items():
            for step, pixels in SPACES.items():
                body = ";".join(f"{one.format(name)}:{pixels}px" for one in properties)
                rules.append(f".{letter}{side}-{step}{{{body}}}")
    rules += [f".gap-{step}{{gap:{pixels}px}}" for step, pixels in SPACES.items()]
    for colour, shades in SHADES.items():
        for shade, value in zip((100, 200, 400, 600, 900), shades, strict=True):
            rules.append(f".bg-{colour}-{shade}{{background-color:{value}}}.text-{colour}-{shade}{{color:{value}}}")
            rules.append(f".border-{colour}-{shade}{{border-color:{value}}}")
    rules += [f".text-{name}{{font-size:{pixels}px;line-height:1.4}}" for name, pixels in SIZES.items()]
    return "\n".join(rules)


def _words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def _sentence(rng: random.Random) -> str:
    return _words(rng, 8, 16).capitalize() + "."


def _page(rng: random.Random, styles: str) -> str:
    colour = rng.choice([name for name in SHADES if name != "gray"])
    name = f"{rng.choice(WORDS).capitalize()} {rng.choice(TRADES)}"
    parts = [_header(rng, colour, name), _hero(rng, colour, name), _cards(rng, colour)]
    if rng.random() < 0.4:
        parts.append(_table(rng, colour))
    parts.append(_footer(rng, name))
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{styles}</style>'
        f'</head>\n<body class="bg-gray-100 text-gray-900">\n{body}\n</body></html>\n'
    )


def _header(rng: random.Random, colour: str, name: str) -> str:
    links = "".join(
        f'<a href="#" class="px-4 py-2 rounded text-{colour}-900">{rng.choice(WORDS).capitalize()}</a>'
        for _ in range(rng.randint(3, 6))
    )
    return (
        '<header class="bg-white shadow"><div class="container flex items-center justify-between py-4 px-6">'
        f'<a href="#" class="text-2xl font-bold text-{colour}-600">{name}</a><nav class="flex gap-2">{links}</nav>'
        "</div></header>"
    )


def _hero(rng: random.Random, colour: str, name: str) -> str:
    return (
        f'<section class="bg-{colour}-600 text-white py-16 text-center"><h1 class="text-5xl font-bold mb-4">Welcome to '
        f'{name}</h1><p class="text-xl opacity-75 mb-8">{_sentence(rng)}</p><a href="#" class="bg-white inline-block '
        f'text-{colour}-600 font-semibold px-8 py-3 rounded-full shadow-lg">{_words(rng, 2, 3)}</a></section>'
    )


def _cards(rng: random.Random, colour: str) -> str:
    cards = "".join(
        f'<article class="bg-white rounded-lg shadow p-6 border border-{colour}-200">'
        f'<div class="h-40 rounded mb-4 bg-{colour}-{rng.choice((200, 400))}"></div>'
        f'<h3 class="text-xl font-semibold mb-2 text-{colour}-900">{_words(rng, 2, 4)}</h3>'
        f'<p class="text-gray-600 leading-relaxed">{_sentence(rng)} {_sentence(rng)}</p></article>'
        for _ in range(rng.randint(3, 9))
    )
    return f'<section class="container py-12 px-6"><div class="grid grid-cols-3 gap-6">{cards}</div></section>'


def _table(rng: random.Random, colour: str) -> str:
    rows = "".join(
        f'<tr class="border-b border-gray-200"><td class="py-3 px-4">{_words(rng, 1, 3)}</td>'
        f'<td class="py-3 px-4">{rng.randint(1, 99)}</td>'
        f'<td class="py-3 px-4 text-{colour}-600">${rng.randint(100, 9999) / 100:.2f}</td></tr>'
        for _ in range(rng.randint(5, 12))
    )
    heads = "".join(f'<th class="py-3 px-4 uppercase text-sm">{head}</th>' for head in ("Item", "Number", "Price"))
    return (
        '<section class="container py-8 px-6"><table class="bg-white shadow rounded"><thead>'
        f'<tr class="bg-{colour}-100">{heads}</tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _footer(rng: random.Random, name: str) -> str:
    return (
        '<footer class="bg-gray-900 text-gray-400 py-8"><div class="container flex justify-between px-6 text-sm">'
        f"<p>{name}. {_sentence(rng)}</p><p>{rng.randint(100, 999)} {_words(rng, 1, 2).title()} Street</p></div>"
        "</footer>"
    )
