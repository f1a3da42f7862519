"""How alike two pages' markup is, and which pages a choice keeps."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.data.webpages.real.likeness import choose_different, likeness, shape_of

CHROME = "<nav>" + "<ul><li><a href='#'>x</a></li></ul>" * 20 + "</nav>"


def page(body):
    return f"<!doctype html><html><head><title>t</title><style>a{{}}</style></head><body>{body}</body></html>"


def shapes(names):
    """Shapes of which each letter is a shingle."""
    return [Counter((letter,) for letter in name) for name in names]


def test_shingles_are_tag_paths_in_document_order():
    assert shape_of(page("<div><br><p>a<b>c</b></p></div>")) == {
        ("html", "html/body", "html/body/div"): 1,
        ("html/body", "html/body/div", "html/body/div/br"): 1,
        ("html/body/div", "html/body/div/br", "html/body/div/p"): 1,
        ("html/body/div/br", "html/body/div/p", "html/body/div/p/b"): 1,
    }


def test_a_path_has_five_tags_at_most():
    assert ("c/d/e/f/g", "d/e/f/g/h", "e/f/g/h/i") in shape_of(
        "<a><b><c><d><e><f><g><h><i></i></h></g></f></e></d></c></b></a>"
    )


def test_text_classes_and_attributes_do_not_matter():
    assert shape_of(page("<p class='a' id='b'>one</p>")) == shape_of(page("<p>other</p>"))


def test_a_likeness_is_what_is_shared_of_all():
    one, other = shapes(["aab", "abbc"])
    assert likeness(one, other) == 2 / 5
    assert likeness(one, one) == 1
    assert likeness(*shapes(["a", "b"])) == 0
    assert likeness(Counter(), Counter()) == 1


def test_shared_chrome_alone_makes_no_two_pages_one():
    table = page(CHROME + "<table>" + "<tr><td>x</td><td>y</td></tr>" * 20 + "</table>")
    cards = page(CHROME + "<main>" + "<div><h3>x</h3><p>y</p></div>" * 20 + "</main>")
    more = page(CHROME + "<table>" + "<tr><td>x</td><td>y</td></tr>" * 22 + "</table>")
    assert likeness(shape_of(table), shape_of(cards)) < 0.6
    assert likeness(shape_of(table), shape_of(more)) > 0.9


@pytest.mark.parametrize(
    ("names", "most", "known", "expected"),
    [
        (["abcd", "abcd", "wxyz"], 9, [], ([0, 2], [1])),
        (["abcd", "abce", "wxyz"], 2, [], ([0, 2], [])),
        (["abcd", "wxyz"], 9, ["wxyz"], ([0], [1])),
        (["abcd", "wxyz"], 0, [], ([], [])),
        ([], 9, [], ([], [])),
    ],
)
def test_the_choice_keeps_what_differs(names, most, known, expected):
    assert choose_different(shapes(names), most=most, near=0.7, known=shapes(known)) == expected


@given(st.lists(st.text("abcd", min_size=1, max_size=6), max_size=8), st.integers(0, 5))
def test_no_two_that_are_chosen_are_near(names, most):
    found = shapes(names)
    chosen, near = choose_different(found, most=most, near=0.5)
    assert len(chosen) <= most
    assert not set(chosen) & set(near)
    pairs = [(one, other) for one in chosen for other in chosen if one < other]
    assert all(likeness(found[one], found[other]) <= 0.5 for one, other in pairs)
    assert all(any(likeness(found[index], found[other]) > 0.5 for other in chosen) for index in near)
