"""Our connector and our whole model against transformers' Idefics2, weights copied.

Tolerance: float32 sums in another order. For the whole model, pictures are squares of SigLIP's native size, where
Idefics2's positions (looked up) and ours (interpolated) are the same.
"""

import pytest
import torch
from transformers import Idefics2Config, Idefics2ForConditionalGeneration, MistralConfig

from lensmith.models import VisionLanguageConfig, VisionLanguageModel
from lensmith.models.connectors import PerceiverConnectorConfig
from lensmith.models.towers import SiglipTowerConfig, VisionFeatures

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
IMAGE = 3
LATENTS = 5

RENAMED = (
    ("model.vision_model.", "vision_tower.siglip."),
    ("model.connector.modality_projection.", "connector.project."),
    ("model.connector.perceiver_resampler.", "connector."),
    ("model.text_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
RENAMED_INSIDE = (
    (".gate_proj.", ".gate."),
    (".up_proj.", ".up."),
    (".down_proj.", ".down."),
    ("connector.layers.", "connector.blocks."),
    (".input_latents_norm.", ".latents_norm."),
    (".input_context_norm.", ".context_norm."),
    (".post_attention_layernorm.", ".mlp_norm."),
    (".self_attn.q_proj.", ".attention.query."),
    (".self_attn.k_proj.", ".attention.key."),
    (".self_attn.v_proj.", ".attention.value."),
    (".self_attn.o_proj.", ".attention.out."),
)


def our_name(name):
    for theirs, ours in RENAMED:
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    if name.startswith("connector."):
        for theirs, ours in RENAMED_INSIDE:
            name = name.replace(theirs, ours)
    return name


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    text = MistralConfig(
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=60,
        sliding_window=None,
    )
    vision = SiglipTowerConfig(width=24, hidden_width=48, layers=2, heads=2, patch_px=8, native_px=32)
    connector = PerceiverConnectorConfig(
        latents=LATENTS, depth=2, heads=4, key_heads=2, head_width=8, hidden_width=text.intermediate_size
    )
    theirs = Idefics2ForConditionalGeneration(
        Idefics2Config(
            vision_config={
                "hidden_size": vision.width,
                "intermediate_size": vision.hidden_width,
                "num_hidden_layers": vision.layers,
                "num_attention_heads": vision.heads,
                "image_size": vision.native_px,
                "patch_size": vision.patch_px,
            },
            perceiver_config={
                "hidden_size": text.hidden_size,
                "resampler_n_latents": connector.latents,
                "resampler_depth": connector.depth,
                "resampler_n_heads": connector.heads,
                "resampler_head_dim": connector.head_width,
                "num_key_value_heads": connector.key_heads,
            },
            text_config=text.to_dict(),
            image_token_id=IMAGE,
        )
    ).eval()
    for parameter in theirs.parameters():  # latents start equal there, norms at one: make every weight count
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = VisionLanguageModel(
        VisionLanguageConfig(vision=vision, connector=connector, language=text, image_token_id=IMAGE)
    ).eval()
    ours.load_state_dict({our_name(name): tensor for name, tensor in theirs.state_dict().items()})
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("real", [6, 16])
def test_the_perceiver_is_idefics2s(pair, real):
    ours, theirs = pair
    tokens = torch.randn(2, 16, 24)
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[1, real:] = False
    expected = theirs.model.connector(tokens, mask)
    actual = ours.connector(VisionFeatures(tokens, mask))
    torch.testing.assert_close(actual.features_FL, expected.flatten(0, 1), **TIGHT)


@torch.no_grad()
def test_the_whole_model_is_idefics2(pair):
    ours, theirs = pair
    pixels = torch.randn(3, 3, 32, 32)
    picture = [IMAGE] * LATENTS
    ids = torch.tensor([[1, *picture, 7, *picture, 8], [0, 0, 0, 0, 0, 0, 1, 9, *picture]])
    mask = torch.tensor([[1] * 13, [0] * 6 + [1] * 7])
    # Idefics2 takes pictures by sample and drops those that are all zero.
    by_sample = torch.zeros(2, 2, 3, 32, 32)
    by_sample[0, 0], by_sample[0, 1], by_sample[1, 0] = pixels

    expected = theirs(input_ids=ids, attention_mask=mask, pixel_values=by_sample).logits
    actual = ours(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits

    real = mask == 1
    torch.testing.assert_close(actual[real], expected[real], **TIGHT)
    settings = {"max_new_tokens": 8, "do_sample": False, "suppress_tokens": [IMAGE], "pad_token_id": 0}
    written = theirs.generate(input_ids=ids, attention_mask=mask, pixel_values=by_sample, **settings)
    assert torch.equal(ours.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels, **settings), written)
