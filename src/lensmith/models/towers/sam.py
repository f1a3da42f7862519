"""SAM's image encoder as DeepSeek-VL uses it: a square of 1024 px to 24 x 24 tokens.

SAM-B (arXiv 2304.02643, appendix A) with its neck; the map of 64 x 64 cells is resized to 96 x 96 and brought down to
24 x 24 by two convolutions (DeepSeek-VL, arXiv 2403.05525, section 3.1). The paper does not say, but its code and
weights do, that what the first global layer gives takes the same way through a neck of its own and is added, times a
learned number that starts at zero (`neck_hd`, `alpha`).

Where we differ: resize and downsampling are linear and have no bias, so both ways are added in front of them instead of
behind, which saves one of two passes (5e-7 relative, float32). For the bias of attention see below.
transformers' port resizes in the model's precision, the original in float32 (`resizes_in_float32`). In bfloat16 on a
CPU this changes one value in 8000, since the neck leaves its map with channels last; it would be 45% of a map in rows.
Softmax sums in float32 either way; the original rounds the logits to the model's precision first, ours and
transformers' do not.

Parameters (transformers' names, with `high_res_vision_neck`, `high_res_vision_proj` and `high_res_vision_alpha` as
`neck_hd`, `proj` and `alpha`):
    pos_embed (1, Hp, Wp, C); patch_embed.projection.{weight,bias};
    layers.N.{layer_norm1,layer_norm2}.{weight,bias}; layers.N.attn.{qkv,proj}.{weight,bias};
    layers.N.attn.{rel_pos_h,rel_pos_w} (2s - 1, d); layers.N.mlp.{lin1,lin2}.{weight,bias};
    neck.{conv1,conv2}.weight; neck.{layer_norm1,layer_norm2}.{weight,bias}; neck_hd.* as neck.*;
    proj.{conv1,conv2}.weight; alpha (1,).

The trunk is a plain ViT whose layers mostly attend within windows (ViTDet, arXiv 2203.16527). Attention logits have a
decomposed relative-position bias (MViTv2, arXiv 2112.01526, section 4.1): what a query says of each row of keys, plus
what it says of each column. Written out it is a number for every query and key, 768 MiB a global layer. Where we
differ: it never exists whole. On a CPU it is written out for a thousand queries at a time, which changes no bit of the
result; on a GPU it is folded into queries and keys, so that flash kernels, which take no bias, apply (`attend_folded`;
differs by about 3e-6 in float32, and rounds once less in bfloat16).

Legend: N pictures, H W pixels, Hp Wp patch grid, C trunk width, G grids (whole pictures, or all their windows), s side
of a grid (window or patch grid), S = s*s cells, h heads, d head width, Q queries of a chunk, R = 2s - 1 distances, O
neck width, t side of the square of tokens, P = t*t tokens, V = 4*O token width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensmith.core.errors import ConfigError, ShapeError
from lensmith.models.towers.base import INPUT_NAMES, VisionFeatures

BIAS_VALUES = 4 * 1024 * 1024
"""How many values of the bias exist at once on a CPU of up to 4 threads; in proportion on a larger one.

One head and 1024 queries of a global layer of SAM-B: as many as torch's kernel needs to work in its largest blocks.
16 MiB is also what malloc hands out again without asking the system for fresh pages; with 48 MiB, those cost 0.3 of
the 1.1 seconds that such a layer's attention took.
"""
_QUERIES = 1024
_BLOCK = 64
"""Chunks are whole blocks of torch's own kernel, so that it multiplies the same shapes as it would without chunks."""


