import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DeepseekVLHybridImageProcessorPil, DeepseekVLImageProcessorPil

from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import load
from lensmith.models.families.deepseek_vl.config import tiny_config
from lensmith.models.families.deepseek_vl.convert import convert
from lensmith.models.families.deepseek_vl.loading import published_pictures
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.pictures import DeepseekPictureConfig, prepare_squares
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from lensmith.models.towers.hybrid import HIGH_MEAN, HIGH_STD

THEIRS = Exactness.TRANSFORMERS
ORIGINALS = {
    "image_processor_type": "VLMImageProcessor",
    "image_size": 64,
    "min_size": 14,
    "image_mean": list(HIGH_MEAN),
    "image_std": list(HIGH_STD),
    "rescale_factor": 0.00392156862745098,
    "do_normalize": False,
    "background_color": [1, 2, 3],
}
HYBRID = DeepseekPictureConfig.hybrid(image_px=64, low_px=32)


def write(folder, values, name="preprocessor_config.json"):
    (folder / name).write_text(json.dumps(values))
    return folder


def test_the_published_settings_are_the_defaults(tmp_path):
    config = published_pictures(write(tmp_path, ORIGINALS), HYBRID)
    assert config == replace(HYBRID, normalise=False)
    assert not config.normalises
    assert config.background == (122, 116, 104)


def test_what_the_original_folder_says_counts(tmp_path):
    values = ORIGINALS | {"min_size": 20, "do_normalize": True, "image_mean": [0.1, 0.2, 0.3]}
    config = published_pictures(write(tmp_path, values), HYBRID)
    assert (config.min_px, config.normalises, config.background) == (20, True, (25, 51, 76))
    none = published_pictures(write(tmp_path, ORIGINALS | {"image_mean": None}), HYBRID)
    assert none.background == (127, 127, 127)


def test_of_the_other_codes_folder_what_means_the_same_counts(tmp_path):
    theirs = DeepseekPictureConfig.hybrid(image_px=64, low_px=32, exact=THEIRS)
    assert published_pictures(write(tmp_path, ORIGINALS), theirs) == theirs, "the towers do not normalise for it"
    own = {"min_size": 20, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    expected = {"min_px": 20, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert published_pictures(write(tmp_path, ORIGINALS | own), theirs) == replace(theirs, **expected)
    high = {f"high_res_{name}" if "image" in name else name: value for name, value in own.items()}
    values = {"image_processor_type": "DeepseekVLHybridImageProcessor", "image_mean": [0.7] * 3, "do_normalize": True}
    assert published_pictures(write(tmp_path, values | high), HYBRID) == replace(HYBRID, **expected)
    plain = ORIGINALS | {"do_normalize": False}
    one = DeepseekPictureConfig(image_px=64, exact=THEIRS)
    assert published_pictures(write(tmp_path, plain), one) == replace(
        one, mean=HIGH_MEAN, std=HIGH_STD, normalise=False
    )


def test_a_folder_that_says_nothing_of_pictures_changes_nothing(tmp_path):
    assert published_pictures(tmp_path / "empty", HYBRID) == HYBRID
    assert published_pictures(write(tmp_path, {"image_processor_type": "CLIP", "min_size": 9}), HYBRID) == HYBRID


@pytest.mark.parametrize("nested", [False, True])
def test_transformers_folders_give_transformers_pixels(tmp_path, nested):
    """Also where they say something else than the published ones: a small picture made by another filter."""
    size, high = {"height": 32, "width": 32}, {"height": 64, "width": 64}
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    hybrid = DeepseekVLHybridImageProcessorPil(size=size, high_res_size=high, min_size=20)
    plain = DeepseekVLImageProcessorPil(size=size, do_normalize=False)
    for processor, low_px in ((hybrid, 32), (plain, None)):
        values = json.loads(processor.to_json_string())
        if nested:
            write(tmp_path, {"image_processor": values}, "processor_config.json")
        else:
            write(tmp_path, values)
        image_px = 32 if low_px is None else 64
        fitting = DeepseekPictureConfig(image_px=image_px, low_px=low_px, exact=THEIRS)
        pixels, low = prepare_squares([picture], published_pictures(tmp_path, fitting))
        expected = processor([picture], return_tensors="np")
        if low_px is None:
            np.testing.assert_array_equal(pixels, expected["pixel_values"])
        else:
            np.testing.assert_array_equal(pixels, expected["high_res_pixel_values"])
            np.testing.assert_array_equal(low, expected["pixel_values"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 384}, "image_size"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"min_size": "14"}, "min_px"),
        ({"image_mean": [0.5]}, "mean"),
        ({"do_resize": False}, "do_resize"),
        ({"resample": 2}, "resample"),
    ],
)
def test_what_cannot_be_followed_is_named(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        published_pictures(write(tmp_path, ORIGINALS | changes), HYBRID)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        published_pictures(tmp_path, HYBRID)


def test_a_loaded_folder_says_how_its_pictures_are_made(tmp_path):
    torch.manual_seed(0)
    config = tiny_config("mlp")
    VisionLanguageModel(config).save_pretrained(tmp_path / "saved")
    DeepseekVlProcessor.for_model(config, tiny_tokenizer()).save_pretrained(tmp_path / "saved")
    convert(tmp_path / "saved", tmp_path / "original", layout="original")
    assert load(tmp_path / "original")[1].pictures.min_px == 14
    values = json.loads((tmp_path / "original" / "preprocessor_config.json").read_text())
    write(tmp_path / "original", values | {"min_size": 20})
    assert load(tmp_path / "original")[1].pictures.min_px == 20
    assert load(tmp_path / "original", exact="transformers")[1].pictures.min_px == 20
