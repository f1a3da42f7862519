"""Every recipe builds, is a whole configuration, and is found by its name alone."""

import json
from dataclasses import replace

import pytest
import torch

from lensmith.core.config import content_hash, from_dict, to_dict
from lensmith.core.errors import ConfigError
from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.models.families.deepseek_vl import deepseek_vl_config
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from lensmith.models.families.sightseer import SHIPPED, load
from lensmith.models.families.sightseer.config import DecoderConfig
from lensmith.models.families.sightseer.processor import IMAGE
from lensmith.models.pictures import prepare_pictures
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.vlm import VisionLanguageModel
from lensmith.recipes import RECIPES, recipe_named
from lensmith.recipes.mixtures import MIXTURES, mixtures_named
from lensmith.recipes.mm1 import mm1_peak_lr
from lensmith.recipes.sightseer import build_model, build_tokenizer
from lensmith.train.objectives.reading import ReadingModel

MILLION = 1_000_000
PRETRAINING = (
    "deepseek_vl_1_3b",
    "deepseek_vl_7b",
    "deepseek_vl_hybrid_test",
    "deepseek_vl_test",
    "deepseek_vl_toy",
    "mm1_captions",
    "mm1_test",
    "mm1_toy",
    "mm1_toy_moe",
)
SIGHTSEER = ("sightseer_nano", "sightseer_test")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(recipe_named("sightseer_nano"))


def test_there_are_recipes_to_check():
    assert len(RECIPES) >= 2
    assert {*PRETRAINING, *SIGHTSEER} <= RECIPES.keys()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_a_whole_configuration(name):
    recipe = recipe_named(name)
    assert recipe.name == name
    assert from_dict(type(recipe), json.loads(json.dumps(to_dict(recipe)))) == recipe
    assert content_hash(recipe) == content_hash(recipe_named(name))
    names = [stage.name for stage in recipe.stages]
    assert len(set(names)) == len(names) >= 1


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_plan_has_a_sequence_for_each_that_is_trained_on(name):
    recipe = recipe_named(name)
    steps = [stage.train.schedule.total_steps for stage in recipe.stages]
    assert [planned.steps for planned in recipe.plan.stages] == steps
    assert recipe.plan.shares.keys() == {each.name for each in recipe.sources}
    assert sum(recipe.plan.shares.values()) == pytest.approx(1)
    assert max(planned.packing.max_tokens for planned in recipe.plan.stages) <= recipe.parts.max_positions


# Table 4 of arXiv 2403.05525: rate, warm-up, steps, batch; and whether the rate falls in steps.
TABLE = {
    "deepseek_vl_1_3b": [
        (1e-3, 128, 15_000, 256, False),
        (3e-5, 2000, 96_000, 1024, True),
        (2e-5, 256, 10_000, 256, False),
    ],
    "deepseek_vl_7b": [
        (1e-3, 128, 15_000, 256, False),
        (4.2e-5, 2000, 42_000, 2304, True),
        (2e-5, 256, 10_000, 256, False),
    ],
}


@pytest.mark.parametrize("name", TABLE)
def test_the_published_stages_have_the_papers_values(name):
    recipe = recipe_named(name)
    found = []
    for stage, planned in zip(recipe.stages, recipe.plan.stages, strict=True):
        optim, schedule = stage.train.optim, stage.train.schedule
        found.append(
            (
                optim.peak_lr,
                schedule.warmup_steps,
                schedule.total_steps,
                planned.sequences_per_step,
                bool(schedule.drops),
            )
        )
        assert (optim.betas, optim.weight_decay, optim.clip_norm) == ((0.9, 0.95), 0.0, 1.0)
    assert found == TABLE[name]
    packed = [planned.packing.max_waiting > 1 for planned in recipe.plan.stages]
    assert packed == [False, True, False]
    assert recipe.plan.stages[1].language.target(recipe.mixture) == pytest.approx(0.7)


@pytest.mark.parametrize(("name", "size"), [("deepseek_vl_1_3b", "1.3b"), ("deepseek_vl_7b", "7b")])
def test_the_published_parts_are_those_of_the_published_models(name, size):
    parts, published = recipe_named(name).parts, deepseek_vl_config(size)
    tokenizer = tiny_tokenizer()
    made = parts.config(tokenizer)
    assert (made.vision, made.connector) == (published.vision, published.connector)
    with torch.device("meta"):
        ours, theirs = (
            {key: tuple(tensor.shape) for key, tensor in VisionLanguageModel(config).state_dict().items()}
            for config in (made, published)
        )
    assert ours == theirs


def test_the_learning_rate_follows_the_law():
    rates = {2.9e9: 5.9e-5, 6.4e9: 4.2e-5, 30e9: 2.2e-5, 1.2e9: 8.6e-5, 85e6: 2.6e-4, 9e6: 6.75e-4}
    for parameters, rate in rates.items():
        assert mm1_peak_lr(int(parameters)) == pytest.approx(rate, rel=0.03)
    toy = recipe_named("mm1_toy")
    assert toy.stages[0].train.optim.peak_lr == mm1_peak_lr(toy.parts.decoder.parameters)


