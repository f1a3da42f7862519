"""One update: the schedule's values, accumulation = one batch, clipping, decay, averaging, divergence, validation."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lensmith.core.errors import ConfigError, InputError
from lensmith.train import (
    LossParts,
    OptimConfig,
    Precision,
    ScheduleConfig,
    StepContext,
    TrainConfig,
    load_weights,
    lr_at,
)
from lensmith.train.config import autocast, resolve
from lensmith.train.optim import WeightAverage, build_optimizer, scale_and_clip
from tests.support.toy_run import ToyBatch, ToyBatches, ToyModel, curve, same_bits, toy_config, toy_loss, toy_train

CPU = torch.device("cpu")


def test_the_schedule_has_these_values() -> None:
    schedule = ScheduleConfig(total_steps=10, warmup_steps=4, final_lr_fraction=0.1)
    rates = [lr_at(step, peak_lr=2.0, schedule=schedule) for step in range(10)]
    # 2 * (0.1 + 0.45 * (1 + cos(k pi / 6))) for k = 1..6
    expected = [0.5, 1.0, 1.5, 2.0, 1.879423, 1.55, 1.1, 0.65, 0.320577, 0.2]
    assert rates == pytest.approx(expected, abs=1e-6)


def test_a_schedule_may_be_all_warm_up_or_none() -> None:
    only = ScheduleConfig(total_steps=4, warmup_steps=4)
    assert [lr_at(step, peak_lr=1.0, schedule=only) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    without = ScheduleConfig(total_steps=2, warmup_steps=0, final_lr_fraction=0.0)
    assert [lr_at(step, peak_lr=1.0, schedule=without) for step in range(2)] == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: OptimConfig(peak_lr=0.0), "optim.peak_lr"),
        (lambda: OptimConfig(peak_lr=1.0, betas=(0.9, 1.0)), "optim.betas"),
        (lambda: OptimConfig(peak_lr=1.0, clip_norm=math.inf), "optim.clip_norm"),
        (lambda: ScheduleConfig(total_steps=5, warmup_steps=6), "schedule.warmup_steps"),
        (lambda: toy_config(accumulate=0), "accumulate"),
        (lambda: toy_config(ema_decay=1.0), "ema_decay"),
        (lambda: toy_config(deadline_s=-1.0), "deadline_s"),
    ],
)
def test_impossible_configurations_are_refused(build: Any, field: str) -> None:
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        build()


def test_accumulated_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    counts = [int((ToyBatches().batch_at(0, micro).targets != -100).sum()) for micro in range(4)]
    assert len(set(counts)) > 1, "uneven counts, or a mean of means would pass"
    accumulated = toy_train(tmp_path / "a", toy_config(accumulate=4), model=ToyModel(dropout=0.0))
    whole = ToyBatches(rows=8, accumulate=1)
    at_once = toy_train(tmp_path / "b", toy_config(accumulate=1), model=ToyModel(dropout=0.0), batches=whole)
    for key in ("loss", "grad_norm", "accuracy", "tokens", "samples", "lr"):
        ours, theirs = ([line[key] for line in curve(tmp_path / name)] for name in "ab")
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6), key
    for a, b in zip(accumulated.model.parameters(), at_once.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_the_loop_equals_a_textbook_one(tmp_path: Path) -> None:
    """Parity with plain torch: the mean over all rows' tokens, clip_grad_norm_, unfused AdamW, the rate set by hand."""
    ours = toy_train(tmp_path, model=ToyModel(dropout=0.0)).model
    model = ToyModel(dropout=0.0)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    whole = ToyBatches(rows=8, accumulate=1)
    schedule = toy_config().schedule
    for step, line in enumerate(curve(tmp_path)):
        batch = whole.batch_at(step, 0)
        loss = nn.functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, peak_lr=1e-2, schedule=schedule)
        optimizer.step()
        assert (line["loss"], line["grad_norm"]) == pytest.approx((loss.item(), norm.item()), rel=1e-5)
    for a, b in zip(ours.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


def test_a_micro_batch_without_targets_counts_for_nothing(tmp_path: Path) -> None:
    class OneEmpty(ToyBatches):
        def batch_at(self, step: int, micro: int) -> ToyBatch:
            batch = super().batch_at(step, min(micro, 2))
            return batch if micro < 3 else ToyBatch(batch.tokens, torch.full_like(batch.targets, -100))

    with_empty = toy_train(tmp_path / "a", toy_config(accumulate=4), model=ToyModel(dropout=0.0), batches=OneEmpty())
    without = toy_train(tmp_path / "b", toy_config(accumulate=3), model=ToyModel(dropout=0.0), batches=ToyBatches())
    assert same_bits(with_empty.model, without.model)


def test_a_step_without_any_target_is_an_error(tmp_path: Path) -> None:
    class Nothing(ToyBatches):
        def batch_at(self, step: int, micro: int) -> ToyBatch:
            batch = super().batch_at(step, micro)
            return ToyBatch(batch.tokens, torch.full_like(batch.targets, -100))

    with pytest.raises(InputError, match=r"update 0 .* has no target token"):
        toy_train(tmp_path, batches=Nothing())


def test_scalars_may_not_use_the_logs_own_names(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        parts = toy_loss(model, batch, context)
        return LossParts(loss_sum=parts.loss_sum, target_tokens=parts.target_tokens, scalars={"lr": 1.0, "fine": 2.0})

    with pytest.raises(InputError, match=r"own: lr$"):
        toy_train(tmp_path, loss=loss)


def test_gradients_are_divided_then_clipped() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[30.0, 40.0]])
    norm = scale_and_clip(model, target_tokens=10, clip_norm=1.0)
    assert float(norm) == pytest.approx(5.0)
    assert model.weight.grad.tolist()[0] == pytest.approx([0.6, 0.8], abs=1e-6)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    scale_and_clip(model, target_tokens=10, clip_norm=1.0)
    assert model.weight.grad.tolist()[0] == pytest.approx([0.3, 0.4])


