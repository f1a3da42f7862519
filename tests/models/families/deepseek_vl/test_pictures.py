import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.core.errors import ConfigError, ImageError
from lensmith.core.images import ImageLimits, open_picture
from lensmith.models.families.deepseek_vl import pictures
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.pictures import (
    Decoding,
    DeepseekPictureConfig,
    open_as,
    prepare_squares,
    scaled_size,
)

SMALL = DeepseekPictureConfig(image_px=32)
HYBRID = DeepseekPictureConfig.hybrid(image_px=32, low_px=16)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def to_bytes(pixels, mean=0.5, std=0.5):
    return np.rint((pixels * std + mean) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "expected", "theirs"),
    [
        ((640, 426), (384, 255), (384, 256)),
        ((500, 333), (384, 255), (384, 256)),
        ((384, 384), (384, 384), (384, 384)),
        ((1, 1), (384, 384), (384, 384)),
        ((5000, 1), (384, 14), (384, 14)),
        ((1, 40), (14, 384), (14, 384)),
    ],
)
def test_the_longer_side_fits_and_the_shorter_is_cut_down_or_rounded(size, expected, theirs):
    assert scaled_size(*size, DeepseekPictureConfig()) == expected
    assert scaled_size(*size, DeepseekPictureConfig(exact=Exactness.TRANSFORMERS)) == theirs


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(Exactness))
def test_every_size_fits_its_square(width_px, height_px, exact):
    scaled = scaled_size(width_px, height_px, DeepseekPictureConfig(exact=exact))
    assert max(scaled) == 384
    assert min(scaled) >= 14


def test_the_square_is_padded_in_the_middle_with_the_plain_colour():
    red = Image.new("RGB", (64, 31), (255, 0, 0))
    [pixels] = prepare_squares([red], SMALL).pixels_N3HW
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.float32
    values = to_bytes(pixels)
    assert (values[:, :8] == 127).all()
    assert (values[:, 8:23].transpose(1, 2, 0) == (255, 0, 0)).all()  # 15 rows: 31 / 64 * 32, cut down
    assert (values[:, 23:] == 127).all()


def test_a_hybrid_towers_pictures_are_not_normalised_unless_transformers_does_so():
    tall = Image.new("RGB", (8, 32), (255, 255, 255))
    [pixels], low = prepare_squares([tall], HYBRID)
    assert low is None
    assert (np.rint(pixels[:, 0, 0] * 255) == (122, 116, 104)).all()
    assert pixels.max() == 1
    theirs = DeepseekPictureConfig.hybrid(image_px=32, low_px=16, exact=Exactness.TRANSFORMERS)
    high, low = prepare_squares([tall, tall], theirs)
    assert high.shape == (2, 3, 32, 32)
    assert low.shape == (2, 3, 16, 16)
    assert high.max() > 1.7
    assert low.max() == 1
    assert low.min() == pytest.approx(104 / 127.5 - 1)


def test_the_same_picture_however_it_comes(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    file = tmp_path / "a.png"
    picture.save(file)
    for source in (np.asarray(picture), encoded(picture), file, str(file)):
        np.testing.assert_array_equal(
            prepare_squares([source], SMALL).pixels_N3HW, prepare_squares([picture], SMALL).pixels_N3HW
        )


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_are_what_pillow_makes_of_them(mode):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).convert(mode)
    np.testing.assert_array_equal(
        prepare_squares([picture], SMALL).pixels_N3HW, prepare_squares([picture.convert("RGB")], SMALL).pixels_N3HW
    )


def test_transparency_is_dropped_as_both_do_or_shown_on_white():
    hidden = encoded(Image.new("RGBA", (16, 16), (10, 20, 30, 0)))
    for decoding, colour in [
        (Decoding.STORED, (10, 20, 30)),
        (Decoding.UPRIGHT, (10, 20, 30)),
        (Decoding.AS_SEEN, (255, 255, 255)),
    ]:
        assert open_as(hidden, decoding).getpixel((0, 0)) == colour
        config = DeepseekPictureConfig(image_px=32, decoding=decoding)
        for source in (hidden, Image.open(io.BytesIO(hidden))):
            assert tuple(to_bytes(prepare_squares([source], config).pixels_N3HW[0, :, 0, 0])) == colour


