"""Memory and time of a run before it is started, from one traced micro-batch of each kind of sequence.

Exact are the weights and what belongs to them, and the arithmetic. Memory adds what a trace holds; of several
processes one holds its share of the weights. Time is what `devices` or `processor` makes of it. What is not seen: an
allocator's gaps, buffers of communication, the batches that are made ahead, a checkpoint being written, a validation;
and of the time: reading the data, communication, restarts.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lensmith.core.errors import ConfigError
from lensmith.models.config import VisionLanguageConfig
from lensmith.train.config import Precision, TrainConfig, resolve
from lensmith.train.cost.devices import ASSUMED_MFU, PUBLISHED_MFU, Gpu
from lensmith.train.cost.processor import CpuRates
from lensmith.train.cost.trace import BatchShape, DocumentShape, Held, StepPart, Trace, model_of_shapes, trace
from lensmith.train.cost.weights import PartWeights, ProcessShare, let_learn, parts_of, share_of

SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class SequenceShape:
    """A kind of training sequence. `share`: of all sequences, so many are of it; 0: only its memory counts."""

    documents: tuple[DocumentShape, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained on what: all but the machines. `frozen` names the model's parts that do not learn."""

    model: VisionLanguageConfig
    train: TrainConfig
    sequences: tuple[SequenceShape, ...]
    sequences_per_step: int
    picture_px: int
    frozen: tuple[str, ...] = ()

    @property
    def tokens_per_step(self) -> float:
        mean = sum(kind.share * sum(each.tokens for each in kind.documents) for kind in self.sequences)
        return mean * self.sequences_per_step

    def sequences_at_once(self, ranks: int) -> int:
        """How many sequences a micro-batch of one process holds. Raises ConfigError where that is no whole number."""
        count, left = divmod(self.sequences_per_step, self.train.accumulate * ranks)
        if left or not count:
            raise ConfigError(
                "a step's sequences cannot be shared out evenly",
                expected=f"a multiple of {self.train.accumulate} micro-batches x {ranks} processes",
                actual=self.sequences_per_step,
            )
        return count


@dataclass(frozen=True, kw_only=True)
class PartFlops:
    """Floating-point operations of a part in a whole step, over all processes."""

    part: str
    forward: float
    backward: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process where it holds most. `gathered`: weights and gradients of the layers that are whole then;
    `cast_weights`: copies in bfloat16; `passing`: what the backward pass holds for a moment."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    cast_weights: int
    activations: int
    logits: int
    passing: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure by what is assumed, and the lowest and highest by what others published; one figure where measured."""

    assumed: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What a run costs. `step_s`: a step's time; `sequences_at_once`: in a micro-batch of a process."""

    device: str
    ranks: int
    precision: Precision
    sequences_at_once: int
    accumulate: int
    parameters: tuple[PartWeights, ...]
    flops: tuple[PartFlops, ...]
    memory: Memory
    memory_limit: int
    steps: int
    tokens_per_step: float
    step_s: Spread

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.memory_limit

    @property
    def flops_per_step(self) -> float:
        return sum(each.forward + each.backward for each in self.flops)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens_per_step / self.step_s.assumed

    @property
    def days(self) -> Spread:
        each = self.steps / SECONDS_A_DAY
        step = self.step_s
        return Spread(assumed=each * step.assumed, lowest=each * step.lowest, highest=each * step.highest)


