"""How long the audit's numerics take at the size of a real model: width and last layer of h = 4096, vocabulary 128,000.

The endpoint is a random final layer in this process; its outputs are float32 logprobs of the whole vocabulary, so that
reading them costs what it would cost anyone. The width is found by the audit's own stage, which knows nothing
beforehand, with its log and its files. Each step stands beside its floor: the multiplications that it cannot do
without, at the speed that this machine's own matrix product reaches in the same run. Memory is what the process grows
by, beyond the endpoint's own layer.

    python -m benchmarks.audit_numerics [--quick] [--json]
"""

import argparse
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cores import CORES, keep_to_cores
from lensmith.audit.estimators.layer import PUBLISHED_RMS, LayerScore, recover_layer, score_layer
from lensmith.audit.estimators.spectrum import token_blocks
from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.meter import Budget
from lensmith.audit.session import open_session
from lensmith.audit.stages.width import WidthFound, find_width
from lensmith.core.arrays import Float32Array, IdArray
from lensmith.core.endpoint import (
    Answer,
    Capabilities,
    Choice,
    Feature,
    Finish,
    Logprobs,
    RefusedError,
    Request,
    Reveal,
    needed_features,
)

SPARE = 64
"""Contexts read beyond the rank that the watch saw."""
WIDTH_LIMIT_S, WIDTH_LIMIT_GB = 60.0, 4.0
LAYER_LIMIT_S, LAYER_LIMIT_GB = 600.0, 8.0
_BATCH = 128
_TOP = 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step: its seconds, those of all processors together, and the multiplications and additions (1e9) that it
    cannot do without, by precision. On a busy machine `cpu_s` over the cores says what an idle one would take."""

    name: str
    seconds: float
    cpu_s: float
    gflop_32: float = 0.0
    gflop_64: float = 0.0
    floor_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run."""

    width: int
    vocabulary: int
    cores: int
    gflops_32: float
    gflops_64: float
    found_width: int | None
    note: str
    contexts: int
    width_s: float
    width_gb: float
    layer_s: float
    layer_gb: float
    rms: float
    rms_unrelated: float
    published_rms: tuple[float, float]
    stages: tuple[Stage, ...]

    @property
    def is_within_limits(self) -> bool:
        is_small = self.width_gb <= WIDTH_LIMIT_GB and self.layer_gb <= LAYER_LIMIT_GB
        is_precise = self.rms <= self.published_rms[0]
        return is_small and is_precise and self.width_s <= WIDTH_LIMIT_S and self.layer_s <= LAYER_LIMIT_S


@dataclass
class Clock:
    """Adds up the time between starts and stops."""

    seconds: float = 0.0
    cpu_s: float = 0.0

    def start(self) -> None:
        self.seconds -= time.perf_counter()
        self.cpu_s -= time.process_time()

    def stop(self) -> None:
        self.seconds += time.perf_counter()
        self.cpu_s += time.process_time()

    def reset(self) -> None:
        self.seconds = self.cpu_s = 0.0


