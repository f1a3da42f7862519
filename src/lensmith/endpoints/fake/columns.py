"""What a request tells at one greedy position, from the columns that it names and the sum of all others.

With a vocabulary of 128k, nearly all of a position's cost is float64 work on columns that nobody asked for. Here
`core.exposure.apply` is given the named columns, the chosen token's, and one column that stands for all others.

Legend: V vocabulary, N named columns.
"""

import functools
from dataclasses import dataclass

import numpy as np

from lensmith.core.arrays import Float32Array, IdArray
from lensmith.core.endpoint import Request, Reveal
from lensmith.core.exposure import Exposure, Revealed, apply, biased_logits


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The ids that requests of one kind name, and the same request in terms of their columns."""

    ids_N: IdArray
    request: Request


def apply_to_named(logits_V: Float32Array, request: Request, exposure: Exposure) -> Revealed:
    """As `apply` for one greedy position without top logprobs, whole vocabulary and noise.

    The sum over the vocabulary is taken in float32: its error is that of the normaliser, about 1e-7, and the same for
    every token.
    """
    bias, allowed = tuple(request.logit_bias.items()), request.allowed_ids
    columns = _columns_of(request.wanted_ids, bias, allowed, request.reveal)
    is_steered = bool(bias) or allowed is not None
    chosen = int(biased_logits(logits_V[None], request).argmax()) if is_steered else int(logits_V.argmax())
    places = np.flatnonzero(columns.ids_N == chosen)
    place = int(places[0]) if len(places) else len(columns.ids_N)
    own = -np.inf if len(places) else float(logits_V[chosen])
    highest = float(logits_V.max())
    mass_V = np.exp(logits_V - np.float32(highest))
    others = mass_V.sum(dtype=np.float64) - mass_V[columns.ids_N].sum(dtype=np.float64)
    others -= 0.0 if len(places) else float(mass_V[chosen])
    rest = highest + float(np.log(others)) if others > 0 else -np.inf
    few = np.concatenate([logits_V[columns.ids_N].astype(np.float64), [own, rest]])
    revealed = apply(few[None], columns.request, exposure, forced_T=np.array([place], dtype=np.int64))
    return Revealed(token_ids_T=np.array([chosen], dtype=np.int64), logprobs=revealed.logprobs)


@functools.lru_cache(maxsize=256)
def _columns_of(
    wanted_ids: tuple[int, ...], bias: tuple[tuple[int, float], ...], allowed: tuple[int, ...] | None, reveal: Reveal
) -> _Columns:
    """Kept, because an audit asks for the same columns of thousands of contexts."""
    named = dict.fromkeys([*wanted_ids, *(token_id for token_id, _ in bias), *(allowed or ())])
    column = {token_id: place for place, token_id in enumerate(named)}
    request = Request(
        token_ids=(0,),
        temperature=0.0,
        logit_bias={column[token_id]: value for token_id, value in bias},
        allowed_ids=None if allowed is None else tuple(column[token_id] for token_id in allowed),
        wanted_ids=tuple(column[token_id] for token_id in wanted_ids),
        reveal=reveal & Reveal.SAMPLED,
    )
    return _Columns(ids_N=np.array([*named], dtype=np.int64), request=request)
