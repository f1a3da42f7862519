"""How fast a run is: the arithmetic that its steps need, and what a device could do in that time at most.

Model FLOP utilisation is the one over the other. Counted is what the model's mathematics needs, a multiplication and an
addition as two, not what a machine happens to do: layers that are computed twice to save memory count once, and padding
is not work. After PaLM (arXiv 2204.02311, appendix B), where a weight takes 6 FLOPs a token. Where we differ: attention
is causal within documents and is counted so, and each part is counted by the tokens that it reads.

The peak is a vendor's figure where the device is in the table and computes in bfloat16; of any other it is measured, as
the best of some matrix products before the first step. A measured peak is what this process could reach at that moment,
with its threads: less than the machine's, where something else runs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lensmith.models.language.experts import ExpertFeedForward
from lensmith.models.vlm import VisionLanguageModel
from lensmith.train.config import Precision
from lensmith.train.layers import layers_of

_DENSE_BFLOAT16: tuple[tuple[str, float], ...] = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("A30", 165e12),
    ("A10", 125e12),
    ("L4", 121e12),
)
"""FLOPs a second without sparsity, from the vendor's data sheets; the first name that a device's contains."""
_SIDE, _TIMES = {"cpu": 768, "cuda": 8192}, 5


@dataclass(frozen=True, kw_only=True)
class Peak:
    """FLOPs a second of one device, and where the figure is from."""

    flops_per_s: float
    source: str


def peak_of(device: torch.device, precision: Precision) -> Peak:
    """The device's peak in this precision (not AUTO). Measuring takes a fraction of a second."""
    if device.type == "cuda" and precision is Precision.BFLOAT16:
        name = torch.cuda.get_device_name(device)
        for part, flops_per_s in _DENSE_BFLOAT16:
            if part in name:
                return Peak(flops_per_s=flops_per_s, source=f"data sheet of {part}, bfloat16 without sparsity")
    side = _SIDE.get(device.type, _SIDE["cuda"])
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    one = torch.ones(side, side, device=device, dtype=dtype)
    best_s = min(_seconds(one) for _ in range(_TIMES))
    return Peak(
        flops_per_s=2.0 * side**3 / best_s,
        source=f"measured: matrix products of {side} x {side} in {precision.value}, the best of {_TIMES}",
    )


def _seconds(one: torch.Tensor) -> float:
    began = time.perf_counter()
    product = one @ one
    float(product[0, 0])  # waits until an accelerator is done
    return time.perf_counter() - began


def flops_of_step(
    model: VisionLanguageModel,
    *,
    document_tokens: Sequence[int],
    target_tokens: int,
    patches: int,
    pictures: int,
    runs_tower: bool = True,
) -> float:
    """FLOPs of one forward and backward pass over packed documents of so many tokens each.

    `patches` are those of all `pictures` together. The head reads the positions with a target alone. Tower and
    connector are counted by patches, which is too much for what a connector does behind its pooling; the tower's
    attention is counted where its layers are transformers' own, and a tower of filters for less than it does.
    `runs_tower` False: what it makes was there before. Of experts those are counted that a token goes to.
    """
    language = model.language_model
    config = language.config.get_text_config()
    head = language.get_output_embeddings().weight
    matrices = _weights(language, head)
    attention_width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    # Of each query with each key of its document that is not behind it, and of each weight with each value.
    seen = sum(count * count / 2 for count in document_tokens)
    forward_language = (
        2.0 * matrices * sum(document_tokens)
        + 2.0 * head.numel() * target_tokens
        + 4.0 * config.num_hidden_layers * attention_width * seen
    )
    forward_tower = 2.0 * _weights(model.vision_tower) * patches
    if pictures:
        width = model.config.vision.width
        forward_tower += 4.0 * len(layers_of(model.vision_tower)) * width * patches * (patches / pictures)
    forward_tower *= runs_tower
    forward_connector = 2.0 * _weights(model.connector) * patches
    parts = (
        (model.vision_tower, forward_tower),
        (model.connector, forward_connector),
        (language, forward_language),
    )
    total, learns_before = 0.0, False
    for part, forward in parts:
        learns = any(parameter.requires_grad for parameter in part.parameters())
        # Backward, as much again for the weights' gradients, and for the inputs', which a part needs whose own layers
        # learn, or that stands behind one that learns.
        total += forward * (1 + learns + (learns or learns_before))
        learns_before = learns_before or learns
    return total


def _weights(part: nn.Module, *others: nn.Parameter) -> int:
    """The numbers in a part's matrices and filters, without tables that are looked up and without `others`."""
    tables = [module.weight for module in part.modules() if isinstance(module, nn.Embedding)]
    left_out = {id(parameter) for parameter in (*tables, *others)}
    matrices = (one for one in part.parameters() if one.ndim >= 2 and id(one) not in left_out)
    return sum(parameter.numel() for parameter in matrices) - sum(_unused(each) for each in part.modules())


def _unused(module: nn.Module) -> int:
    """The numbers in the experts that a token does not go to."""
    if not isinstance(module, ExpertFeedForward):
        return 0
    experts = len(module.experts.gate)
    return sum(each.numel() for each in module.experts.parameters()) // experts * (experts - module.per_token)
