"""Names and shapes of each layout, against transformers' own state dicts; weights play no part."""

import re

import pytest
import torch
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
)

from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.models.families.deepseek_vl import CheckpointLayout, Variant, deepseek_vl_config, tiny_config
from lensmith.models.families.deepseek_vl.checkpoint import state_shapes
from lensmith.models.families.deepseek_vl.layouts import CheckpointForm, layout_named, plan_for, recognise
from lensmith.models.families.deepseek_vl.published_config import write_transformers
from tests.support.tiny_deepseek import FAMILIES, PUBLISHED_LAYOUTS

ATTENTION_POOL = [
    "latent",
    *(f"{part}.{kind}" for part in ("q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")),
]


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    config = tiny_config(request.param)
    return Variant(request.param), config, state_shapes(config)


def their_shapes(config, family):
    kind, their_config = DeepseekVLForConditionalGeneration, DeepseekVLConfig
    if family is Variant.HYBRID:
        kind, their_config = DeepseekVLHybridForConditionalGeneration, DeepseekVLHybridConfig
    with torch.device("meta"):
        model = kind(their_config.from_dict(write_transformers(config, "float32", CheckpointLayout.TRANSFORMERS)))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def shapes_of(plan):
    return {name: stored.shape for name, stored in plan.stored.items()}


def test_transformers_5_has_these_names_and_shapes(tiny):
    family, config, shapes = tiny
    assert shapes_of(plan_for(shapes, CheckpointLayout.TRANSFORMERS)) == their_shapes(config, family)


def test_transformers_4_has_siglip_one_level_deeper(tiny):
    family, config, shapes = tiny
    deeper = {
        re.sub(r"^model\.vision_model\.", "model.vision_model.vision_model.", name): shape
        for name, shape in their_shapes(config, family).items()
    }
    assert shapes_of(plan_for(shapes, CheckpointLayout.TRANSFORMERS_4)) == deeper


@pytest.mark.parametrize(("size", "used", "unused"), [("1.3b", 516, 13), ("7b", 758, 17)])
def test_the_original_has_as_many_tensors_as_its_own_classes_make(size, used, unused):
    # 529 and 775 were counted on the state dicts of the original repository's classes at full size.
    plan = plan_for(state_shapes(deepseek_vl_config(size)), CheckpointLayout.ORIGINAL)
    assert len(plan.stored) == used
    prefix = "vision_model.vision_tower." if size == "1.3b" else "vision_model.vision_tower_low.vision_tower."
    known = [f"{prefix}attn_pool.{name}" for name in ATTENTION_POOL]
    if size == "7b":
        known += [f"vision_model.{side}_layer_norm.{kind}" for side in ("high", "low") for kind in ("weight", "bias")]
    assert plan.unused(known) == sorted(known)
    assert len(known) == unused
    plan.check(shapes_of(plan) | dict.fromkeys(known, (1,)))


def test_the_original_keeps_q_k_and_v_together_and_positions_a_dimension_deeper(tiny):
    family, _, shapes = tiny
    stored = plan_for(shapes, CheckpointLayout.ORIGINAL).stored
    low = "vision_model.vision_tower." if family is Variant.MLP else "vision_model.vision_tower_low.vision_tower."
    ours = "vision_tower.siglip." if family is Variant.MLP else "vision_tower.low.siglip."
    qkv = stored[f"{low}blocks.1.attn.qkv.weight"]
    assert qkv.shape == (96, 32)
    assert qkv.pieces == tuple(f"{ours}encoder.layers.1.self_attn.{part}_proj.weight" for part in "qkv")
    assert stored[f"{low}pos_embed"].shape == (1, 16, 32)
    tensor = torch.arange(96.0 * 32).reshape(96, 32)
    pieces = qkv.split(tensor)
    assert torch.equal(pieces[qkv.pieces[2]], tensor[64:])
    assert torch.equal(qkv.join(pieces.__getitem__), tensor)
    place = stored[f"{low}pos_embed"]
    table = torch.randn(1, 16, 32)
    assert torch.equal(place.join(place.split(table).__getitem__), table)


