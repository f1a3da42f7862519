"""Our tower against an EfficientNet-Lite written another way, and what its published weights say of photographs."""

import pytest
import torch

from lensmith.core.errors import InputError
from lensmith.data.documents import documents
from lensmith.data.sources import TuxpaintConfig
from lensmith.models.families.mm1 import Mm1PictureConfig
from lensmith.models.families.mm1.processor import square_pixels
from lensmith.models.towers import EfficientNetTowerConfig
from lensmith.models.towers.base import patch_mask_for
from lensmith.models.towers.efficientnet import LITE_MEAN, LITE_STD, BlocksConfig
from lensmith.recipes.weights import EFFICIENTNET_LITE0
from tests.support.published_efficientnet import last_map, published

TINY = EfficientNetTowerConfig(
    width=24,
    stem_width=8,
    stages=(
        BlocksConfig(blocks=1, kernel=3, stride=1, expansion=1, width=8),
        BlocksConfig(blocks=2, kernel=5, stride=2, expansion=3, width=12),
        BlocksConfig(blocks=3, kernel=3, stride=2, expansion=2, width=16),
        BlocksConfig(blocks=1, kernel=3, stride=1, expansion=6, width=20),
    ),
    native_px=32,
)
# Norms folded into convolutions, and float32 sums in another order, through a dozen layers or fifty.
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def loaded(config, tensors):
    tower = config.build().eval()
    tower.load_published(tensors)
    return tower


@torch.no_grad()
@pytest.mark.parametrize(("height_px", "width_px"), [(32, 32), (8, 40), (24, 16), (8, 8)])
def test_a_small_one_gives_the_references_map(height_px, width_px):
    tensors = published(TINY)
    pixels = torch.randn(2, 3, height_px, width_px)
    expected = last_map(tensors, TINY, pixels)
    ours = loaded(TINY, tensors)(pixels, patch_mask_for(pixels, None, 8))
    assert ours.columns == width_px // 8
    torch.testing.assert_close(ours.tokens_NPV, expected.flatten(2).transpose(1, 2), **CLOSE)
    assert expected.std() > 0.1


@torch.no_grad()
def test_a_smaller_picture_in_a_batch_gives_what_the_reference_gives_alone():
    tensors = published(TINY, seed=1)
    pixels = torch.zeros(2, 3, 32, 32)
    small, large = torch.randn(1, 3, 16, 24), torch.randn(1, 3, 32, 32)
    pixels[:1, :, :16, :24], pixels[1:] = small, large
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    mask[0, 2:], mask[0, :, 3:] = False, False
    ours = loaded(TINY, tensors)(pixels, mask).tokens_NPV
    for index, picture in enumerate((small, large)):
        expected = last_map(tensors, TINY, picture)[0].flatten(1).T
        torch.testing.assert_close(ours[index][mask[index].flatten()], expected, **CLOSE)


# --- the published weights ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights():
    try:
        return EFFICIENTNET_LITE0.read()
    except InputError as error:
        if "is not the package" in str(error):
            raise
        pytest.skip(f"PUBLISHED WEIGHTS WERE NOT TESTED: {error}")


@pytest.fixture(scope="module")
def tower(weights):
    return loaded(EfficientNetTowerConfig(), weights)


@torch.no_grad()
def test_the_published_weights_give_the_references_map(weights, tower):
    pixels = torch.randn(1, 3, 224, 160)
    expected = last_map(weights, EfficientNetTowerConfig(), pixels)
    ours = tower(pixels, patch_mask_for(pixels, None, 32)).tokens_NPV
    torch.testing.assert_close(ours, expected.flatten(2).transpose(1, 2), atol=1e-3, rtol=1e-3)


# Stamps that are photographs of one thing, and the classes of ImageNet (numbers from 0) that are that thing.
NAMED = {
    "animals/birds/ostrich": {9},
    "animals/birds/peacock": {84},
    "animals/birds/pink_flamingo": {130},
    "animals/fish/lionfish": {396},
    "animals/mammals/cats/lion": {291},
    "animals/mammals/cats/tiger": {282, 292},
    "animals/mammals/camel/dromedary": {354},
    "animals/mammals/elephant": {101, 385, 386},
    "animals/mammals/equines/zebra": {340},
    "food/fruit/banana": {954},
    "food/fruit/lemon": {951},
    "food/fruit/pineapple": {953},
    "food/fruit/strawberry": {949},
    "food/vegetables/broccoli": {937},
    "hobbies/music/string/violin": {889},
    "household/dishes/teapot": {849},
}


@torch.no_grad()
def test_stamps_of_animals_and_fruit_are_named_by_the_published_classifier(weights, tower):
    """That the right class of a thousand is the likeliest shows that colours, sizes and layers are as they were."""
    try:
        source = TuxpaintConfig().open()
    except InputError as error:
        pytest.skip(f"PUBLISHED WEIGHTS WERE NOT TRIED ON PHOTOGRAPHS: {error}")
    squares = Mm1PictureConfig(image_px=224, patch_px=32, mean=(LITE_MEAN,) * 3, std=(LITE_STD,) * 3)
    found = {}
    for document in documents(source):
        if document.key in NAMED:
            pixels = torch.from_numpy(square_pixels(source.picture(document.pictures[0]), squares))[None]
            pooled = tower(pixels, patch_mask_for(pixels, None, 32)).tokens_NPV.mean(1)
            logits = pooled @ weights["_fc.weight"].T + weights["_fc.bias"]
            found[document.key] = int(logits.argmax())
    assert found.keys() == NAMED.keys()
    wrong = {key: number for key, number in found.items() if number not in NAMED[key]}
    assert len(wrong) <= 4, wrong
