"""How fast this machine's processor is at what a training step consists of, measured in about two seconds.

A step's time is summed over its operations. A matrix product takes a start, its arithmetic and its bytes, each at a
constant rate, fitted to products of several shapes; attention goes by a rate of the documents' length; all else goes by
its bytes, at a speed that depends on how many there are (what a cache holds is read faster), and is slower where
numbers go through a function such as the exponential. Each operation also costs what Python, dispatch and autograd
take.

A step writes to memory that no cache holds, and often to memory that the system must first give: what a forward pass
makes stays for the backward pass. So operations are measured on many inputs in turn, and what they make is kept.

What runs beside it is measured with it: on a busy machine the same step is said to take longer, as it then does.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lensmith.train.cost.trace import Operation

_PRODUCTS: tuple[tuple[int, int, int], ...] = (
    *((64, 64, 64), (512, 64, 64), (512, 64, 256), (64, 512, 256), (512, 256, 256), (2048, 192, 192)),
    *((256, 1024, 256), (1024, 256, 1024), (1024, 512, 2048)),
)
"""Rows, what is summed over, and columns."""
_LENGTHS = (16, 64, 256, 1024)
_NUMBERS = (1 << 8, 1 << 14, 1 << 17, 1 << 20, 1 << 23)
_STREAMED_BYTES = 64_000_000
_MOST_TIMES, _ROUNDS = 48, 3
_FUNCTIONS = ("gelu", "silu", "sigmoid", "exp", "softmax", "log", "tanh", "pow", "layer_norm", "rsqrt", "cos", "sin")
"""Parts of the names of operations that put each number through a function."""
_UPDATE_PASSES, _AVERAGE_PASSES, _ADDING_PASSES = 12, 3, 3
"""How often an update reads or writes as many bytes as the gradients have: mean 2, norm 1, clipping 2, AdamW 7."""


Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds a byte, or a floating-point operation, at sizes that rise; as a straight line of the logarithms between
    them, and constant beyond."""

    sizes: tuple[float, ...]
    seconds_each: tuple[float, ...]

    def at(self, size: float) -> float:
        return float(np.exp(np.interp(math.log(max(size, 1.0)), np.log(self.sizes), np.log(self.seconds_each))))


@dataclass(frozen=True, kw_only=True)
class ProductRates:
    """A matrix product's seconds: a start, so many a floating-point operation, and so many a byte."""

    start_s: float
    s_per_flop: float
    s_per_byte: float

    def seconds(self, flops: float, size: float) -> float:
        return self.start_s + self.s_per_flop * flops + self.s_per_byte * size


@dataclass(frozen=True, kw_only=True)
class CpuRates:
    """What was measured. `plain` and `functions`: by the bytes that are read and written; `in_place`: seconds a byte;
    `attention`, forward and backward: by a document's length; `start_s`: an operation's, beside its kernel. Keys are
    the bytes of a number."""

    name: str
    memory_bytes: int
    products: Mapping[int, ProductRates]
    attention: Mapping[int, Rates]
    attention_backward: Mapping[int, Rates]
    plain: Rates
    functions: Rates
    in_place: float
    start_s: float

    def seconds(self, operations: Sequence[Operation]) -> float:
        """Of a micro-batch, forward and backward."""
        return sum(self.start_s + self.kernel_seconds(each) for each in operations)

    def kernel_seconds(self, operation: Operation) -> float:
        """Of one operation, without its start."""
        size = 4 if operation.itemsize > 2 else 2
        if "attention" in operation.name:
            lines = self.attention_backward if operation.backward else self.attention
            length = operation.shapes[0][-2]
            return operation.flops * lines[size].at(length)
        if operation.flops:
            return self.products[size].seconds(operation.flops, operation.bytes)
        is_function = any(name in operation.name for name in _FUNCTIONS)
        return operation.bytes * (self.functions if is_function else self.plain).at(operation.bytes)

    def update_seconds(self, gradient_bytes: int, *, keeps_average: bool, accumulate: int = 1) -> float:
        """Of what a step does beside its micro-batches, and of adding gradients up."""
        passes = _UPDATE_PASSES + (_AVERAGE_PASSES if keeps_average else 0) + _ADDING_PASSES * (accumulate - 1)
        return passes * gradient_bytes * self.in_place


def measure_cpu(clock: Clock = time.perf_counter) -> CpuRates:
    """The rates of this machine with the threads that torch uses now, by this clock."""
    dtypes = {4: torch.float32, 2: torch.bfloat16}
    forward = {size: _attention(dtype, clock) for size, dtype in dtypes.items()}
    return CpuRates(
        name="cpu",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        products={size: _products(dtype, clock) for size, dtype in dtypes.items()},
        attention={size: own for size, (own, _) in forward.items()},
        attention_backward={size: back for size, (_, back) in forward.items()},
        plain=_by_bytes(lambda each: each + each, tensors=2, clock=clock),
        functions=_by_bytes(F.silu, tensors=2, clock=clock),
        in_place=_in_place(clock),
        start_s=_start(clock),
    )


