"""Our towers and connectors against what DeepSeek-VL's own code computed, step by step (see tests/golden/README.md).

Weights and pictures are made of names, as scripts/deepseek_tower_goldens.py does it; every 31st token was kept.
Tolerance 1e-5, relative to the largest value of a step: float32 sums in another order.
"""

import copy
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lensmith.models.connectors import HybridMlpConnectorConfig, MlpConnectorConfig
from lensmith.models.towers import (
    HybridTowerConfig,
    SamTowerConfig,
    SiglipTowerConfig,
    VisionFeatures,
)
from lensmith.models.towers import (
    sam as sam_parts,
)
from lensmith.models.towers.base import patch_mask_for
from tests.support.tiny_vlm import attend_by

GOLDENS = Path(__file__).parents[1] / "golden" / "deepseek_vl_towers.npz"
CONFIG = HybridTowerConfig(
    high=SamTowerConfig(
        image_px=128, patch_px=4, trunk_width=12, hidden_width=48, layers=4, heads=2, global_layers=(1, 3), neck_width=4
    ),
    low=SiglipTowerConfig(
        width=16, hidden_width=64, layers=3, heads=2, patch_px=4, native_px=96, activation="gelu", norm_eps=1e-6
    ),
)
LANGUAGE_WIDTH = 24
EVERY = 31
# Ours to theirs; queries, keys and values are one in theirs (`theirs_of`).
RENAMED = (
    (r"^high\.", "vision_tower_high.vision_tower."),
    (r"^low\.siglip\.", "vision_tower_low.vision_tower."),
    (r"patch_embed\.projection|embeddings\.patch_embedding", "patch_embed.proj"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"(neck|neck_hd)\.conv1", r"\1.0"),
    (r"(neck|neck_hd)\.layer_norm1", r"\1.1"),
    (r"(neck|neck_hd)\.conv2", r"\1.2"),
    (r"(neck|neck_hd)\.layer_norm2", r"\1.3"),
    (r"tower\.proj\.conv1", "tower.downsamples.0"),
    (r"tower\.proj\.conv2", "tower.downsamples.1"),
    (r"alpha", "hd_alpha_downsamples"),
    (r"encoder\.layers|layers", "blocks"),
    (r"layer_norm(\d)", r"norm\1"),
    (r"self_attn\.out_proj", "attn.proj"),
    (r"post_layernorm", "norm"),
)
UNUSED = re.compile(r"^(high_layer_norm|low_layer_norm|vision_tower_low\.vision_tower\.attn_pool)\.")


@pytest.fixture(scope="module")
def goldens():
    stored = dict(np.load(GOLDENS))
    assert np.array_equal(stored.pop("check"), values_of("check", (8,))), "numpy's stream has changed: make them again"
    return stored


def values_of(name, shape):
    shape = tuple(shape)
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape)
    is_norm = len(shape) == 1 and name.endswith("weight")
    return ((uniform - 0.5) * 0.8 + is_norm).astype(np.float32)


@pytest.fixture(scope="module")
def pixels():
    noise = np.random.default_rng(zlib.crc32(b"pictures")).random((2, 3, 128, 128))
    return torch.from_numpy(noise.astype(np.float32))


