"""Both published sizes, against transformers' own classes and the checkpoints' configurations; nothing is allocated."""

import copy

import pytest
import torch
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
)

from lensmith.core.errors import ConfigError
from lensmith.models import VisionLanguageConfig, VisionLanguageModel
from lensmith.models.connectors import PerceiverConnectorConfig
from lensmith.models.families.deepseek_vl import CheckpointLayout, deepseek_vl_config, tiny_config
from lensmith.models.families.deepseek_vl.config import SIZES, exactness_of, parts_of
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.published_config import (
    read_original,
    read_transformers,
    write_original,
    write_transformers,
)
from tests.support.tiny_deepseek import FAMILIES

# What transformers' converter writes for the published models.
TEXT_13B = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "max_position_embeddings": 16384,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "vocab_size": 102400,
}
TEXT_7B = TEXT_13B | {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 30,
}
SIGLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "image_size": 384,
    "patch_size": 16,
    "hidden_act": "gelu",
    "vision_use_head": False,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
}
SAM_B = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "image_size": 1024,
    "patch_size": 16,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
THEIRS = {
    "1.3b": {"model_type": "deepseek_vl", "text_config": TEXT_13B, "vision_config": SIGLIP_L},
    "7b": {
        "model_type": "deepseek_vl_hybrid",
        "text_config": TEXT_7B,
        "vision_config": SIGLIP_L,
        "high_res_vision_config": SAM_B,
    },
}

# The published originals' config.json, without what says nothing of the model.
ORIGINAL = {
    "1.3b": {
        "model_type": "multi_modality",
        "language_config": TEXT_13B | {"model_type": "llama", "torch_dtype": "float16"},
        "aligner_config": {
            "cls": "MlpProjector",
            "model_type": "aligner",
            "params": {"depth": 2, "input_dim": 1024, "n_embed": 2048, "projector_type": "mlp_gelu"},
        },
        "vision_config": {
            "cls": "CLIPVisionTower",
            "model_type": "vision",
            "params": {
                "image_size": 384,
                "model_name": "siglip_large_patch16_384",
                "select_feature": "same",
                "select_layer": -1,
            },
        },
    },
    "7b": {
        "model_type": "multi_modality",
        "language_config": TEXT_7B | {"model_type": "llama", "torch_dtype": "float16"},
        "aligner_config": {
            "cls": "MlpProjector",
            "model_type": "aligner",
            "params": {
                "depth": 2,
                "input_dim": 1024,
                "n_embed": 4096,
                "projector_type": "low_high_hybrid_split_mlp_gelu",
            },
        },
        "vision_config": {
            "cls": "HybridVisionTower",
            "model_type": "vision",
            "params": {
                "concat_type": "tuple",
                "high_res_cfg": {
                    "ckpt_path": "",
                    "image_size": 1024,
                    "model_name": "sam_b_downsample",
                    "output_dim": 1024,
                    "pixel_mean": [0.48145466, 0.4578275, 0.40821073],
                    "pixel_std": [0.26862954, 0.26130258, 0.27577711],
                    "select_feature": "same",
                    "select_layer": -1,
                },
                "low_res_cfg": {
                    "ckpt_path": "",
                    "image_size": 384,
                    "model_name": "siglip_large_patch16_384",
                    "output_dim": 1024,
                    "pixel_mean": [0.5, 0.5, 0.5],
                    "pixel_std": [0.5, 0.5, 0.5],
                    "select_feature": "same",
                    "select_layer": -1,
                },
            },
        },
    },
}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_a_published_size_has_the_published_number_of_weights(size):
    kind, their_config = DeepseekVLForConditionalGeneration, DeepseekVLConfig
    if size == "7b":
        kind, their_config = DeepseekVLHybridForConditionalGeneration, DeepseekVLHybridConfig
    with torch.device("meta"):
        ours = VisionLanguageModel(deepseek_vl_config(size))
        theirs = kind(their_config.from_dict(THEIRS[size] | {"tie_word_embeddings": False}))
    assert parameters(ours) == parameters(theirs) == SIZES[size].parameters
    assert sorted(tuple(tensor.shape) for tensor in ours.state_dict().values()) == sorted(
        tuple(tensor.shape) for tensor in theirs.state_dict().values()
    )


