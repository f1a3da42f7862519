"""Time and memory of loading a full-size DeepSeek-VL 1.3B from disk: ours and transformers'.

A checkpoint of random bfloat16 weights is written once, in transformers' layout. Each measurement is a process of its
own; the ways take turns, and the file is in the page cache for all of them. Memory is the highest anonymous memory of
the process above what it had before, so mapped pages of the file, which the system can drop, do not count; after
loading, every weight is read once, so that nothing is put off. `lensmith, packed` also brings the weights into the
layout of this processor's kernels, as `lensmith chat` and `serve` do; no page of the file is needed then.

    python -m benchmarks.loading [--quick] [--json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import (
    CheckpointLayout,
    DeepseekVlProcessor,
    deepseek_vl_config,
    load_model,
    tiny_config,
)
from lensmith.models.families.deepseek_vl.convert import convert
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from lensmith.models.linear.packed import pack_linear_layers

LIMIT = 1.1
"""Anonymous memory over the size of the weights."""
WAYS = ("lensmith", "lensmith, packed", "lensmith, float32", "transformers")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to load: medians of its rounds."""

    name: str
    seconds: float
    seconds_low: float
    seconds_high: float
    peak_gb: float
    share_of_weights: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run."""

    weights_gb: float
    rounds: int
    ways: tuple[Way, ...]

    @property
    def is_within_limits(self) -> bool:
        return all(way.share_of_weights <= LIMIT for way in self.ways if way.name != WAYS[-1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(_work(*options.worker)))
        return 0
    report = measure(is_quick=options.quick)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0 if options.quick or report.is_within_limits else 1


def measure(*, is_quick: bool = False) -> Report:
    """All ways, in turns."""
    size, rounds = (None, 1) if is_quick else ("1.3b", 3)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        weights = _write(folder, size)
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.loading", "--worker", way, str(folder)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
    ways = []
    for name, runs in found.items():
        seconds, peak = [run["seconds"] for run in runs], statistics.median(run["peak"] for run in runs)
        # What is converted to float32 is twice as large.
        size_then = weights * (2 if name.endswith("float32") else 1)
        ways.append(
            Way(
                name=name,
                seconds=statistics.median(seconds),
                seconds_low=min(seconds),
                seconds_high=max(seconds),
                peak_gb=peak / 1e9,
                share_of_weights=peak / size_then,
            )
        )
    return Report(weights_gb=weights / 1e9, rounds=rounds, ways=tuple(ways))


def _write(folder: Path, size: str | None) -> int:
    """A checkpoint of random weights in transformers' layout, in a process of its own; the bytes of its weights."""
    code = f"from benchmarks.loading import write_checkpoint; print(write_checkpoint({str(folder)!r}, {size!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.splitlines()[-1])


def write_checkpoint(folder: str, size: str | None) -> int:
    """Writes a model of random weights; see `_write`."""
    config = tiny_config("mlp") if size is None else deepseek_vl_config(size)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = VisionLanguageModel(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(-0.05, 0.05)
    own = Path(folder).with_name("own")
    model.save_pretrained(own)
    tokenizer = tiny_tokenizer()
    DeepseekVlProcessor.for_model(tiny_config("mlp"), tokenizer).save_pretrained(own)
    convert(own, Path(folder), CheckpointLayout.TRANSFORMERS)
    return sum(parameter.nbytes for parameter in model.parameters())


def _work(way: str, folder: str) -> dict[str, float]:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    before, watch = _anonymous(), _Watch()
    with watch:
        started = time.perf_counter()
        model: Any
        if way == "transformers":
            model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
        else:
            model = load_model(folder, dtype=torch.float32 if way.endswith("float32") else torch.bfloat16)
        if way.endswith("packed"):
            pack_linear_layers(model)
        for parameter in model.parameters():
            parameter.sum()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": float(watch.peak - before)}


class _Watch:
    """The highest anonymous memory of this process while it is open."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, _anonymous())


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell anonymous memory")


def as_table(report: Report) -> str:
    lines = [
        f"weights {report.weights_gb:.2f} GB in bfloat16, {report.rounds} rounds",
        f"{'way':20}{'seconds':>9}{'(range)':>16}{'peak GB':>9}{'of weights':>12}{'limit':>7}",
    ]
    for way in report.ways:
        spread = f"({way.seconds_low:.1f} to {way.seconds_high:.1f})"
        lines.append(
            f"{way.name:20}{way.seconds:9.1f}{spread:>16}{way.peak_gb:9.2f}{way.share_of_weights:11.2f}x{LIMIT:6.1f}x"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
