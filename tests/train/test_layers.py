"""Layers that are computed twice: the same losses and gradients, less that is kept; and a run that switches to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from lensmith.core.errors import ConfigError
from lensmith.models.language.isolation import ISOLATED, positions
from lensmith.train import LossParts, StepContext
from lensmith.train.layers import layers_of, prepare_layers
from tests.support.tiny_vlm import tiny_llama
from tests.support.toy_run import curve, same_bits, toy_config, toy_train

BOUNDS = (0, 9, 30, 64)


def small_model(dropout: float = 0.0) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama(attention_dropout=dropout)).train()
    # For good, as in a run: what is computed a second time, in the backward pass, must attend as the first time.
    model.set_attn_implementation(ISOLATED)
    return model


@dataclass(frozen=True)
class Documents:
    """Rows of three documents each, other ones in each step."""

    def batch_at(self, step: int, micro: int) -> Tensor:
        return torch.randint(4, 200, (1, BOUNDS[-1]), generator=torch.Generator().manual_seed(step * 100 + micro))


def documents_loss(model: nn.Module, ids_1T: Tensor, context: StepContext | None = None) -> LossParts:
    outputs = model(
        input_ids=ids_1T, position_ids=positions(BOUNDS), labels=ids_1T, document_bounds=BOUNDS, use_cache=False
    )
    return LossParts(loss_sum=outputs.loss * ids_1T.numel(), target_tokens=ids_1T.numel(), samples=3)


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[int]]:
    calls: list[int] = []
    # Before it: a second forward pass ends as soon as all is there that the backward pass wants, within the last part.
    hook = module.register_forward_pre_hook(lambda *_: calls.append(1))
    yield calls
    hook.remove()


def gradients(model: nn.Module) -> tuple[float, dict[str, Tensor], int, int]:
    """Loss, gradients, the bytes kept for the backward pass, and how often the first layer's network was called."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    model.zero_grad()
    torch.manual_seed(7)
    with calls_of(layers_of(model)[0].mlp) as calls:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = documents_loss(model, Documents().batch_at(0, 0)).loss_sum
        kept_by_forward = kept
        loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return float(loss.detach()), found, kept_by_forward, len(calls)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_layers_computed_twice_have_the_same_losses_and_gradients(dropout: float) -> None:
    model = small_model(dropout)
    loss, once, kept, calls = gradients(model)
    prepare_layers(model, toy_config(recompute_layers=True))
    again, twice, kept_then, calls_then = gradients(model)
    assert (calls, calls_then) == (1, 2)
    assert again == pytest.approx(loss, rel=1e-6)
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], gradient, rtol=1e-6, atol=1e-6, msg=name)
    # Two layers of two that keep their inputs alone; what embedding and head keep is the same.
    assert kept_then < kept / 2
    prepare_layers(model, toy_config())
    assert gradients(model)[3] == 1


def test_other_dropout_is_seen() -> None:
    # The negative control: gradients differ by far more than 1e-6 where a layer draws other numbers the second time.
    model = small_model(0.3)
    _, once, _, _ = gradients(model)
    model.zero_grad()
    torch.manual_seed(8)
    documents_loss(model, Documents().batch_at(0, 0)).loss_sum.backward()
    assert max(float((p.grad - once[name]).abs().max()) for name, p in model.named_parameters()) > 1e-3


def test_a_run_may_switch_to_it_and_stays_the_same_bit_for_bit(tmp_path: Path) -> None:
    config = replace(toy_config(), ema_decay=None)

    def trained(out: Path, changes: list[dict[str, object]]) -> nn.Module:
        for piece in changes:
            model = small_model(0.3)
            toy_train(out, replace(config, **piece), model=model, batches=Documents(), loss=documents_loss, steps=15)
        return model

    plain = trained(tmp_path / "plain", [{}, {}])
    switched = trained(tmp_path / "switched", [{}, {"recompute_layers": True}])
    assert curve(tmp_path / "plain") == curve(tmp_path / "switched")
    assert same_bits(plain, switched)


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="recompute_layers"):
        toy_train(tmp_path, toy_config(recompute_layers=True))


def test_attention_that_changes_before_the_backward_pass_is_an_error() -> None:
    # Not silence: a layer that is computed again must attend as it did the first time.
    model = small_model()
    prepare_layers(model, toy_config(recompute_layers=True))
    loss = documents_loss(model, Documents().batch_at(0, 0)).loss_sum
    model.set_attn_implementation("sdpa")
    with pytest.raises(Exception, match=r"different number of tensors|have different metadata"):
        loss.backward()