def _products(dtype: torch.dtype, clock: Clock) -> ProductRates:
    """Fitted so that the relative error is least over the shapes; none of the three is below 0."""
    rows, seconds = [], []
    itemsize = torch.empty(0, dtype=dtype).element_size()
    for m, k, n in _PRODUCTS:
        size = itemsize * (m * k + k * n + m * n)
        right_KN = torch.randn(n, k).to(dtype).t()
        lefts = [torch.randn(m, k).to(dtype) for _ in range(_times(size))]
        seconds.append(_streamed_s(lefts, partial(torch.mm, mat2=right_KN), clock))
        rows.append((1.0, 2.0 * m * k * n, float(size)))
    fitted = _fit_not_negative(np.array(rows), np.array(seconds))
    return ProductRates(start_s=fitted[0], s_per_flop=fitted[1], s_per_byte=fitted[2])


def _fit_not_negative(rows: NDArray[np.float64], seconds: NDArray[np.float64]) -> list[float]:
    used = list(range(rows.shape[1]))
    relative = rows / seconds[:, None]
    while True:
        found, *_ = np.linalg.lstsq(relative[:, used], np.ones(len(seconds)), rcond=None)
        if (found >= 0).all():
            break
        used.pop(int(found.argmin()))
    values = dict(zip(used, found.tolist(), strict=True))
    return [values.get(column, 0.0) for column in range(rows.shape[1])]


def _attention(dtype: torch.dtype, clock: Clock) -> tuple[Rates, Rates]:
    """Forward and backward, by length; operations are counted as if it were not causal."""
    heads, width = 8, 64
    forward, backward = [], []
    for length in _LENGTHS:
        states = torch.randn(1, heads, length, width, dtype=dtype, requires_grad=True)

        def attend(states: Tensor = states) -> Tensor:
            return F.scaled_dot_product_attention(states, states, states, is_causal=True)

        mixed = attend()
        gradient = torch.ones_like(mixed)
        flops = 4 * heads * length**2 * width
        many = [states] * (_MOST_TIMES // 4)
        forward.append(_streamed_s(many, attend, clock) / flops)

        def back(mixed: Tensor, states: Tensor = states, gradient: Tensor = gradient) -> object:
            return torch.autograd.grad(mixed, states, gradient)

        rounds = (_seconds_each([attend() for _ in many], back, clock) for _ in range(_ROUNDS))
        backward.append(statistics.median(rounds) / (2.5 * flops))
    lengths = tuple(map(float, _LENGTHS))
    return Rates(sizes=lengths, seconds_each=tuple(forward)), Rates(sizes=lengths, seconds_each=tuple(backward))


def _by_bytes(work: Callable[[Tensor], Tensor], *, tensors: int, clock: Clock) -> Rates:
    sizes = [4.0 * tensors * count for count in _NUMBERS]
    seconds_each = []
    for count, size in zip(_NUMBERS, sizes, strict=True):
        inputs = [torch.randn(count) for _ in range(_times(size))]
        seconds_each.append(_streamed_s(inputs, work, clock) / size)
    return Rates(sizes=tuple(sizes), seconds_each=tuple(seconds_each))


def _in_place(clock: Clock) -> float:
    """Of adding to numbers where they are: twice read, once written."""
    count = _NUMBERS[-1]
    numbers, others = torch.zeros(count), torch.ones(count)
    return _streamed_s([numbers] * 4, partial(_added_to, others=others), clock) / (12.0 * count)


def _added_to(numbers: Tensor, *, others: Tensor) -> None:
    numbers.add_(others)


def _start(clock: Clock) -> float:
    """Seconds that Python, dispatch and autograd take for an operation, by a chain of many on a few numbers."""
    count = 100
    weight = torch.ones(4, requires_grad=True)

    def chain(weight: Tensor) -> None:
        value = weight
        for _ in range(count):
            value = value * 1.5
        torch.autograd.backward(value.sum())

    return _streamed_s([weight], chain, clock) / (2 * count)


def _times(size: float) -> int:
    """How often an operation of so many bytes is measured in a round."""
    return max(3, min(_MOST_TIMES, int(_STREAMED_BYTES / size)))


def _streamed_s(inputs: Sequence[Tensor], work: Callable[[Tensor], object], clock: Clock) -> float:
    """The median round's seconds of work on an input."""
    _seconds_each(inputs, work, clock)
    return statistics.median(_seconds_each(inputs, work, clock) for _ in range(_ROUNDS))


def _seconds_each(inputs: Sequence[Tensor], work: Callable[[Tensor], object], clock: Clock) -> float:
    """What each of these takes, one after the other, while all that is made is kept."""
    started = clock()
    kept = [work(each) for each in inputs]
    seconds = (clock() - started) / len(kept)
    return max(seconds, 1e-9)  # where a clock is too coarse
