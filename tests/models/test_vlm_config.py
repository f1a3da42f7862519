import pytest
import torch
from transformers import AutoConfig, Gemma2Config, GPT2Config, Qwen2Config

from lensmith.core.errors import ConfigError
from lensmith.models import VisionLanguageConfig, VisionLanguageModel
from lensmith.models.connectors import CONNECTORS, MlpConnectorConfig, PerceiverConnectorConfig
from lensmith.models.towers import TOWERS
from tests.support.tiny_vlm import tiny_llama, tiny_siglip

PLAIN = {
    "vision": {"kind": "siglip", "width": 24, "hidden_width": 48, "layers": 2, "heads": 2, "patch_px": 8},
    "connector": {"kind": "perceiver", "latents": 4},
    "language": {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 50},
    "image_token_id": 3,
}


def test_dataclasses_and_dictionaries_say_the_same():
    from_parts = VisionLanguageConfig(
        vision=TOWERS["siglip"](width=24, hidden_width=48, layers=2, heads=2, patch_px=8),
        connector=PerceiverConnectorConfig(latents=4),
        language=AutoConfig.for_model("llama", hidden_size=32, num_attention_heads=4, vocab_size=50),
        image_token_id=3,
    )
    assert VisionLanguageConfig(**PLAIN) == from_parts


def test_what_it_says_can_be_read_again(tmp_path, make_config):
    config = make_config(connector=PerceiverConnectorConfig(latents=7, heads=4, key_heads=2, head_width=8))
    assert VisionLanguageConfig.from_dict(config.to_dict()) == config
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path) == config
    assert AutoConfig.from_pretrained(tmp_path).connector.latents == 7


def test_a_different_part_is_a_different_configuration(make_config):
    assert make_config() != make_config(connector=MlpConnectorConfig(depth=3))
    assert make_config() != make_config(language=tiny_llama(num_hidden_layers=3))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_tokn_id": 3}, "did you mean 'image_token_id'"),
        ({"connector": {"kind": "perceiver", "latens": 4}}, "did you mean 'latents'"),
        ({"connector": {"kind": "preceiver"}}, "did you mean 'perceiver'"),
        ({"vision": {"width": 24}}, "vision.kind"),
        ({"vision": None}, "vision: required, but missing"),
        ({"language": {"hidden_size": 32}}, "language.model_type"),
        ({"language": {"model_type": "lama"}}, "transformers refuses"),
        ({"image_token_id": 50}, "0 to 49"),
        ({"image_token_id": None}, "image_token_id: required"),
        ({"model_type": "llava"}, "not a configuration of this model"),
        ({"connector": torch.nn.Linear(1, 1)}, "that can be saved"),
    ],
)
def test_what_is_wrong_is_named(changes, said):
    with pytest.raises(ConfigError) as caught:
        VisionLanguageConfig(**(PLAIN | changes))
    assert said in str(caught.value)


def test_token_ids_are_kept_where_generation_looks_for_them():
    config = VisionLanguageConfig(**PLAIN, pad_token_id=5, eos_token_id=[6, 7])
    assert (config.get_text_config().pad_token_id, config.get_text_config().eos_token_id) == (5, [6, 7])
    assert VisionLanguageConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_every_tower_builds_from_its_saved_form(kind):
    config = VisionLanguageConfig(**(PLAIN | {"vision": {"kind": kind}}))
    assert type(config.vision) is TOWERS[kind]
    assert config.vision.kind == kind
    with torch.device("meta"):
        tower = config.vision.build()
    assert sum(parameter.numel() for parameter in tower.parameters()) > 1000


@pytest.mark.parametrize("kind", sorted(CONNECTORS))
def test_every_connector_builds_from_its_saved_form(kind):
    config = VisionLanguageConfig(**(PLAIN | {"connector": {"kind": kind}}))
    assert config.connector.kind == kind
    assert sum(p.numel() for p in config.connector.build(tower_width=2048, language_width=16).parameters()) > 100


def test_the_registries_are_not_empty():
    assert len(TOWERS) >= 2
    assert len(CONNECTORS) >= 2


SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


@pytest.mark.parametrize(
    "language",
    [
        GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=2),
        Qwen2Config(hidden_size=16, num_key_value_heads=2, **SMALL),
        Gemma2Config(hidden_size=16, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.5, **SMALL),
    ],
    ids=lambda config: config.model_type,
)
def test_any_causal_language_model_fits(language):
    model = VisionLanguageModel(
        VisionLanguageConfig(vision=tiny_siglip(), connector=MlpConnectorConfig(), language=language, image_token_id=3)
    ).eval()
    ids = torch.tensor([[1, 3, 3, 3, 3, 7, 8]])
    labels = torch.tensor([[-100, -100, -100, -100, -100, 7, 8]])
    pixels = torch.randn(1, 3, 16, 16)

    short = model(input_ids=ids, pixel_values=pixels, labels=labels)
    full = model(input_ids=ids, pixel_values=pixels, labels=labels, return_logits=True)

    torch.testing.assert_close(short.loss, full.loss)
    if language.model_type == "gemma2":
        assert full.logits.abs().max() <= 0.5
    assert model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=2, min_new_tokens=2).shape == (1, 9)
