"""Pairs of pages for the Design2Code benchmark: a target, and what a model might have made of it.

Targets: pages of our grammar, pages in the manner of WebSight, and real pages where a folder of them is given.
Predictions: the target with text left out, reworded, moved, recoloured, run together or repeated, with slips of markup,
another page, a blank one, or the same. And a dozen odd pages by hand, with what scorers trip over. The seed decides
every byte.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.render_pages import make_pages
from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone

_LEAF = re.compile(r"<(h[1-6]|p|li|a|b|button|td|th|span|label|div)\b([^<>]*)>([^<>]+)</\1>")
_SEED = 20_240_301
_OTHER_WORDS = "violet engine hollow quartz monday seldom eleven pepper basin orbit".split()


@dataclass(frozen=True, kw_only=True)
class PagePair:
    """A target and a prediction, and what was done to the one to make the other."""

    name: str
    change: str
    target: str
    prediction: str


def make_pairs(count: int, folder: Path | None = None) -> list[PagePair]:
    """`count` pairs: the odd ones, then targets of each source in turn, with each change in turn."""
    sources = [_grammar_pages(count), make_pages(count, seed=7)]
    if folder is not None:
        sources.append([path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*.html"))])
    targets = [pages[place] for place in range(count) for pages in sources if place < len(pages)]
    odd = _odd_pairs()[: count // 4]
    pairs = [PagePair(name=f"odd {name}", change="odd", target=a, prediction=b) for name, a, b in odd]
    for index, target in enumerate(targets[: count - len(pairs)]):
        change, apply = list(_CHANGES.items())[index % len(_CHANGES)]
        rng = random.Random(f"{_SEED}:{index}")
        prediction = targets[(index + len(sources)) % len(targets)] if apply is None else apply(target, rng)
        pairs.append(PagePair(name=f"page {index}", change=change, target=target, prediction=prediction))
    return pairs


def _grammar_pages(count: int) -> list[str]:
    return [stand_alone(generate_page(_SEED, index).html) for index in range(count)]


def _each_leaf(html: str, change: Callable[[re.Match[str]], str]) -> str:
    head, body, rest = html.partition("<body")
    return head + body + _LEAF.sub(change, rest)


def _drop_text(html: str, rng: random.Random) -> str:
    return _each_leaf(html, lambda leaf: "" if rng.random() < 0.3 else leaf[0])


def _reword(html: str, rng: random.Random) -> str:
    def reworded(leaf: re.Match[str]) -> str:
        words = [rng.choice(_OTHER_WORDS) if rng.random() < 0.3 else word for word in leaf[3].split()]
        return f"<{leaf[1]}{leaf[2]}>{' '.join(words)}</{leaf[1]}>"

    return _each_leaf(html, reworded)


def _move(html: str, rng: random.Random) -> str:
    def moved(leaf: re.Match[str]) -> str:
        style = f"position:relative;left:{rng.randrange(-40, 90)}px;top:{rng.randrange(0, 40)}px"
        return f'<{leaf[1]}{leaf[2]} style="{style}">{leaf[3]}</{leaf[1]}>'

    return _each_leaf(html, moved)


def _recolour(html: str, rng: random.Random) -> str:
    def recoloured(leaf: re.Match[str]) -> str:
        return f'<{leaf[1]}{leaf[2]} style="color:#{rng.randrange(1 << 24):06x}">{leaf[3]}</{leaf[1]}>'

    return _each_leaf(html, recoloured)


def _run_together(html: str, rng: random.Random) -> str:
    """Of two neighbours of one kind the second's text goes into the first."""

    def joined(both: re.Match[str]) -> str:
        return f"<{both[1]}{both[2]}>{both[3]} {both[4]}</{both[1]}>" if rng.random() < 0.8 else both[0]

    return re.sub(r"<(p|li|td|h3|a)\b([^<>]*)>([^<>]+)</\1>\s*<\1\b[^<>]*>([^<>]+)</\1>", joined, html)


def _split(html: str, rng: random.Random) -> str:
    def halved(leaf: re.Match[str]) -> str:
        words = leaf[3].split()
        if len(words) < 4 or rng.random() < 0.4:
            return leaf[0]
        cut = rng.randrange(1, len(words))
        halves = (" ".join(words[:cut]), " ".join(words[cut:]))
        return "".join(f"<{leaf[1]}{leaf[2]}>{half}</{leaf[1]}>" for half in halves)

    return _each_leaf(html, halved)


def _repeat(html: str, rng: random.Random) -> str:
    """As a model that cannot stop: the last piece of text again and again, and no end."""
    leaves = list(_LEAF.finditer(html))
    if not leaves:
        return html
    again = leaves[-1]
    return html[: again.end()] + again[0] * rng.randrange(55, 70)


