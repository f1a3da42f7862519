"""Frameworks' words, pictures and arguments as requests."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from lensmith.adapters.common import as_picture, chat_request, load_model, writing_settings
from lensmith.core.errors import InputError
from lensmith.core.images import open_picture
from lensmith.core.types import Picture


def noise(mode="RGB"):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "LA"])
def test_pil_pictures_keep_their_pixels(mode):
    read = open_picture(as_picture(noise(mode)).data)
    assert read.size == (9, 6)
    if mode == "RGB":
        assert np.array_equal(np.asarray(read), np.asarray(noise()))


def test_a_pil_picture_keeps_what_says_which_side_is_up():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = io.BytesIO()
    noise().save(stored, "PNG", exif=exif)
    picture = as_picture(Image.open(stored))
    upright = noise().transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(open_picture(picture.data)), np.asarray(upright))
    assert b"eXIf" not in as_picture(noise()).data
    other = Image.open(stored)
    other.getexif()[ExifTags.Base.XResolution] = "a text, where a number belongs"
    assert open_picture(as_picture(other).data).size == (6, 9)


def test_pictures_come_as_paths_bytes_and_dictionaries(tmp_path: Path):
    noise().save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    for value in (
        data,
        tmp_path / "p.png",
        str(tmp_path / "p.png"),
        {"bytes": data, "path": None},
        {"path": str(tmp_path / "p.png")},
    ):
        assert as_picture(value) == Picture(data=data)
    for value in (3, {}, tmp_path / "nowhere.png", io.BytesIO(data)):
        with pytest.raises(InputError):
            as_picture(value)


def test_pictures_stand_where_the_text_says_so():
    one, two = Picture(data=b"1"), Picture(data=b"2")

    def parts(text, *pictures):
        return chat_request(text, [picture.data for picture in pictures]).messages[0].parts

    assert parts("what?", one, two) == (one, two, "what?")
    assert parts("first <image> then <image>?", one, two) == ("first ", one, " then ", two, "?")
    assert parts("<image>what?", one) == (one, "what?")
    assert parts("", one) == (one,)
    for text, pictures in (("<image>", ()), ("<image><image>", (one,)), ("<image>", (one, two))):
        with pytest.raises(InputError, match="differ in number"):
            parts(text, *pictures)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"max_tokens": 99, "temperature": 0.0, "stop": (), "seed": None}),
        ({"until": "x", "max_gen_toks": 3}, {"max_tokens": 3, "stop": ("x",)}),
        ({"until": ["x", "", "y"], "max_new_tokens": 4}, {"max_tokens": 4, "stop": ("x", "y")}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0, "seed": None}),
        ({"do_sample": True}, {"temperature": 1.0, "seed": 0}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}),
        ({"temperature": 0, "top_p": None, "num_beams": 1}, {"temperature": 0.0, "top_p": 1.0}),
    ],
)
def test_generation_arguments(arguments, expected):
    settings = writing_settings(arguments, most_tokens=99)
    assert {name: settings[name] for name in expected} == expected
    chat_request("?", [], **settings)


def test_what_is_not_done_is_refused():
    with pytest.raises(InputError, match="beams"):
        writing_settings({"num_beams": 3}, most_tokens=9)
    with pytest.raises(InputError, match="precision"):
        load_model("anything", dtype="float8")
