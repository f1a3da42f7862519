"""How looks become classes, and what stands in an element's own style."""

import re

from lensmith.layout.css import Css, Sheet

BODY: Css = {"background": "#ffffff", "color": "#222222"}


def written(*elements: tuple[str, Css]) -> tuple[str, list[str]]:
    sheet = Sheet()
    markup = "\n".join(f"<p{sheet.named(role, css)}>" for role, css in elements)
    css, html = sheet.finished(BODY, 1280, markup)
    return css, html.splitlines()


def test_what_looks_alike_shares_a_class() -> None:
    css, elements = written(*[("label", {"color": "#aa0000", "margin-top": f"{n}px"}) for n in (3, 4)])

    assert elements == [f'<p class="label" style="margin-top:{n}px">' for n in (3, 4)]
    assert ".label{color:#aa0000}" in css


def test_boxes_that_differ_in_their_colour_share_how_their_letters_look() -> None:
    colours = ["#c91f37", "#dc3023", "#9d2933"]
    css, elements = written(*[("cell", {"background": colour, "text-align": "center"}) for colour in colours])

    assert elements == [f'<p class="cell" style="background:{colour}">' for colour in colours]
    assert re.findall(r"^\.cell.*$", css, re.MULTILINE) == [".cell{text-align:center}"]


def test_a_look_of_one_element_is_a_class_only_where_its_role_has_no_other() -> None:
    css, elements = written(
        ("title", {"font-size": "40px"}),
        ("label", {"font-size": "13px"}),
        ("label", {"font-size": "13px"}),
        ("label", {"font-size": "11px"}),
    )

    assert elements == ['<p class="title">', '<p class="label">', '<p class="label">', '<p style="font-size:11px">']
    assert "11px" not in css


def test_the_commonest_look_of_a_role_has_its_name_without_a_number() -> None:
    small, large = {"font-size": "12px"}, {"font-size": "16px"}
    css, _ = written(*[("label", look) for look in (small, small, large, large, large)])

    assert ".label{font-size:16px}\n.label-2{font-size:12px}" in css


def test_colours_that_come_again_are_variables_in_styles_too() -> None:
    css, elements = written(
        ("card", {"background": "#0b859c", "border-radius": "4px"}),
        ("card", {"background": "#123456"}),
        ("label", {"color": "#0b859c"}),
        ("rule", {"margin-top": "2px"}),
    )

    assert ":root{--colour-1:#0b859c}" in css
    assert elements[2] == '<p class="label">' and ".label{color:var(--colour-1)}" in css
    assert elements[1] == '<p style="background:#123456">'
    assert elements[3] == '<p style="margin-top:2px">'


def test_families_in_styles_are_escaped() -> None:
    _, elements = written(("label", {"font-size": "9px"}), ("label", {"font-family": '"Courier New", monospace'}))

    assert elements[1] == '<p style="font-family:&quot;Courier New&quot;, monospace">'
