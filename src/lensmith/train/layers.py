"""A model's transformer layers: the units that are shared out, computed twice to save memory, or compiled.

They are what transformers calls `GradientCheckpointingLayer`, in the language model and in the tower.
"""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from lensmith.core.errors import ConfigError
from lensmith.train.config import TrainConfig


def layers_of(model: nn.Module) -> list[Any]:
    """The layers, in the order of the model's modules."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def prepare_layers(model: nn.Module, config: TrainConfig) -> None:
    """Sets the layers to what the run wants, also where the run before wanted otherwise.

    Raises ConfigError where it wants something of layers and the model has none.
    """
    layers = layers_of(model)
    for name in ("recompute_layers", "compile_layers"):
        if getattr(config, name) and not layers:
            raise ConfigError(f"{name}: the model has no transformer layers", actual=type(model).__name__)
    for layer in layers:
        # In place, so that no weight changes its name. Documents differ in length, so shapes are left open.
        layer._compiled_call_impl = None
        if config.compile_layers:
            layer.compile(dynamic=True)
        layer.gradient_checkpointing = config.recompute_layers
        # Without re-entering autograd: the inputs need no gradient, and what a layer draws at random is drawn again.
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
