"""Model output becomes well-formed HTML that stands alone: literal cases, and laws that hold for any text."""

import re

import html5lib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.markup.repair import RepairedHtml, is_well_formed, repair
from lensmith.render import RenderConfig, Renderer

CLEAN = [
    '<header class="a b"><h1>Hi &amp; you</h1></header>',
    "",
    "plain text",
    "<p>one</p><p>two <b>bold</b> words</p>",
    '<form><label>Name</label><input placeholder="Ann"><input type="checkbox" checked><button>Go</button></form>',
    "<table><tr><th>A</th></tr><tr><td>1</td></tr></table>",
    "<table><thead><tr><th>A</th></tr></thead><tbody><tr><td>1 &lt; 2</td></tr></tbody></table>",
    "<pre>one\n  two</pre>",
    '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="A &quot;dot&quot;">',
    '<a href="#">here</a><a href="prices.html">there</a><a href="tel:+4930123">call</a>',
    '<svg viewBox="0 0 9 9"><path d="M0 0h9"></path><linearGradient id="g"></linearGradient></svg>',
    "<p>5&nbsp;kg of naïve 漢字</p>",
    '<body class="font-serif"><main><p>Hi</p></main></body>',
    "<body><p>Hi</p></body>",
    '<!doctype html><html lang="en"><head><title>T</title><style>p{color:red}</style></head><body>x</body></html>',
    '<div style="color:red;background:url(#g)">x</div>',
    "<ul><li>a</li><li>b</li></ul><select><option selected>1</option></select><textarea>two\nlines</textarea>",
]


@pytest.mark.parametrize("html", CLEAN)
def test_clean_html_comes_back_unchanged(html: str) -> None:
    assert repair(html) == RepairedHtml(html=html, changes=())
    assert is_well_formed(html)


@pytest.mark.parametrize("index", range(5))
def test_generated_pages_come_back_unchanged(index: int) -> None:
    page = generate_page(3, index).html
    assert repair(page).html == page
    document = stand_alone(page)
    assert repair(document).html == document


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ('<div class="a">text<div class="fl', '<div class="a">text</div>'),
        ("<p>one<p>two", "<p>one</p><p>two</p>"),
        ("<ul><li>a<li>b</ul>", "<ul><li>a</li><li>b</li></ul>"),
        ("<b><i>x</b>y</i>", "<b><i>x</i></b><i>y</i>"),
        ("<p>a</div></section>", "<p>a</p>"),
        ("<p>cut <", "<p>cut</p>"),
        ("<p>cut</", "<p>cut</p>"),
        ("<p>cut</p", "<p>cut</p>"),
        ("<p>a & b &copy; &lt;b&gt; 1 < 2</p>", "<p>a &amp; b © &lt;b&gt; 1 &lt; 2</p>"),
        ("<p class=x id='y'>q</p>", '<p class="x" id="y">q</p>'),
        ("<DIV CLASS=x>q</DIV>", '<div class="x">q</div>'),
        ("<br/><input disabled='disabled' />", "<br><input disabled>"),
        ("<main>\n  <p>\n  a\n  b </p>\n</main>\n", "<main><p>a b</p></main>"),
        ("<li>a</li>\n  <li>b</li>", "<li>a</li> <li>b</li>"),
        ("<p>a<!-- secret --> b</p>", "<p>a b</p>"),
        ("<table><tr><td>1", "<table><tr><td>1</td></tr></table>"),
        ("<style>p{color:red", "<style>p{color:red</style>"),
        ("<p>bell\x07 nul\x00 &#1;ref</p>", "<p>bell nul ref</p>"),
        ("<pre>\n\n two</pre>", "<pre>\n\n two</pre>"),
        ("<body class=x><p>a", '<body class="x"><p>a</p></body>'),
        ("<html><body><p>a", "<!doctype html><html><head></head><body><p>a</p></body></html>"),
        (
            "<style>b{}</style><body id=q>x",
            '<!doctype html><html><head><style>b{}</style></head><body id="q">x</body></html>',
        ),
        ("<div style='white-space:pre'>a\n  b</div>", '<div style="white-space:pre">a\n  b</div>'),
    ],
)
def test_what_is_broken_is_mended(broken: str, expected: str) -> None:
    repaired = repair(broken)
    assert repaired.html == expected
    assert is_well_formed(expected)
    assert bool(repaired.changes) == (broken != expected)


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        ("<p>a</p><script>alert(1)</script><p>b</p>", "<p>a</p><p>b</p>"),
        ("<p>a<script>alert(1)", "<p>a</p>"),
        ('<p onclick="x()" ONLOAD=y>a</p>', "<p>a</p>"),
        ('<img src="https://e.example/x.png" alt="A cat">', '<img alt="A cat">'),
        ('<img src="//e.example/x.png" srcset="a.png 2x">', "<img>"),
        ('<a href="https://e.example/">a</a><a href=" JaVa\tscript:x()">b</a>', '<a href="#">a</a><a href="#">b</a>'),
        ('<a href="\\\\e.example">a</a><a href="http://[">b</a>', '<a href="#">a</a><a href="#">b</a>'),
        ("<iframe src=x>no</iframe><object data=x><p>kept</p></object>", "<p>kept</p>"),
        ('<link rel="stylesheet" href="x.css"><base href="/"><meta http-equiv="refresh" content="0">x', "x"),
        ('<form action="//e.example"><button formaction="/x">Go</button></form>', "<form><button>Go</button></form>"),
        ('<p style="color:red;background:url(//e.example);margin:0">a</p>', '<p style="color:red;margin:0">a</p>'),
        ('<p style="background:u\\72l(//e.example)">a</p>', "<p>a</p>"),
        ("<style>@import 'x.css';p{color:red;background:URL( x.png )}b{}</style>", "<style>p{color:red;}b{}</style>"),
        ("<style>p{background:url('data:image/png;base64,AA;=')}</style>", None),
        ('<style>a{content:";url(x)}";color:red}</style>', "<style>a{color:red}</style>"),
        ('<svg><use href="#a"></use><use href="x.svg#a"></use></svg>', '<svg><use href="#a"></use><use></use></svg>'),
        ('<svg><script>x()</script><rect fill="url(//e.example)"></rect></svg>', "<svg><rect></rect></svg>"),
        ("<svg><foreignObject><p>kept</p></foreignObject></svg>", "<svg></svg><p>kept</p>"),
        ("<noscript>hidden</noscript><template><p>hidden</p></template>seen", "seen"),
        ("<math><mi>x</mi></math>", "x"),
        ('<frameset><frame src="x"></frameset>', ""),
    ],
)
def test_nothing_runs_or_reaches_outside(hostile: str, expected: str | None) -> None:
    repaired = repair(hostile)
    assert repaired.html == (hostile if expected is None else expected)
    assert is_well_formed(repaired.html)
    assert bool(repaired.changes) == (repaired.html != hostile)


