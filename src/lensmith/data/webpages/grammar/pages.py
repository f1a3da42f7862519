"""A seeded generator of web pages that needs no language model.

Phone-width pages (384 CSS px) in the spirit of WebSight v0.1 (arXiv 2403.09029; facts of its build script): one idea
for a firm, a simple semantic page for it, pictures drawn as coloured rectangles. Where we differ: the grammar, not a
language model, writes the page, so a page costs microseconds, and `seed` and `index` determine every byte.
"""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from random import Random

from lensmith.data.webpages.grammar.stylesheet import HUES
from lensmith.data.webpages.grammar.words import Writer

VIEWPORT_WIDTH_PX = 384


@dataclass(frozen=True, kw_only=True)
class GeneratedPage:
    """`idea` in one sentence, and `html`: `<body>` with utility classes, to be passed through `stand_alone`."""

    idea: str
    html: str


@dataclass(frozen=True, kw_only=True)
class Theme:
    """What the sections of one page share."""

    hue: str
    accent: str
    font: str
    rounding: str
    dark_header: bool


def el(tag: str, *children: str, cls: str = "", **attributes: str) -> str:
    """One element. `cls` is dropped when empty; children are markup already."""
    classes = " ".join(cls.split())
    text = f' class="{classes}"' if classes else ""
    text += "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{text}>{''.join(children)}</{tag}>"


def text(value: str) -> str:
    return escape(value, quote=False)


