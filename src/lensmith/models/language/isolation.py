"""Packed documents never see each other: attention that stays within the documents of one long row.

Documents lie one behind the other in a single row without padding; `document_bounds` says where each begins. Attention
is computed document by document, so neither a T x T mask nor the work it would hide exists: time and memory grow with
the documents' own lengths. MM1 (arXiv 2403.09611) calls the isolation critical for few-shot ability.

The trap that this avoids: the causal models of transformers keep documents apart by restarted positions only without a
cache and without a mask, and otherwise let them see each other silently. Here whatever would undo it is an error.

Legend: H heads, G key heads, T tokens of all documents, D head width, n documents of a group, L the longest of them, M
its tokens.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from lensmith.core.errors import InputError, ShapeError

ISOLATED = "lensmith_documents"
"""The name under which transformers knows this attention."""
_SHORT_TOKENS, _SHARE_OF_FILLING = 8, 8
"""Documents are computed together that differ by so few tokens, or by this part of the shortest."""


@torch.compiler.disable  # how many documents there are, and of what lengths, is another in each step
def document_attention(  # noqa: PLR0917  # transformers gives these by position
    module: nn.Module,
    query_1HTD: Tensor,
    key_1GTD: Tensor,
    value_1GTD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    document_bounds: Sequence[int] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each document; output (1, T, H, D), as transformers' attention interface wants it.

    `document_bounds`: 0, where each further document begins, T. Raises InputError for a mask, a cache, a window that a
    document exceeds, or logits that are capped; ShapeError for bounds that are not those of the row.
    """
    if document_bounds is None:
        raise InputError("documents cannot be kept apart: nothing says where they begin", expected="document_bounds")
    if attention_mask is not None:
        raise InputError("documents cannot be kept apart: a mask is given", expected="no attention_mask")
    rows, heads, length, _ = query_1HTD.shape
    if key_1GTD.shape[2] != length:
        raise InputError("documents cannot be kept apart: a cache is used", expected="use_cache=False")
    _check_bounds(document_bounds, rows, length)
    _refuse_others(others, max(end - begin for begin, end in pairwise(document_bounds)))
    layout = _layout(tuple(document_bounds), query_1HTD.device)
    parts_MHD = []
    for group in layout.groups:
        # What fills up a shorter document stands behind it: no token of it looks there, and what it sees is left out.
        mixed_nHLD = F.scaled_dot_product_attention(
            group.taken_from(query_1HTD),
            group.taken_from(key_1GTD),
            group.taken_from(value_1GTD),
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=heads != key_1GTD.shape[1],
        )
        parts_MHD.append(mixed_nHLD.transpose(1, 2).flatten(0, 1).index_select(0, group.real_M))
    return torch.cat(parts_MHD).index_select(0, layout.place_T)[None], None


class _Group(NamedTuple):
    """Documents of about one length: where their tokens are (n, L), and which of those n * L are no filling (M)."""

    tokens_nL: Tensor
    real_M: Tensor

    def taken_from(self, states_1HTD: Tensor) -> Tensor:
        """Queries, keys or values of these documents (n, H, L, D)."""
        taken_HMD = states_1HTD[0].index_select(1, self.tokens_nL.flatten())
        return taken_HMD.reshape(len(taken_HMD), *self.tokens_nL.shape, -1).transpose(0, 1)


class _Layout(NamedTuple):
    """How a row is computed: its documents in groups, and where each token (T) is among those of all groups."""

    groups: tuple[_Group, ...]
    place_T: Tensor


@functools.lru_cache(maxsize=4)
def _layout(bounds: tuple[int, ...], device: torch.device) -> _Layout:
    """Documents by length: short ones, of which a row has hundreds, are computed together. The same in every layer."""
    spans = sorted(pairwise(bounds), key=lambda span: span[1] - span[0])
    groups, order = [], []
    while spans:
        shortest = spans[0][1] - spans[0][0]
        most = shortest + max(_SHORT_TOKENS, shortest // _SHARE_OF_FILLING)
        count = sum(end - begin <= most for begin, end in spans)
        group, spans = torch.tensor(spans[:count]), spans[count:]
        begin_n1, end_n1 = group[:, :1], group[:, 1:]
        wanted_nL = begin_n1 + torch.arange(int((end_n1 - begin_n1).max()))
        is_real_nL = wanted_nL < end_n1
        tokens_nL = torch.minimum(wanted_nL, end_n1 - 1)
        groups.append(_Group(tokens_nL.to(device), is_real_nL.flatten().nonzero()[:, 0].to(device)))
        order.append(tokens_nL[is_real_nL])
    return _Layout(tuple(groups), torch.cat(order).argsort().to(device))


def isolated_documents(language_model: PreTrainedModel) -> contextlib.AbstractContextManager[None]:
    """Within the context the model's attention is `document_attention`; afterwards what it was."""
    return attending(language_model, ISOLATED)


@contextlib.contextmanager
def attending(language_model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Within the context the model attends in another way; "sdpa" to write between two steps of training."""
    before = language_model.config._attn_implementation
    language_model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        language_model.set_attn_implementation(before)


def positions(document_bounds: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Positions (1, T) that begin at 0 in each document."""
    ends = torch.tensor(document_bounds, device=device)
    return (torch.arange(document_bounds[-1], device=device) - ends[:-1].repeat_interleave(ends.diff()))[None]


def _check_bounds(bounds: Sequence[int], rows: int, length: int) -> None:
    rising = all(begin < end for begin, end in pairwise(bounds))
    if rows != 1 or len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != length or not rising:
        raise ShapeError(
            "document_bounds are not those of the tokens",
            expected=f"one row, and bounds that rise from 0 to its {length} tokens",
            actual=f"{rows} rows, {len(bounds)} bounds, the first {list(bounds[:4])}, the last {list(bounds[-1:])}",
        )


def _refuse_others(others: dict[str, Any], longest: int) -> None:
    window = others.get("sliding_window")
    if window is not None and longest > window:
        raise InputError(
            "this language model attends within a window", expected=f"documents up to {window} tokens", actual=longest
        )
    if others.get("softcap") is not None or others.get("position_bias") is not None:
        raise InputError("this language model changes its attention's logits, which packed training cannot")


def _no_mask(*, attention_mask: Tensor | None = None, **others: Any) -> None:
    """What transformers asks for a mask before the first layer: there is none, and one that is given is not dropped."""
    if attention_mask is not None:
        raise InputError("documents cannot be kept apart: a mask is given", expected="no attention_mask")


AttentionInterface.register(ISOLATED, document_attention)
AttentionMaskInterface.register(ISOLATED, _no_mask)
