"""The memory of a run: exact where it can be, in proportion to what it depends on, and advice that holds."""

from dataclasses import replace

import pytest
import torch

from lensmith.core.errors import ConfigError, InputError
from lensmith.models import VisionLanguageModel
from lensmith.train import OptimConfig, Precision, ScheduleConfig, TrainConfig
from lensmith.train.cost.advice import changes_that_fit
from lensmith.train.cost.cost import Estimator, SequenceShape, Workload, with_accumulation
from lensmith.train.cost.devices import ASSUMED_MFU, GPUS, PUBLISHED_MFU, Gpu, gpu_named
from lensmith.train.cost.processor import measure_cpu
from lensmith.train.cost.trace import DocumentShape
from lensmith.train.cost.weights import let_learn, share_of
from lensmith.train.optim import WeightAverage, build_optimizer
from tests.train.cost.test_trace import config_of

DOCUMENTS = (DocumentShape(tokens=96, pictures=3), DocumentShape(tokens=32))


def workload(**changes):
    base = Workload(
        model=config_of(),
        train=TrainConfig(
            optim=OptimConfig(peak_lr=1e-3),
            schedule=ScheduleConfig(total_steps=1000, warmup_steps=1),
            precision=Precision.FLOAT32,
        ),
        sequences=(SequenceShape(documents=DOCUMENTS, share=1.0),),
        sequences_per_step=8,
        picture_px=32,
    )
    return replace(base, **changes)


def device(memory_bytes=10**9):
    return Gpu(name="small", bfloat16_flops_per_s=2e12, float32_flops_per_s=1e12, memory_bytes=memory_bytes)


@pytest.mark.parametrize("frozen", [(), ("vision_tower",), ("vision_tower", "language_model")])
def test_weights_and_what_belongs_to_them_are_as_many_bytes_as_in_a_real_run(frozen):
    model = VisionLanguageModel(config_of())
    let_learn(model, frozen)
    optimizer = build_optimizer(model, OptimConfig(peak_lr=1e-3))
    average = WeightAverage(model, 0.99)
    for each in model.parameters():
        if each.requires_grad:
            each.grad = torch.zeros_like(each)
    optimizer.step()
    share = share_of(model, ranks=1, keeps_average=True)
    state = [value for values in optimizer.state_dict()["state"].values() for value in values.values()]
    assert share.weights == sum(each.nbytes for each in model.parameters())
    assert share.gradients == sum(each.grad.nbytes for each in model.parameters() if each.grad is not None)
    assert share.optimizer == sum(each.nbytes for each in state)
    held = [each for values in vars(average).values() if isinstance(values, list) for each in values]
    # The average and the weights that it is of.
    assert 2 * share.average == sum(each.nbytes for each in held)
    assert (share.gathered_weights, share.gathered_gradients) == (0, 0)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_of_several_processes_the_first_holds_the_first_piece_of_each_tensor(ranks):
    model = VisionLanguageModel(config_of())
    pieces = [torch.chunk(each, ranks)[0] for each in model.parameters()]
    share = share_of(model, ranks=ranks, keeps_average=False)
    assert share.weights == share.gradients == 4 * sum(each.numel() for each in pieces)
    assert share.average == 0
    whole = 4 * sum(each.numel() for each in model.parameters())
    layers = (*model.vision_tower.clip.encoder.layers, *model.language_model.model.layers)
    sizes = sorted(4 * sum(each.numel() for each in layer.parameters()) for layer in layers)
    assert share.gathered_weights == whole - sum(sizes) + sum(sizes[-2:])


def total(run, ranks=1, on=None):
    return Estimator(on or device()).cost(run, ranks=ranks).memory.total


def test_memory_follows_what_it_depends_on():
    base = total(workload())
    assert total(workload(frozen=("vision_tower",))) < base
    assert total(with_accumulation(workload(), 4)) < base
    assert total(workload(), ranks=4) < base
    longer = tuple(replace(each, tokens=2 * each.tokens) for each in DOCUMENTS)
    assert total(workload(sequences=(SequenceShape(documents=longer, share=1.0),))) > base