def theirs_of(name):
    """The original's name of a parameter, and of which third of it ours is (q, k, v, or none)."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    third = re.search(r"(?<=self_attn\.)[qkv](?=_proj)", name)
    return re.sub(r"self_attn\.[qkv]_proj", "attn.qkv", name), third and third.group()


@pytest.fixture(scope="module")
def tower(goldens):
    shapes = dict(re.fullmatch(r"(\S+) (\(.*\))", line).groups() for line in str(goldens["names"]).splitlines())
    tower, used = CONFIG.build().eval(), set()
    for name, value in tower.state_dict().items():
        theirs, third = theirs_of(name)
        source = torch.from_numpy(values_of(theirs, map(int, re.findall(r"\d+", shapes[theirs]))))
        value.copy_((source.chunk(3)["qkv".index(third)] if third else source).reshape(value.shape))
        used.add(theirs)
    unused = {name for name in shapes if name not in used}
    assert len(used) > 80
    assert all(UNUSED.match(name) for name in unused), unused
    return tower


def kept(tokens_NPV):
    return torch.stack([tokens[index::EVERY][: len(tokens) // EVERY] for index, tokens in enumerate(tokens_NPV)])


def assert_same(ours, golden, name="", tolerance=1e-5):
    golden = torch.from_numpy(golden)
    assert ours.shape == golden.shape, name
    difference, largest = (ours - golden).abs().max().item(), golden.abs().max().item()
    assert difference <= tolerance * max(largest, 1.0), (name, difference, largest)


STEPS = {
    **{f"high.layers.{i}": f"sam.blocks.{i}" for i in range(4)},
    "high.patch_embed": "sam.patch_embed",
    "high.neck.layer_norm2": "sam.neck",
    "high.neck_hd.layer_norm2": "sam.neck_hd",
    "low.siglip.embeddings.patch_embedding": "siglip.patch_embed",
    **{f"low.siglip.encoder.layers.{i}": f"siglip.blocks.{i}" for i in range(3)},
    "low.siglip.post_layernorm": "siglip.norm",
}


@torch.no_grad()
def test_every_step_of_both_towers_gives_what_the_original_gave(tower, goldens, pixels):
    seen, hooks = {}, []
    for name in STEPS:

        def keep(_module, _arguments, output, name=name):
            output = output[0] if isinstance(output, tuple) else output
            seen[name] = output.flatten(2).transpose(1, 2) if "patch_embedding" in name else output

        hooks.append(tower.get_submodule(name).register_forward_hook(keep))
    tokens = tower(pixels, patch_mask_for(pixels, None, 4)).tokens_NPV
    for hook in hooks:
        hook.remove()
    assert {name for name in goldens if name.startswith(("sam.", "siglip."))} == set(STEPS.values())
    for ours, theirs in STEPS.items():
        value = seen[ours]
        assert_same(kept(value.reshape(2, -1, value.shape[-1])), goldens[theirs], theirs)
    assert_same(kept(tokens[..., :16]), goldens["high"], "high")
    assert_same(kept(tokens[..., 16:]), goldens["low"], "low")


@torch.no_grad()
def test_the_small_picture_is_the_originals(tower, goldens, pixels):
    assert_same(tower.small(pixels)[:, :, ::EVERY, ::EVERY], goldens["small"], tolerance=1e-7)


@torch.no_grad()
def test_the_bias_folded_as_on_a_gpu_gives_it_too(tower, goldens, pixels):
    folded = copy.deepcopy(tower)
    attend_by(folded, sam_parts.attend_folded)
    tokens = folded(pixels, patch_mask_for(pixels, None, 4)).tokens_NPV
    assert_same(kept(tokens[..., :16]), goldens["high"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "depth", "renamed"),
    [
        ("low_high_hybrid_split_mlp_gelu", 2, {"high_proj": "high_up_proj", "low_proj": "low_up_proj"}),
        ("low_high_hybrid_split_mlp_gelu", 3, {"high_proj": "high_up_proj", "low_proj": "low_up_proj"}),
        ("mlp_gelu", 2, {}),
    ],
)
def test_the_connectors_give_what_the_original_projector_gave(tower, goldens, pixels, kind, depth, renamed):
    seen = tower(pixels, patch_mask_for(pixels, None, 4))
    tokens = seen.tokens_NPV
    if kind == "mlp_gelu":
        tokens = tokens[..., 16:]
        connector = MlpConnectorConfig(depth=depth).build(tower_width=16, language_width=LANGUAGE_WIDTH)
    else:
        config = HybridMlpConnectorConfig(high_width=16, depth=depth)
        connector = config.build(tower_width=32, language_width=LANGUAGE_WIDTH)
    for name, value in connector.state_dict().items():
        part, _, end = name.partition(".")
        value.copy_(torch.from_numpy(values_of(f"{renamed.get(part, part)}.{end}", value.shape)))
    features = connector(VisionFeatures(tokens, seen.mask_NP)).features_FL.view(2, 576, -1)
    assert_same(kept(features), goldens[f"projector.{kind}.{depth}"])


@torch.no_grad()
@pytest.mark.parametrize("attend", [sam_parts.attend_in_chunks, sam_parts.attend_folded])
def test_in_bfloat16_ours_is_no_further_from_the_truth_than_the_original(tower, goldens, pixels, attend):
    """Not equal: sums are rounded at other places. The truth is the original in float32."""
    rough = CONFIG.build().eval().bfloat16()
    attend_by(rough, attend)
    rough.load_state_dict(tower.state_dict())
    tokens = rough(pixels.bfloat16(), patch_mask_for(pixels, None, 4)).tokens_NPV.float()
    for name, part in [("high", slice(16)), ("low", slice(16, 32))]:
        truth = torch.from_numpy(goldens[name])
        ours = (kept(tokens[..., part]) - truth).square().mean().sqrt()
        originals = (torch.from_numpy(goldens[f"{name}.bfloat16"]) - truth).square().mean().sqrt()
        assert ours <= 1.1 * originals, name
        assert originals < 0.2 * truth.square().mean().sqrt(), name
