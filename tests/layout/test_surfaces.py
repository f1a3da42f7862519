"""Surfaces as a browser painted them: boxes, colours, borders, corners, gradients; and what is none."""

import pytest

from lensmith.layout.surfaces import Rect, Surface, find_ground
from tests.support.screenshots import screenshot


def surfaces_of(body: str, *, width_px: int = 600) -> list[Surface]:
    rgb, page = screenshot(f"<body style='margin:0;background:#fff;font:16px Arial'>{body}</body>", width_px=width_px)
    texts = [
        Rect(int(b.box.left_px), int(b.box.top_px), int(b.box.right_px) + 1, int(b.box.bottom_px) + 1)
        for b in page.texts
    ]
    return list(find_ground(rgb, texts).surfaces)


def test_a_band_and_a_card_on_it():
    band = "<div style='background:#eef2f6;padding:40px'><div style='background:#fff;height:100px'></div></div>"
    outer, card = surfaces_of(f"{band}<p style='height:600px'>Text</p>")
    assert (outer.rect, outer.colour) == (Rect(0, 0, 600, 180), (0xEE, 0xF2, 0xF6))
    assert (card.rect, card.colour) == (Rect(40, 40, 560, 140), (255, 255, 255))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_border_of_one_colour_all_around(width):
    style = f"margin:30px;height:80px;border:{width}px solid #c0c8d0"
    (card,) = surfaces_of(f"<div style='{style}'></div>")
    assert card.rect == Rect(30, 30, 570, 110 + 2 * width)
    assert card.border is not None
    assert card.border.widths == (width,) * 4
    assert card.border.colours == ((0xC0, 0xC8, 0xD0),) * 4


def test_an_accent_at_one_side():
    (card,) = surfaces_of(
        "<div style='margin:30px;height:80px;background:#f4f6f8;border-left:4px solid #2456c8'></div>"
    )
    assert card.border is not None
    assert card.border.widths == (0, 0, 0, 4)
    assert card.rect == Rect(30, 30, 570, 110)


@pytest.mark.parametrize("radius", [4, 8, 16])
def test_round_corners(radius):
    (card,) = surfaces_of(f"<div style='margin:30px;height:80px;background:#2456c8;border-radius:{radius}px'></div>")
    assert card.rect == Rect(30, 30, 570, 110)
    assert abs(card.radius_px - radius) <= max(2, 0.3 * radius)


def test_a_gradient_has_its_ends():
    (card,) = surfaces_of(
        "<div style='height:200px;background:linear-gradient(to bottom,#2456c8,#88aaff)'></div>"
        "<p style='height:600px'>x</p>"
    )
    assert card.towards == "bottom"
    assert card.until is not None
    assert max(abs(a - b) for a, b in zip(card.colour, (0x24, 0x56, 0xC8), strict=True)) <= 4
    assert max(abs(a - b) for a, b in zip(card.until, (0x88, 0xAA, 0xFF), strict=True)) <= 4


def test_a_rule_is_a_rule_and_letters_hold_no_surfaces():
    body = "<p style='font-size:48px'>O O D B 8</p><hr style='border:0;height:2px;background:#d0d0d0'><p>Text below</p>"
    rgb, page = screenshot(f"<body style='margin:0;background:#fff'>{body}</body>", width_px=600)
    texts = [
        Rect(int(b.box.left_px), int(b.box.top_px), int(b.box.right_px) + 1, int(b.box.bottom_px) + 1)
        for b in page.texts
    ]
    ground = find_ground(rgb, texts)
    assert ground.surfaces == ()
    (rule,) = ground.rules
    assert (rule.rect.left, rule.rect.right, rule.rect.height, rule.colour) == (0, 600, 2, (0xD0, 0xD0, 0xD0))