class SyntheticEndpoint:
    """A random RMSNorm and head, which tells float32 logprobs: a few top ones, or the whole vocabulary.

    What stands before the last layer is a hash of the prompt, so that the same prompt has the same answer.
    """

    def __init__(self, width: int, vocabulary: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.head_VH = rng.standard_normal((vocabulary, width), dtype=np.float32)
        self.head_VH *= 0.02
        self.scale_H = np.arange(1, width + 1, dtype=np.float32) ** -0.5
        self.clock = Clock()

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        for request in requests:
            if needed_features(request) & ~self.supports().features or request.top_logprobs > _TOP:
                raise RefusedError(f"this endpoint tells {_TOP} top logprobs or the whole vocabulary")
        self.clock.start()
        logprobs_NV = self.logprobs(np.array([hash(request.token_ids) % 2**63 for request in requests]))
        self.clock.stop()
        return [
            Answer(choices=(self._choice(request, row_V),))
            for request, row_V in zip(requests, logprobs_NV, strict=True)
        ]

    def supports(self) -> Capabilities:
        features = Feature.TOKEN_IDS | Feature.TOP_LOGPROBS | Feature.VOCABULARY_LOGPROBS | Feature.SEED
        return Capabilities(features=features, vocabulary_size=len(self.head_VH))

    def metadata(self) -> dict[str, Any]:
        return {}

    def logprobs(self, contexts_N: IdArray) -> Float32Array:
        """Of the whole vocabulary (N, V), for contexts that numbers stand for."""
        shape = (len(contexts_N), len(self.scale_H))
        states_NH = np.empty(shape, dtype=np.float32)
        for row_H, context in zip(states_NH, contexts_N.tolist(), strict=True):
            np.random.default_rng(context).standard_normal(out=row_H, dtype=np.float32)
        states_NH *= self.scale_H
        states_NH /= np.sqrt((states_NH**2).mean(axis=1, keepdims=True))
        logits_NV = states_NH @ self.head_VH.T
        for logits_V in logits_NV:  # a row stays in the processor's cache, the whole would not
            shifted_V = logits_V - logits_V.max()
            np.subtract(shifted_V, np.float32(np.log(np.exp(shifted_V).sum(dtype=np.float64))), out=logits_V)
        return logits_NV

    def _choice(self, request: Request, logprobs_V: Float32Array) -> Choice:
        told = None
        if request.wants_logprobs:
            order_K = np.argsort(-logprobs_V)[: request.top_logprobs] if request.top_logprobs else np.empty(0, np.int64)
            told = Logprobs(
                sampled_T=np.full(1, np.nan),
                top_ids_TK=order_K[None],
                top_TK=logprobs_V[order_K][None],
                wanted_TW=np.empty((1, 0)),
                vocabulary_TV=logprobs_V[None] if Reveal.VOCABULARY in request.reveal else None,
            )
        ids_T = np.array([logprobs_V.argmax()])
        return Choice(text=f"<{ids_T[0]}>", finish=Finish.LENGTH, token_ids_T=ids_T, logprobs=told)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


@dataclass
class Meter:
    """Seconds of stages, and the most that the process grew by since the meter was made."""

    stages: list[Stage] = field(default_factory=list)
    start_bytes: int = field(default_factory=_resident_bytes)
    peak_bytes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Meter":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, _resident_bytes())

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, float]]:
        """Times a step; the caller puts its `gflop_32` and `gflop_64` into the dictionary."""
        work: dict[str, float] = {}
        clock = Clock()
        clock.start()
        yield work
        clock.stop()
        self.add(Stage(name=name, seconds=clock.seconds, cpu_s=clock.cpu_s, **work))

    def add(self, stage: Stage) -> None:
        """Takes a finished step and says so."""
        print(f"{stage.name}: {stage.seconds:.1f} s ({stage.cpu_s:.1f} s of processors)", file=sys.stderr, flush=True)
        self.stages.append(stage)

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def grown_gb(self) -> float:
        return (self.peak_bytes - self.start_bytes) / 1e9


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit_numerics", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="width 512, vocabulary 16,000")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    report = measure(512, 16_000) if options.quick else measure(4096, 128_000)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    if report.found_width != report.width:
        print("The width is wrong: these seconds buy nothing.", file=sys.stderr)
        return 1
    return 0 if options.quick or report.is_within_limits else 1


def measure(width: int, vocabulary: int) -> Report:
    """Width, then layer, of one synthetic endpoint."""
    endpoint = SyntheticEndpoint(width, vocabulary)
    gflops_32, gflops_64 = _speed(np.float32), _speed(np.float64)
    with Meter() as width_meter:
        found = _measure_width(endpoint, width_meter)
    contexts = found.rank + SPARE
    with Meter() as layer_meter:
        score = _measure_layer(endpoint, found.rank, contexts, layer_meter)
    stages = [
        Stage(**(asdict(stage) | {"floor_s": stage.gflop_32 / gflops_32 + stage.gflop_64 / gflops_64}))
        for stage in (*width_meter.stages, *layer_meter.stages)
    ]
    return Report(
        width=width,
        vocabulary=vocabulary,
        cores=CORES,
        gflops_32=gflops_32,
        gflops_64=gflops_64,
        found_width=found.width,
        note=found.estimate.reason,
        contexts=found.rows,
        width_s=width_meter.seconds,
        width_gb=width_meter.grown_gb,
        layer_s=layer_meter.seconds,
        layer_gb=layer_meter.grown_gb,
        rms=score.rms,
        rms_unrelated=score.rms_unrelated,
        published_rms=PUBLISHED_RMS,
        stages=tuple(stages),
    )


