"""The scale of a screenshot is found, not asked; what is no page is answered too."""

import numpy as np
import pytest
from PIL import Image

from lensmith.layout.measure import measure
from tests.support.screenshots import screenshot

PAGE = """<body style="margin:0;font:16px/1.5 Arial;background:#fff;color:#17202b">
<div style="background:#123456;color:#fff;padding:16px 24px"><b>Harbour</b></div>
<div style="padding:24px"><h1 style="margin:0;font-size:28px">Boats for a week</h1>
<p>The harbour was quiet when the first boats came in, and the people went down to the water.</p>
<small>Prices from 2024, without fuel</small></div></body>"""


@pytest.mark.parametrize(("scale", "width_px"), [(1, 390), (2, 390), (3, 390), (1, 1280), (2, 1470), (1, 3840)])
def test_the_scale_is_found(scale, width_px):
    rgb, _ = screenshot(PAGE, width_px=width_px)
    height, width = rgb.shape[:2]
    taken = Image.fromarray(rgb).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    measured = measure(taken)
    assert measured.scale == scale
    assert (measured.width, measured.height) == (width, height)
    sizes = [block.style.size_px for block in measured.blocks]
    assert sizes == pytest.approx([16, 28, 16, 13], rel=0.13)  # enlarged letters are blurred, and bold ones thinner


def test_large_text_is_no_other_scale():
    rgb, _ = screenshot("<body style='font:48px Arial'>Large letters<p>and large ones again</body>", width_px=1280)
    assert measure(Image.fromarray(rgb)).scale == 1


def test_words_keep_their_order_and_paragraphs_are_one():
    rgb, _ = screenshot(PAGE, width_px=390)
    texts = [block.text for block in measure(Image.fromarray(rgb)).blocks]
    assert texts == [
        "Harbour",
        "Boats for a week",
        "The harbour was quiet when the first boats came in, and the people went down to the water.",
        "Prices from 2024, without fuel",
    ]


def test_a_photograph_has_no_text_and_is_one_picture():
    ramp = np.linspace(0, 255, 300)
    noise = np.random.default_rng(0).normal(0, 25, (200, 300))
    photograph = np.clip(np.stack([ramp + noise, 200 - ramp / 2 + noise, noise + 90], axis=2), 0, 255).astype(np.uint8)
    measured = measure(Image.fromarray(photograph))
    assert measured.blocks == ()
    assert sum(cutout.rect.area for cutout in measured.pictures) > 0.8 * 200 * 300