def test_parts_have_the_numbers_of_weights_that_the_paper_implies():
    with torch.device("meta"):
        small, large = (VisionLanguageModel(deepseek_vl_config(size)) for size in ("1.3b", "7b"))
    # A Llama of 2048 x 24 with an MLP of 5632, by hand: embeddings, head, last norm, and each layer.
    layer = 4 * 2048**2 + 3 * 2048 * 5632 + 2 * 2048
    assert parameters(small.language_model) == 2 * 102400 * 2048 + 2048 + 24 * layer
    assert parameters(small.connector) == (1024 + 1) * 2048 + (2048 + 1) * 2048
    assert parameters(large.connector) == 2 * (1024 + 1) * 2048 + (4096 + 1) * 4096
    # SigLIP-L/16: patches, positions, layers, last norm.
    layer = 4 * (1024 + 1) * 1024 + (1024 + 1) * 4096 + (4096 + 1) * 1024 + 4 * 1024
    siglip = (3 * 16 * 16 + 1) * 1024 + 576 * 1024 + 24 * layer + 2 * 1024
    assert parameters(small.vision_tower) == parameters(large.vision_tower.low) == siglip
    assert len(large.vision_tower.high.state_dict()) == 186


@pytest.mark.parametrize("size", SIZES)
def test_a_partial_original_configuration_is_completed_as_the_original_completes_it(size):
    config = read_original(ORIGINAL[size])
    assert config == deepseek_vl_config(size)
    language = config.language
    assert language.num_key_value_heads == language.num_attention_heads == SIZES[size].heads
    assert (language.rms_norm_eps, language.hidden_act) == (1e-6, "silu")
    assert (language.attention_bias, language.mlp_bias) == (False, False)
    assert language.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert language.tie_word_embeddings is False
    assert (config.image_token_id, language.bos_token_id, language.eos_token_id) == (100015, 100000, 100001)


@pytest.mark.parametrize("size", SIZES)
def test_transformers_configurations_give_the_same_model(size):
    config, expected = read_transformers(THEIRS[size]), deepseek_vl_config(size)
    assert (config.vision, config.connector) == (expected.vision, expected.connector)
    assert config.language.tie_word_embeddings is False
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "vocab_size"):
        assert getattr(config.language, name) == getattr(expected.language, name)


CONFIGS = {f"tiny {family}": tiny_config(family) for family in FAMILIES} | {s: deepseek_vl_config(s) for s in SIZES}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_for_a_layout_is_read_again(name):
    config = CONFIGS[name]
    image = config.image_token_id
    assert read_original(write_original(config, "bfloat16"), image_token_id=image) == config
    for layout in (CheckpointLayout.TRANSFORMERS, CheckpointLayout.TRANSFORMERS_4):
        assert read_transformers(write_transformers(config, "bfloat16", layout)) == config


@pytest.mark.parametrize("name", CONFIGS)
def test_every_file_says_that_head_and_embeddings_are_two(name):
    original = write_original(CONFIGS[name], "float32")
    assert original["language_config"]["tie_word_embeddings"] is False
    for layout in (CheckpointLayout.TRANSFORMERS, CheckpointLayout.TRANSFORMERS_4):
        values = write_transformers(CONFIGS[name], "float32", layout)
        assert (values["tie_word_embeddings"], values["text_config"]["tie_word_embeddings"]) == (False, False)


def test_published_sizes_are_written_under_the_original_names():
    for size in SIZES:
        written = write_original(deepseek_vl_config(size), "float16")
        assert written["aligner_config"] == ORIGINAL[size]["aligner_config"]
        params = written["vision_config"]["params"]
        for key, value in ORIGINAL[size]["vision_config"]["params"].items():
            assert params[key] == value, key
        assert "sizes" not in str(written)


