"""Texts in shadow trees and in frames are measured where they are painted."""

import numpy as np
import pytest

from lensmith.core.types import MissingGlyphs, ScrolledAway
from lensmith.render import Capture, RenderConfig, Renderer, Scripts

RED = "margin:0;font:bold 40px Arial;color:#f00"
SHADOW = "<div><template shadowrootmode={mode}><p style='{style}'>Shadow</p></template></div>"
PAGES = {
    "open": SHADOW.format(mode="open", style=RED),
    "closed": SHADOW.format(mode="closed", style=RED),
    "closed in open": f"<div><template shadowrootmode=open>{SHADOW.format(mode='closed', style=RED)}</template></div>",
    "slotted": f"<div><template shadowrootmode=closed>x<slot></slot></template><p style='{RED}'>Shadow</p></div>",
    "frame": f"""<iframe style='border:9px solid;padding:5px;margin:20px' srcdoc="<p style='{RED}'>Shadow">
        </iframe>""",
    "frame in frame": f"""<iframe style='margin:11px'
        srcdoc="<iframe srcdoc='<body style=&amp;quot;{RED}&amp;quot;>Shadow'>"></iframe>""",
    "shadow in frame": f"""<iframe srcdoc="{SHADOW.format(mode="closed", style=RED)}"></iframe>""",
    "frame in shadow": f"""<div><template shadowrootmode=closed><iframe srcdoc="<p style='{RED}'>Shadow"></iframe>
        </template></div>""",
    "scaled frame": f"""<iframe style='transform:scale(.5);transform-origin:0 0' srcdoc="<p style='{RED}'>Shadow">
        </iframe>""",
}


@pytest.mark.parametrize("name", PAGES)
def test_the_box_is_around_the_red_pixels(name, renderer, pixels_of):
    page = renderer.render(f"<!doctype html><body style='margin:30px'>{PAGES[name]}")
    (text,) = (block for block in page.texts if block.text == "Shadow")
    assert text.colour == (255, 0, 0)
    image = pixels_of(page).astype(int)
    rows, columns = np.nonzero((image[..., 0] - image[..., 1] > 100) & (image[..., 1] < 150))
    assert len(rows) > 100
    box = text.box
    assert box.left_px - 1 <= columns.min() <= box.left_px + 6
    assert box.right_px - 6 <= columns.max() <= box.right_px + 1
    assert box.top_px - 1 <= rows.min()
    assert rows.max() <= box.bottom_px + 1


def test_texts_stand_in_the_order_in_which_they_are_laid_out(renderer):
    page = renderer.render(
        "<p>one</p><div>slotted<template shadowrootmode=closed><p>two</p><slot></slot><p>four</p></template></div>"
        "<iframe srcdoc='<p>five'></iframe><p>six</p>"
    )
    assert [block.text for block in page.texts] == ["one", "two", "slotted", "four", "five", "six"]


@pytest.mark.parametrize(
    "hidden",
    [
        "<div style='display:none'><template shadowrootmode=closed>x</template></div>",
        "<div><template shadowrootmode=closed><p style='visibility:hidden'>x</p></template></div>",
        "<div>not slotted<template shadowrootmode=closed></template></div>",
        "<div style='opacity:0'><template shadowrootmode=open>x</template></div>",
        "<div style='overflow:hidden;height:0'><template shadowrootmode=closed><p>x</p></template></div>",
        "<iframe style='display:none' srcdoc='<p>x'></iframe>",
        "<iframe style='visibility:hidden' srcdoc='<p>x'></iframe>",
        "<iframe style='height:30px' srcdoc='<p style=\"margin-top:200px\">x'></iframe>",
        "<template>x</template>",
    ],
)
def test_what_does_not_show_is_not_told(renderer, hidden):
    assert renderer.render(hidden).texts == ()


def test_what_a_frame_stands_on_decides_its_colours(renderer):
    frame = "<iframe srcdoc=\"<p style='color:rgba(0,0,0,.5)'>x\"></iframe>"
    (text,) = renderer.render(f"<div style='background:#0f0'>{frame}</div>").texts
    assert text.colour == pytest.approx((0, 128, 0), abs=1)
    (faint,) = renderer.render(f"<div style='opacity:.5'>{frame}</div>").texts
    assert faint.colour == pytest.approx((191, 191, 191), abs=1)


def test_what_is_hidden_in_a_frame_is_noted(renderer):
    page = renderer.render(
        "<iframe style='border:0;width:200px;height:100px' srcdoc=\"<body style='margin:0;height:900px'>漢</body>\">",
        Capture.PICTURE,
    )
    (away, missing) = page.notes
    assert isinstance(away, ScrolledAway)
    assert (away.tag, away.hidden_height_px, away.hidden_width_px) == ("iframe", 800, 0)
    assert (away.box.width_px, away.box.height_px) == (200, 100)
    assert missing == MissingGlyphs(count=1, characters="漢")
    assert page.texts == ()


def test_scripts_may_make_closed_trees():
    html = """<div id=d></div><script>
        const word = ["attach", "Sha", "dow"].join("");
        d[word]({mode: "closed"}).innerHTML = "<p>made by a script</p>";
    </script>"""
    with Renderer(RenderConfig(scripts=Scripts.ON)) as renderer:
        assert [block.text for block in renderer.render(html).texts] == ["made by a script"]
    with Renderer(RenderConfig()) as renderer:
        assert renderer.render(html).texts == ()


def test_elements_and_characters_stay_those_of_the_document(renderer):
    inside = "<div><template shadowrootmode=open><p>x</p></template>y</div><iframe srcdoc='<p>z'></iframe>"
    page = renderer.render(inside, Capture.ELEMENTS | Capture.CHARS)
    assert [element.tag for element in page.elements] == ["div", "iframe"]
    assert [char.char for char in page.chars] == ["y"]


def test_nodes_in_shadow_trees_and_frames_count(renderer):
    many = "<b>x</b>" * 900
    for html in (
        f"<div><template shadowrootmode=open>{many}</template></div>",
        f"<div><template shadowrootmode=closed>{many}</template></div>",
        f"<iframe srcdoc='{many}'></iframe>",
    ):
        with Renderer(RenderConfig(max_nodes=1000)) as small, pytest.raises(Exception, match="too many nodes"):
            small.render(html)
        assert renderer.render(html, Capture.PICTURE).png