def test_the_log_shows_the_norm_before_clipping(tmp_path: Path) -> None:
    config = toy_config(optim=OptimConfig(peak_lr=1e-2, clip_norm=0.01))
    toy_train(tmp_path, config)
    assert all(line["grad_norm"] > 0.1 for line in curve(tmp_path))


def test_only_matrices_decay() -> None:
    model = ToyModel()
    decays = {
        name: group["weight_decay"]
        for group in build_optimizer(model, OptimConfig(peak_lr=1.0, weight_decay=0.3)).param_groups
        for name in group["param_names"]
    }
    assert decays == {
        "embed.weight": 0.3,
        "hidden.weight": 0.3,
        "hidden.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
    }


def test_frozen_parts_stay_and_have_no_optimizer_state(tmp_path: Path) -> None:
    model = ToyModel()
    model.hidden.requires_grad_(False)
    before = model.hidden.weight.clone()
    toy_train(tmp_path, model=model)
    assert torch.equal(model.hidden.weight, before)
    assert not torch.equal(model.embed.weight, ToyModel().embed.weight)


def test_models_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not float32(.|\n)*torch\.bfloat16"):
        toy_train(tmp_path, model=ToyModel().to(torch.bfloat16))
    with pytest.raises(InputError, match="no parameter"):
        toy_train(tmp_path, model=ToyModel().requires_grad_(False))


def test_the_average_has_these_values() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, decay=0.2)
    averages = []
    for step, weight in enumerate([1.0, 2.0, 3.0]):
        model.weight.data.fill_(weight)
        average.update(step)
        with average.in_place():
            averages.append(model.weight.item())
        assert model.weight.item() == weight
    # decays: min(0.2, 1/10), min(0.2, 2/11), min(0.2, 3/12)
    first = 0.9 * 1.0
    second = first * 2 / 11 + 2.0 * 9 / 11
    assert averages == pytest.approx([first, second, 0.2 * second + 0.8 * 3.0])


def test_the_averaged_weights_in_a_checkpoint_are_a_model(tmp_path: Path) -> None:
    weights: list[Tensor] = []

    def watch(model: nn.Module, step: int) -> dict[str, float]:
        weights.append(model.embed.weight.detach().clone())
        return {}

    run = toy_train(tmp_path, toy_config(validate_every_steps=30), validate=watch)
    shipped = ToyModel(seed=5)
    load_weights(shipped, run.result.checkpoint / "average.safetensors")
    assert torch.equal(shipped.embed.weight, weights[0])  # validation saw the average
    assert torch.equal(shipped.head.weight, shipped.embed.weight)
    assert not torch.equal(run.model.embed.weight, weights[0])  # the model kept its own


def test_validation_cannot_disturb_the_run(tmp_path: Path) -> None:
    seen: list[int] = []

    def validate(model: nn.Module, step: int) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(step)
        return {"noise": float(torch.rand(())), "fixed": 2.0}

    plain = toy_train(tmp_path / "plain")
    validated = toy_train(tmp_path / "validated", toy_config(validate_every_steps=4), validate=validate)
    assert seen == [4, 8, 12, 16, 20, 24, 28]
    assert same_bits(plain.model, validated.model)
    assert validated.model.training
    lines = curve(tmp_path / "validated")
    assert lines[3]["validate/fixed"] == 2.0
    assert "validate/fixed" not in lines[4]
    assert [line["loss"] for line in lines] == [line["loss"] for line in curve(tmp_path / "plain")]


def test_automatic_precision_is_what_the_machine_has() -> None:
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert resolve(Precision.AUTO, CPU) is (Precision.BFLOAT16 if fast else Precision.FLOAT32)
    assert resolve(Precision.FLOAT32, CPU) is Precision.FLOAT32


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_the_forward_pass_computes_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    layer = nn.Linear(4, 4)
    with autocast(Precision(precision), CPU):
        assert layer(torch.zeros(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_bfloat16_learns_as_float32_does(tmp_path: Path) -> None:
    def long(precision: Precision) -> TrainConfig:
        return toy_config(precision=precision, schedule=ScheduleConfig(total_steps=150, warmup_steps=5))

    toy_train(tmp_path / "a", long(Precision.FLOAT32), model=ToyModel(dropout=0.0))
    run = toy_train(tmp_path / "b", long(Precision.BFLOAT16), model=ToyModel(dropout=0.0))
    exact, rounded = curve(tmp_path / "a")[-1], curve(tmp_path / "b")[-1]
    assert exact["loss"] < 0.5
    assert rounded["loss"] == pytest.approx(exact["loss"], abs=0.05)
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
