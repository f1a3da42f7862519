"""Parts of a model that learn at rates of their own, or not at all; and rates that fall in steps."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.train import LrDrop, OptimConfig, PartConfig, ScheduleConfig, lr_at
from lensmith.train.optim import build_optimizer, freeze, set_lr
from tests.support.toy_run import ToyModel, curve, same_bits, toy_config, toy_train

PARTS = (
    PartConfig(name="embed", lr_factor=0.1),
    PartConfig(name="hidden", lr_factor=0.0),
    PartConfig(name="hidden.bias"),
)
OPTIM = OptimConfig(peak_lr=1e-2, parts=PARTS)


def nested() -> nn.ModuleDict:
    """Two parts of one weight and one bias each, all ones, the second with the name of the first in it."""
    model = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("tower", "tower_head")})
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


def adamw_by_hand(value: float, gradients: list[float], rates: list[float], *, decay: float) -> float:
    """AdamW (arXiv 1711.05101, algorithm 2) as torch scales it, written out: betas 0.9 and 0.95."""
    mean = square = 0.0
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        value -= rate * decay * value
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        value -= rate * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.95**step)) + 1e-8)
    return value


def test_each_part_takes_adamws_step_at_its_own_rate() -> None:
    model = nested()
    config = OptimConfig(peak_lr=1.0, weight_decay=0.1, parts=(PartConfig(name="tower", lr_factor=0.25),))
    optimizer = build_optimizer(model, config)
    gradients = {"tower.weight": [0.3, -2.0], "tower.bias": [5.0, 1.0], "tower_head.weight": [-0.7, 0.1]}
    rates = [0.04, 0.02]
    for step, rate in enumerate(rates):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.full_like(parameter, gradients.get(name, [1.0, 1.0])[step])
        set_lr(optimizer, rate)
        optimizer.step()
    found = {name: parameter.item() for name, parameter in model.named_parameters()}
    slow = [rate * 0.25 for rate in rates]
    # float32 keeps 7 digits, of values near 1.
    assert found["tower.weight"] == pytest.approx(adamw_by_hand(1, [0.3, -2.0], slow, decay=0.1), abs=1e-6)
    assert found["tower.bias"] == pytest.approx(adamw_by_hand(1, [5.0, 1.0], slow, decay=0.0), abs=1e-6)
    assert found["tower_head.weight"] == pytest.approx(adamw_by_hand(1, [-0.7, 0.1], rates, decay=0.1), abs=1e-6)


def test_the_longest_name_decides() -> None:
    config = OptimConfig(
        peak_lr=1.0,
        parts=(
            PartConfig(name="tower", lr_factor=0.0),
            PartConfig(name="tower.neck", lr_factor=0.5),
            PartConfig(name="tower.neck.bias", lr_factor=2.0),
        ),
    )
    factors = {
        name: config.lr_factor(name)
        for name in (
            "tower.trunk.weight",
            "tower.neck.weight",
            "tower.neck.bias",
            "tower.neck_hd.weight",
            "head.weight",
        )
    }
    assert list(factors.values()) == [0.0, 0.5, 2.0, 0.0, 1.0]


def test_a_frozen_part_keeps_its_bits_and_has_no_state_and_the_others_move(tmp_path: Path) -> None:
    config = toy_config(optim=OPTIM)
    start = ToyModel().state_dict()
    run = toy_train(tmp_path, config)
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {"embed.weight", "head.weight", "hidden.bias", "norm.weight", "norm.bias"}
    assert run.model.hidden.weight.grad is None
    states = load_file(run.result.checkpoint / "optimizer.safetensors")
    assert {key.partition("/")[2] for key in states} == {"embed.weight", "hidden.bias", "norm.weight", "norm.bias"}


def test_a_run_with_parts_that_is_taken_up_again_has_the_same_bits(tmp_path: Path) -> None:
    config = toy_config(optim=OPTIM)
    whole = toy_train(tmp_path / "whole", config)
    toy_train(tmp_path / "run", config, steps=11)
    resumed = toy_train(tmp_path / "run", config)
    assert same_bits(whole.model, resumed.model)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_other_rates_or_other_frozen_parts_are_another_run(tmp_path: Path) -> None:
    toy_train(tmp_path, toy_config(optim=OPTIM), steps=3)
    faster = replace(OPTIM, parts=(PartConfig(name="embed", lr_factor=0.2), *PARTS[1:]))
    with pytest.raises(CheckpointError, match=r"optim\.parts differ"):
        toy_train(tmp_path, toy_config(optim=faster))
    freer = replace(OPTIM, parts=PARTS[:1])
    with pytest.raises(CheckpointError, match="other trainable parameters"):
        toy_train(tmp_path, toy_config(optim=freer), allow_changes={"optim.parts"})


def test_a_factor_of_one_changes_nothing(tmp_path: Path) -> None:
    named = OptimConfig(peak_lr=1e-2, parts=(PartConfig(name="embed"), PartConfig(name="norm")))
    one = toy_train(tmp_path / "named", toy_config(optim=named))
    assert same_bits(one.model, toy_train(tmp_path / "plain").model)


def test_a_part_that_the_model_does_not_have_is_refused() -> None:
    config = OptimConfig(peak_lr=1.0, parts=(PartConfig(name="tow", lr_factor=0.0),))
    with pytest.raises(InputError, match=r"(?s)no such part.*tower, tower_head.*tow"):
        freeze(nested(), config)
    with pytest.raises(ConfigError, match=r"optim\.parts is out of range"):
        OptimConfig(peak_lr=1.0, parts=(PartConfig(name="tower"), PartConfig(name="tower")))
    with pytest.raises(ConfigError, match=r"optim\.parts\.lr_factor"):
        PartConfig(name="tower", lr_factor=-1.0)


def test_a_rate_that_falls_in_steps_has_these_values() -> None:
    drops = (LrDrop(after=0.8, lr_fraction=0.316), LrDrop(after=0.9, lr_fraction=0.1))
    schedule = ScheduleConfig(total_steps=10, warmup_steps=2, drops=drops)
    rates = [lr_at(step, peak_lr=2.0, schedule=schedule) for step in range(10)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.632, 0.2])
    for backwards in (drops[::-1], (drops[0], drops[0])):
        with pytest.raises(ConfigError, match=r"schedule\.drops"):
            replace(schedule, drops=backwards)


def test_a_rate_may_stay_at_its_peak() -> None:
    schedule = ScheduleConfig(total_steps=6, warmup_steps=2, final_lr_fraction=1.0)
    assert [lr_at(step, peak_lr=3.0, schedule=schedule) for step in range(6)] == pytest.approx([1.5, 3, 3, 3, 3, 3])
