"""A loss that is no number, or that spikes, ends the run with a checkpoint from before; and the run can go on."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lensmith.core.errors import ConfigError
from lensmith.train import DivergedError, LossParts, SpikeRule, StepContext, newest
from lensmith.train.health import LossWatch
from lensmith.train.status import RunState, read_status
from tests.support.toy_run import ToyBatch, ToyBatches, ToyModel, curve, same_bits, toy_config, toy_loss, toy_train

RULE = SpikeRule(window=10, factor=10.0, steps=3)


def changed_at(steps: set[int], factor: float) -> Any:
    """The toy loss, multiplied in some updates (counted from 0)."""

    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        parts = toy_loss(model, batch, context)
        is_bad = context.step in steps and context.micro == 2
        return LossParts(
            loss_sum=parts.loss_sum * (factor if is_bad else 1.0),
            target_tokens=parts.target_tokens,
            samples=parts.samples,
            scalars=parts.scalars,
        )

    return loss


def watched(losses: list[float], rule: SpikeRule = RULE) -> int | None:
    """The number (from 1) of the step in which the run would end, None where it would not."""
    watch = LossWatch(rule)
    for step, loss in enumerate(losses, 1):
        watch.see(loss)
        try:
            watch.require_no_spike(step, None)
        except DivergedError:
            return step
    return None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverging_run_leaves_a_checkpoint_from_before_the_step_and_goes_on(tmp_path: Path, value: float) -> None:
    reference = toy_train(tmp_path / "reference")
    out = tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        toy_train(out, loss=changed_at({16}, value))
    message = str(caught.value)
    assert "diverged in step 17" in message
    assert str(out / "step-000016") in message
    assert "--skip-steps 17" in message
    assert caught.value.exit_code != 0
    assert len(curve(out)) == 16
    assert sorted(path.name for path in out.glob("step-*")) == ["step-000007", "step-000014", "step-000016"]
    status = read_status(out)
    assert status is not None
    assert (status.state, status.step) == (RunState.FAILED, 16)
    assert status.why is not None
    assert "diverged in step 17" in status.why
    # What made it diverge is gone: from that checkpoint on it is the run that never diverged, bit for bit.
    run = toy_train(out)
    assert curve(out) == curve(tmp_path / "reference")
    assert same_bits(run.model, reference.model)


def test_a_run_that_diverges_at_once_has_a_checkpoint_of_its_start(tmp_path: Path) -> None:
    model = ToyModel()
    with pytest.raises(DivergedError, match="step-000000"):
        toy_train(tmp_path, loss=changed_at({0}, math.nan), model=model)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_the_same_command_meets_the_same_step_again_unless_it_is_passed_over(tmp_path: Path) -> None:
    bad = changed_at({16}, math.nan)
    for _ in range(2):
        with pytest.raises(DivergedError, match="diverged in step 17"):
            toy_train(tmp_path, loss=bad)
    run = toy_train(tmp_path, loss=bad, skip={17})
    assert run.result.step == 30
    lines = curve(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert (lines[16]["passed_over"], lines[16]["loss"]) == (1, None)
    assert lines[17]["loss"] > 0


def test_batches_that_are_passed_over_are_not_even_made(tmp_path: Path) -> None:
    class Broken(ToyBatches):
        def batch_at(self, step: int, micro: int) -> ToyBatch:
            if step in (3, 4):
                raise ValueError("a torn record")
            return super().batch_at(step, micro)

    assert toy_train(tmp_path, batches=Broken(), skip={4, 5}).result.step == 30


def test_the_bound_is_median_and_deviations_of_the_losses_before() -> None:
    losses = [2.0, 2.2, 1.8, 2.1, 1.9, 2.0, 2.3, 1.7, 2.0, 2.0]
    watch = LossWatch(RULE, losses[:9])
    assert watch.bound == math.inf
    watch.see(losses[9])
    # By hand: the median is 2.0; deviations 0 0 0 0 .1 .1 .2 .2 .3 .3, their median .1
    assert watch.bound == pytest.approx(2.0 + 10 * 0.1)
    watch.see(9.0)
    assert watch.suspects == 1
    assert watch.bound == pytest.approx(3.0)  # a suspect joins nothing
    watch.see(2.0)
    assert watch.suspects == 0
    flat = LossWatch(RULE, [2.0] * 10)
    assert flat.bound == pytest.approx(2.0 + 10 * 0.01 * 2.0)


def test_spikes_of_fewer_steps_are_none_and_a_lasting_one_is_found() -> None:
    calm = [2.0 + 0.01 * (index % 5) for index in range(20)]
    assert watched([*calm, 5.0, 5.0, *calm]) is None
    assert watched([*calm, 5.0, 5.0, 5.0]) == 23
    assert watched([*calm, 5.0, 5.0, 5.0], SpikeRule(window=30, steps=3)) is None  # too few losses to judge by


def test_noise_and_a_falling_loss_are_no_spikes() -> None:
    # The negative control, by the default rule: curves as runs have them, heavy tails included.
    for seed in range(20):
        draw = random.Random(seed)
        losses = [2 + 6 * math.exp(-step / 200) + 0.3 * draw.gauss(0, 1) for step in range(2000)]
        mixed = [loss + draw.choice((0.0, 0.0, 1.5)) for loss in losses]
        assert watched(losses, SpikeRule()) is None
        assert watched(mixed, SpikeRule()) is None


def test_a_spike_ends_the_run_with_the_checkpoint_from_before_it(tmp_path: Path) -> None:
    config, bad = toy_config(spike=RULE, checkpoint_every_steps=3), changed_at(set(range(19, 23)), 50.0)
    with pytest.raises(DivergedError) as caught:
        toy_train(tmp_path, config, loss=bad)
    message = str(caught.value)
    assert "spiked in steps 20 to 22" in message
    assert str(tmp_path / "step-000019") in message  # and not 21, which was due while the loss looked like a spike
    assert "--skip-steps 20-22" in message
    found = newest(tmp_path).checkpoint
    assert found is not None
    assert found.step == 19
    # Passed over: the last bad step alone is no spike, so the run ends as it should.
    assert toy_train(tmp_path, config, loss=bad, skip={20, 21, 22}).result.step == 30


def test_a_run_that_goes_on_judges_by_the_losses_in_its_log(tmp_path: Path) -> None:
    config, bad = toy_config(spike=RULE), changed_at({19, 20, 21}, 50.0)
    toy_train(tmp_path, config, steps=18)
    with pytest.raises(DivergedError, match="spiked in steps 20 to 22"):
        toy_train(tmp_path, config, loss=bad)


def test_the_rule_can_be_off_and_changes_no_number(tmp_path: Path) -> None:
    bad = changed_at({19, 20, 21}, 50.0)
    assert toy_train(tmp_path / "off", toy_config(spike=None), loss=bad).result.step == 30
    toy_train(tmp_path / "on", toy_config(spike=RULE))
    toy_train(tmp_path / "never", toy_config(spike=None))
    assert curve(tmp_path / "on") == curve(tmp_path / "never")
    with pytest.raises(ConfigError, match=r"spike\.steps"):
        SpikeRule(steps=0)
