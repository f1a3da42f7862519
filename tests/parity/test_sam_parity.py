"""SAM, the hybrid tower and its connector against transformers' own, weights copied, step by step.

Tolerance 1e-5: float32 sums in another order, over values of about 1. What transformers calls high resolution neck,
projection and alpha are `neck_hd`, `proj` and `alpha` here.
"""

import re

import pytest
import torch
from transformers import DeepseekVLHybridConfig, DeepseekVLHybridModel, SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionLayer

from lensmith.models.connectors import HybridMlpConnectorConfig
from lensmith.models.towers import HybridTowerConfig, SamTowerConfig, SiglipTowerConfig
from lensmith.models.towers.base import patch_mask_for
from lensmith.models.towers.sam import SamLayer, from_windows, to_windows

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
LAYERS = 4
SIZES = {  # patches a side, window, tokens a side
    "windows-padded": (9, 4, 3),
    "windows-fit": (8, 4, 2),
    "one-window-larger-than-the-grid": (5, 7, 2),
    "windows-of-a-patch": (4, 1, 3),
    "grid-scaled-down": (16, 14, 3),
}
RENAMED = (
    (r"^high_res_vision_model\.vision_encoder\.", "tower.high."),
    (r"^high_res_vision_neck\.", "tower.high.neck_hd."),
    (r"^high_res_vision_proj\.", "tower.high.proj."),
    (r"^high_res_vision_alpha$", "tower.high.alpha"),
    (r"^vision_model\.", "tower.low.siglip."),
    (r"^aligner\.high_res_vision_proj\.", "connector.high_proj."),
    (r"^aligner\.vision_proj\.", "connector.low_proj."),
    (r"^aligner\.proj\.", "connector.layers.1."),
)


class Pair(torch.nn.Module):
    """Our tower and connector, under the names of which `RENAMED` speaks."""

    def __init__(self, tower, language_width):
        super().__init__()
        self.tower = tower.build()
        self.connector = HybridMlpConnectorConfig(high_width=tower.high.width).build(
            tower_width=tower.width, language_width=language_width
        )


def theirs(grid, window, tokens, attention="sdpa"):
    torch.manual_seed(0)
    config = DeepseekVLHybridConfig(
        text_config={
            "model_type": "llama",
            "hidden_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 8,
            "vocab_size": 16,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 20,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 4 * tokens,
            "patch_size": 4,
            "hidden_act": "gelu",
            "vision_use_head": False,
        },
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "hidden_size": 24,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 3,
            "image_size": 4 * grid,
            "patch_size": 4,
            "window_size": window,
            "global_attn_indexes": [1, 3],
            "output_channels": 6,
            "mlp_dim": 40,
        },
        attn_implementation=attention,
    )
    reference = DeepseekVLHybridModel(config).eval()
    for parameter in reference.parameters():  # tables and alpha start at zero, weights near it
        parameter.data += 0.2 * torch.randn_like(parameter)
    return reference


def ours(reference):
    high, low = reference.config.high_res_vision_config, reference.config.vision_config
    sam = SamTowerConfig(
        image_px=high.image_size,
        patch_px=high.patch_size,
        trunk_width=high.hidden_size,
        hidden_width=high.mlp_dim,
        layers=high.num_hidden_layers,
        heads=high.num_attention_heads,
        window=high.window_size,
        global_layers=tuple(high.global_attn_indexes),
        neck_width=high.output_channels,
        tokens_side=low.image_size // low.patch_size,
        resizes_in_float32=False,
    )
    tower = HybridTowerConfig(high=sam, low=SiglipTowerConfig.from_transformers(low), makes_low=False)
    pair = Pair(tower, reference.config.text_config.hidden_size).eval()
    weights = {}
    for name, value in reference.state_dict().items():
        if not name.startswith("language_model."):
            for pattern, replacement in RENAMED:
                name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - one renaming after the other
            weights[name] = value
    pair.load_state_dict(weights)
    return pair


def pictures(reference, count=2):
    generator = torch.Generator().manual_seed(1)
    high, low = reference.config.high_res_vision_config.image_size, reference.config.vision_config.image_size
    return (
        torch.randn(count, 3, high, high, generator=generator),
        torch.randn(count, 3, low, low, generator=generator),
    )


def recorded(module, names, run):
    """What the named submodules gave while `run` ran; a list each, one entry a call."""
    seen = {name: [] for name in names}
    hooks = []
    for name in names:

        def keep(_module, _arguments, output, name=name):
            seen[name].append(output[0] if isinstance(output, tuple) else output)

        hooks.append(module.get_submodule(name).register_forward_hook(keep))
    result = run()
    for hook in hooks:
        hook.remove()
    return result, seen


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys(), scope="module")
def models(request):
    reference = theirs(*request.param)
    return reference, ours(reference)


PARTS = ["patch_embed", "neck", "neck.conv1", "neck.layer_norm1", "neck.conv2"]
PARTS += [
    f"layers.{layer}{part}"
    for layer in range(LAYERS)
    for part in ("", ".layer_norm1", ".attn.qkv", ".attn", ".layer_norm2", ".mlp")
]