def _slip(html: str, rng: random.Random) -> str:
    """Closing tags lost, tags doubled, and a text that is no markup."""

    def slipped(leaf: re.Match[str]) -> str:
        kind = rng.random()
        if kind < 0.15:
            return leaf[0].removesuffix(f"</{leaf[1]}>")
        if kind < 0.3:
            return f"{leaf[0]}</{leaf[1]}>"
        return leaf[0].replace(" and ", " & ") if kind < 0.6 else leaf[0]

    return _each_leaf(html, slipped)


def _body_alone(html: str, rng: random.Random) -> str:
    """Only what is in the body, as some models answer, without the page's style sheet."""
    return html.partition("<body")[2].partition(">")[2].partition("</body>")[0][: rng.randrange(1500, 4000)]


_CHANGES: dict[str, Callable[[str, random.Random], str] | None] = {
    "same": lambda html, _: html,
    "text left out": _drop_text,
    "reworded": _reword,
    "moved": _move,
    "recoloured": _recolour,
    "run together": _run_together,
    "split": _split,
    "repeated": _repeat,
    "slips of markup": _slip,
    "body alone": _body_alone,
    "another page": None,
    "blank": lambda html, _: "<html><body></body></html>",
}


def _page(*parts: str, style: str = "") -> str:
    body = "".join(parts)
    return f"<!DOCTYPE html><html><head><style>{style}</style></head><body>{body}</body></html>"


def _odd_pairs() -> Sequence[tuple[str, str, str]]:
    """Name, target and prediction."""
    bakery, bread, monday = "<h1>Harbour bakery</h1>", "<p>Fresh bread every morning</p>", "<p>Closed on Monday</p>"
    plain = _page(bakery, bread, monday)
    cards = _page(*(f"<h2>Card {n}</h2><a href='#'>Learn more</a>" for n in range(6)))
    return (
        (
            "tags outside the list",
            plain,
            "<html><body><h1>Harbour <em>bakery</em></h1><p><strong>Fresh bread</strong> every morning</p>"
            "<label style='color:red'>Closed on Monday</label><input placeholder='Your name'></body></html>",
        ),
        (
            "colours in the page's own style",
            plain,
            _page(
                f"<h1 style='border-color:red;color:green'>Harbour bakery</h1>{bread}",
                "<p style='opacity:.4'>Closed on Monday</p>",
                style="h1{color:#c00!important}p{color:#fff;background:#248}",
            ),
        ),
        (
            "self-closed, entities, a comment",
            plain,
            "<html><body><div/><h1>Harbour&nbsp;bakery &copy &unknown; &#8211;</h1><p>Fresh <!-- old --> bread<br>"
            "every <br/>morning</p><p>Closed on Monday</body></html>",
        ),
        (
            "text in style, script, template",
            plain,
            f"<html><body><style>p{{margin:40px}}</style><script>var text = 'no';</script>{bakery}"
            f"<div><template><p>Never</p></template>{bread}</div></body></html>",
        ),
        (
            "wider than the window",
            _page(bakery, "<p style='width:2000px;text-align:right'>Far right</p>"),
            _page(bakery, "<p style='text-align:right'>Far right</p>"),
        ),
        (
            "hidden overflow",
            _page(
                bakery,
                "<div style='width:1500px;background:#ddd'>Fresh bread</div>",
                style="html,body{overflow-x:hidden}",
            ),
            plain,
        ),
        ("equal texts", cards, cards),
        (
            "text over a gradient",
            _page(
                "<div><h1 style='color:#fff'>Harbour bakery</h1></div>",
                bread,
                style="div{padding:20px;background:linear-gradient(90deg,#000,#fff)}",
            ),
            plain,
        ),
        ("no body", plain, f"<html>{bakery}{bread}</html>"),
        (
            "a row of sixty cells",
            _page("<table><tr>", *(f"<td>{n}</td>" for n in range(60)), "</tr></table>"),
            _page("<table><tr>", "<td>1</td>" * 60, "</tr></table>"),
        ),
        (
            "beyond ASCII, and capitals",
            _page(
                "<meta charset=utf-8><h1>Größe İstanbul ẞ</h1><p>Crème brûlée 東京</p>",
                style="h1{text-transform:uppercase}",
            ),
            _page("<meta charset=utf-8><h1>GRÖSSE ISTANBUL SS</h1><p>Creme brulee 東京</p>"),
        ),
        (
            "texts on each other",
            _page("<h1>Harbour</h1><p>Fresh bread</p><p>Stale bread</p>", style="p{position:absolute;top:60px}"),
            plain,
        ),
    )
