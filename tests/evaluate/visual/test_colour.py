"""CIEDE2000 against the published pairs and scikit-image, and the laws of a distance."""

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from skimage import color

from lensmith.evaluate.visual.colour import ciede2000, colour_similarity, lab_from_rgb

GOLDEN = Path(__file__).parents[2] / "golden" / "ciede2000_sharma.json"
RGB = st.tuples(*[st.integers(0, 255)] * 3)


def test_the_published_pairs() -> None:
    pairs = np.array(json.loads(GOLDEN.read_text())["pairs"])
    assert pairs.shape == (34, 7)
    assert np.abs(ciede2000(pairs[:, :3], pairs[:, 3:6]) - pairs[:, 6]).max() < 1e-4  # the table has four decimals
    assert np.abs(ciede2000(pairs[:, 3:6], pairs[:, :3]) - pairs[:, 6]).max() < 1e-4


def test_equals_scikit_image() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(0, 256, (2, 5000, 3))
    lab_first, lab_second = lab_from_rgb(first), lab_from_rgb(second)
    assert np.abs(ciede2000(lab_first, lab_second) - color.deltaE_ciede2000(lab_first, lab_second)).max() < 1e-9
    # scikit-image rounds the two constants of Lab's linear part, which shows in near-black colours only.
    theirs = color.deltaE_ciede2000(color.rgb2lab(first / 255), color.rgb2lab(second / 255))
    assert np.abs(ciede2000(lab_first, lab_second) - theirs).max() < 5e-4
    bright = (first.min(axis=1) > 20) & (second.min(axis=1) > 20)
    assert np.abs(ciede2000(lab_first, lab_second) - theirs)[bright].max() < 1e-4


def test_ends_of_the_scale() -> None:
    assert np.allclose(lab_from_rgb([255, 255, 255]), [100, 0, 0], atol=0.01)
    assert np.allclose(lab_from_rgb([0, 0, 0]), [0, 0, 0], atol=1e-9)
    assert colour_similarity([0, 0, 0], [255, 255, 255]) < 1e-4
    assert colour_similarity([[255, 0, 0], [9, 9, 9]], [255, 0, 0]).tolist()[0] == 1


@given(RGB, RGB)
def test_similarity_is_symmetric_and_bounded(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    likeness = float(colour_similarity(first, second))
    assert 0 <= likeness <= 1
    assert abs(likeness - float(colour_similarity(second, first))) < 1e-9
    assert (likeness == 1) == (first == second)
