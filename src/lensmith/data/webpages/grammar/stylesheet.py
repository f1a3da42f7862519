"""The utility stylesheet of generated pages, and pages that stand alone.

A few dozen one-purpose classes, in the manner of Tailwind but far smaller, so that a page's markup is short and a
model can learn the whole of it. `stand_alone` inlines only the rules that a page uses, so that the page needs nothing
else. Strong colours carry white text and soft ones dark text with a WCAG contrast of at least 4.5; a test holds that.
"""

import re
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser

# hue -> (strong, middle, soft)
HUES: dict[str, tuple[str, str, str]] = {
    "red": ("#b91c1c", "#f87171", "#fee2e2"),
    "orange": ("#b03a0a", "#fb923c", "#ffedd5"),
    "amber": ("#854d0e", "#fbbf24", "#fef3c7"),
    "green": ("#166534", "#4ade80", "#dcfce7"),
    "teal": ("#0f6a63", "#2dd4bf", "#ccfbf1"),
    "sky": ("#075f93", "#38bdf8", "#e0f2fe"),
    "blue": ("#1d4ed8", "#60a5fa", "#dbeafe"),
    "violet": ("#6d28d9", "#a78bfa", "#ede9fe"),
    "pink": ("#be185d", "#f472b6", "#fce7f3"),
    "stone": ("#44403c", "#a8a29e", "#f0efed"),
}

INK = "#1f2937"
MUTED = "#4b5563"
SANS = '"Liberation Sans",Arial,Helvetica,sans-serif'

BASE = {
    "*": "box-sizing:border-box;margin:0;padding:0",
    "body": f"font:14px/1.45 {SANS};color:{INK};background:#fff",
    "a": "color:inherit;text-decoration:none",
    "h1": "font-size:26px;line-height:1.2",
    "h2": "font-size:20px;line-height:1.25",
    "h3": "font-size:16px;line-height:1.3",
    "ul,ol": "padding-left:20px",
    "table": "width:100%;border-collapse:collapse",
    "th,td": "padding:5px 6px;text-align:left;border-bottom:1px solid #d1d5db",
    "input,textarea": "display:block;width:100%;padding:6px 8px;border:1px solid #9ca3af;border-radius:4px;"
    "font:inherit;color:inherit;background:#fff",
    "button": "padding:7px 14px;border:0;border-radius:4px;font:inherit",
    "label": "display:block",
    "blockquote": "padding-left:12px;border-left:3px solid #9ca3af",
    "hr": "border:0;border-top:1px solid #d1d5db",
    "small": "font-size:12px",
}


def _utilities() -> dict[str, str]:
    rules = {
        "font-serif": 'font-family:"Liberation Serif","Times New Roman",Times,serif',
        "font-mono": 'font-family:"Liberation Mono","Courier New",Courier,monospace',
        "font-wide": 'font-family:"DejaVu Sans",Verdana,sans-serif',
        "font-book": 'font-family:"DejaVu Serif",Georgia,serif',
        "text-sm": "font-size:12px",
        "text-lg": "font-size:16px",
        "text-xl": "font-size:20px",
        "text-2xl": "font-size:24px",
        "text-3xl": "font-size:32px",
        "text-bold": "font-weight:700",
        "text-italic": "font-style:italic",
        "text-center": "text-align:center",
        "list-none": "list-style:none;padding-left:0",
        "flex-row": "display:flex;align-items:center",
        "flex-between": "display:flex;align-items:center;justify-content:space-between",
        "flex-center": "display:flex;align-items:center;justify-content:center",
        "flex-stack": "display:flex;flex-direction:column;align-items:flex-start",
        "grid-1": "display:grid;grid-template-columns:1fr",
        "grid-2": "display:grid;grid-template-columns:1fr 1fr",
        "grid-3": "display:grid;grid-template-columns:1fr 1fr 1fr",
        "round-md": "border-radius:6px",
        "round-lg": "border-radius:14px",
        "round-full": "border-radius:999px",
        "line-all": "border:1px solid #9ca3af",
        "line-top": "border-top:1px solid #9ca3af",
        "line-bottom": "border-bottom:1px solid #9ca3af",
        "bg-white": "background:#fff",
        "bg-gray": "background:#e5e7eb",
        "bg-black": "background:#111827",
        "ink-white": "color:#fff",
        "ink-muted": f"color:{MUTED}",
    }
    for name, px in (("1", 4), ("2", 8), ("3", 12), ("4", 16), ("6", 24)):
        rules |= {f"gap-{name}": f"gap:{px}px", f"pad-{name}": f"padding:{px}px", f"top-{name}": f"margin-top:{px}px"}
    rules |= {f"high-{px}": f"height:{px}px" for px in (40, 64, 96, 128)}
    rules |= {f"wide-{px}": f"width:{px}px" for px in (40, 64)}
    for hue, (strong, middle, soft) in HUES.items():
        rules |= {
            f"bg-{hue}": f"background:{strong}",
            f"bg-{hue}-mid": f"background:{middle}",
            f"bg-{hue}-soft": f"background:{soft}",
            f"ink-{hue}": f"color:{strong}",
        }
    return rules


UTILITIES = _utilities()


def _palette() -> frozenset[int]:
    written = re.findall(r"#([0-9a-f]{6}|[0-9a-f]{3})\b", " ".join([*BASE.values(), *UTILITIES.values()]))
    return frozenset(int(colour if len(colour) == 6 else "".join(c * 2 for c in colour), 16) for colour in written)


PALETTE = _palette()
"""Every colour that a generated page can have, as 0xRRGGBB."""


class _Use(HTMLParser):
    """Collects the tags and classes that a page uses."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.classes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.classes.update(word for name, value in attrs if name == "class" and value for word in value.split())


def rules_in_use(body_html: str) -> Iterator[str]:
    """The stylesheet's rules that apply to a page, in the stylesheet's own order."""
    use = _Use()
    use.feed(body_html)
    use.close()
    for selector, rule in BASE.items():
        if selector in {"*", "body"} or use.tags.intersection(selector.split(",")):
            yield f"{selector}{{{rule}}}"
    for name, rule in UTILITIES.items():
        if name in use.classes:
            yield f".{name}{{{rule}}}"


def stand_alone(body_html: str, *, title: str = "") -> str:
    """A whole document around `<body ...>...</body>` (or a bare fragment) with just the rules in use inlined."""
    body = body_html if body_html.lstrip().startswith("<body") else f"<body>{body_html}</body>"
    style = "".join(rules_in_use(body))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title, quote=False)}</title><style>{style}</style></head>{body}</html>"
    )
