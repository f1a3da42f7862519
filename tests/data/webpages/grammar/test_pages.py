"""Generated pages: the same bytes for ever, well formed, compact, legible, and unlike one another."""

import hashlib
import itertools
import os
import re
import string
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser

import html5lib
import pytest

from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import BASE, HUES, INK, MUTED, UTILITIES, stand_alone

SEED = 1  # the stream that the shipped model was trained on
PAGES = 500
# A page is named by seed and index alone, in recipes and in scores: a change here makes both mean something else.
GOLDEN_500 = "30e6810e67219258407b455f2b71f0f5380087b31b7e9e8e895fc6b127d9c6e4"
GOLDEN_DOCUMENTS = "0749b64177240f84274ef4f1fde35701cd383fc83c23f408eb67cfbb343fb78f"
GOLDEN_FIRST = (
    '<body><header class="flex-between pad-3 bg-teal ink-white"><b class="text-xl">Kaunas Spokes</b>'
    '<nav class="flex-row gap-3"><a href="#">Tune</a><a href="#">Build</a><a href="#">Tune</a></nav></header>'
    '<main><section class="pad-4"><h2 class="ink-red">The umber Prith brake service</h2>'
    '<div class="grid-2 gap-3 top-3"><article class="bg-red-soft pad-3"><h3>9 jigsaw parts</h3></article>'
    '<article class="bg-red-soft pad-3"><h3>Light Jisflaithfleand gravel frame</h3>'
    '<p class="text-bold ink-red">$6.50</p></article></div></section><section class="pad-4"><blockquote>'
    '<p class="text-italic text-lg">Call +39 174 8805 before 22 April 2013.</p>'
    '<p class="text-sm ink-muted top-1">Zoran Laix, Kaunas</p></blockquote></section></main>'
    '<footer class="pad-4 text-sm bg-black ink-white text-center"><p>Kaunas Spokes | +98 717 8144</p></footer>'
    "</body>"
)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def pages() -> list[str]:
    return [generate_page(SEED, index).html for index in range(PAGES)]


def texts_of(page: str) -> list[str]:
    return [unescape(text) for text in re.findall(r">([^<]+)<", page)]


# --- the same bytes -----------------------------------------------------------------------------------------------


def test_the_first_page_is_the_one_it_always_was():
    assert generate_page(SEED, 0).html == GOLDEN_FIRST


def test_five_hundred_pages_and_documents_are_the_ones_they_always_were(pages):
    assert sha256("".join(pages)) == GOLDEN_500
    titles = [generate_page(SEED, index).idea.split(":")[0] for index in range(PAGES)]
    documents = (stand_alone(page, title=title) for page, title in zip(pages, titles, strict=True))
    assert sha256("".join(documents)) == GOLDEN_DOCUMENTS


def test_another_process_writes_the_same_pages():
    program = (
        "from lensmith.data.webpages.grammar.pages import generate_page\n"
        "for index in (3, 0, 2, 1): print(ascii(generate_page(9, index)))"
    )
    expected = "".join(f"{generate_page(9, index)!a}\n" for index in (3, 0, 2, 1))
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == expected


def test_seed_and_index_each_make_another_page():
    pages = {generate_page(seed, index).html for seed in range(20) for index in range(100)}
    assert len(pages) == 2000


def test_an_idea_names_the_firm_the_city_and_what_the_page_holds():
    page = generate_page(SEED, 0)
    assert re.fullmatch(r".+: a page for a [a-z ]+ in [A-Z][a-z]+ with [a-z]+(, [a-z]+)*\.", page.idea)
    assert page.idea.split(":")[0] in " ".join(texts_of(page.html))


# --- well formed and compact --------------------------------------------------------------------------------------


def test_pages_and_documents_parse_without_any_error(pages):
    for page in pages[:60]:
        html5lib.HTMLParser(strict=True).parse(stand_alone(page, title="A & B <c>"))


def test_pages_are_compact(pages):
    for page in pages:
        assert page.startswith("<body") and page.endswith("</body>")
        for waste in ("\n", "\t", "  ", "> <", 'class=""', ' class=" ', ' "', "<!--", "style="):
            assert waste not in page, (waste, page)
    lengths = sorted(map(len, pages))
    assert lengths[0] > 300 and lengths[-1] < 4000


def test_a_document_holds_the_rules_in_use_and_no_others(pages):
    for page in pages[:100]:
        classes = {name for value in re.findall(r'class="([^"]*)"', page) for name in value.split()}
        tags = set(re.findall(r"<([a-z0-9]+)", page))
        assert classes <= UTILITIES.keys()
        style = re.search(r"<style>(.*?)</style>", stand_alone(page))[1]
        selectors = re.findall(r"([^{}]+)\{[^{}]*\}", style)
        assert {s[1:] for s in selectors if s.startswith(".")} == classes
        others = [s for s in selectors if not s.startswith(".")]
        assert others == [s for s in BASE if s in ("*", "body") or tags & set(s.split(","))]
        assert len(selectors) == len(set(selectors))


