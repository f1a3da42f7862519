"""Weights of an EfficientNet-Lite by the names of PyPI's `efficientnet-lite-pytorch`, and what such a network computes.

Written from the paper and from TensorFlow's documentation of SAME padding, with norms as they are: a reference for the
tower, with which it shares no line.
"""

import torch
from torch.nn import functional as F

NORM_EPS = 1e-3


def published(config, seed=0):
    """Random weights by name; norms with means, variances and scales that count."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}

    def layer(prefix, convolution, norm, width, width_in, kernel=1):
        weight = torch.randn(width, width_in, kernel, kernel, generator=random)
        tensors[f"{prefix}{convolution}.weight"] = weight * (2 / (width_in * kernel**2)) ** 0.5
        tensors[f"{prefix}{norm}.weight"] = 0.5 + torch.rand(width, generator=random)
        tensors[f"{prefix}{norm}.bias"] = 0.5 * torch.randn(width, generator=random)
        tensors[f"{prefix}{norm}.running_mean"] = 0.3 * torch.randn(width, generator=random)
        tensors[f"{prefix}{norm}.running_var"] = 0.5 + torch.rand(width, generator=random)

    layer("", "_conv_stem", "_bn0", config.stem_width, 3, 3)
    number, width = 0, config.stem_width
    for stage in config.stages:
        for _ in range(stage.blocks):
            inner = width * stage.expansion
            if stage.expansion > 1:
                layer(f"_blocks.{number}.", "_expand_conv", "_bn0", inner, width)
            layer(f"_blocks.{number}.", "_depthwise_conv", "_bn1", inner, 1, stage.kernel)
            layer(f"_blocks.{number}.", "_project_conv", "_bn2", stage.width, inner)
            number, width = number + 1, stage.width
    layer("", "_conv_head", "_bn1", config.width, width)
    return tensors


def last_map(tensors, config, pixels):
    """Pixels (N, 3, H, W) to the last convolution's map (N, V, Hp, Wp)."""
    hidden = F.relu6(_layer(tensors, "_conv_stem", "_bn0", pixels, stride=2))
    number = 0
    for stage in config.stages:
        for place in range(stage.blocks):
            prefix, stride = f"_blocks.{number}.", stage.stride if place == 0 else 1
            inner = hidden
            if stage.expansion > 1:
                inner = F.relu6(_layer(tensors, f"{prefix}_expand_conv", f"{prefix}_bn0", inner))
            inner = F.relu6(_layer(tensors, f"{prefix}_depthwise_conv", f"{prefix}_bn1", inner, stride=stride))
            out = _layer(tensors, f"{prefix}_project_conv", f"{prefix}_bn2", inner)
            hidden = out + hidden if out.shape == hidden.shape and stride == 1 else out
            number += 1
    return F.relu6(_layer(tensors, "_conv_head", "_bn1", hidden))


def _layer(tensors, convolution, norm, pixels, stride=1):
    weight = tensors[f"{convolution}.weight"]
    padding = []
    for side in (pixels.shape[-1], pixels.shape[-2]):
        # SAME: as many outputs as strides begin within the side, and what that lacks is put half before, rest behind.
        lacking = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
        padding += [lacking // 2, lacking - lacking // 2]
    groups = pixels.shape[1] // weight.shape[1]
    out = F.conv2d(F.pad(pixels, padding), weight, stride=stride, groups=groups)
    return F.batch_norm(
        out,
        tensors[f"{norm}.running_mean"],
        tensors[f"{norm}.running_var"],
        tensors[f"{norm}.weight"],
        tensors[f"{norm}.bias"],
        eps=NORM_EPS,
    )
