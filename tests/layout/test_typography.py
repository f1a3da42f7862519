"""In which family lines are set, and with how much room between their letters: pages are rendered by the browser."""

import re

import pytest
from PIL import Image

from lensmith.layout.measure import Measured, measure, write
from lensmith.layout.tree import Nudges
from tests.support.screenshots import screenshot

PARAGRAPH = (
    "The harbour was quiet when the first boats came in, and the people went down to the water. Nobody had slept, and "
    "those who had stayed at home could see from their windows how the nets were drawn over the stones."
)
FAMILIES = ["Arial", "DejaVu Sans", "Times New Roman", "DejaVu Serif", "Courier New", "DejaVu Sans Mono"]


def measured(html: str, width_px: int = 720) -> Measured:
    rgb, _ = screenshot(f"<body style='margin:24px;background:#fff;color:#222'>{html}</body>", width_px=width_px)
    return measure(Image.fromarray(rgb))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spacing_px", [0, 1])
def test_the_family_of_a_page_is_found_with_and_without_room_between_letters(family, spacing_px):
    text = f"<p style='font:16px/1.6 \"{family}\";letter-spacing:{spacing_px}px'>{PARAGRAPH}</p>"
    lines = [line for block in measured(text).blocks for line in block.lines]

    assert {line.style.family.css.split(",")[0].strip('"') for line in lines} == {family}
    # Room between letters and their size make up a line's width together: each is known to a pixel or two.
    assert all(
        line.style.size_px == pytest.approx(16, abs=1.1 + spacing_px) for line in lines if len(line.line.text) > 5
    )
    if spacing_px and family == "Arial":
        assert all(line.style.spacing_px == pytest.approx(1, abs=0.5) for line in lines)


def test_code_between_paragraphs_keeps_its_own_family():
    text = f"<p style='font:16px/1.5 DejaVu Sans'>{PARAGRAPH}</p>"
    code = (
        "<pre style='font:14px/1.5 \"Courier New\"'>for name in sorted(boats):\n    print(name, boats[name].crew)</pre>"
    )
    blocks = measured(text + code + text).blocks

    families = {
        line.line.text: line.style.family.css.split(",")[0].strip('"') for block in blocks for line in block.lines
    }
    of_code = {text: family for text, family in families.items() if "(" in text or "[" in text}
    assert len(of_code) >= 2 and set(of_code.values()) == {"Courier New"}
    assert {family for text, family in families.items() if text not in of_code} == {"DejaVu Sans"}


def test_a_line_with_letters_of_two_sizes_is_of_the_page_s_family():
    lines = "".join(
        f"<p style='font:{size}px Arial'>Bootstrap <small style='color:#999'>heading</small></p>"
        for size in (39, 33, 24, 20)
    )
    blocks = measured(f"<p style='font:16px Arial'>{PARAGRAPH}</p>{lines}").blocks

    assert {block.style.family.css.split(",")[0] for block in blocks} == {"Arial"}


@pytest.mark.parametrize("ground", ["195deg,#ec407a,#d81b60", "to right,#49a3f1,#1a73e8", "to bottom,#42424a,#191919"])
def test_letters_on_a_gradient_are_told_from_it(ground):
    box = (
        f"<div style='background:linear-gradient({ground});padding:16px;color:#fff;border-radius:6px;font:14px Arial'>"
    )
    text = "A simple alert with <b>an example link</b>. Give it a click if you like."
    block = measured(f"{box}{text}</div>").blocks[0]

    assert block.style.family.css.startswith("Arial") and block.style.size_px == 14
    assert min(block.style.colour) >= 250 and not any(piece.style.is_underlined for piece in block.pieces)
    assert [piece.text.strip(" .") for piece in block.pieces if piece.style.is_bold] == ["an example link"]


@pytest.mark.parametrize("word", ["SUCCESS", "INFO", "WARNING", "Save"])
def test_bold_letters_that_fill_a_button_of_two_colours_are_told_from_it(word):
    looks = "border:0;border-radius:8px;padding:10px 24px;color:#fff;font:700 12px Arial"
    button = f"<button style='background:linear-gradient(195deg,#66bb6a,#43a047);{looks}'>{word}</button>"
    block = measured(f"{button}<p style='font:16px Arial'>{PARAGRAPH}</p>").blocks[0]

    assert (block.text, block.style.is_bold, block.style.is_underlined) == (word, True, False)
    assert min(block.style.colour) >= 245


def test_a_short_word_on_a_page_of_code_keeps_its_family():
    code = "<pre style='font:14px/1.5 \"Courier New\"'>" + "for name in sorted(boats): print(name)\n" * 6 + "</pre>"
    words = "".join(
        f"<p style='font:15px Arial;color:#495057'>{word}</p>" for word in ("Home", "Pages", "Cards", "Tags")
    )
    text = f"<p style='font:15px Arial'>{PARAGRAPH}</p>"
    families = {block.text: block.style.family.css.split(",")[0] for block in measured(code + words + text).blocks}

    assert {families[word] for word in ("Home", "Pages", "Cards", "Tags")} == {"Arial"}


def test_badges_in_a_table_are_boxes_in_its_cells_and_their_letters_keep_their_size():
    badge = "display:inline-block;font-size:12px;padding:3px 9px;border:1px solid #e6e7eb;border-radius:99px"
    badge += ";background:#f8f9fb"
    rows = "".join(
        f"<tr><td>{name}<td>{firm}<td><span style='{badge}'>{plan}</span>"
        for name, firm, plan in [
            ("John Doe", "Acme Corp", "Pro"),
            ("Anna Smith", "Globex Inc", "Business"),
            ("Mark Kim", "Soylent", "Starter"),
            ("Tom Hardy", "Wayne Tech", "Pro"),
        ]
    )
    css = "td{border-top:1px solid #ddd;padding:9px;width:200px}table{border-collapse:collapse;font:14px Arial}"
    seen = measured(f"<style>{css}</style><table>{rows}</table>")

    sizes = {block.text: block.style.size_px for block in seen.blocks}
    assert all(sizes[plan] == pytest.approx(12, abs=0.7) for plan in ("Pro", "Business", "Starter"))
    html = write(seen, Nudges()).html
    assert "<table" in html and "border-radius" in html and "<td class" in html
    assert not re.findall(r"<td[^>]*background", html)
