"""What a frozen tower makes of pictures is made once, and is what it makes of them anyway."""

from dataclasses import replace

import pytest
import torch

from lensmith.core.errors import ImageError, InputError, ShapeError
from lensmith.models import VisionLanguageModel
from lensmith.models.families.mm1 import TOY, Mm1Processor, mm1_toy_config
from lensmith.models.families.mm1.processor import tiny_tokenizer
from lensmith.models.towers import EfficientNetTowerConfig
from lensmith.models.towers.efficientnet import BlocksConfig
from lensmith.train.objectives.pictures import FrozenFeatures, blank_picture, pixels_of
from tests.support.documents import picture

PICTURES = [picture(colour, side_px) for colour, side_px in (("red", 24), ("blue", 7), ("green", 64), ("black", 90))]
CONVOLUTIONS = EfficientNetTowerConfig(
    width=24,
    stem_width=8,
    stages=(
        BlocksConfig(blocks=1, kernel=3, stride=1, expansion=1, width=8),
        BlocksConfig(blocks=2, kernel=5, stride=2, expansion=2, width=12),
    ),
    native_px=32,
)


@pytest.fixture(params=["clip", "efficientnet"])
def made(request):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    parts = TOY if request.param == "clip" else replace(TOY, tower=CONVOLUTIONS)
    model = VisionLanguageModel(mm1_toy_config(tokenizer, parts)).eval()
    return model, Mm1Processor.for_model(model.config, tokenizer)


@torch.no_grad()
def test_the_model_reads_of_them_what_it_reads_of_pixels(made):
    model, processor = made
    kept = FrozenFeatures(model, processor)(PICTURES)
    assert kept.keys() == {"tower_features"}
    expected = model.get_image_features(**pixels_of(processor)(PICTURES))
    actual = model.get_image_features(**kept)
    # Float32 sums in another order: one picture at a time, and four together.
    torch.testing.assert_close(actual.features_FL, expected.features_FL, atol=1e-5, rtol=1e-5)
    assert torch.equal(actual.counts_N, expected.counts_N)
    assert (expected.features_FL[:16] - expected.features_FL[16:32]).abs().max() > 1e-3, "pictures differ"


def test_a_picture_has_the_same_bits_whatever_comes_with_it(made):
    model, processor = made
    together = FrozenFeatures(model, processor)(PICTURES)["tower_features"]
    for place, one in enumerate(PICTURES):
        assert torch.equal(FrozenFeatures(model, processor)([one])["tower_features"][0], together[place])


def test_each_is_made_once_unless_there_is_no_room(made, monkeypatch):
    model, processor = made
    opened = []
    open_picture = processor.open_picture
    monkeypatch.setattr(
        processor, "open_picture", lambda data, limits: opened.append(data) or open_picture(data, limits)
    )
    kept, not_kept = FrozenFeatures(model, processor), FrozenFeatures(model, processor, most_bytes=100)
    first = kept(PICTURES)["tower_features"]
    assert opened == PICTURES
    assert torch.equal(kept(PICTURES[::-1])["tower_features"], first.flip(0))
    assert opened == PICTURES
    assert torch.equal(not_kept(PICTURES[:1])["tower_features"], not_kept(PICTURES[:1])["tower_features"])
    assert opened == [*PICTURES, PICTURES[0], PICTURES[0]]


def test_they_stay_as_the_tower_was(made):
    model, processor = made
    features = FrozenFeatures(model, processor, dtype=torch.bfloat16)
    before = features(PICTURES[:1])["tower_features"]
    for parameter in model.vision_tower.parameters():
        parameter.data.zero_()
    after = features(PICTURES)["tower_features"]
    assert before.dtype == torch.bfloat16
    assert torch.equal(after[:1], before)
    assert after[1:].abs().sum() > 0


def test_what_is_no_picture_or_not_this_towers_is_refused(made):
    model, processor = made
    with pytest.raises(ImageError):
        FrozenFeatures(model, processor)([b"no picture"])
    features = FrozenFeatures(model, processor)([blank_picture()])
    with pytest.raises(InputError, match="given twice"):
        model.get_image_features(**features, **pixels_of(processor)([blank_picture()]))
    with pytest.raises(ShapeError, match="are not this tower's"):
        model.get_image_features(tower_features=features["tower_features"][..., :-1])
