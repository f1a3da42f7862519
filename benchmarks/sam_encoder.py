"""SAM's encoder at DeepSeek-VL 7B's full size, ours and transformers': seconds and peak memory for one picture.

Each measurement is a process of its own that fills the same weights (random, in place), runs once, and then some more
times; ours and transformers' take turns. Memory is the highest resident size of the first run above what was there
before it, so weights do not count and what is made once does. Seconds are the fastest of the later runs: on the clock,
of the main thread without its waiting (what the clock would show if nothing else ran), and of all processors together.
The tokens of both are compared.

    python -m benchmarks.sam_encoder [--quick] [--repeats 3] [--cores 2] [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lensmith.models.towers import SamTowerConfig
from lensmith.models.towers.base import patch_mask_for

SIDES = ("lensmith", "transformers")
MEMORY_LIMIT = 0.30
"""Ours may need at most this much of what transformers' needs beyond its weights."""
TIME_LIMIT = 1.0
FULL, QUICK = SamTowerConfig(), SamTowerConfig(image_px=512, layers=3, global_layers=(2,))
UNITS = {
    "wall_s": "s on the clock",
    "main_s": "s of the main thread",
    "cpu_s": "s of all processors",
    "extra_mb": "MB beyond the weights",
}
_RUNS = 2

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One process: seconds a picture on the clock, of the main thread, of all processors; extra peak memory."""

    wall_s: float
    main_s: float
    cpu_s: float
    extra_mb: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Ours over transformers', each pair of neighbouring processes by itself."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


@dataclass(frozen=True, kw_only=True)
class Report:
    """All processes of both sides, in pairs. `difference`: the largest between their tokens, over the largest token."""

    image_px: int
    layers: int
    cores: int
    ours: tuple[Measurement, ...]
    theirs: tuple[Measurement, ...]
    difference: float

    def ratio(self, name: str) -> Ratio:
        ratios = [getattr(a, name) / getattr(b, name) for a, b in zip(self.ours, self.theirs, strict=True)]
        return Ratio(median=statistics.median(ratios), lowest=min(ratios), highest=max(ratios))

    @property
    def is_within_limits(self) -> bool:
        return self.ratio("extra_mb").median <= MEMORY_LIMIT and self.ratio("main_s").median <= TIME_LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="512 px and 3 layers: only shows that it runs")
    parser.add_argument("--repeats", type=int, default=3, help="processes a side")
    parser.add_argument("--cores", type=int, default=2, help="threads that torch may use")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        measured = _work(arguments.worker, QUICK if arguments.quick else FULL, arguments.cores, arguments.out)
        print(json.dumps(asdict(measured)))
        return 0
    report = measure(repeats=arguments.repeats, cores=arguments.cores, is_quick=arguments.quick)
    print(json.dumps(asdict(report), indent=2) if arguments.json else as_table(report))
    return 0 if arguments.quick or report.is_within_limits else 1


def measure(*, repeats: int = 3, cores: int = 2, is_quick: bool = False) -> Report:
    """Runs both sides in turns, `repeats` processes each."""
    results: dict[str, list[Measurement]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        tokens = {side: Path(folder) / f"{side}.npy" for side in SIDES}
        for turn in range(repeats):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                results[side].append(_in_a_process(side, cores, is_quick, tokens[side]))
        ours, theirs = (np.load(tokens[side]) for side in SIDES)
    config = QUICK if is_quick else FULL
    return Report(
        image_px=config.image_px,
        layers=config.layers,
        cores=cores,
        ours=tuple(results["lensmith"]),
        theirs=tuple(results["transformers"]),
        difference=float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
    )


def as_table(report: Report) -> str:
    lines = [f"SAM's encoder, {report.image_px} px, {report.layers} layers, float32, {report.cores} cores, one picture"]
    for side, runs in zip(SIDES, (report.ours, report.theirs), strict=True):
        for name, unit in UNITS.items():
            values = [getattr(run, name) for run in runs]
            spread = f"{min(values):.2f} to {max(values):.2f}"
            lines.append(f"  {side:<13}{statistics.median(values):>9.2f} {unit} ({spread})")
    lines += [
        f"  time, ours / transformers'     {report.ratio('wall_s')} on the clock",
        f"                                 {report.ratio('main_s')} of the main thread; at most {TIME_LIMIT:.2f}",
        f"                                 {report.ratio('cpu_s')} of all processors",
        f"  memory, ours / transformers'   {report.ratio('extra_mb')}; at most {MEMORY_LIMIT:.2f}",
        f"  largest difference of tokens   {report.difference:.1e} of the largest token",
    ]
    return "\n".join(lines)


def _in_a_process(side: str, cores: int, is_quick: bool, out: Path) -> Measurement:
    command = [sys.executable, "-m", "benchmarks.sam_encoder", "--worker", side, "--cores", str(cores)]
    command += ["--out", str(out), *(["--quick"] if is_quick else [])]
    # Threads that wait sleep: else waiting would count as work where other programs hold the processors.
    environment = os.environ | {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def _work(side: str, config: SamTowerConfig, cores: int, out: Path) -> Measurement:
    torch.set_num_threads(cores)
    encode = ours(config) if side == "lensmith" else transformers_own(config)
    pixels = torch.randn(1, 3, config.image_px, config.image_px, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = _reset_peak()
        tokens = encode(pixels)
        extra_mb = (_peak() - before) / 1e6
        np.save(out, tokens.numpy())
        wall_s, main_s, cpu_s = (
            min(runs) for runs in zip(*(_seconds(encode, pixels) for _ in range(_RUNS)), strict=True)
        )
    return Measurement(wall_s=wall_s, main_s=main_s, cpu_s=cpu_s, extra_mb=extra_mb)


def ours(config: SamTowerConfig) -> Encode:
    tower = _filled(config.build())
    return lambda pixels: tower(pixels, patch_mask_for(pixels, None, config.patch_px)).tokens_NPV


def transformers_own(config: SamTowerConfig) -> Encode:
    """The same from `DeepseekVLHybridModel`, the parts that are not measured as small as they can be."""
    from transformers import DeepseekVLHybridConfig, DeepseekVLHybridModel  # noqa: PLC0415 - not where ours is measured

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    low_px = 16 * config.tokens_side
    own = DeepseekVLHybridConfig(
        text_config={"model_type": "llama", "vocab_size": 8, **small},
        vision_config={"model_type": "siglip_vision_model", "image_size": low_px, "patch_size": 16, **small},
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "image_size": config.image_px,
            "num_hidden_layers": config.layers,
            "global_attn_indexes": list(config.global_layers),
        },
    )
    model = DeepseekVLHybridModel(own)
    _filled(model)
    return lambda pixels: model.get_high_res_image_features(pixels).last_hidden_state


def _filled(model: nn.Module) -> nn.Module:
    """Every weight follows from what it is called in the layer, so that both sides have the same."""
    seeds = {"high_res_vision_neck": "neck_hd", "high_res_vision_proj": "proj", "high_res_vision_alpha": "alpha"}
    for name, value in model.state_dict().items():
        for theirs, own in seeds.items():
            name = name.replace(theirs, own)  # noqa: PLW2901 - one renaming after the other
        generator = torch.Generator().manual_seed(
            sum(name.removeprefix("high_res_vision_model.vision_encoder.").encode())
        )
        value.normal_(std=0.02, generator=generator)
        if value.ndim == 1 and name.endswith("weight"):
            value.add_(1)
    return model.eval().requires_grad_(False)


def _seconds(encode: Encode, pixels: Tensor) -> tuple[float, ...]:
    clocks = (time.perf_counter, time.thread_time, time.process_time)
    starts = [clock() for clock in clocks]
    encode(pixels)
    return tuple(clock() - start for clock, start in zip(clocks, starts, strict=True))


def _reset_peak() -> int:
    """Forgets the highest resident size so far; gives the present one, in bytes. Linux only."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    sys.exit(main())
