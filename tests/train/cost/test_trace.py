"""A step on shapes alone has the arithmetic of a count by hand and of a real step, and keeps what a real one keeps."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from lensmith.models import VisionLanguageModel
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.connectors import PoolConnectorConfig
from lensmith.models.connectors.c_abstractor import CAbstractorConfig
from lensmith.models.families.deepseek_vl.config import SIZES as DEEPSEEK_SIZES
from lensmith.models.families.deepseek_vl.config import deepseek_vl_config, tiny_config
from lensmith.models.families.mm1.config import SIZES, LlamaDecoderConfig, mm1_config
from lensmith.models.language.isolation import isolated_documents
from lensmith.models.towers import ClipTowerConfig
from lensmith.train import Precision, StepContext
from lensmith.train.config import autocast
from lensmith.train.cost.trace import BatchShape, DocumentShape, Held, StepPart, batch_of, model_of_shapes, trace
from lensmith.train.cost.weights import let_learn, parts_of
from lensmith.train.objectives.documents import document_loss

CPU = torch.device("cpu")
TOWER = ClipTowerConfig(width=48, hidden_width=96, layers=2, heads=3, patch_px=8, native_px=32)
DECODER = LlamaDecoderConfig(width=64, layers=2, inner_width=96, head_width=32, max_positions=512)
VOCABULARY = 200
SHAPE = BatchShape(
    documents=(DocumentShape(tokens=100, pictures=3), DocumentShape(tokens=40), DocumentShape(tokens=17, pictures=1)),
    picture_px=32,
)


def config_of(connector=None):
    return VisionLanguageConfig(
        vision=TOWER,
        connector=connector or PoolConnectorConfig(side=2),
        language=DECODER.build(VOCABULARY),
        image_token_id=3,
    )


@pytest.mark.parametrize("config", [config_of(), config_of(CAbstractorConfig(side=2, depth=1, grid_side=4))])
def test_parts_have_the_weights_of_a_real_model(config):
    shapes, real = model_of_shapes(config), VisionLanguageModel(config)
    let_learn(shapes, ("vision_tower",))
    let_learn(real, ("vision_tower",))
    assert parts_of(shapes) == parts_of(real)
    tower, *others = parts_of(shapes)
    assert (tower.trained, [part.frozen for part in others]) == (0, [0, 0])
    assert sum(part.trained + part.frozen for part in parts_of(shapes)) == sum(p.numel() for p in real.parameters())


def test_published_sizes_have_their_published_weights():
    *_, decoder = parts_of(model_of_shapes(mm1_config("30b", vocabulary_size=32_000)))
    parts = SIZES["30b"].decoder
    assert decoder.trained == parts.parameters + 32_000 * parts.width
    for size, published in DEEPSEEK_SIZES.items():
        whole = parts_of(model_of_shapes(deepseek_vl_config(size)))
        assert sum(part.trained for part in whole) == published.parameters


def test_a_module_within_a_part_may_be_frozen_alone():
    model = model_of_shapes(tiny_config("hybrid"))
    let_learn(model, ("vision_tower.high",))
    assert not any(each.requires_grad for each in model.vision_tower.high.parameters())
    assert all(each.requires_grad for each in model.vision_tower.low.parameters())


def by_hand(frozen=()):
    """Forward and backward of each part: two operations for each number of a matrix that meets one of a vector."""
    pictures, patches = 4, 16
    places, head = patches + 1, VOCABULARY * DECODER.width
    # Every layer has four square matrices and two of the MLP.
    one_layer = 4 * TOWER.width**2 + 2 * TOWER.width * TOWER.hidden_width
    embedded = 2 * pictures * patches * 3 * TOWER.patch_px**2 * TOWER.width
    products = TOWER.layers * 2 * pictures * places * one_layer
    # Queries by keys, and what comes of it by values.
    mixed = TOWER.layers * pictures * 2 * 2 * places**2 * TOWER.width
    # Backward: each product again for both of its factors, but the pixels need none; attention five for two.
    tower = (embedded + products + mixed, embedded + 2 * products + 2.5 * mixed)
    linear = 2 * pictures * 4 * TOWER.width * DECODER.width
    tokens, targets = 157, (100 - 12) + (40 - 1) + (17 - 4)
    layer = 4 * DECODER.width**2 + 3 * DECODER.width * DECODER.inner_width
    decoder = DECODER.layers * 2 * tokens * layer
    lengths = [100, 40, 17]
    attention = DECODER.layers * sum(2 * 2 * length**2 * DECODER.width for length in lengths)
    counts = {
        StepPart.TOWER: tower,
        StepPart.CONNECTOR: (linear, 2 * linear),
        StepPart.DECODER: (decoder, 2 * decoder),
        StepPart.ATTENTION: (attention, 2.5 * attention),
        StepPart.HEAD: (2 * targets * head, 2 * 2 * targets * head),
    }
    if "vision_tower" in frozen:
        # The connector's input needs no gradient, its matrix does.
        counts |= {StepPart.TOWER: (tower[0], 0), StepPart.CONNECTOR: (linear, linear)}
    if "language_model" in frozen:
        counts |= {StepPart.DECODER: (decoder, decoder), StepPart.HEAD: (2 * targets * head, 2 * targets * head)}
    return counts


@pytest.mark.parametrize("frozen", [(), ("vision_tower",), ("vision_tower", "language_model"), ("language_model",)])
def test_the_arithmetic_is_that_of_a_count_by_hand(frozen):
    traced = trace(config_of(), SHAPE, frozen=frozen)
    found = {part: (traced.flops(part, backward=False), traced.flops(part, backward=True)) for part in StepPart}
    assert found == by_hand(frozen)
    assert traced.target_tokens == (100 - 12) + (40 - 1) + (17 - 4)


def test_a_convolution_of_channels_apart_costs_backward_twice_what_it_does_forward():
    connector = CAbstractorConfig(side=2, depth=1, hidden_width=32, grid_side=4, mlp_depth=1)
    traced = trace(config_of(connector), SHAPE)
    forward, backward = (traced.flops(StepPart.CONNECTOR, backward=way) for way in (False, True))
    assert backward == 2 * forward > 0


def real_step(config, shape, frozen=(), precision=Precision.FLOAT32):
    """What autograd keeps of a real forward pass, and the pixels: bytes, each piece of memory once, without weights."""
    torch.manual_seed(0)
    model = VisionLanguageModel(config)
    let_learn(model, frozen)
    model.train()
    batch = batch_of(shape, config, torch.randn)
    known = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept = {each.untyped_storage().data_ptr(): each.nbytes for each in batch.pictures.values()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    context = StepContext(step=0, micro=0, total_steps=1, device=CPU)
    with isolated_documents(model.language_model):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(precision, CPU):
            parts = document_loss(model, batch, context)
        torch.autograd.backward(parts.loss_sum)
    return model, sum(kept.values())


CONFIGS = {
    "pool": (config_of(), SHAPE),
    "c_abstractor": (config_of(CAbstractorConfig(side=2, depth=2, hidden_width=40, grid_side=4)), SHAPE),
    "text alone": (config_of(), BatchShape(documents=(DocumentShape(tokens=90),), picture_px=32)),
    "siglip": (
        tiny_config("mlp"),
        BatchShape(documents=(DocumentShape(tokens=120, pictures=4), DocumentShape(tokens=50)), picture_px=64),
    ),
    "hybrid": (
        tiny_config("hybrid"),
        BatchShape(documents=(DocumentShape(tokens=120, pictures=2), DocumentShape(tokens=50)), picture_px=128),
    ),
}


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16])
@pytest.mark.parametrize("frozen", [(), ("vision_tower",), ("vision_tower", "language_model")])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_keeps_for_the_backward_pass_what_a_real_step_keeps(name, frozen, precision):
    config, shape = CONFIGS[name]
    _, kept = real_step(config, shape, frozen, precision)
    traced = trace(config, shape, frozen=frozen, precision=precision)
    # Also alive, and not kept by autograd: ids and what is made of them alone.
    assert sum(traced.kept) == pytest.approx(kept, rel=0.04)


def test_what_is_kept_shrinks_with_what_does_not_learn():
    kept = [sum(trace(*CONFIGS["pool"], frozen=frozen).kept) for frozen in ((), ("vision_tower",))]
    assert kept[1] < 0.85 * kept[0]


@pytest.mark.parametrize("frozen", [(), ("vision_tower",), ("language_model",)])
def test_it_ends_with_the_gradients_of_all_that_learns_and_little_else(frozen):
    config, shape = CONFIGS["pool"]
    traced = trace(config, shape, frozen=frozen)
    model, _ = real_step(config, shape, frozen)
    gradients = sum(each.grad.numel() * 4 for each in model.parameters() if each.grad is not None)
    last = dict(zip(Held, traced.moments[-1], strict=True))
    assert last.pop(Held.GRADIENTS) == gradients
    assert sum(last.values()) < 0.05 * sum(traced.kept)


def test_the_arithmetic_is_what_torch_counts_in_a_real_step():
    config, shape = CONFIGS["pool"]
    model = VisionLanguageModel(config)
    batch = batch_of(shape, config, torch.randn)
    # torch has no count of its attention for CPUs; as of that for GPUs.
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    mapping = {
        flash: lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value),
        flash_backward: lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(
            gradient, query, key, value
        ),
    }
    context = StepContext(step=0, micro=0, total_steps=1, device=CPU)
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    with isolated_documents(model.language_model), counter:
        document_loss(model, batch, context).loss_sum.backward()
    assert trace(config, shape).flops() == counter.get_total_flops()


def test_checkpointed_activations_are_fewer_and_cost_arithmetic():
    config, shape = CONFIGS["pool"]
    plain, checked = (trace(config, shape, checkpoints_activations=each) for each in (False, True))
    assert sum(checked.kept) < 0.6 * sum(plain.kept)
    assert plain.flops() < checked.flops() < 1.5 * plain.flops()


def test_norms_as_gpus_compute_them_keep_more():
    config, shape = CONFIGS["c_abstractor"]  # whose norms read what products made; others read sums in float32
    cpu, gpu = (
        sum(trace(config, shape, precision=Precision.BFLOAT16, autocasts_like_gpu=each).kept) for each in (False, True)
    )
    assert gpu > cpu
