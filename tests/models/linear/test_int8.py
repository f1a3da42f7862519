"""Linear layers of 8-bit integers against the arithmetic that they stand for."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lensmith.core.errors import ConfigError
from lensmith.models.linear.int8 import Int8Linear, PackedInt8Linear, quantize_linear_layers
from lensmith.models.linear.packed import can_pack

PACKED = pytest.param(
    PackedInt8Linear,
    marks=pytest.mark.skipif(
        not can_pack(torch.int8), reason="this processor multiplies no 8-bit integers: NOT TESTED"
    ),
)


def _layer(outputs=96, inputs=64, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("rows", [1, 3, 16, 17, 200])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [lambda layer: layer, PACKED])
def test_it_computes_what_its_integers_say(rows, bias, kind):
    layer = Int8Linear.of(_layer(bias=bias))
    inputs = torch.randn(rows, 64).to(torch.bfloat16)
    exact = inputs.double() @ (layer.weight.double() * layer.scale.double()[:, None]).T
    exact += layer.bias.double() if bias else 0
    # bfloat16 keeps 8 bits: a sum of 64 terms is rounded once or twice at its own size.
    assert torch.allclose(kind(layer)(inputs).double(), exact, rtol=2**-7, atol=2**-7 * exact.std())


@pytest.mark.parametrize("kind", [PACKED])
def test_activations_keep_more_bits_than_bfloat16_even_beside_a_large_one(kind):
    layer = Int8Linear.of(_layer(inputs=512, bias=False))
    inputs = torch.randn(4, 512)
    inputs[:, 7] *= 30
    exact = inputs.double() @ (layer.weight.double() * layer.scale.double()[:, None]).T
    rounded = inputs.to(torch.bfloat16).double() @ (layer.weight.double() * layer.scale.double()[:, None]).T
    error = (kind(layer)(inputs).double() - exact.to(torch.bfloat16).double()).square().mean()
    assert error < (rounded - exact).square().mean()


@pytest.mark.parametrize("kind", [lambda layer: layer, PACKED])
def test_few_rows_and_many_agree(kind):
    layer = kind(Int8Linear.of(_layer()))
    inputs = torch.randn(40, 64).to(torch.bfloat16)
    few = torch.cat([layer(part) for part in inputs.split(8)])
    assert torch.allclose(few.float(), layer(inputs).float(), rtol=2**-6, atol=2**-6)


def test_weights_are_off_by_half_a_step_at_most():
    linear = _layer()
    layer = Int8Linear.of(linear)
    error = (layer.weight.double() * layer.scale.double()[:, None] - linear.weight.double()).abs()
    # The scale itself is rounded to 8 bits, which can cut off the largest weight by 2**-9 of itself.
    allowed = 0.5 * layer.scale.double()[:, None] + 2**-8 * linear.weight.double().abs()
    assert (error <= allowed).all()


def test_a_row_of_zeros_stays_zero():
    linear = _layer(bias=False)
    linear.weight.data[3] = 0
    assert torch.equal(Int8Linear.of(linear)(torch.randn(2, 64))[:, 3], torch.zeros(2, dtype=torch.bfloat16))


def test_leading_dimensions_stay():
    assert Int8Linear.of(_layer())(torch.randn(2, 5, 64)).shape == (2, 5, 96)


def _model(*, tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_a_model_says_nearly_the_same_and_takes_half_the_room(tied):
    model = _model(tied=tied)
    ids = torch.randint(0, 200, (4, 60))
    before = model(ids).logits.log_softmax(-1)
    embeddings = model.get_input_embeddings().weight.clone()
    done = quantize_linear_layers(model)
    after = model(ids).logits.float().log_softmax(-1)
    assert done.layers == 3 * 7 + 1
    assert done.bytes_after < 0.3 * done.bytes_before, "from float32"
    assert isinstance(model.get_output_embeddings(), PackedInt8Linear if can_pack(torch.int8) else Int8Linear)
    assert torch.equal(model.get_input_embeddings().weight, embeddings.to(torch.bfloat16)), "embeddings are not rounded"
    divergence = (before.exp() * (before - after)).sum(-1).mean()
    assert 0 < divergence < 5e-3
    shuffled = after[:, torch.randperm(60)]
    assert (before.exp() * (before - shuffled)).sum(-1).mean() > 50 * divergence, "the measure sees a difference"


@torch.inference_mode()
def test_it_generates_with_a_cache():
    model = _model(tied=False)
    quantize_linear_layers(model)
    ids = torch.randint(0, 200, (1, 30))
    out = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None)
    again = model(out[:, :-1]).logits[0, 29:].argmax(-1)
    assert (again == out[0, 30:]).float().mean() >= 0.75, "bfloat16 may turn a near tie"


def test_some_layers_can_be_left_as_they_are():
    model = _model(tied=False)
    quantize_linear_layers(model, wanted=lambda name: name != "lm_head")
    assert isinstance(model.lm_head, nn.Linear)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="nothing"):
        quantize_linear_layers(nn.LayerNorm(4))
    linear = _layer()
    linear.weight.data[0, 0] = float("inf")
    with pytest.raises(ConfigError, match="finite"):
        Int8Linear.of(linear)