def test_changes_say_what_was_done() -> None:
    changes = " | ".join(repair('<p onclick="x">a<script>1</script><script>2</script><div class="fl').changes)
    assert "removed attribute onclick of <p>" in changes
    assert "removed <script> (2 times)" in changes
    assert "dropped an unfinished tag at the end" in changes


@pytest.mark.parametrize(
    "html",
    [
        *["<p>a", "<p>a</p></p>", "a < b", "<b><i>x</b></i>", "<p>a</p", "<div/>", "<p>&#1;</p>", "<li>a<li>b", "<p"],
        *["<p>a<p>b</p>", "<table>x</table>", "<html><body></body></html>", '<p class="a" class="b">x</p>'],
    ],
)
def test_is_well_formed_says_no(html: str) -> None:
    assert not is_well_formed(html)


TAGS = """
    <div> <div class='a'> </div> <p> </p> <table> <tr> <td> </table> <a href=x> </a> <b> </b> <select> <option>
    </select> <svg> <path/> </svg> <form> </form> <ul> <li> </ul> <pre> </pre> <textarea> </textarea> <style> </style>
    <script> </script> <title> <body> <html> <head> </body> <!doctype> <!-- --> <img/src=//x> <br> &amp; & &#1; < </
    <math> <mi> <iframe> <button> </button> <h1> <h2> <object> <plaintext> <frameset> <template> <ruby> <rt> <tbody>
    <col> <input>
"""
PIECES = st.one_of(
    st.sampled_from(TAGS.split()),
    st.text(max_size=8),
)
SOUP = st.lists(PIECES, max_size=20).map("".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(SOUP)
def test_any_text_becomes_well_formed_and_stays(soup: str) -> None:
    repaired = repair(soup)
    assert is_well_formed(repaired.html)
    assert repair(repaired.html) == RepairedHtml(html=repaired.html, changes=())
    assert bool(repaired.changes) == (repaired.html != soup)
    # What stands in a style sheet is its text, whatever it looks like.
    markup = re.sub(r"<style>.*?</style>", "", repaired.html, flags=re.DOTALL)
    assert not re.search(r"<(script|iframe|object|embed|link|base)\b", markup)


def visible_text(html: str) -> str:
    tokens = html5lib.getTreeWalker("etree")(html5lib.parse(html))
    words = [token["data"] for token in tokens if token["type"] in ("Characters", "SpaceCharacters")]
    return re.sub(r"\s+", "", "".join(words))


@settings(max_examples=60)
@given(st.integers(0, 50), st.floats(0, 1))
def test_a_page_cut_anywhere_keeps_its_text(index: int, share: float) -> None:
    whole = generate_page(5, index).html
    cut = whole[: round(share * len(whole))]
    repaired = repair(cut).html
    assert is_well_formed(repaired)
    text = visible_text(repaired)
    assert visible_text(whole).startswith(text.removesuffix("&").rsplit("&", 1)[0])
    ended = cut.rfind("<") < cut.rfind(">")  # else a tag is cut, and what came before it is all there
    assert not ended or text == visible_text(cut)


def test_deep_nesting_is_no_trouble() -> None:
    assert repair("<div>" * 2000 + "x").html == "<div>" * 2000 + "x" + "</div>" * 2000


SHARES = (0.6, 0.7, 0.85, 0.95)


def test_a_browser_shows_the_repaired_page_as_it_showed_the_broken_one() -> None:
    documents = [stand_alone(generate_page(7, index).html) for index in range(len(SHARES))]
    cuts = [document[: round(share * len(document))] for document, share in zip(documents, SHARES, strict=True)]
    cuts = [cut.rstrip("</") for cut in cuts]  # a browser shows a lone "<"; we take it for a tag that was cut off
    with Renderer(RenderConfig(viewport_width_px=384, viewport_height_px=64, timeout_s=120)) as renderer:
        for cut in cuts:
            repaired = repair(cut)
            assert repaired.changes
            before, after = renderer.render(cut), renderer.render(repaired.html)
            assert after.texts == before.texts
            assert after.png == before.png