@pytest.mark.parametrize("layout", CheckpointLayout)
def test_a_layout_is_recognised_by_its_keys(tiny, layout):
    family, _, shapes = tiny
    names = plan_for(shapes, layout).stored
    assert recognise(names) == CheckpointForm(layout=layout, variant=family)
    # A key that the model lacks does not change what it is.
    assert recognise([*names, "something.else"]) == CheckpointForm(layout=layout, variant=family)


def test_other_weights_are_not_recognised():
    with pytest.raises(CheckpointError, match=r"no weights of a DeepSeek-VL model[\s\S]*2 keys, such as lm_head"):
        recognise(["lm_head.weight", "model.layers.0.mlp.up_proj.weight"])
    with pytest.raises(CheckpointError, match="no keys"):
        recognise([])


@pytest.mark.parametrize("layout", PUBLISHED_LAYOUTS)
def test_all_that_is_wrong_is_told_at_once(tiny, layout):
    _, _, shapes = tiny
    plan = plan_for(shapes, layout)
    found = shapes_of(plan)
    missing = list(found)[3:8]
    wrong = list(found)[10:13]
    for name in missing:
        del found[name]
    for name in wrong:
        found[name] = (*found[name], 7)
    extra = ["model.gen_head.weight", "vision_model.vision_tower.attn_pool.other.weight"]
    found |= dict.fromkeys(extra, (2,))
    with pytest.raises(CheckpointError) as caught:
        plan.check(found, source="somewhere")
    message = str(caught.value)
    assert "somewhere: weights do not fit: 5 missing, 2 unexpected, 3 wrong shape" in message
    for kind, names in (("missing", missing), ("unexpected", extra), ("wrong shape", wrong)):
        for name in names:
            assert f"{kind}: {name}" in message
    assert f"wrong shape: {wrong[0]}: {[*shapes_of(plan)[wrong[0]], 7]} instead of" in message
    assert len(message.splitlines()) == 3 + 10


def test_nothing_is_told_where_all_is_well(tiny):
    _, _, shapes = tiny
    for layout in CheckpointLayout:
        plan = plan_for(shapes, layout)
        plan.check(shapes_of(plan))
        assert plan.unused(plan.stored) == []


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (CheckpointLayout.ORIGINAL, "language_model.model.layers.3.self_attn.rotary_emb.inv_freq"),
        (CheckpointLayout.TRANSFORMERS, "model.vision_model.head.probe"),
        (CheckpointLayout.TRANSFORMERS_4, "model.vision_model.vision_model.head.attention.in_proj_weight"),
        (CheckpointLayout.TRANSFORMERS_4, "model.vision_model.vision_model.embeddings.position_ids"),
    ],
)
def test_what_is_known_to_be_unused_may_be_there_in_its_own_layout_only(tiny, layout, name):
    _, _, shapes = tiny
    plan = plan_for(shapes, layout)
    plan.check(shapes_of(plan) | {name: (1,)})
    with pytest.raises(CheckpointError, match=r"1 unexpected[\s\S]*" + re.escape(name)):
        own = plan_for(shapes, CheckpointLayout.LENSMITH)
        own.check(shapes_of(own) | {name: (1,)})
    with pytest.raises(CheckpointError, match="1 unexpected"):
        plan.check(shapes_of(plan) | {f"{name}.more": (1,)})


def test_a_name_without_a_place_and_a_layout_that_is_none():
    with pytest.raises(CheckpointError, match="no place"):
        plan_for({"vision_tower.siglip.head.probe.more": (1,)}, CheckpointLayout.ORIGINAL)
    with pytest.raises(ConfigError, match="original, transformers-4, transformers, lensmith"):
        layout_named("gguf")
