"""A run under way: what it trains, how many updates it has made, where it resumes and saves."""

import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lensmith.train import checkpoint as checkpoints
from lensmith.train import folder as folders
from lensmith.train import optim
from lensmith.train.checkpoint import TrainingState, seed_everything
from lensmith.train.config import TrainConfig
from lensmith.train.folder import Checkpoint
from lensmith.train.interfaces import LossFunction
from lensmith.train.optim import WeightAverage


@dataclass(kw_only=True)
class Run:
    """A run under way: what it trains, how many updates it has made, and its newest checkpoint.

    `pause_at`: the number of updates at which this session ends, None for no such limit.
    """

    config: TrainConfig
    folder: Path
    state: TrainingState
    loss_function: LossFunction[Any, Any]
    device: torch.device
    notes: Mapping[str, Any]
    began: float
    step: int = 0
    pause_at: int | None = None
    checkpoint: Checkpoint | None = None
    loss: float | None = None

    @classmethod
    def begin(
        cls,
        model: nn.Module,
        loss_function: LossFunction[Any, Any],
        config: TrainConfig,
        folder: Path,
        *,
        identity: Mapping[str, str | int | float],
        allow_changes: Set[str],
    ) -> "Run":
        """A new run, or one that continues where the newest checkpoint in its folder stands."""
        began = time.monotonic()
        device = next(iter(optim.trainable(model).values())).device
        state = TrainingState(
            model=model,
            optimizer=optim.build_optimizer(model, config.optim),
            average=None if config.ema_decay is None else WeightAverage(model, config.ema_decay),
        )
        run = cls(
            config=config,
            folder=folder,
            state=state,
            loss_function=loss_function,
            device=device,
            notes=checkpoints.notes_of(config, device, identity),
            began=began,
        )
        model.train()
        run._resume_or_seed(allow_changes)
        return run

    def _resume_or_seed(self, allow_changes: Set[str]) -> None:
        checkpoint = folders.newest_usable(self.folder)
        if checkpoint is None:
            seed_everything(self.config.seed)
            return
        checkpoints.require_same(checkpoint, self.notes, allow_changes)
        checkpoints.restore(checkpoint, self.state)
        self.checkpoint, self.step = checkpoint, checkpoint.step

    def save(self) -> Checkpoint:
        """Writes a checkpoint of this moment, unless the newest one is of this step already."""
        if self.checkpoint is None or self.checkpoint.step != self.step:
            self.checkpoint = checkpoints.save(
                self.folder, self.state, step=self.step, notes=self.notes, keep=self.config.keep_checkpoints
            )
        return self.checkpoint
