"""The published sizes, counted without allocating them."""

from dataclasses import replace

import pytest
import torch

from lensmith.core.config import from_json, to_json
from lensmith.core.errors import ConfigError
from lensmith.models import VisionLanguageConfig, VisionLanguageModel
from lensmith.models.connectors import AttentionPoolConnectorConfig, PoolConnectorConfig
from lensmith.models.families.mm1 import TOY, LlamaDecoderConfig, Mm1Parts, mm1_config, mm1_toy_config
from lensmith.models.families.mm1.config import SIZES
from lensmith.models.families.mm1.processor import tiny_tokenizer
from lensmith.models.language.experts import ExpertsConfig

PUBLISHED_DECODERS = {"3b": 2.9e9, "7b": 6.4e9, "30b": 30e9, "3b_moe": 64e9, "7b_moe": 47e9}
TOLERANCE = 0.01  # the numbers are published with one or two digits


def weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module", params=sorted(SIZES))
def published(request):
    with torch.device("meta"):
        return request.param, VisionLanguageModel(mm1_config(request.param))


def test_the_decoders_have_as_many_weights_as_published(published):
    size, model = published
    embeddings = model.get_input_embeddings().weight.numel()
    counted = weights(model.language_model) - embeddings
    assert counted == SIZES[size].decoder.parameters
    assert counted == pytest.approx(PUBLISHED_DECODERS[size], rel=TOLERANCE)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_one_token_meets_its_own_experts_and_all_other_weights(published):
    size, model = published
    decoder = SIZES[size].decoder
    experts = sum(each.numel() for name, each in model.named_parameters() if ".experts." in name)
    others = weights(model.language_model) - model.get_input_embeddings().weight.numel() - experts
    share = 0 if decoder.experts is None else decoder.experts.per_token / decoder.experts.count
    assert decoder.active_parameters == others + share * experts
    assert (experts > 0) == size.endswith("_moe")


def test_a_model_with_experts_is_the_dense_one_but_for_its_feed_forwards():
    for size, count, every in (("3b", 64, 2), ("7b", 32, 4)):
        mixed = SIZES[f"{size}_moe"].decoder
        assert mixed.experts == ExpertsConfig(count=count, every=every, per_token=2)
        assert replace(mixed, experts=None) == SIZES[size].decoder


def test_tower_and_connector_are_the_published_ones(published):
    _, model = published
    # OpenCLIP counts 632.08M for its ViT-H/14 at 224 px, with a projection of 1.3M; 473 positions more.
    assert weights(model.vision_tower) == pytest.approx(632e6, rel=TOLERANCE)
    assert model.config.vision.native_px == 378
    assert model.config.connector.tokens_per_picture == 144
    assert model.config.connector.grid_side == model.config.vision.grid_side == 27


def test_another_size_is_refused():
    with pytest.raises(ConfigError, match="3b or 7b or 30b or 3b_moe or 7b_moe"):
        mm1_config("13b")
    with pytest.raises(ConfigError, match="not whole heads"):
        LlamaDecoderConfig(width=100, layers=1, inner_width=8)
    with pytest.raises(ConfigError, match=r"(?s)key_heads.*divisor of 4"):
        LlamaDecoderConfig(width=512, layers=1, inner_width=8, key_heads=3)


@pytest.mark.parametrize("connector", [TOY.connector, PoolConnectorConfig(), AttentionPoolConnectorConfig()])
@pytest.mark.parametrize("experts", [None, ExpertsConfig(count=4)])
def test_parts_are_written_down_and_read_again(connector, experts):
    parts = replace(TOY, connector=connector, decoder=replace(TOY.decoder, experts=experts))
    assert from_json(Mm1Parts, to_json(parts)) == parts


def test_a_toy_takes_its_special_tokens_from_the_tokenizer():
    tokenizer = tiny_tokenizer()
    parts = replace(TOY, connector=PoolConnectorConfig(side=3))
    config = mm1_toy_config(tokenizer, parts)
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<image>")
    language = config.get_text_config()
    ids = (language.pad_token_id, language.bos_token_id, language.eos_token_id)
    assert ids == (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert language.vocab_size == len(tokenizer)
    assert (config.vision, config.connector) == (parts.tower, parts.connector)
    assert VisionLanguageConfig.from_dict(config.to_dict()) == config
    assert mm1_config("3b", vocabulary_size=50, image_token_id=7).image_token_id == 7
