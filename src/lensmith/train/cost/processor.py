"""How fast this machine's processor is at what a training step consists of, measured in about two seconds.

A step's time is summed over its operations. A matrix product takes a start, its arithmetic and its bytes, each at a
constant rate, fitted to products of several shapes; attention goes by a rate of the documents' length; all else goes by
its bytes, at a speed that depends on how many there are (what a cache holds is read faster), and is slower where
numbers go through a function such as the exponential. Each operation also costs what Python, dispatch and autograd
take.

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
from torch.nn import functional as F

from lensmith.train.cost.trace import Operation

_PRODUCTS: tuple[tuple[int, int, int], ...] = (
    (64, 64, 64),
    (512, 64, 64),
    (512, 64, 256),
    (64, 512, 256),
    (512, 256, 256),
    (1024, 256, 1024),
    (256, 1024, 256),
    (1024, 512, 2048),
    (2048, 192, 192),
)
_LENGTHS = (16, 64, 256, 1024)
_NUMBERS = (1 << 8, 1 << 14, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
_SECONDS_EACH = 0.015
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
    """What was measured. `plain` and `functions`: by the bytes that are read and written; `attention`, forward and
    backward: by a document's length; `start_s`: an operation's, beside its kernel. Keys are the bytes of a number."""

    name: str
    memory_bytes: int
    products: Mapping[int, ProductRates]
    attention: Mapping[int, Rates]
    attention_backward: Mapping[int, Rates]
    plain: Rates
    functions: Rates
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
        return passes * gradient_bytes * self.plain.seconds_each[-1]


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
        plain=_by_bytes(lambda a, b: a + b, tensors=3, clock=clock),
        functions=_by_bytes(lambda a, b: F.silu(a), tensors=2, clock=clock),
        start_s=_start(clock),
    )


def _products(dtype: torch.dtype, clock: Clock) -> ProductRates:
    """Fitted so that the relative error is least over the shapes; none of the three is below 0."""
    rows, seconds = [], []
    itemsize = torch.empty(0, dtype=dtype).element_size()
    for m, k, n in _PRODUCTS:
        left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        seconds.append(_median_s(partial(torch.mm, left, right.t()), clock))
        rows.append((1.0, 2.0 * m * k * n, float(itemsize * (m * k + k * n + m * n))))
    fitted = _fit_not_negative(np.array(rows), np.array(seconds))
    return ProductRates(start_s=fitted[0], s_per_flop=fitted[1], s_per_byte=fitted[2])


def _fit_not_negative(rows: "np.ndarray", seconds: "np.ndarray") -> list[float]:
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

        def attend(states: torch.Tensor = states) -> torch.Tensor:
            return F.scaled_dot_product_attention(states, states, states, is_causal=True)

        mixed = attend()
        gradient = torch.ones_like(mixed)
        flops = 4 * heads * length**2 * width
        forward.append(_median_s(attend, clock) / flops)
        back = _median_s(partial(_back, mixed, states, gradient), clock)
        backward.append(back / (2.5 * flops))
    lengths = tuple(map(float, _LENGTHS))
    return Rates(sizes=lengths, seconds_each=tuple(forward)), Rates(sizes=lengths, seconds_each=tuple(backward))


def _back(mixed: torch.Tensor, states: torch.Tensor, gradient: torch.Tensor) -> None:
    torch.autograd.grad(mixed, states, gradient, retain_graph=True)


def _by_bytes(work: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *, tensors: int, clock: Clock) -> Rates:
    sizes = [4.0 * tensors * count for count in _NUMBERS]
    seconds_each = []
    for count, size in zip(_NUMBERS, sizes, strict=True):
        a, b = torch.randn(count), torch.randn(count)
        seconds_each.append(_median_s(partial(work, a, b), clock) / size)
    return Rates(sizes=tuple(sizes), seconds_each=tuple(seconds_each))


def _start(clock: Clock) -> float:
    """Seconds that Python, dispatch and autograd take for an operation, by a chain of many on a few numbers."""
    count = 100
    weight = torch.ones(4, requires_grad=True)

    def chain() -> None:
        value = weight
        for _ in range(count):
            value = value * 1.5
        value.sum().backward()  # type: ignore[no-untyped-call]

    return _median_s(chain, clock) / (2 * count)


def _median_s(work: Callable[[], object], clock: Clock) -> float:
    work()
    seconds: list[float] = []
    until = clock() + _SECONDS_EACH
    while len(seconds) < 3 or clock() < until:
        started = clock()
        work()
        seconds.append(clock() - started)
    return statistics.median(seconds)
