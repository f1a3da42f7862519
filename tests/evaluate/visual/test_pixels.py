"""Pixel similarity: its ends, its symmetry, and that it falls as a page drifts away."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from skimage.metrics import structural_similarity as reference_ssim

from lensmith.core.errors import ShapeError
from lensmith.evaluate.visual.baselines import blank_page
from lensmith.evaluate.visual.pixels import (
    background_colour,
    page_size_error,
    pixel_similarity,
    rgb_array,
    structural_similarity,
)


def drawn(shift_px: int = 0, bars: int = 8, ink: str = "navy", back: str = "white", height: int = 320) -> Image.Image:
    picture = Image.new("RGB", (160, height), back)
    draw = ImageDraw.Draw(picture)
    for bar in range(bars):
        top = 10 + 36 * bar + shift_px
        draw.text((10, top), f"line of text {bar}", fill=ink)
        draw.rectangle((10, top + 14, 20 + 14 * bar, top + 24), fill="orange")
    return picture


PICTURES = st.builds(
    drawn, st.integers(0, 30), st.integers(0, 8), st.sampled_from(["navy", "red"]), st.sampled_from(["white", "black"])
)


@settings(max_examples=40)
@given(PICTURES, PICTURES)
def test_symmetric_bounded_and_one_for_equals(first: Image.Image, second: Image.Image) -> None:
    likeness = pixel_similarity(first, second)
    assert 0 <= likeness <= 1
    assert likeness == pytest.approx(pixel_similarity(second, first), abs=1e-12)
    assert pixel_similarity(first, first) == 1
    assert (likeness == 1) == (first.tobytes() == second.tobytes())


def test_blank_against_full_is_nothing() -> None:
    blank = blank_page(160, 320)
    assert pixel_similarity(blank.png, drawn()) == 0
    assert pixel_similarity(blank.png, drawn(back="black")) < 0.15
    assert pixel_similarity(blank.png, blank.png) == 1


def test_falls_with_every_step_away() -> None:
    whole = drawn()
    by_missing = [pixel_similarity(whole, drawn(bars=bars)) for bars in (8, 7, 5, 2, 0)]
    assert by_missing == sorted(by_missing, reverse=True)
    by_shift = [pixel_similarity(whole, drawn(shift_px=shift)) for shift in (0, 1, 3, 8, 18)]
    assert by_shift == sorted(by_shift, reverse=True)
    assert by_shift[1] > 0.5  # a pixel's shift is forgiven by the coarser scales


def test_missing_height_counts_as_white() -> None:
    padded = Image.new("RGB", (160, 320), "white")
    padded.paste(drawn(height=200, bars=5), (0, 0))
    assert pixel_similarity(drawn(height=200, bars=5), padded) == 1
    assert pixel_similarity(drawn(height=200, bars=5), drawn(height=320, back="gray")) < 0.3


def test_pictures_come_in_many_forms() -> None:
    picture = drawn()
    encoded = io.BytesIO()
    picture.save(encoded, format="PNG")
    assert (rgb_array(encoded.getvalue()) == rgb_array(picture)).all()
    assert (rgb_array(np.asarray(picture.convert("L")))[..., 0] == np.asarray(picture.convert("L"))).all()
    transparent = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
    assert rgb_array(transparent).tolist() == np.full((3, 4, 3), 255).tolist()
    with pytest.raises(ShapeError, match="not a picture"):
        rgb_array(np.zeros((4, 4), dtype=np.float64))  # type: ignore[arg-type]


def test_background_is_the_commonest_colour() -> None:
    assert background_colour(rgb_array(drawn(back="black"))).tolist() == [0, 0, 0]


def test_page_size_error() -> None:
    assert page_size_error((100, 200), (100, 200)) == 0
    assert page_size_error((100, 200), (100, 400)) == page_size_error((100, 400), (100, 200)) == 0.5
    assert page_size_error((100, 200), (50, 400)) == 0.75


@pytest.mark.parametrize("height", [320, 1200])  # one strip of rows, and several
def test_ssim_is_the_reference_implementations(height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, 160, 3), dtype=np.uint8)
    pairs = [
        (drawn(height=height), drawn(shift_px=3, height=height)),
        (drawn(height=height), drawn(ink="red", height=height)),
        (drawn(height=height), Image.fromarray(noise)),
        (drawn(height=height), Image.new("RGB", (160, height), "white")),
    ]
    for first, second in pairs:
        expected = reference_ssim(
            np.asarray(first.convert("L")),
            np.asarray(second.convert("L")),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        assert structural_similarity(first, second) == pytest.approx(expected, abs=1e-9)


def test_ssim_is_one_for_equals_and_takes_pictures_of_any_size() -> None:
    assert structural_similarity(drawn(), drawn()) == 1
    small = Image.new("RGB", (3, 2), "black")
    assert structural_similarity(small, small) == 1
    assert structural_similarity(small, Image.new("RGB", (3, 2), "white")) < 0.9
    short, tall = drawn(height=320), drawn(height=640, bars=16)
    assert structural_similarity(short, tall) == pytest.approx(structural_similarity(tall, short), abs=1e-12)
    assert structural_similarity(short, tall) < 0.9
