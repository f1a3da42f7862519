"""Squares of pictures, and prompts without a word that nobody wrote."""

import io

import numpy as np
import pytest
from PIL import Image

from lensmith.core.errors import ConfigError, ImageError
from lensmith.core.types import Message, Picture
from lensmith.models.connectors import MlpConnectorConfig
from lensmith.models.families.mm1 import TOY, Mm1PictureConfig, Mm1Processor, mm1_toy_config
from lensmith.models.families.mm1.processor import square_pixels, tiny_tokenizer
from lensmith.models.pictures import PictureConfig

PLAIN = Mm1PictureConfig(image_px=32, patch_px=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WHITE = 1.0


@pytest.fixture(scope="module")
def processor():
    tokenizer = tiny_tokenizer()
    return Mm1Processor.for_model(mm1_toy_config(tokenizer), tokenizer)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((32, 32), slice(0, 32), slice(0, 32)),
        ((64, 32), slice(8, 24), slice(0, 32)),  # made smaller
        ((4, 8), slice(0, 32), slice(8, 24)),  # made larger
        ((1000, 1), slice(15, 16), slice(0, 32)),  # never without area
    ],
)
def test_a_picture_lies_whole_in_the_middle_of_the_mean_colour(size, rows, columns):
    pixels = square_pixels(Image.new("RGB", size, "white"), PLAIN)
    expected = np.zeros((3, 32, 32), dtype=np.float32)
    expected[:, rows, columns] = WHITE
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_colours_are_normalised_by_clips_mean_and_deviation():
    config = Mm1PictureConfig(image_px=14)
    pixels = square_pixels(Image.new("RGB", (14, 14), (255, 0, 51)), config)
    expected = [(value - mean) / std for value, mean, std in zip((1, 0, 0.2), config.mean, config.std, strict=True)]
    np.testing.assert_allclose(pixels[:, 3, 5], expected, rtol=1e-5)


def test_every_kind_of_picture_is_read_and_what_is_transparent_is_white():
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    encoded = io.BytesIO()
    clear.save(encoded, "png")
    for picture in (clear, encoded.getvalue(), np.full((32, 32, 3), 255, dtype=np.uint8)):
        assert (square_pixels(picture, PLAIN) == WHITE).all()
    with pytest.raises(ImageError):
        square_pixels(b"no picture", PLAIN)


def test_each_picture_becomes_as_many_placeholders_as_the_connector_makes_tokens(processor, picture):
    inputs = processor(images=[picture(20, 90), picture(64, 64)], text="<image>one<image>", return_tensors="np")
    assert set(inputs) == set(processor.model_input_names)
    assert inputs["pixel_values"].shape == (2, 3, 64, 64)
    ids = inputs["input_ids"][0].tolist()
    assert ids[0] == processor.tokenizer.bos_token_id
    assert ids.count(processor.image_token_id) == 2 * 16
    assert ids[-16:] == [processor.image_token_id] * 16


def test_a_caption_is_learned_and_ends(processor, picture):
    inputs = processor(images=picture(9, 9), text="<image>", targets="cat", return_tensors="np")
    learned = inputs["labels"][0][inputs["labels"][0] != -100].tolist()
    assert processor.tokenizer.decode(learned) == "cat</s>"


def said(role, *parts):
    return Message(role=role, parts=parts)


PICTURE = Picture(data=b"-")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([said("user", PICTURE)], "<image>"),
        ([said("user", "Look: ", PICTURE, "what is it?")], "Look: <image>what is it?"),
        ([said("user", PICTURE), said("assistant", "a cat"), said("user", PICTURE)], "<image>a cat\n<image>"),
        ([said("user", PICTURE, "Short answer:"), said("assistant", "red")], "<image>Short answer: red"),
        ([said("user", PICTURE, "Short answer: "), said("assistant", "red")], "<image>Short answer: red"),
        ([said("user", PICTURE, "Answer:"), said("assistant", " red")], "<image>Answer: red"),
        ([said("system", "Be brief."), said("user", "Hello")], "Be brief.\nHello"),
        ([said("user", PICTURE), said("assistant")], "<image>"),
    ],
)
def test_a_conversation_is_its_pictures_and_words(processor, messages, text):
    assert processor.chat_text(messages) == text


def test_what_does_not_fit_is_refused():
    tokenizer = tiny_tokenizer()
    config = mm1_toy_config(tokenizer)
    assert Mm1Processor.for_model(config, tokenizer).pictures == Mm1PictureConfig(image_px=64, patch_px=8)
    larger = Mm1PictureConfig(image_px=96, patch_px=8)
    assert Mm1Processor.for_model(config, tokenizer, larger).pictures == larger
    for pictures in (Mm1PictureConfig(image_px=64, patch_px=16), PictureConfig(patch_px=8)):
        with pytest.raises(ConfigError, match="squares in patches of 8 px"):
            Mm1Processor.for_model(config, tokenizer, pictures)
    config.connector = MlpConnectorConfig()
    with pytest.raises(ConfigError, match="fixed number of tokens"):
        Mm1Processor.for_model(config, tokenizer)
    with pytest.raises(ConfigError, match="whole patches"):
        Mm1PictureConfig(image_px=380)
    with pytest.raises(ConfigError, match="std"):
        Mm1PictureConfig(std=(0, 1, 1))
    assert TOY.tower.grid_side == TOY.connector.grid_side