def test_transformers_4_reads_rotary_positions_under_their_old_names():
    text = write_transformers(deepseek_vl_config("1.3b"), "float16", CheckpointLayout.TRANSFORMERS_4)["text_config"]
    assert (text["rope_theta"], text["rope_scaling"], "rope_parameters" in text) == (10000.0, None, False)


def test_the_original_counts_layers_from_the_end():
    values = copy.deepcopy(ORIGINAL["1.3b"])
    values["vision_config"]["params"]["select_layer"] = -2
    assert read_original(values).vision.layers == 23
    values["vision_config"]["params"]["select_layer"] = 7
    assert read_original(values).vision.layers == 7


def test_exactness_is_the_towers():
    assert exactness_of(read_original(ORIGINAL["7b"], exact=Exactness.TRANSFORMERS).vision) is Exactness.TRANSFORMERS
    assert exactness_of(read_transformers(THEIRS["7b"]).vision) is Exactness.ORIGINAL


def changed(values, path, value):
    result = copy.deepcopy(values)
    part = result
    *parents, last = path.split(".")
    for name in parents:
        part = part[name]
    part[last] = value
    return result


@pytest.mark.parametrize(
    ("size", "path", "value", "said"),
    [
        ("7b", "vision_config.params.concat_type", "feature", "'tuple'"),
        ("7b", "vision_config.params.low_res_cfg.pixel_mean", [0.4, 0.4, 0.4], "low_res_cfg.pixel_mean"),
        ("7b", "vision_config.params.high_res_cfg", None, "high_res_cfg: required"),
        ("7b", "vision_config.params.high_res_cfg.model_name", "sam_vit_h", "sam_b_downsample"),
        ("7b", "aligner_config.params.projector_type", "mlp_gelu", "low_high_hybrid_split_mlp_gelu"),
        ("1.3b", "aligner_config.params.projector_type", "linear", "mlp_gelu"),
        ("1.3b", "aligner_config.params.n_embed", 4096, "2048"),
        ("1.3b", "aligner_config.params.input_dim", 768, "1024"),
        ("1.3b", "vision_config.cls", "CLIPModel", "CLIPVisionTower or HybridVisionTower"),
        ("1.3b", "vision_config.params.pixel_mean", [0.5, 0.5, 0.5], "pixel_mean"),
        ("1.3b", "vision_config.params.model_name", "siglip_so400m_patch14_384", "siglip_large_patch16_384"),
        ("1.3b", "vision_config.params.select_layer", -25, "no layer is left"),
        ("1.3b", "language_config.model_type", "qwen2", "'llama'"),
        ("1.3b", "language_config.num_attention_heads", "many", "language_config"),
        ("1.3b", "language_config", None, "language_config: required"),
    ],
)
def test_what_our_model_would_compute_otherwise_is_refused(size, path, value, said):
    with pytest.raises(ConfigError, match=said):
        read_original(changed(ORIGINAL[size], path, value))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("high_res_vision_config.hidden_act", "relu", "hidden_act"),
        ("high_res_vision_config.use_rel_pos", False, "use_rel_pos"),
        ("text_config.model_type", "qwen2", "llama"),
        ("text_config.num_hidden_layers", "many", "transformers refuses"),
    ],
)
def test_a_transformers_configuration_of_another_model_is_refused(path, value, said):
    with pytest.raises(ConfigError, match=said):
        read_transformers(changed(THEIRS["7b"], path, value))


def test_other_models_and_sizes_are_refused():
    with pytest.raises(ConfigError, match=r"1\.3b or 7b"):
        deepseek_vl_config("67b")
    tiny = tiny_config("mlp")
    other = VisionLanguageConfig(
        vision=tiny.vision, connector=PerceiverConnectorConfig(), language=tiny.language, image_token_id=3
    )
    with pytest.raises(ConfigError, match="not a DeepSeek-VL model"):
        parts_of(other)
