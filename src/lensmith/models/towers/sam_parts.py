"""The parts of SAM's image encoder: a plain ViT whose layers mostly attend within windows (ViTDet, arXiv 2203.16527).

Attention logits have a decomposed relative-position bias (MViTv2, arXiv 2112.01526, section 4.1): what a query says of
each row of keys, plus what it says of each column. Written out it is a number for every query and key, 768 MiB a
global layer. Where we differ: it never exists whole. On a CPU it is written out for a thousand queries at a time, which
changes no bit of the result; on a GPU it is folded into queries and keys, so that flash kernels, which take no bias,
apply (`attend_folded`; differs by about 3e-6 in float32, and rounds once less in bfloat16).

Legend: N pictures, G grids (whole pictures, or all their windows), s side of a grid, S = s*s cells, C width, h heads,
d head width, Q queries of a chunk, Hp Wp patch grid of a picture, O neck width, R = 2s - 1 distances.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    """

    def __init__(self, width: int, heads: int, *, window: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
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
        read_GSC = attention_for(qkv.device)(query_GhSd, key_GhSd, value_GhSd, terms)
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


def attend_in_chunks(query_GhSd: Tensor, key_GhSd: Tensor, value_GhSd: Tensor, terms: PositionTerms) -> Tensor:
    """Attention with the bias written out for at most about `BIAS_VALUES` queries and keys at a time."""
    grids, heads, cells, _ = query_GhSd.shape
    at_once = BIAS_VALUES * max(torch.get_num_threads(), 4) // 4
    queries = min(cells, _QUERIES, max(at_once // cells // _BLOCK, 1) * _BLOCK)

    def read(some: slice, those: slice, part: slice) -> Tensor:
        bias = _written_out(terms.rows_GhSs[some, those, part], terms.columns_GhSs[some, those, part])
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


def _written_out(rows_GhQs: Tensor, columns_GhQs: Tensor) -> Tensor:
    """The bias of these queries for every key (G, h, Q, S)."""
    return (rows_GhQs.unsqueeze(-1) + columns_GhQs.unsqueeze(-2)).flatten(-2)


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