class PageGrammar:
    """Writes one page. Each section is a method; choices come from the page's own random stream."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.writer = Writer(random)
        hue, accent = random.sample(tuple(HUES), 2)
        self.theme = Theme(
            hue=hue,
            accent=accent,
            font=random.choice(("", "", "font-serif", "font-mono", "font-wide", "font-book")),
            rounding=random.choice(("", "round-md", "round-lg")),
            dark_header=random.random() < 0.5,
        )

    def maybe(self, chance: float, value: str) -> str:
        return value if self.random.random() < chance else ""

    def choose(self, *options: str) -> str:
        return self.random.choice(options)

    def rectangle(self, *sizes: str) -> str:
        """A coloured rectangle that stands for a picture."""
        hue = self.random.choice(tuple(HUES))
        shade = self.choose("", "-mid", "-mid")
        return el("div", cls=f"bg-{hue}{shade} {self.choose(*sizes)} {self.theme.rounding}")

    def button(self, label: str, *, on_strong: bool = False) -> str:
        paint = "bg-white ink-" + self.theme.hue if on_strong else f"bg-{self.theme.accent} ink-white"
        return el("button", text(label), cls=f"{paint} {self.theme.rounding} {self.maybe(0.4, 'text-bold')}")

    # Sections, from top to bottom of a page.

    def header(self) -> str:
        links = [el("a", text(self.writer.link()), href="#") for _ in range(self.random.randrange(2, 4))]
        brand = el("b", text(self.writer.brand), cls=self.choose("text-lg", "text-xl", ""))
        nav = el("nav", *links, cls="flex-row gap-3 " + self.maybe(0.3, "text-sm"))
        if self.theme.dark_header:
            paint = f"bg-{self.theme.hue} ink-white"
        else:
            paint = self.choose("line-bottom", "bg-gray", "")
        if len(self.writer.brand) < 17 and self.random.random() < 0.6:
            return el("header", brand, nav, cls=f"flex-between pad-3 {paint}")
        layout = self.choose("flex-stack gap-1", "text-center")
        if layout == "text-center":
            nav = nav.replace("flex-row", "flex-center")
        return el("header", brand, nav, cls=f"{layout} pad-3 {paint}")

    def hero(self) -> str:
        strong = self.random.random() < 0.35
        paint = f"bg-{self.theme.hue} ink-white" if strong else self.choose(f"bg-{self.theme.hue}-soft", "", "bg-gray")
        ink = "" if strong else self.maybe(0.4, f"ink-{self.theme.hue}")
        parts = [el("h1", text(self.writer.title()), cls=f"{ink} {self.maybe(0.2, 'text-3xl')}")]
        parts.append(el("p", text(self.writer.sentence()), cls=f"top-2 {self.maybe(0.3, 'text-lg')}"))
        if self.random.random() < 0.7:
            buttons = [self.button(self.writer.call_to_action(), on_strong=strong)]
            centred = self.random.random() < 0.5
            parts.append(el("div", *buttons, cls="top-3"))
        else:
            centred = False
        if self.random.random() < 0.3:
            picture = self.rectangle("high-64", "high-96", "high-128")
            if self.random.random() < 0.5:
                parts = [picture, el("div", *parts, cls="top-3")]
            else:
                parts.append(el("div", picture, cls="top-3"))
        padding = self.choose("pad-4", "pad-6")
        align = self.maybe(0.7, "text-center") if centred else ""
        return el("section", *parts, cls=f"{padding} {paint} {align}")

    def heading(self) -> str:
        return el("h2", text(self.writer.title()), cls=self.maybe(0.35, f"ink-{self.theme.accent}"))

    def card(self, frame: str) -> str:
        parts = [el("h3", text(self.writer.phrase()))]
        if self.random.random() < 0.8:
            parts.append(el("p", text(self.writer.sentence()), cls=self.choose("", "ink-muted", "text-sm")))
        if self.random.random() < 0.3:
            parts.append(el("p", text(self.writer.price()), cls=f"text-bold ink-{self.theme.accent}"))
        return el("article", *parts, cls=frame)

    def cards(self) -> str:
        paint = self.choose("line-all", "bg-gray", f"bg-{self.theme.accent}-soft", "line-all")
        frame = f"{paint} pad-3 {self.theme.rounding}"
        columns, count = self.random.choice((("grid-1", 2), ("grid-2", 2), ("grid-2", 2)))
        with_picture = self.random.random() < 0.35
        cards = []
        for _ in range(count):
            card = self.card(frame)
            if with_picture:
                card = el("div", self.rectangle("high-40", "high-64"), card)
            cards.append(card)
        return el("section", self.heading(), el("div", *cards, cls=f"{columns} gap-3 top-3"), cls="pad-4")

    def bullets(self) -> str:
        tag = self.choose("ul", "ul", "ol")
        style = self.choose("top-2", "top-2", "list-none top-2")
        items = [el("li", text(self.writer.phrase())) for _ in range(self.random.randrange(3, 6))]
        paint = self.choose("", "", f"bg-{self.theme.accent}-soft")
        return el("section", self.heading(), el(tag, *items, cls=style), cls=f"pad-4 {paint}")

    def table(self) -> str:
        columns: list[tuple[str, Callable[[], str]]] = [
            ("Item", lambda: self.writer.good().capitalize()),
            ("Name", self.writer.person),
            ("Code", self.writer.code),
            ("Price", self.writer.price),
            ("Time", self.writer.time),
            ("Day", lambda: self.writer.pick(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))),
            ("Stock", self.writer.number),
        ]
        first = columns[:2]
        chosen = [self.random.choice(first), *self.random.sample(columns[2:], self.random.choice((1, 2, 2)))]
        paint = self.choose("", f"bg-{self.theme.hue}-soft", "bg-gray")
        head = el("tr", *(el("th", name) for name, _ in chosen), cls=paint)
        rows = [el("tr", *(el("td", text(write())) for _, write in chosen)) for _ in range(self.random.randrange(2, 5))]
        return el("section", self.heading(), el("table", head, *rows, cls="top-2"), cls="pad-4")

    def form(self) -> str:
        labels = self.random.sample(("Name", "Email", "Phone", "City", "Date", "Message", "Order no.", "Company"), 2)
        hints: dict[str, Callable[[], str]] = {
            "Name": self.writer.person,
            "Date": self.writer.date,
            "Email": self.writer.email,
            "Phone": self.writer.phone,
            "City": lambda: self.writer.city,
        }
        fields = []
        for label in labels:
            hint = hints.get(label, self.writer.thing)()
            fields.append(el("label", text(label), cls="top-2") + f'<input placeholder="{escape(hint)}">')
        button = el("div", self.button(self.choose("Send", "Sign up", "Submit", "Reserve")), cls="top-3")
        paint = self.choose("", f"bg-{self.theme.accent}-soft", "bg-gray")
        return el("section", self.heading(), el("form", *fields, button), cls=f"pad-4 {paint}")

    def quote(self) -> str:
        words = el("p", text(self.writer.sentence()), cls="text-italic " + self.maybe(0.4, "text-lg"))
        author = el("p", text(f"{self.writer.person()}, {self.writer.city}"), cls="text-sm ink-muted top-1")
        return el("section", el("blockquote", words, author), cls="pad-4")

    def stats(self) -> str:
        count = self.random.choice((2, 3, 3))
        cells = []
        for _ in range(count):
            number = text(self.choose(self.writer.number(), self.writer.number() + "%"))
            what = text(self.writer.pick(self.writer.trade.actions).capitalize() + "s")
            cells.append(el("div", el("b", number, cls=f"text-2xl ink-{self.theme.hue}"), el("p", what, cls="text-sm")))
        paint = self.choose("", f"bg-{self.theme.hue}-soft", "line-top")
        return el("section", *cells, cls=f"grid-{count} gap-2 pad-4 text-center {paint}")

    def gallery(self) -> str:
        count = self.random.choice((2, 3))
        figures = []
        for _ in range(count):
            picture = self.rectangle("high-64", "high-96")
            caption = el("figcaption", text(self.writer.thing().capitalize()), cls="text-sm")
            figures.append(el("figure", picture, caption))
        return el("section", self.heading(), el("div", *figures, cls=f"grid-{count} gap-2 top-3"), cls="pad-4")

    def profile(self) -> str:
        hue = self.random.choice(tuple(HUES))
        size = self.choose("wide-64 high-64", "wide-40 high-40")
        face = el("div", cls=f"bg-{hue}-mid {size} round-full")
        name = el("h3", text(self.writer.person()))
        line = self.choose(self.writer.email(), self.writer.phone(), self.writer.title())
        about = el("div", name, el("p", text(line), cls="ink-muted"))
        return el("section", face, about, cls="flex-row gap-3 pad-4")

    def prose(self) -> str:
        paragraph = el("p", text(f"{self.writer.sentence()} {self.writer.sentence()}"), cls="top-2")
        return el("section", self.heading(), paragraph, cls="pad-4")

    def notice(self) -> str:
        paint = self.choose(f"bg-{self.theme.accent} ink-white", f"bg-{self.theme.accent}-soft ink-{self.theme.accent}")
        words = text(self.writer.sentence())
        align = self.maybe(0.5, "text-center")
        return el("p", words, cls=f"{paint} pad-3 {align} {self.maybe(0.3, 'text-bold')}")

    def footer(self) -> str:
        line = self.choose(
            f"© {self.random.randrange(1999, 2027)} {self.writer.brand}",
            self.writer.address(),
            f"{self.writer.brand} | {self.writer.phone()}",
            self.writer.email(),
        )
        parts = [el("p", text(line))]
        if self.random.random() < 0.35:
            links = [el("a", text(self.writer.link()), href="#") for _ in range(self.random.randrange(2, 4))]
            parts.append(el("nav", *links, cls="flex-row gap-3 top-1"))
        centred = "text-center" if len(parts) == 1 and self.random.random() < 0.5 else ""
        paint = self.choose("bg-black ink-white", f"bg-{self.theme.hue} ink-white", "line-top ink-muted", "bg-gray")
        return el("footer", *parts, cls=f"pad-4 text-sm {paint} {centred}")

    def page(self) -> GeneratedPage:
        sections = [self.cards, self.bullets, self.table, self.form, self.quote, self.stats, self.gallery]
        sections += [self.profile, self.prose, self.notice, self.cards, self.table]
        chosen = self.random.sample(sections, self.random.choice((1, 2, 2, 3)))
        parts = [self.header()]
        if self.random.random() < 0.75:
            parts.append(self.hero())
        parts.append(el("main", *(section() for section in chosen)))
        parts.append(self.footer())
        body = el("body", *parts, cls=self.theme.font)
        names = ", ".join(section.__name__ for section in chosen)
        idea = f"{self.writer.brand}: a page for a {self.writer.trade.name} in {self.writer.city} with {names}."
        return GeneratedPage(idea=idea, html=body)


def generate_page(seed: int, index: int) -> GeneratedPage:
    """Page `index` of stream `seed`. The two determine every byte, on every machine."""
    return PageGrammar(Random(f"lensmith-page:{seed}:{index}")).page()
