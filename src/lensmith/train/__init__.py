"""Training: one readable loop, resumable bit for bit."""

from lensmith.train.checkpoint import load_weights
from lensmith.train.config import (
    Curves,
    LrDrop,
    OptimConfig,
    PartConfig,
    Precision,
    ScheduleConfig,
    SpikeRule,
    TrainConfig,
)
from lensmith.train.folder import newest
from lensmith.train.interfaces import (
    BatchError,
    Batches,
    DivergedError,
    LossFunction,
    LossParts,
    Progress,
    StepContext,
    StepWork,
    StopReason,
    StorageError,
    TrainResult,
    Validate,
)
from lensmith.train.loop import train
from lensmith.train.optim import lr_at

__all__ = [
    "BatchError",
    "Batches",
    "Curves",
    "DivergedError",
    "LossFunction",
    "LossParts",
    "LrDrop",
    "OptimConfig",
    "PartConfig",
    "Precision",
    "Progress",
    "ScheduleConfig",
    "SpikeRule",
    "StepContext",
    "StepWork",
    "StopReason",
    "StorageError",
    "TrainConfig",
    "TrainResult",
    "Validate",
    "load_weights",
    "lr_at",
    "newest",
    "train",
]