def test_exif_rotation_is_ignored_by_the_original_and_applied_by_transformers():
    wide = Image.new("RGB", (40, 20), (200, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    data = encoded(wide, "JPEG", exif=exif)
    sizes = {decoding: open_as(data, decoding).size for decoding in Decoding}
    assert sizes == {Decoding.STORED: (40, 20), Decoding.UPRIGHT: (20, 40), Decoding.AS_SEEN: (20, 40)}
    assert DeepseekPictureConfig().reads is Decoding.STORED
    assert DeepseekPictureConfig(exact=Exactness.TRANSFORMERS).reads is Decoding.UPRIGHT
    opened = Image.open(io.BytesIO(data))
    stored, upright = (
        prepare_squares([opened], DeepseekPictureConfig(image_px=32, exact=exact)).pixels_N3HW for exact in Exactness
    )
    assert to_bytes(stored)[0, 0, 0, 16] == 127  # above the picture
    assert to_bytes(upright)[0, 0, 0, 16] != 127


TURNED = "its EXIF tag says to turn"
SEEN_THROUGH = "without its transparency"


@pytest.fixture
def said(caplog):
    """What a process says that has said nothing yet."""
    pictures.say_once.cache_clear()
    yield caplog
    pictures.say_once.cache_clear()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (40, 20), (200, 0, 0)), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("source", "warned"),
    [
        (turned(), {Decoding.STORED: TURNED}),
        (
            encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 9))),
            dict.fromkeys([Decoding.STORED, Decoding.UPRIGHT], SEEN_THROUGH),
        ),
        (encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 255))), {}),
        (encoded(Image.new("RGB", (8, 8))), {}),
    ],
    ids=["turned", "seen through", "opaque", "plain"],
)
@pytest.mark.parametrize("decoding", Decoding)
def test_what_a_person_would_see_otherwise_is_said_once(source, warned, decoding, said):
    for _ in range(3):
        open_as(source, decoding)
        prepare_squares([Image.open(io.BytesIO(source))], DeepseekPictureConfig(image_px=32, decoding=decoding))
    lines = [record.getMessage() for record in said.records]
    assert len(lines) == (decoding in warned)
    for line in lines:
        assert warned[decoding] in line
        assert Decoding.AS_SEEN.value in line


@pytest.mark.parametrize("decoding", Decoding)
def test_hostile_pictures_are_refused(decoding, tmp_path):
    big = encoded(Image.new("RGB", (600, 600)))
    with pytest.raises(ImageError, match="too large"):
        open_as(big, decoding, ImageLimits(max_pixels=1000))
    with pytest.raises(ImageError, match="damaged"):
        open_as(big[: len(big) // 2], decoding)
    with pytest.raises(ImageError, match="not a picture"):
        open_as(b"text", decoding)
    with pytest.raises(ImageError, match="cannot read"):
        open_as(tmp_path / "missing.png", decoding)


def test_as_seen_is_what_the_rest_of_lensmith_sees():
    data = encoded(Image.new("LA", (5, 5), (7, 100)))
    assert open_as(data, Decoding.AS_SEEN).tobytes() == open_picture(data).tobytes()


def test_what_is_no_picture_is_named():
    with pytest.raises(ImageError, match="no pictures"):
        prepare_squares([], SMALL)
    with pytest.raises(ImageError, match="an array is not a picture"):
        prepare_squares([np.zeros((4, 4), dtype=np.uint8)], SMALL)


@pytest.mark.parametrize("values", [{"image_px": 13}, {"min_px": 0}, {"std": (0.5, 0, 0.5)}, {"low_px": 0}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        DeepseekPictureConfig(**values)