class SamPatches(nn.Module):
    """Pixels (N, 3, H, W) to patches (N, Hp, Wp, C)."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, kernel_size=patch_px, stride=patch_px)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        return cast(Tensor, self.projection(pixels_N3HW)).permute(0, 2, 3, 1)


class SamMlp(nn.Module):
    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden_width)
        self.lin2 = nn.Linear(hidden_width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.lin2(F.gelu(self.lin1(hidden))))


class PositionTerms(NamedTuple):
    """The decomposed bias: what each query adds for each row of keys, and for each column (both G, h, S, s)."""

    rows_GhSs: Tensor
    columns_GhSs: Tensor


Attend = Callable[[Tensor, Tensor, Tensor, PositionTerms], Tensor]
"""Queries, keys, values (G, h, S, d) and the bias to what is read (G, S, h*d)."""


class SamAttention(nn.Module):
    """Attention within windows, or over the whole picture where `window` is 0. `side`: a picture's side in patches.

    Pictures are padded to whole windows, and what is padding is a key like any other, as in the original. The padding
    is zero in front of the projection, so behind it is the bias: that much need not be multiplied out.

    `attend`: how attention is computed; None: as suits the device.
    """

    def __init__(self, width: int, heads: int, *, window: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.attend: Attend | None = None
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * (window or side) - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * (window or side) - 1, width // heads))

    def forward(self, hidden_NHpWpC: Tensor) -> Tensor:
        side, width = hidden_NHpWpC.shape[1], hidden_NHpWpC.shape[3]
        qkv = self.qkv(hidden_NHpWpC)
        if self.window:
            qkv = to_windows(qkv, self.window, self.qkv.bias)
        grids, window = qkv.shape[:2]
        split_3GhSd = qkv.view(grids, window * window, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query_GhSd, key_GhSd, value_GhSd = split_3GhSd.unbind(0)
        terms = position_terms(query_GhSd, self.rel_pos_h, self.rel_pos_w)
        attend = self.attend or attention_for(qkv.device)
        read_GSC = attend(query_GhSd, key_GhSd, value_GhSd, terms)
        return cast(Tensor, self.proj(from_windows(read_GSC.view(grids, window, window, width), side)))


def attention_for(device: torch.device) -> Attend:
    """Flash kernels are worth wider heads on a GPU; on a CPU the wider products cost more than the bias."""
    return attend_folded if device.type == "cuda" else attend_in_chunks


def position_terms(query_GhSd: Tensor, rows_Rd: Tensor, columns_Rd: Tensor) -> PositionTerms:
    """The bias of each query from the two tables of relative positions."""
    grids, heads, cells, _ = query_GhSd.shape
    side = (rows_Rd.shape[0] + 1) // 2
    places = torch.arange(side, device=query_GhSd.device)
    distances_ss = places[:, None] - places[None, :] + (side - 1)
    cells_Bssd = query_GhSd.reshape(grids * heads, side, side, -1)
    rows_Bsss = torch.einsum("byxd,ykd->byxk", cells_Bssd, rows_Rd[distances_ss])
    columns_Bsss = torch.einsum("byxd,xkd->byxk", cells_Bssd, columns_Rd[distances_ss])
    shape = (grids, heads, cells, side)
    return PositionTerms(rows_Bsss.reshape(shape), columns_Bsss.reshape(shape))


def attend_in_chunks(
    query_GhSd: Tensor, key_GhSd: Tensor, value_GhSd: Tensor, terms: PositionTerms, *, bias_values: int = BIAS_VALUES
) -> Tensor:
    """Attention with the bias written out for at most about `bias_values` queries and keys at a time."""
    grids, heads, cells, _ = query_GhSd.shape
    at_once = bias_values * max(torch.get_num_threads(), 4) // 4
    queries = min(cells, _QUERIES, max(at_once // cells // _BLOCK, 1) * _BLOCK)

    def read(some: slice, those: slice, part: slice) -> Tensor:
        rows_GhQs, columns_GhQs = terms.rows_GhSs[some, those, part], terms.columns_GhSs[some, those, part]
        bias = (rows_GhQs.unsqueeze(-1) + columns_GhQs.unsqueeze(-2)).flatten(-2)  # for every key (G, h, Q, S)
        chunk_GhQd = F.scaled_dot_product_attention(
            query_GhSd[some, those, part], key_GhSd[some, those], value_GhSd[some, those], attn_mask=bias
        )
        return chunk_GhQd.transpose(1, 2)

    rows = [
        _joined(
            [
                _joined([read(some, those, part) for part in _spans(cells, queries)], dim=1)
                for those in _spans(heads, at_once // (cells * queries))
            ],
            dim=2,
        )
        for some in _spans(grids, at_once // (heads * cells * queries))
    ]
    return _joined(rows, dim=0).flatten(2)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def _spans(total: int, size: int) -> Iterator[slice]:
    step = max(size, 1)
    return (slice(start, start + step) for start in range(0, total, step))


def attend_folded(query_GhSd: Tensor, key_GhSd: Tensor, value_GhSd: Tensor, terms: PositionTerms) -> Tensor:
    """Attention with the bias as a part of the dot product.

    A query carries its terms behind its d values; a key carries a one at its row and a one at its column. Values are
    padded with zeros to the same width, since torch's flash kernels take one width only, a multiple of 8.
    """
    head_width = query_GhSd.shape[-1]
    side = terms.rows_GhSs.shape[-1]
    eye_ss = torch.eye(side, dtype=key_GhSd.dtype, device=key_GhSd.device)
    one_hot_S2s = torch.cat([eye_ss.repeat_interleave(side, dim=0), eye_ss.repeat(side, 1)], dim=1)
    wide_query = torch.cat([query_GhSd * head_width**-0.5, *terms], dim=-1)
    wide_key = torch.cat([key_GhSd, one_hot_S2s.expand(*key_GhSd.shape[:2], -1, -1)], dim=-1)
    spare = -wide_query.shape[-1] % 8
    wide_value = F.pad(value_GhSd, (0, 2 * side + spare))
    read = F.scaled_dot_product_attention(
        F.pad(wide_query, (0, spare)), F.pad(wide_key, (0, spare)), wide_value, scale=1.0
    )
    return read[..., :head_width].transpose(1, 2).flatten(2)


class SamLayer(nn.Module):
    """Attention and MLP, each normed before and added after."""

    def __init__(self, *, width: int, hidden_width: int, heads: int, window: int, side: int, norm_eps: float) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = SamAttention(width, heads, window=window, side=side)
        self.layer_norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = SamMlp(width, hidden_width)

    def forward(self, hidden_NHpWpC: Tensor) -> Tensor:
        hidden_NHpWpC = hidden_NHpWpC + self.attn(self.layer_norm1(hidden_NHpWpC))
        return cast(Tensor, hidden_NHpWpC + self.mlp(self.layer_norm2(hidden_NHpWpC)))


def to_windows(values_NHpWpC: Tensor, window: int, padding_C: Tensor) -> Tensor:
    """A square grid as windows (G, s, s, C), padded at the right and below to whole ones."""
    count, side, _, width = values_NHpWpC.shape
    across = -(-side // window)
    padded = values_NHpWpC
    if side % window:
        padded = padding_C.expand(count, across * window, across * window, width).clone()
        padded[:, :side, :side] = values_NHpWpC
    split = padded.view(count, across, window, across, window, width)
    return split.transpose(2, 3).reshape(-1, window, window, width)


def from_windows(windows_GssC: Tensor, side: int) -> Tensor:
    """The reverse of `to_windows`, padding left out; the same where a window is the whole grid."""
    window, width = windows_GssC.shape[1], windows_GssC.shape[3]
    across = -(-side // window)
    split = windows_GssC.view(-1, across, across, window, window, width)
    joined = split.transpose(2, 3).reshape(-1, across * window, across * window, width)
    # In rows of its own, the projection behind it adds its bias within the product: the same bits as without windows.
    return joined[:, :side, :side].contiguous()


class SamNeck(nn.Module):
    """Patches (N, Hp, Wp, C) to a map (N, O, Hp, Wp): two convolutions, each with a norm over channels behind it."""

    def __init__(self, width: int, neck_width: int, norm_eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, neck_width, kernel_size=1, bias=False)
        self.layer_norm1 = nn.LayerNorm(neck_width, eps=norm_eps)
        self.conv2 = nn.Conv2d(neck_width, neck_width, kernel_size=3, padding=1, bias=False)
        self.layer_norm2 = nn.LayerNorm(neck_width, eps=norm_eps)

    def forward(self, hidden_NHpWpC: Tensor) -> Tensor:
        mixed_NOHW = _channel_norm(self.layer_norm1, self.conv1(hidden_NHpWpC.permute(0, 3, 1, 2)))
        return _channel_norm(self.layer_norm2, self.conv2(mixed_NOHW))


def _channel_norm(norm: nn.Module, map_NOHW: Tensor) -> Tensor:
    return cast(Tensor, norm(map_NOHW.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class SamDownsampling(nn.Module):
    """A map of 4t x 4t cells to t x t cells of four times the width, by two convolutions without anything between."""

    def __init__(self, neck_width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(neck_width, 2 * neck_width, kernel_size=3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(2 * neck_width, 4 * neck_width, kernel_size=3, stride=2, padding=1, bias=False)

    def forward(self, map_NOHW: Tensor) -> Tensor:
        return cast(Tensor, self.conv2(self.conv1(map_NOHW)))


@dataclass(frozen=True, kw_only=True)
class SamTowerConfig:
    """The defaults are those of DeepSeek-VL 7B. `window` is in patches, `global_layers` attend over all of them;
    the first of these feeds the second neck. `tokens_side`: t."""

    kind: ClassVar[str] = "sam"
    input_names: ClassVar[tuple[str, ...]] = INPUT_NAMES
    image_px: int = 1024
    patch_px: int = 16
    trunk_width: int = 768
    hidden_width: int = 3072
    layers: int = 12
    heads: int = 12
    window: int = 14
    global_layers: tuple[int, ...] = (2, 5, 8, 11)
    neck_width: int = 256
    tokens_side: int = 24
    norm_eps: float = 1e-6
    resizes_in_float32: bool = True

    def __post_init__(self) -> None:
        if self.trunk_width % self.heads:
            raise ConfigError(
                "trunk_width: not a multiple of heads", expected=f"k * {self.heads}", actual=self.trunk_width
            )
        if self.image_px < self.patch_px or self.image_px % self.patch_px:
            raise ConfigError("image_px: not whole patches", expected=f"k * {self.patch_px}", actual=self.image_px)
        for name in ("window", "neck_width", "tokens_side"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: at least one is needed", expected=">= 1", actual=getattr(self, name))
        if not self.global_layers or not all(0 <= layer < self.layers for layer in self.global_layers):
            raise ConfigError(
                "global_layers: at least one of the layers, counted from 0",
                expected=f"0 to {self.layers - 1}",
                actual=self.global_layers,
            )

    @property
    def width(self) -> int:
        return 4 * self.neck_width

    @property
    def grid_side(self) -> int:
        """Patches a side."""
        return self.image_px // self.patch_px

    @property
    def tokens_per_picture(self) -> int:
        return self.tokens_side**2

    def build(self) -> "SamTower":
        return SamTower(self)


class SamTower(nn.Module):
    """Pixels to P tokens a picture. Pictures are squares of one size: a partial mask is refused."""

    def __init__(self, config: SamTowerConfig) -> None:
        super().__init__()
        self.config = config
        side, width = config.grid_side, config.trunk_width
        self.patch_embed = SamPatches(width, config.patch_px)
        self.pos_embed = nn.Parameter(torch.randn(1, side, side, width) * 0.02)
        self.layers = nn.ModuleList(
            SamLayer(
                width=width,
                hidden_width=config.hidden_width,
                heads=config.heads,
                window=0 if index in config.global_layers else config.window,
                side=side,
                norm_eps=config.norm_eps,
            )
            for index in range(config.layers)
        )
        self.neck = SamNeck(width, config.neck_width, config.norm_eps)
        self.neck_hd = SamNeck(width, config.neck_width, config.norm_eps)
        self.proj = SamDownsampling(config.neck_width)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor) -> VisionFeatures:
        """Normalised pixels and a mask that is true everywhere to tokens (N, P, V), all real.

        Raises ShapeError for another size, or where the mask leaves something out.
        """
        check_square(pixels_N3HW, patch_mask_NHpWp, self.config.image_px)
        hidden_NHpWpC = self.patch_embed(pixels_N3HW) + self.pos_embed
        early_NOHW: Tensor | None = None
        for index, layer in enumerate(self.layers):
            hidden_NHpWpC = layer(hidden_NHpWpC)
            if index == min(self.config.global_layers):
                early_NOHW = self.neck_hd(hidden_NHpWpC)
        assert early_NOHW is not None
        tokens_NVtt = self.proj(self.merged(self.neck(hidden_NHpWpC), early_NOHW))
        tokens_NPV = tokens_NVtt.flatten(2).transpose(1, 2)
        mask_NP = tokens_NPV.new_ones(tokens_NPV.shape[:2], dtype=torch.bool)
        return VisionFeatures(tokens_NPV, mask_NP, columns=self.config.tokens_side)

    def merged(self, late_NOHW: Tensor, early_NOHW: Tensor) -> Tensor:
        """Both necks' maps as one, resized to (N, O, 4t, 4t): what the downsampling takes."""
        precision = torch.float32 if self.config.resizes_in_float32 else late_NOHW.dtype
        both_NOHW = late_NOHW.to(precision) + self.alpha.to(precision) * early_NOHW.to(precision)
        side = 4 * self.config.tokens_side
        resized = nn.functional.interpolate(both_NOHW, size=(side, side), mode="bilinear", align_corners=False)
        return resized.to(late_NOHW.dtype)


def check_square(pixels_N3HW: Tensor, patch_mask_NHpWp: Tensor, image_px: int) -> None:
    """Raises ShapeError unless all pictures are squares of this size without padding."""
    height_px, width_px = pixels_N3HW.shape[-2:]
    if (height_px, width_px) != (image_px, image_px):
        raise ShapeError(
            "pictures have the wrong size for this tower",
            expected=f"{image_px} x {image_px} px",
            actual=f"{width_px} x {height_px} px",
            hint="pad pictures to a square of this size; the family's processor does",
        )
    if not bool(patch_mask_NHpWp.all()):
        raise ShapeError(
            "this tower reads whole squares", expected="a patch mask that is true everywhere", actual="patches left out"
        )
