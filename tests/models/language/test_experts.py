"""Mixtures of experts against plain loops; both ways of multiplying; and the losses in small cases."""

import math

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from lensmith.core.errors import ConfigError
from lensmith.models.language.causal import build_language_model, language_config
from lensmith.models.language.experts import (
    ExpertFeedForward,
    ExpertLlamaConfig,
    Experts,
    ExpertsConfig,
    Matmul,
    Router,
    balance_loss,
    can_group,
    expert_linear,
    recorded_routing,
    route,
    router_z_loss,
)
from lensmith.train import OptimConfig
from lensmith.train.optim import build_optimizer

WIDTH, INNER, EXPERTS, TOKENS = 16, 24, 5, 23


def llama(**changes):
    values = {
        "vocab_size": 99,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "experts": ExpertsConfig(count=EXPERTS, every=2),
    }
    return ExpertLlamaConfig(**(values | changes))


def feed_forward(seed=0, **changes):
    torch.manual_seed(seed)
    module = ExpertFeedForward(llama(**changes))
    for weights in module.parameters():
        nn.init.normal_(weights, std=0.3)
    return module


@pytest.fixture
def states():
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def by_hand(module, states_TL):
    """Token by token and number by number: no sorting, no batching, no function of the module's."""
    rows = []
    for state_L in states_TL:
        weighed = [(row_L * state_L).sum() for row_L in module.router.weight]
        exponentials = [torch.exp(logit - max(weighed).detach()) for logit in weighed]
        chosen = sorted(range(EXPERTS), key=lambda expert: -float(weighed[expert].detach()))[:2]
        total = sum(exponentials[expert] for expert in chosen)
        row_L = torch.zeros(WIDTH)
        for expert in chosen:
            gate_I, up_I = module.experts.gate[expert] @ state_L, module.experts.up[expert] @ state_L
            made_L = module.experts.down[expert] @ (gate_I * torch.sigmoid(gate_I) * up_I)
            row_L = row_L + exponentials[expert] / total * made_L
        rows.append(row_L)
    return torch.stack(rows)


def with_gradients(module, states_TL, compute):
    module.zero_grad()
    given = states_TL.clone().requires_grad_()
    made = compute(given)
    (made * torch.linspace(-1, 1, made.numel()).view_as(made)).sum().backward()
    gradients = {name: weights.grad.clone() for name, weights in module.named_parameters()}
    return made.detach(), gradients | {"states": given.grad}


def assert_same(one, other):
    # float32, sums of a few dozen products of numbers near 1, in another order.
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=1e-6)
    for name, gradient in other[1].items():
        torch.testing.assert_close(one[1][name], gradient, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("matmul", Matmul)
def test_experts_are_what_plain_loops_say_and_so_are_their_gradients(states, matmul):
    module = feed_forward()
    module.experts.matmul = matmul
    expected = with_gradients(module, states, lambda given: by_hand(module, given))
    assert_same(with_gradients(module, states, lambda given: module(given[None])[0]), expected)
    assert all(gradient.abs().sum() > 0 for gradient in expected[1].values())


@pytest.mark.parametrize("bias", [0.0, 4.0])
def test_both_ways_of_multiplying_agree(states, bias):
    """With a bias nearly all tokens choose the same two experts, and some expert has none; nothing is dropped."""
    module = feed_forward()
    states = states + bias
    made = {}
    for matmul in Matmul:
        module.experts.matmul = matmul
        made[matmul] = with_gradients(module, states, lambda given: module(given[None])[0])
    torch.testing.assert_close(made[Matmul.GROUPED][0], made[Matmul.LOOP][0], rtol=1e-6, atol=1e-6)
    for name, gradient in made[Matmul.LOOP][1].items():
        torch.testing.assert_close(made[Matmul.GROUPED][1][name], gradient, rtol=1e-5, atol=1e-5, msg=name)
    counts = route(module.router(states), 2).experts_TK.flatten().bincount(minlength=EXPERTS)
    assert counts.sum() == 2 * TOKENS
    assert (counts.min() == 0) == bool(bias)


@pytest.mark.parametrize("matmul", Matmul)
def test_rows_go_to_the_weights_of_their_expert(matmul):
    weights_EIL = torch.arange(1.0, 4.0)[:, None, None] * torch.eye(4)
    ends_E = torch.tensor([2, 2, 5])
    made = expert_linear(torch.ones(5, 4), weights_EIL, ends_E, matmul)
    assert made[:, 0].tolist() == [1, 1, 3, 3, 3]
    assert expert_linear(torch.ones(0, 4), weights_EIL, torch.zeros(3, dtype=torch.long), matmul).shape == (0, 4)


def test_torch_s_call_is_only_asked_for_what_it_can():
    weights = torch.empty(3, 8, 12)
    assert can_group(torch.float32, weights)
    assert not can_group(torch.float64, weights)
    assert not can_group(torch.bfloat16, weights), "rows of 24 bytes"
    assert Matmul.fitting(torch.empty(1, 12), weights) is Matmul.LOOP


def test_a_token_s_result_does_not_depend_on_the_others(states):
    module = feed_forward()
    with torch.no_grad():
        together = module(states[None])[0]
        alone = torch.cat([module(states[None, token : token + 1])[0] for token in range(TOKENS)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_shares_add_up_to_one_and_the_likeliest_comes_first():
    routing = route(torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]]).log(), 2)
    assert routing.experts_TK.tolist() == [[1, 2], [0, 2]]
    torch.testing.assert_close(routing.shares_TK, torch.tensor([[2 / 3, 1 / 3], [5 / 9, 4 / 9]]))