def _measure_width(endpoint: SyntheticEndpoint, meter: Meter) -> WidthFound:
    """The audit's own way, from the first question to the width; how to split the time is counted by the endpoint."""
    budget = Budget(queries_per_s=None, max_queries=None, max_tokens=None)
    with tempfile.TemporaryDirectory() as folder:
        config = SessionConfig(target="synthetic", model="synthetic", folder=Path(folder), budget=budget)
        whole = Clock()
        whole.start()
        with open_session(endpoint, config, config.header()) as session:
            endpoint.clock.reset()
            found = find_width(session.stage, ReadOut.P1)
        whole.stop()
    if not isinstance(found, WidthFound):
        raise SystemExit(f"the width was not found: {found.reason}")
    read, spent = endpoint.clock, session.stage.meter.spent
    vocabulary, width = endpoint.head_VH.shape
    read_gflop = 2e-9 * spent.queries * width * vocabulary
    meter.add(Stage(name="the endpoint's answers", seconds=read.seconds, cpu_s=read.cpu_s, gflop_32=read_gflop))
    # One Gram matrix and its eigenvalues: what a decision cannot do without.
    rows, tokens = found.rows, math.ceil(1.25 * found.rows)
    decide = 1e-9 * rows**2 * tokens + 4 / 3 * 1e-9 * rows**3
    rest_s, rest_cpu_s = whole.seconds - read.seconds, whole.cpu_s - read.cpu_s
    meter.add(Stage(name="the audit's own work", seconds=rest_s, cpu_s=rest_cpu_s, gflop_64=decide))
    return found


def _measure_layer(endpoint: SyntheticEndpoint, rank: int, contexts: int, meter: Meter) -> LayerScore:
    vocabulary, width = endpoint.head_VH.shape
    outputs_NV = np.empty((contexts, vocabulary), dtype=np.float32)
    with meter.stage("read for the layer") as work:
        for start in range(0, contexts, _BATCH):
            numbers = np.arange(start, min(start + _BATCH, contexts))
            outputs_NV[start : start + _BATCH] = endpoint.logprobs(numbers)
        work["gflop_32"] = 2e-9 * contexts * width * vocabulary
    with meter.stage("recover the layer") as work:
        recovered = recover_layer(partial(token_blocks, outputs_NV), rank)
        work["gflop_64"] = 1e-9 * vocabulary * contexts * (contexts + 2 * rank) + 9e-9 * contexts**3
    with meter.stage("score the layer") as work:
        score = score_layer(recovered.layer_VR, endpoint.head_VH)
        work["gflop_64"] = 1e-9 * vocabulary * rank * (rank + 4 * width)
    return score


def _speed(kind: type) -> float:
    """Multiplications and additions a second (1e9) of a matrix product, the best of three."""
    matrix = np.ones((2048, 2048), dtype=kind)
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        matrix @ matrix.T[::-1]
        best = min(best, time.perf_counter() - started)
    return 2e-9 * 2048**3 / best


def as_table(report: Report) -> str:
    rows = [
        f"{stage.name:22}{stage.seconds:9.1f}{stage.cpu_s:9.1f}{stage.floor_s:9.1f}"
        f"{stage.seconds / max(stage.floor_s, 1e-9):7.1f}x"
        for stage in report.stages
    ]
    lines = [
        f"width {report.width}, vocabulary {report.vocabulary}, {report.cores} cores, matrix product "
        f"{report.gflops_32:.0f} GFLOP/s float32, {report.gflops_64:.0f} float64",
        f"found: {report.found_width} from {report.contexts} contexts: {report.note}",
        f"{'stage':22}{'seconds':>9}{'cpu':>9}{'floor':>9}{'ratio':>8}",
        *rows,
        f"width  {report.width_s:7.1f} s, {report.width_gb:5.2f} GB  (limits for 4096: {WIDTH_LIMIT_S:.0f} s, "
        f"{WIDTH_LIMIT_GB:.0f} GB)",
        f"layer  {report.layer_s:7.1f} s, {report.layer_gb:5.2f} GB  (limits for 4096: {LAYER_LIMIT_S:.0f} s, "
        f"{LAYER_LIMIT_GB:.0f} GB)",
        f"layer RMS {report.rms:.1e}; unrelated {report.rms_unrelated:.1e}; published {report.published_rms[0]:.0e} to "
        f"{report.published_rms[1]:.0e} against 2e-02",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