def test_an_average_costs_what_it_is_of():
    averaged = workload(train=replace(workload().train, ema_decay=0.9))
    estimator = Estimator(device())
    base, more = (estimator.cost(run).memory for run in (workload(), averaged))
    assert more == replace(base, average=base.weights)


def test_gradients_that_are_added_up_are_there_from_the_second_micro_batch_on():
    memory = Estimator(device()).cost(with_accumulation(workload(), 2)).memory
    assert memory.gradients == memory.weights


def test_the_fullest_kind_decides_over_memory_and_the_shares_over_arithmetic():
    few, many = ((DocumentShape(tokens=128, pictures=each),) for each in (1, 8))
    costs = [
        Estimator(device()).cost(workload(sequences=kinds))
        for kinds in (
            (SequenceShape(documents=few, share=1.0),),
            (SequenceShape(documents=many, share=1.0),),
            (SequenceShape(documents=few, share=0.75), SequenceShape(documents=many, share=0.25)),
        )
    ]
    low, high, mixed = costs
    assert mixed.memory == high.memory
    assert mixed.flops_per_step == pytest.approx(0.75 * low.flops_per_step + 0.25 * high.flops_per_step)


def test_time_is_arithmetic_over_an_assumed_share_of_the_devices_rate():
    cost = Estimator(device()).cost(workload(), ranks=2)
    each_s = cost.flops_per_step / 2 / 1e12
    assert cost.step_s.assumed == pytest.approx(each_s / ASSUMED_MFU)
    assert (cost.step_s.highest, cost.step_s.lowest) == pytest.approx([each_s / share for share in PUBLISHED_MFU])
    assert cost.days.assumed == pytest.approx(1000 * cost.step_s.assumed / 86_400)
    assert cost.tokens_per_s == pytest.approx(8 * 128 / cost.step_s.assumed)


def test_a_step_has_the_same_arithmetic_however_it_is_shared_out():
    counts = {
        Estimator(device()).cost(run, ranks=ranks).flops_per_step
        for run, ranks in ((workload(), 1), (workload(), 4), (with_accumulation(workload(), 4), 2))
    }
    assert len(counts) == 1


def test_what_is_said_to_fit_fits_when_it_is_done():
    run = workload()
    one = total(with_accumulation(run, 8))
    small = Estimator(device(memory_bytes=(one + total(run)) // 2))
    assert not small.cost(run).fits
    changes = changes_that_fit(small, run, ranks=1)
    assert {change.is_setting for change in changes} == {True, False}
    assert any(change.workload.train.accumulate > 1 and change.ranks == 1 for change in changes)
    assert any(change.ranks > 1 for change in changes)
    assert any(change.workload.sequences != run.sequences for change in changes)
    for change in changes:
        again = small.cost(change.workload, ranks=change.ranks, checkpoints_activations=change.checkpoints_activations)
        assert again.fits
        assert again.memory.total == change.total_bytes


def test_nothing_is_said_to_fit_where_nothing_does():
    assert changes_that_fit(Estimator(device(memory_bytes=1000)), workload(), ranks=1) == ()


def test_devices_are_known_by_name_and_no_other():
    assert {"a100", "h100", "h200"} <= GPUS.keys()
    with pytest.raises(InputError, match="no such device"):
        gpu_named("v100")


def test_a_step_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ConfigError, match="shared out evenly"):
        Estimator(device()).cost(workload(), ranks=3)
    with pytest.raises(ConfigError, match="shared out evenly"):
        Estimator(device()).cost(workload(), ranks=16)


@pytest.mark.alone
def test_a_processor_is_measured_and_takes_longer_for_more():
    rates = measure_cpu()
    estimator = Estimator(rates)
    once = estimator.cost(workload())
    longer = tuple(replace(each, tokens=4 * each.tokens) for each in DOCUMENTS)
    more = estimator.cost(workload(sequences=(SequenceShape(documents=longer, share=1.0),)))
    assert 0 < once.step_s.assumed < more.step_s.assumed
    assert once.memory_limit > 10**8
    with pytest.raises(ConfigError, match="one process"):
        estimator.cost(workload(), ranks=2)