def test_a_recipe_with_experts_differs_in_them_alone():
    dense, mixed = recipe_named("mm1_toy"), recipe_named("mm1_toy_moe")
    decoder = replace(mixed.parts.decoder, experts=None)
    assert replace(mixed, name="mm1_toy", parts=replace(mixed.parts, decoder=decoder)) == dense
    assert mixed.parts.decoder.parameters > 2 * dense.parts.decoder.parameters
    assert (mixed.router_losses.balance, mixed.router_losses.z) == (0.01, 0.001)


def test_the_mixtures_of_the_papers_are_whole_and_told_apart():
    assert MIXTURES["mm1"].shares == {"captions": 0.45, "interleaved": 0.45, "text": 0.1}
    assert MIXTURES["mm1_5"].shares == {"captions": 0.5, "interleaved": 0.1, "text": 0.4}
    assert len({mixture.hash for mixture in MIXTURES.values()}) == len(MIXTURES) >= 4
    shown = str(mixtures_named("deepseek_vl_pretraining"))
    assert shown.splitlines()[0].startswith("deepseek_vl_pretraining: mixture by sequences (")
    assert "  text                       70.0%" in shown
    with pytest.raises(ConfigError, match=r"(?s)no such mixture.*mm1_5"):
        mixtures_named("mm2")


def test_sequences_that_the_model_cannot_read_are_refused():
    recipe = recipe_named("mm1_test")
    with pytest.raises(ConfigError, match="longer than the language model reads"):
        replace(recipe, packing=replace(recipe.packing, max_tokens=4096))


@pytest.mark.parametrize("name", SIGHTSEER)
def test_a_recipe_builds_a_model_that_can_be_trained(name, tokenizer):
    recipe = recipe_named(name)
    model = build_model(recipe, tokenizer)
    reader = ReadingModel(model, recipe.reading)
    assert reader.tower.config == recipe.tower
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids(IMAGE)
    processor = VisionLanguageProcessor.for_model(model.config, tokenizer, recipe.picture, IMAGE)
    rows = recipe.picture.max_height_px // recipe.picture.patch_px
    columns = recipe.picture.max_width_px // recipe.picture.patch_px
    assert recipe.tower.max_rows >= rows
    assert recipe.tower.max_columns >= columns
    assert model.config.language.max_position_embeddings > rows * columns + 1024
    assert processor.tokens_per_picture is None


def test_the_same_recipe_starts_from_the_same_weights(tokenizer):
    one, other = (build_model(recipe_named("sightseer_test"), tokenizer) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_model_that_ships_is_small(tokenizer):
    model = build_model(recipe_named("sightseer_nano"), tokenizer)
    assert 5 * MILLION < model.num_parameters() < 25 * MILLION
    assert 2 * model.num_parameters() < 50 * MILLION  # bytes in bfloat16


def test_the_tokenizer_fits_the_recipe_and_reads_pages_it_never_saw(tokenizer):
    recipe = recipe_named("sightseer_nano")
    assert len(tokenizer) <= recipe.vocabulary_size
    lengths = []
    for index in range(30):
        page = generate_page(recipe.page_seed + 1, index).html
        ids = tokenizer(page)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == page
        lengths.append(len(page) / len(ids))
    assert sum(lengths) / len(lengths) > 2.5  # characters a token


def test_the_model_that_ships_has_the_recipes_tokenizer_and_configuration(tokenizer):
    recipe = recipe_named("sightseer_nano")
    model, processor = load(SHIPPED["sightseer_nano"])
    assert processor.tokenizer.get_vocab() == tokenizer.get_vocab()
    page = generate_page(7, 0).html
    assert processor.tokenizer(page)["input_ids"] == tokenizer(page)["input_ids"]
    assert processor.pictures == recipe.picture
    assert model.config.vision == recipe.tower
    assert model.config.connector == recipe.connector
    built = build_model(recipe, tokenizer).state_dict()
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in built.items()
    }


def test_the_test_recipe_takes_the_shipped_ones_path():
    nano, test = recipe_named("sightseer_nano"), recipe_named("sightseer_test")
    assert [stage.lesson for stage in test.stages] == [stage.lesson for stage in nano.stages]
    assert test.picture == nano.picture
    assert test.page_seed == nano.page_seed


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no such recipe") as caught:
        recipe_named("sightseer_nanoo")
    assert "sightseer_nano, sightseer_test" in str(caught.value)


def test_a_decoders_inner_width_is_a_round_number():
    assert DecoderConfig(width=320, layers=1).inner_width == 832
    assert DecoderConfig(width=64, layers=1).inner_width == 160


def test_a_page_as_high_as_the_recipe_reads_is_read(tokenizer):
    recipe = recipe_named("sightseer_test")
    model = build_model(recipe, tokenizer).eval()
    noise = torch.randint(0, 256, (1200, 384, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = prepare_pictures([noise.numpy()], recipe.picture)
    assert batch.patch_mask_NHpWp.shape == (1, 72, 24)  # cut at 1152 px
    with torch.inference_mode():
        features = model.get_image_features(
            torch.from_numpy(batch.pixels_N3HW), torch.from_numpy(batch.patch_mask_NHpWp)
        )
    assert features.features_FL.shape == (72 * 24, recipe.decoder.width)
    assert features.features_FL.isfinite().all()
