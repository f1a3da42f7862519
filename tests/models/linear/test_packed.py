"""Packed linear layers against torch's own."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lensmith.core.errors import LensmithError
from lensmith.models.linear import packed
from lensmith.models.linear.packed import PackedLinear, can_pack, pack_linear_layers

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="this torch has no oneDNN: NOTHING WAS TESTED")
HALF = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this processor has no bfloat16")
)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 300])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_it_computes_the_same(dtype, rows, bias):
    torch.manual_seed(0)
    linear = nn.Linear(512, 768, bias=bias).to(dtype)
    inputs = torch.randn(rows, 512).to(dtype)
    expected, result = linear(inputs), PackedLinear(linear)(inputs)
    # Float32: sums of 512 products of about 0.04 in another order. bfloat16: one rounding of a float32 sum, the same
    # but where the two sums lie on two sides of a middle.
    allowed = 2e-6 if dtype is torch.float32 else 2**-8
    assert torch.allclose(result, expected, rtol=allowed, atol=allowed)
    exact = inputs.double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
    assert (result.double() - exact).abs().max() < 3 * (expected.double() - exact).abs().max() + 1e-7


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(packed, "SMALLEST", 1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@torch.inference_mode()
def test_a_packed_model_says_the_same_and_its_embeddings_stay(model):
    ids = torch.randint(0, 200, (2, 30))
    before, embeddings = model(ids).logits, model.get_input_embeddings().weight.clone()
    greedy = model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert pack_linear_layers(model) == 2 * 7 + 1
    assert torch.allclose(model(ids).logits, before, rtol=0, atol=1e-5)
    assert torch.equal(model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0), greedy)
    assert torch.equal(model.get_input_embeddings().weight, embeddings)
    assert model.get_output_embeddings().weight.shape == (200, 64)


def test_what_would_lose_its_weights_is_refused(model, tmp_path):
    pack_linear_layers(model)
    with pytest.raises(LensmithError, match="saved"):
        model.save_pretrained(tmp_path)
    with pytest.raises(LensmithError, match="moved"):
        model.to(torch.bfloat16)


def test_small_layers_and_other_precisions_are_left_alone():
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(1024, 1024, dtype=torch.float64))
    assert pack_linear_layers(layers) == 0