@torch.no_grad()
def test_every_step_of_sam_gives_what_theirs_gives(models):
    reference, pair = models
    high, _ = pictures(reference)
    tower, encoder = pair.tower.high, reference.high_res_vision_model.vision_encoder
    mask = patch_mask_for(high, None, tower.config.patch_px)
    _, mine = recorded(tower, PARTS, lambda: tower(high, mask))
    _, wanted = recorded(encoder, PARTS, lambda: encoder(high))
    assert len(mine) > 20
    for name in PARTS:
        [value], [expected] = mine[name], wanted[name]
        if name == "neck.layer_norm1":
            expected = expected.permute(0, 2, 3, 1)  # theirs turns the map around inside
        if ".attn" in name and expected.shape != value.shape:
            # Theirs projects window by window, padding included; ours projects patches.
            expected = from_windows(expected, value.shape[1])
        assert value.shape == expected.shape, name
        torch.testing.assert_close(value, expected, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@torch.no_grad()
def test_both_branches_and_the_downsampling_give_what_theirs_give(models):
    reference, pair = models
    high, _ = pictures(reference)
    tower = pair.tower.high
    mask = patch_mask_for(high, None, tower.config.patch_px)
    tokens, mine = recorded(tower, ["neck_hd", "proj"], lambda: tower(high, mask).tokens_NPV)
    wanted, branches = recorded(
        reference,
        ["high_res_vision_neck", "high_res_vision_proj"],
        lambda: reference.get_high_res_image_features(high).last_hidden_state,
    )
    torch.testing.assert_close(mine["neck_hd"][0], branches["high_res_vision_neck"][0], **TIGHT)
    torch.testing.assert_close(tokens, wanted, **TIGHT)
    # Theirs brings each branch down on its own and adds then; ours comes this way once, with the sum.
    late, early = branches["high_res_vision_proj"]
    assert len(mine["proj"]) == 1
    torch.testing.assert_close(mine["proj"][0], late + early * reference.high_res_vision_alpha, **TIGHT)
    assert (early * reference.high_res_vision_alpha).abs().max() > 0.01  # the branch is not idle here


@torch.no_grad()
def test_tower_and_connector_give_what_theirs_give(models):
    reference, pair = models
    high, low = pictures(reference, count=3)
    seen = pair.tower(high, patch_mask_for(high, None, 4), low)
    tokens = seen.tokens_NPV
    wanted = reference.get_image_features(low, high)
    width = pair.tower.config.high.width
    torch.testing.assert_close(tokens[..., :width], wanted.high_res_vision_last_hidden_state, **TIGHT)
    torch.testing.assert_close(tokens[..., width:], wanted.last_hidden_state, **TIGHT)
    features = pair.connector(seen)
    torch.testing.assert_close(features.features_FL, wanted.pooler_output.flatten(0, 1), **TIGHT)
    assert features.counts_N.tolist() == [tokens.shape[1]] * 3


@torch.no_grad()
def test_the_bias_in_chunks_changes_no_bit_of_the_encoder(models):
    """Against transformers' dense bias, layer by layer."""
    reference, pair = models
    high, _ = pictures(reference)
    tower = pair.tower.high
    names = [f"layers.{layer}" for layer in range(LAYERS)]
    _, mine = recorded(tower, names, lambda: tower(high, patch_mask_for(high, None, tower.config.patch_px)))
    _, wanted = recorded(
        reference.high_res_vision_model.vision_encoder, names, lambda: reference.high_res_vision_model(high)
    )
    for name in names:
        assert torch.equal(mine[name][0], wanted[name][0]), name


@torch.no_grad()
def test_eager_attention_agrees_too(models):
    """The dense formula, logits and softmax written out, as the original has it."""
    reference, pair = models
    eager = theirs(*_sizes(reference), attention="eager")
    high, _ = pictures(reference)
    mask = patch_mask_for(high, None, 4)
    torch.testing.assert_close(
        pair.tower.high(high, mask).tokens_NPV, eager.get_high_res_image_features(high).last_hidden_state, **TIGHT
    )


def _sizes(reference):
    high, low = reference.config.high_res_vision_config, reference.config.vision_config
    return high.image_size // high.patch_size, high.window_size, low.image_size // low.patch_size


def test_windows_are_those_of_theirs_and_come_back():
    layer = theirs(9, 4, 3).high_res_vision_model.vision_encoder.layers[0]
    hidden = torch.randn(2, 9, 9, 24)
    windows, _ = layer.window_partition(hidden, 4)
    mine = to_windows(hidden, 4, torch.zeros(24))
    assert torch.equal(mine, windows)
    assert mine.shape == (2 * 9, 4, 4, 24)
    assert torch.equal(from_windows(mine, 9), hidden)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("window", [0, 14])
def test_a_layer_of_the_published_size_gives_their_bits(window):
    """768 MiB of bias on their side; chunks on ours."""
    torch.manual_seed(0)
    config = SamVisionConfig()
    config._attn_implementation = "sdpa"
    reference = SamVisionLayer(config, window).eval()
    layer = SamLayer(width=768, hidden_width=3072, heads=12, window=window, side=64, norm_eps=1e-6).eval()
    for parameter in reference.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    layer.load_state_dict(reference.state_dict())
    hidden = torch.randn(1, 64, 64, 768)
    assert torch.equal(layer(hidden), reference(hidden))
