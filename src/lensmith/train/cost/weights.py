"""The weights of a model: how many each part has, and what of them and of what belongs to them lies in a process.

Exact, from the modules: no number here is an estimate. Under sharing (torch's FSDP2, see `train.processes`) a process
holds the first of so many pieces of each tensor's first dimension, the largest there is; a unit (a transformer layer,
or all that is in none) is gathered when it runs, and its gradients are whole until they are summed over the processes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lensmith.models import VisionLanguageModel

FLOAT32_BYTES = 4
_UNITS_AT_ONCE = 2
"""A unit is gathered while the one before it still runs."""


@dataclass(frozen=True, kw_only=True)
class PartWeights:
    """How many weights of a part learn, and how many do not. The head counts to the decoder."""

    part: str
    trained: int
    frozen: int


@dataclass(frozen=True, kw_only=True)
class ProcessShare:
    """Bytes of one of several processes. `gathered_*`: what is whole for a while, on top of its share."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    gathered_weights: int
    gathered_gradients: int


def parts_of(model: VisionLanguageModel) -> tuple[PartWeights, ...]:
    """Tower, connector and decoder; a weight that is read in two places counts once."""
    names = {"tower": model.vision_tower, "connector": model.connector, "decoder": model.language_model}
    return tuple(
        PartWeights(
            part=name,
            trained=sum(each.numel() for each in module.parameters() if each.requires_grad),
            frozen=sum(each.numel() for each in module.parameters() if not each.requires_grad),
        )
        for name, module in names.items()
    )


def let_learn(model: nn.Module, frozen: Sequence[str]) -> None:
    """All weights but those of the modules that are named: `vision_tower`, or one within, as `vision_tower.high`."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(name.startswith(f"{module}.") for module in frozen))


def share_of(model: nn.Module, *, ranks: int, keeps_average: bool) -> ProcessShare:
    """What the first of `ranks` processes holds. Weights and all that belongs to them are float32.

    AdamW keeps two numbers a weight that learns, and one a tensor, its step.
    """
    parameters = list(model.parameters())
    trained = [each for each in parameters if each.requires_grad]
    own = FLOAT32_BYTES * sum(_piece(each, ranks) for each in trained)
    layers = [list(module.parameters()) for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    in_layers = {id(each) for layer in layers for each in layer}
    rest = [each for each in parameters if id(each) not in in_layers]
    return ProcessShare(
        weights=FLOAT32_BYTES * sum(_piece(each, ranks) for each in parameters),
        gradients=own,
        optimizer=2 * own + FLOAT32_BYTES * len(trained),
        average=own if keeps_average else 0,
        gathered_weights=0 if ranks == 1 else _whole(rest) + _largest(map(_whole, layers)),
        gathered_gradients=0 if ranks == 1 else _trained(rest) + _largest(map(_trained, layers)),
    )


def _piece(parameter: nn.Parameter, ranks: int) -> int:
    """Numbers of the first piece."""
    if not parameter.ndim:
        return 1
    rows = parameter.shape[0]
    return -(-rows // ranks) * (parameter.numel() // rows)


def _whole(parameters: Iterable[nn.Parameter]) -> int:
    return FLOAT32_BYTES * sum(each.numel() for each in parameters)


def _trained(parameters: Iterable[nn.Parameter]) -> int:
    return _whole(each for each in parameters if each.requires_grad)


def _largest(layers: Iterable[int]) -> int:
    return sum(sorted(layers)[-_UNITS_AT_ONCE:])