def test_a_fragment_gets_a_body_and_a_title_is_escaped():
    document = stand_alone("<p>Hi</p>", title="</title><script>")
    assert "<body><p>Hi</p></body>" in document
    assert "<title>&lt;/title&gt;&lt;script&gt;</title>" in document


# --- contrast -----------------------------------------------------------------------------------------------------

MIDDLE = 1  # of a hue's three shades
WHITE = "#ffffff"


class Paints(HTMLParser):
    """Which ink lies on which ground, as (ink class, ground class) of every text, inherited as CSS does."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: set[tuple[str, str]] = set()
        self._stack = [("ink", "bg-white")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        ink, ground = self._stack[-1]
        for name in (dict(attrs).get("class") or "").split():
            ink = name if name.startswith("ink-") else ink
            ground = name if name.startswith("bg-") else ground
        if tag != "input":  # its hint is the browser's own grey on white
            self._stack.append((ink, ground))

    def handle_endtag(self, tag: str) -> None:
        self._stack.pop()

    def handle_data(self, data: str) -> None:
        self.pairs.add(self._stack[-1])


def colour(name: str) -> str:
    """The colour that a class sets, from the stylesheet's own rule."""
    if name == "ink":
        return INK
    value = UTILITIES[name].partition(":")[2]
    return WHITE if value == "#fff" else value


def luminance(colour_hex: str) -> float:
    """WCAG 2.1, "relative luminance"."""
    parts = [int(colour_hex[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.1, "contrast ratio"."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def kinds(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs with X for the ink's hue, and X or Y for the ground's, as it is the same or another."""
    found = set()
    for ink, ground in pairs:
        ink_hue = next((hue for hue in HUES if ink == f"ink-{hue}"), None)
        ground_hue = next((hue for hue in HUES if ground.split("-")[1] == hue), None)
        ground_letter = "X" if ground_hue == ink_hue else "Y"
        found.add(
            (
                "ink-X" if ink_hue else ink,
                ground.replace(ground_hue, ground_letter) if ground_hue else ground,
            )
        )
    return found


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", WHITE) == pytest.approx(21)
    assert contrast("#777777", WHITE) == pytest.approx(4.48, abs=0.005)
    assert contrast("#ff0000", "#ffffff") == pytest.approx(3.998, abs=0.005)


def test_a_person_can_read_every_text(pages):
    paints = Paints()
    for page in pages:
        paints.feed(page)
    found = kinds(paints.pairs)
    assert found == {
        *(("ink", ground) for ground in ("bg-white", "bg-gray", "bg-Y-soft")),
        *(("ink-muted", ground) for ground in ("bg-white", "bg-gray", "bg-Y-soft")),
        *(("ink-X", ground) for ground in ("bg-white", "bg-gray", "bg-X-soft")),
        *(("ink-white", ground) for ground in ("bg-black", "bg-Y")),
    }
    checked = 0
    for (ink, ground), (x, y) in itertools.product(sorted(found), itertools.permutations(HUES, 2)):
        ink_name, ground_name = ink.replace("X", x), ground.replace("X", x).replace("Y", y)
        ratio = contrast(colour(ink_name), colour(ground_name))
        assert ratio >= 4.5, f"{ink_name} on {ground_name}: {ratio:.2f}"
        checked += 1
    assert checked == 11 * 90
    assert contrast(MUTED, HUES["red"][MIDDLE]) < 4.5  # the measure can say no


# --- variety ------------------------------------------------------------------------------------------------------


def test_texts_are_many_and_rarely_repeated(pages):
    texts = [text for page in pages for text in texts_of(page)]
    assert len(set(texts)) > 0.6 * len(texts)
    words = {word for text in texts for word in re.findall(r"[^\W\d_]+", text)}
    assert len(words) > 3000
    numbers = {number for text in texts for number in re.findall(r"\d+", text)}
    assert len(numbers) > 1000


def test_pages_differ_in_what_they_are_made_of(pages):
    together = "".join(pages)
    tags = {"header", "nav", "main", "section", "article", "footer", "h1", "h2", "h3", "p", "ul", "ol", "li", "table"}
    tags |= {
        "form",
        "input",
        "label",
        "button",
        "blockquote",
        "figure",
        "figcaption",
        "a",
        "b",
        "div",
        "tr",
        "th",
        "td",
    }
    assert tags <= set(re.findall(r"<([a-z0-9]+)", together))
    for font in ("font-serif", "font-mono", "font-wide", "font-book"):
        assert 0.05 < sum(f'<body class="{font}">' in page for page in pages) / len(pages) < 0.3
    for hue in HUES:
        assert sum(f"bg-{hue}" in page for page in pages) > 50
    skeletons = {re.sub(r">[^<]+<", "><", page) for page in pages}
    assert len(skeletons) == len(pages)


def test_every_letter_and_digit_is_written(pages):
    seen = set("".join(text for page in pages for text in texts_of(page)))
    assert set(string.ascii_letters + string.digits) <= seen
    assert set(" .,:;-&'@+%?!()|$€£©“”") <= seen