@pytest.mark.parametrize("matmul", Matmul)
def test_bfloat16_computes_in_bfloat16_but_for_the_router(states, matmul):
    module = feed_forward()
    module.experts.matmul = matmul
    with torch.no_grad():
        exact = module(states[None])
        with recorded_routing(module) as logits, torch.autocast("cpu", torch.bfloat16):
            made = module(states[None])
        assert made.dtype is torch.bfloat16
        assert torch.equal(logits[0], states @ module.router.weight.T)
        # Three products, each rounded to eight bits.
        torch.testing.assert_close(made.float(), exact, rtol=0.05, atol=0.02 * float(exact.abs().max()))


# --- losses -------------------------------------------------------------------------------------------------------


def test_the_balance_loss_in_small_cases():
    even = 3 * torch.eye(4).repeat(2, 1)
    assert float(balance_loss(even)) == pytest.approx(1)
    sure_of_one = torch.tensor([[100.0, 0, 0, 0]]).repeat(8, 1)
    assert float(balance_loss(sure_of_one)) == pytest.approx(4)
    # Even probabilities, and by a hair all first choices the same: the sum is 4 * (1 * 1/4).
    assert float(balance_loss(torch.tensor([[1e-6, 0, 0, 0]]).repeat(8, 1))) == pytest.approx(1)
    # Two of three tokens choose the first of two experts; its mean probability is 1.55/3, the other's 1.45/3.
    probabilities = torch.tensor([[0.75, 0.25], [0.6, 0.4], [0.2, 0.8]])
    assert float(balance_loss(probabilities.log())) == pytest.approx(2 * (2 / 3 * 1.55 / 3 + 1 / 3 * 1.45 / 3))


def test_the_balance_loss_draws_tokens_from_the_busiest_expert():
    logits = torch.tensor([[2.0, 0, 0]]).repeat(6, 1).requires_grad_()
    balance_loss(logits).backward()
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1:] < 0).all()


def test_the_z_loss_in_small_cases():
    assert float(router_z_loss(torch.zeros(5, 4))) == pytest.approx(math.log(4) ** 2)
    two = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    assert float(router_z_loss(two)) == pytest.approx((math.log(2) ** 2 + math.log(4) ** 2) / 2)
    logits = torch.tensor([[5.0, 1.0]], requires_grad=True)
    router_z_loss(logits).backward()
    assert (logits.grad > 0).all(), "all logits are made smaller"


# --- in a language model ------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_language_model(llama())


@pytest.fixture
def ids():
    return torch.randint(0, 99, (2, 30), generator=torch.Generator().manual_seed(1))


def test_the_last_of_every_n_layers_has_experts(model):
    kinds = [isinstance(layer.mlp, ExpertFeedForward) for layer in model.model.layers]
    assert kinds == [False, True, False, True]
    third = build_language_model(llama(num_hidden_layers=7, experts={"count": 4, "every": 3}))
    assert [isinstance(layer.mlp, ExpertFeedForward) for layer in third.model.layers] == [
        layer in {2, 5} for layer in range(7)
    ]


def test_experts_begin_as_other_weights_do(model):
    for module in model.modules():
        if isinstance(module, Experts | Router):
            for weights in module.parameters(recurse=False):
                assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.3)
    first, second = (model.model.layers[layer].mlp.experts.gate for layer in (1, 3))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_a_model_is_saved_and_comes_back(model, ids, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert again.config.experts_config == ExpertsConfig(count=EXPERTS, every=2)
    assert language_config(model.config.to_dict()).experts_config == model.config.experts_config
    assert model.state_dict().keys() == again.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model.eval()(ids).logits)


def test_weights_that_a_folder_lacks_begin_anew_and_are_named(model, tmp_path):
    del model.model.layers[1].mlp.experts.up
    model.save_pretrained(tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert report["missing_keys"] == {"model.layers.1.mlp.experts.up"}
    assert float(again.model.layers[1].mlp.experts.up.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_routing_is_recorded_layer_by_layer_and_only_within(model, ids):
    with recorded_routing(model) as logits:
        model(ids)
    assert [tuple(each.shape) for each in logits] == [(60, EXPERTS)] * 2
    model(ids)
    assert len(logits) == 2
    assert all(each.requires_grad and each.dtype is torch.float32 for each in logits)


def test_checkpointed_layers_have_the_same_gradients(model, ids):
    def gradients():
        model.train()
        model.zero_grad()
        with recorded_routing(model) as logits:
            loss = model(ids, labels=ids, use_cache=False).loss
        total = loss + sum(balance_loss(each) + router_z_loss(each) for each in logits)
        total.backward()
        assert len(logits) == 2
        return [weights.grad.clone() for weights in model.parameters()]

    before = gradients()
    model.activation_checkpointing_enable()
    for one, other in zip(before, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_experts_are_decayed_as_the_matrices_they_are(model):
    decayed, others = build_optimizer(model, OptimConfig(peak_lr=1e-3, weight_decay=0.1)).param_groups
    names = {name for name in decayed["param_names"] if ".mlp." in name}
    assert {name.rpartition(".")[2] for name in names if ".experts." in name} == {"gate", "up", "down"}
    assert sum(name.endswith("router.weight") for name in names) == 2
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert not any(".mlp." in name for name in others["param_names"])


def test_mixtures_that_cannot_be_are_refused():
    for changes, problem in (
        ({"per_token": 1}, "per_token"),
        ({"count": 2, "per_token": 3}, r"(?s)per_token.*2 to 2"),
        ({"every": 0}, "every"),
    ):
        with pytest.raises(ConfigError, match=problem):
            ExpertsConfig(**changes)
    with pytest.raises(ConfigError, match=r"(?s)no layer has experts.*4 layers"):
        llama(experts={"every": 5})
    with pytest.raises(ConfigError, match="per_tokens"):
        llama(experts={"per_tokens": 2})
