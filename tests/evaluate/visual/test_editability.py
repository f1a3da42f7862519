"""What a page's code is like: literal small cases of sizes, structure and TreeBLEU."""

import pytest

from lensmith.core.errors import InputError
from lensmith.evaluate.visual.editability import (
    CodeSize,
    Editability,
    code_size,
    editability,
    subtrees,
    summarise_editability,
    tree_bleu,
)
from lensmith.evaluate.visual.reflow import Reflow
from lensmith.render import Capture
from tests.support.screenshots import renderer_of


def terms(html: str, target: str = "<p>x</p>") -> Editability:
    passed = tuple(Reflow(width_px=width, passed=True, overlaps=0, sticks_out_px=0) for width in (1024, 768, 390))
    return editability(target, html, renderer_of(400).render(html, Capture.STYLES), passed)


@pytest.mark.parametrize(
    ("html", "markup", "style"),
    [
        ("<p>abc</p>", 10, 0),
        ("<p>\n\n   abc</p>\n", 11, 0),
        ("<!doctype html><p>abc</p>", 25, 0),
        ("<p><!-- a comment -->abc</p>", 10, 0),
        ("<p>abc</p><script>alert('</p>')</script>", 10, 0),
        ("<style>p{color:red}</style><p>abc</p>", 25, 12),
        ("<style>p{ /* why */color:red}</style><p>abc</p>", 25, 13),
        ("<style>a{background:url(data:image/png;base64,AAAA)}</style>", 15, 19),
        ("<style>a{background:url(\"data:image/svg+xml,<svg a='b'>(x)</svg>\")}</style>", 15, 19),
        ("<img src='data:image/png;base64,AAAA'>", 10, 0),
        ('<img src="data:image/png;base64,AAAA" alt="b">', 18, 0),
        ("<img src=data:image/png;base64,AAAA>", 10, 0),
        ('<p style="background:url(&quot;data:image/png;base64,AAAA&quot;)">', 28, 0),
        ('<p>the "data: of it"</p>', 24, 0),
        ("<p>é&amp;&#38;</p>", 19, 0),
        ("", 0, 0),
    ],
)
def test_bytes_are_counted_as_defined(html, markup, style):
    assert code_size(html) == CodeSize(markup_bytes=markup, style_bytes=style)


def test_a_size_is_told_beside_the_targets():
    found = terms("<style>p{color:red}</style><p>abc</p>", target="<style>p{}</style><p>abcdefg</p>")
    assert found.markup_ratio == pytest.approx(25 / 29)
    assert found.code_ratio == pytest.approx(37 / 32)


def test_structure_is_that_of_what_is_laid_out():
    found = terms(
        "<style>.a{position:absolute}</style><main><div class=a><p>x</p></div><div style='display:none'><b>y</b></div>"
        "<span style='position:fixed'>z</span></main>"
    )
    assert found.elements == 4  # main, div, p, span
    assert found.absolute_share == 0.5
    assert found.semantic_elements == 2
    assert found.semantic_share == 0.5
    assert found.depth == 3


def test_subtrees_are_an_element_with_its_children_in_order():
    html = "<ul><li><a>x</a></li><li><a>y</a></li><li>z</li></ul><p>text only</p><script>1</script>"
    assert subtrees(html) == {("body", ("ul", "p")), ("ul", ("li", "li", "li")), ("li", ("a",))}


@pytest.mark.parametrize(
    ("target", "prediction", "expected"),
    [
        ("<div><p>a</p><p>b</p></div>", "<div><p>c</p><p>d</p></div>", 1.0),
        ("<div><p>a</p></div>", "<div><p>a</p><p>b</p></div>", 1 / 2),  # body > div, but div > p, p is another
        ("<div><p>a</p><b>b</b></div>", "<div><b>b</b><p>a</p></div>", 1 / 2),  # the order counts
        ("<ul><li><a>x</a></li><li><a>y</a></li></ul>", "<ol><li><a>z</a></li></ol>", 1 / 3),
        ("<div><p>a</p></div>", "", 0.0),
        ("just text", "<p>a</p>", 1.0),
        ("<div><p>a<div>b</div></div>", "<div><p>a</p><div>b</div></div>", 1.0),  # as browsers read it
        ("<div><svg><g><path/></g></svg></div>", "<div><svg><g><path></path></g></svg></div>", 1.0),
    ],
)
def test_tree_bleu(target, prediction, expected):
    assert tree_bleu(target, prediction) == pytest.approx(expected)


def test_a_failed_page_passes_nothing_and_is_in_no_median():
    summary = summarise_editability([terms("<p>abc</p>"), Editability.of_failure()])
    assert (summary.shares["no_absolute"].hits, summary.shares["reflow_390"].hits, summary.n) == (1, 1, 2)
    assert summary.medians["markup_bytes"].n == 1
    assert summary.means["tree_bleu"].mean == pytest.approx(0.5)
    with pytest.raises(InputError):
        summarise_editability([])