@dataclass(frozen=True)
class Estimator:
    """Costs of a workload on one kind of device. What was traced once is kept.

    `device`: a GPU, or what was measured of this machine's processor, which is one process.
    """

    device: Gpu | CpuRates

    @cached_property
    def _traces(self) -> dict[tuple[str, ...], Trace]:
        return {}

    def cost(self, workload: Workload, *, ranks: int = 1, checkpoints_activations: bool = False) -> TrainingCost:
        """Raises ConfigError where a step's sequences cannot be shared out, or the processor is to be several."""
        if isinstance(self.device, CpuRates) and ranks > 1:
            raise ConfigError("this machine is one process", expected="--nodes 1 --gpus 1", actual=f"{ranks} processes")
        at_once = workload.sequences_at_once(ranks)
        precision = self._precision(workload.train.precision)
        model = model_of_shapes(workload.model)
        let_learn(model, workload.frozen)
        share = share_of(model, ranks=ranks, keeps_average=workload.train.ema_decay is not None)
        traces = [
            self._traced(workload, kind, at_once, precision, checkpoints_activations) for kind in workload.sequences
        ]
        memories = [_memory(each, share, accumulates=workload.train.accumulate > 1) for each in traces]
        weighted = [(kind.share, each) for kind, each in zip(workload.sequences, traces, strict=True)]
        return TrainingCost(
            device=self.device.name,
            ranks=ranks,
            precision=precision,
            sequences_at_once=at_once,
            accumulate=workload.train.accumulate,
            parameters=parts_of(model),
            flops=_flops(weighted, workload.train.accumulate * ranks),
            memory=max(memories, key=lambda each: each.total),
            memory_limit=self.device.memory_bytes,
            steps=workload.train.schedule.total_steps,
            tokens_per_step=workload.tokens_per_step,
            step_s=self._step_s(weighted, workload.train, share, precision),
        )

    def _precision(self, wanted: Precision) -> Precision:
        if isinstance(self.device, CpuRates):
            return resolve(wanted, torch.device("cpu"))
        return Precision.BFLOAT16 if wanted is Precision.AUTO else wanted

    def _traced(
        self, workload: Workload, kind: SequenceShape, at_once: int, precision: Precision, checkpoints: bool
    ) -> Trace:
        shape = BatchShape(documents=kind.documents * at_once, picture_px=workload.picture_px)
        key = (repr(shape), repr(workload.frozen), precision.value, str(checkpoints), workload.model.to_json_string())
        if key not in self._traces:
            self._traces[key] = trace(
                workload.model,
                shape,
                frozen=workload.frozen,
                precision=precision,
                checkpoints_activations=checkpoints,
                autocasts_like_gpu=isinstance(self.device, Gpu),
            )
        return self._traces[key]

    def _step_s(
        self, weighted: Sequence[tuple[float, Trace]], train: TrainConfig, share: ProcessShare, precision: Precision
    ) -> Spread:
        if isinstance(self.device, CpuRates):
            micro_s = sum(each * self.device.seconds(own.operations) for each, own in weighted if each)
            update_s = self.device.update_seconds(
                share.gradients, keeps_average=train.ema_decay is not None, accumulate=train.accumulate
            )
            step_s = train.accumulate * micro_s + update_s
            return Spread(assumed=step_s, lowest=step_s, highest=step_s)
        flops = train.accumulate * sum(each * own.flops() for each, own in weighted)
        at_best_s = flops / self.device.rate(precision)
        lowest, highest = PUBLISHED_MFU
        return Spread(assumed=at_best_s / ASSUMED_MFU, lowest=at_best_s / highest, highest=at_best_s / lowest)


def _flops(weighted: Sequence[tuple[float, Trace]], micro_batches: int) -> tuple[PartFlops, ...]:
    return tuple(
        PartFlops(
            part=part.value,
            forward=micro_batches * sum(share * each.flops(part, backward=False) for share, each in weighted),
            backward=micro_batches * sum(share * each.flops(part, backward=True) for share, each in weighted),
        )
        for part in StepPart
    )


def _memory(traced: Trace, share: ProcessShare, *, accumulates: bool) -> Memory:
    """Of the moment at which a process holds most. A trace holds all gradients, a process its share of them; where
    micro-batches add up, that is there from the second one's beginning."""
    names = list(Held)
    whole = traced.moments[-1][names.index(Held.GRADIENTS)]

    def at(moment: tuple[int, ...]) -> Memory:
        held = dict(zip(names, moment, strict=True))
        gradients = share.gradients if accumulates or not whole else share.gradients * held[Held.GRADIENTS] // whole
        return Memory(
            weights=share.weights,
            gradients=gradients,
            optimizer=share.optimizer,
            average=share.average,
            gathered=share.gathered_weights + share.gathered_gradients,
            cast_weights=held[Held.CAST],
            activations=held[Held.ACTIVATIONS],
            logits=held[Held.LOGITS],
            passing=held[Held.PASSING],
        )

    return max(map(at, set(traced.moments)), key=lambda each: each.total)


def with_accumulation(workload: Workload, accumulate: int) -> Workload:
    """The same steps, in so many micro-batches."""
    return replace(workload, train=replace(workload.train, accumulate=accumulate))
