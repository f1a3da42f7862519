"""A tiny but real training run: dropout, tied weights, an average, uneven token counts. Shared by the tests.

As a script it trains in a process of its own, which may be told where to kill itself:
`toy_run.py OUT --kill-at 9.2` (update 9, micro-batch 2), `--kill-on-open random.json`, `--kill-on-rename step-000021`.
"""

import argparse
import dataclasses
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lensmith.train import (
    Curves,
    LossParts,
    OptimConfig,
    Precision,
    ScheduleConfig,
    StepContext,
    TrainConfig,
    TrainResult,
    train,
)
from lensmith.train.log import read

VOCABULARY = 32


class ToyModel(nn.Module):
    """Maps a token to its successor under a fixed rule; the output layer is tied to the embedding."""

    def __init__(self, dropout: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed = nn.Embedding(VOCABULARY, 16)
            self.norm = nn.LayerNorm(16)
            self.hidden = nn.Linear(16, 16)
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(16, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(self.norm(self.embed(tokens))))
        return self.head(self.dropout(hidden))


@dataclass(frozen=True)
class ToyBatch:
    tokens: Tensor
    targets: Tensor  # -100: not counted


@dataclass(frozen=True)
class ToyBatches:
    """Rows of unequal length, numbered through the run: 4 micro-batches of 2 rows hold the same as one of 8."""

    rows: int = 2
    accumulate: int = 4

    def batch_at(self, step: int, micro: int) -> ToyBatch:
        first = (step * self.accumulate + micro) * self.rows
        rows = [_row(first + i) for i in range(self.rows)]
        return ToyBatch(torch.stack([tokens for tokens, _ in rows]), torch.stack([targets for _, targets in rows]))


def _row(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1_000_003 + index)
    tokens = torch.randint(0, VOCABULARY, (13,), generator=generator)
    targets = (tokens * 7 + 3) % VOCABULARY
    targets[int(torch.randint(1, 13, (), generator=generator)) :] = -100
    return tokens, targets


def toy_loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
    """Summed cross-entropy. Its scalars draw from python's and numpy's global states, so that a test sees those too."""
    logits = model(batch.tokens)
    loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), reduction="sum")
    counted = batch.targets != -100
    correct = (logits.argmax(-1) == batch.targets)[counted].float().mean()
    return LossParts(
        loss_sum=loss,
        target_tokens=int(counted.sum()),
        samples=len(batch.tokens),
        scalars={"accuracy": correct, "python": random.random(), "numpy": float(np.random.rand())},
    )


def toy_config(**changes: Any) -> TrainConfig:
    """A run of 30 updates with a checkpoint every 7; `changes` replace fields of TrainConfig."""
    base = TrainConfig(
        optim=OptimConfig(peak_lr=1e-2),
        schedule=ScheduleConfig(total_steps=30, warmup_steps=5),
        accumulate=4,
        precision=Precision.FLOAT32,
        ema_decay=0.9,
        checkpoint_every_s=None,
        checkpoint_every_steps=7,
        curves=Curves.JSONL,
    )
    return dataclasses.replace(base, **changes)


@dataclass(frozen=True)
class ToyRun:
    model: ToyModel
    result: TrainResult


def toy_train(
    out_dir: Path,
    config: TrainConfig | None = None,
    *,
    model: ToyModel | None = None,
    batches: Any = None,
    loss: Any = toy_loss,
    **arguments: Any,
) -> ToyRun:
    """Trains a fresh toy model (or the given one)."""
    config = config or toy_config()
    model = model or ToyModel()
    batches = batches or ToyBatches(accumulate=config.accumulate)
    arguments.setdefault("on_progress", lambda progress: None)
    return ToyRun(model=model, result=train(model, batches, loss, config, out_dir, **arguments))


def curve(folder: Path) -> list[dict[str, Any]]:
    """A run's log without what depends on the clock."""
    return [{k: v for k, v in line.items() if not k.endswith("_s")} for line in read(folder)]


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models hold exactly the same weights."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == other_name and torch.equal(a, b) for (name, a), (other_name, b) in pairs)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_on_event(opened: str, renamed: str) -> None:
    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if opened and event == "open" and opened in str(arguments[0]):
            _die()
        if renamed and event == "os.rename" and renamed in str(arguments[1]):
            _die()

    sys.addaudithook(watch)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--pause-s", type=float, default=0.0, help="sleep before each update")
    parser.add_argument("--kill-at", default="", help="UPDATE.MICRO")
    parser.add_argument("--kill-on-open", default="")
    parser.add_argument("--kill-on-rename", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _die_on_event(options.kill_on_open, options.kill_on_rename)

    def loss(model: nn.Module, batch: ToyBatch, context: StepContext) -> LossParts:
        if context.micro == 0:
            time.sleep(options.pause_s)
        if options.kill_at == f"{context.step}.{context.micro}":
            _die()
        return toy_loss(model, batch, context)

    run = toy_train(options.out, loss=loss)
    sys.exit(130 if run.result.interrupted else 0)


if __name__ == "__main__":
    main()
