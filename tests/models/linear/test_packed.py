"""Packed linear layers against torch's own."""

import weakref

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lensmith.core.errors import LensmithError
from lensmith.models.linear.int8 import quantize_linear_layers
from lensmith.models.linear.packed import PackedLinear, can_pack, count_parameters, pack_linear_layers

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
    # On some processors the kernel adds in one chain, where torch's adds in 16 that it joins at the end.
    most = 6 if dtype is torch.float32 else 3
    assert (result.double() - exact).abs().max() < most * (expected.double() - exact).abs().max() + 1e-7


@pytest.fixture
def model():
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
    assert pack_linear_layers(model, smallest=1) == 2 * 7 + 1
    assert torch.allclose(model(ids).logits, before, rtol=0, atol=1e-5)
    assert torch.equal(model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0), greedy)
    assert torch.equal(model.get_input_embeddings().weight, embeddings)
    assert model.get_output_embeddings().weight.shape == (200, 64)


def test_what_would_lose_its_weights_is_refused(model, tmp_path):
    pack_linear_layers(model, smallest=1)
    with pytest.raises(LensmithError, match="saved"):
        model.save_pretrained(tmp_path)
    with pytest.raises(LensmithError, match="moved"):
        model.to(torch.bfloat16)


def test_small_layers_and_other_precisions_are_left_alone():
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(1024, 1024, dtype=torch.float64))
    assert pack_linear_layers(layers) == 0


class Pair(nn.Module):
    """An embedding and two heads, of which the second shares the weights of what it is told to."""

    def __init__(self, shared):
        super().__init__()
        self.embedding = nn.Embedding(1024, 512)
        self.first = nn.Linear(512, 1024)
        self.second = nn.Linear(512, 1024)
        if shared == "embedding":
            self.second.weight = self.embedding.weight
        if shared == "first":
            self.second.weight = self.first.weight


@pytest.mark.parametrize("shared", ["nothing", "embedding", "first"])
@pytest.mark.parametrize(
    "change", [pack_linear_layers, quantize_linear_layers, lambda m: (quantize_linear_layers(m), pack_linear_layers(m))]
)
def test_parameters_are_counted_in_whatever_layout(shared, change):
    model = Pair(shared)
    expected = (3 if shared == "nothing" else 2) * 1024 * 512 + 2 * 1024
    assert sum(parameter.numel() for parameter in model.parameters()) == expected == count_parameters(model)
    change(model)
    assert sum(parameter.numel() for parameter in model.parameters()) < expected, "something was replaced"
    assert count_parameters(model) == expected


@pytest.mark.parametrize("change", [pack_linear_layers, quantize_linear_layers])
def test_a_layer_is_freed_before_the_next_is_replaced(change, monkeypatch):
    layers = nn.Sequential(*(nn.Linear(512, 512) for _ in range(4)))
    before = [weakref.ref(layer) for layer in layers]
    kept = []
    set_attribute = nn.Module.__setattr__

    def noting(self, name, value):
        kept.append(sum(layer() is not None for layer in before))
        set_attribute(self, name, value)

    monkeypatch.setattr(nn.Sequential, "__setattr__", noting, raising=False)
    change(layers)
    assert kept[:4] == [4, 3, 2, 1]
