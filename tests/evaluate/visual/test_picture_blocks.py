"""Blocks found from pixels: where text and areas are drawn, there they are found."""

import io

import numpy as np
from PIL import Image, ImageDraw

from lensmith.evaluate.visual.picture_blocks import find_blocks
from lensmith.evaluate.visual.pixels import rgb_array


def drawn() -> Image.Image:
    picture = Image.new("RGB", (300, 400), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 299, 49), fill="#1d4ed8")
    draw.text((10, 15), "A heading here", fill="white", font_size=20)
    draw.text((10, 80), "some words of text", fill="black", font_size=14)
    draw.text((200, 80), "aside", fill="red", font_size=14)
    draw.rectangle((20, 120, 280, 200), outline="#9ca3af")
    draw.text((40, 150), "in a frame", fill="green", font_size=14)
    draw.line((10, 230, 290, 230), fill="#d1d5db")
    draw.rectangle((40, 260, 139, 319), fill="#f8f9fa")
    return picture


def test_texts_are_found_with_their_colours() -> None:
    texts = sorted(find_blocks(rgb_array(drawn())).texts, key=lambda block: (block.top // 30, block.left))
    assert len(texts) == 4  # neither the frame nor the rule
    heading, words, aside, framed = texts
    assert (heading.left, heading.top) >= (9, 15)
    assert heading.bottom <= 40
    assert np.abs(np.array(heading.colour) - 255).max() < 30
    assert np.abs(np.array(heading.behind) - (0x1D, 0x4E, 0xD8)).max() < 5
    assert words.right < aside.left
    assert aside.colour[0] > 200
    assert aside.colour[2] < 100
    assert 150 <= framed.top < framed.bottom <= 170


def test_areas_are_found_and_the_background_is_none() -> None:
    areas = find_blocks(rgb_array(drawn())).areas
    boxes = [(area.left, area.top, area.right, area.bottom) for area in areas]
    expected = [(0, 0, 300, 50), (21, 121, 280, 200), (40, 260, 140, 320)]
    assert len(boxes) == len(expected)
    assert np.abs(np.subtract(sorted(boxes, key=lambda box: box[1]), expected)).max() <= 1


def test_a_jpeg_shows_the_same_blocks() -> None:
    encoded = io.BytesIO()
    drawn().save(encoded, format="JPEG", quality=75)
    plain, noisy = find_blocks(rgb_array(drawn())), find_blocks(rgb_array(encoded.getvalue()))
    for text in plain.texts:
        nearest = min(np.abs(np.subtract(text[:4], other[:4])).max() for other in noisy.texts)
        assert nearest <= 8  # a JPEG rings within its cells of 8 x 8
    assert len(noisy.texts) <= len(plain.texts) + 1


def test_a_blank_picture_has_no_blocks() -> None:
    for colour in ("white", "black", "#123456"):
        blocks = find_blocks(np.asarray(Image.new("RGB", (40, 30), colour)))
        assert blocks.texts == blocks.areas == ()


def test_noise_gives_no_more_blocks_than_can_be_matched() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (120, 160, 1), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    blocks = find_blocks((255 * noise).repeat(3, 2))
    assert len(blocks.texts) <= 600
    assert len(blocks.areas) <= 600
