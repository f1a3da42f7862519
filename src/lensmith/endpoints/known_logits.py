"""Logits that are known, behind an interface: what a study of defences puts in front of the readers of an audit.

Each row of a matrix is one context, addressed by its number as the only prompt token. Answers go through
`core.exposure.apply`, the one enforcement, and are told in float32, as servers tell them.

Legend: N contexts, V vocabulary, P prompt positions, K top tokens, W wanted ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lensmith.core.arrays import FloatArray
from lensmith.core.endpoint import Answer, Capabilities, Choice, Feature, Finish, Logprobs, Request, Reveal
from lensmith.core.errors import InputError, ShapeError
from lensmith.core.exposure import Exposure, Revealed, apply, check


class LogitsEndpoint:
    """Answers one token a request from the row that `token_ids[0]` names. A second prompt token is what echo scores."""

    def __init__(self, logits_NV: FloatArray, exposes: Exposure, *, seed: int = 0) -> None:
        if logits_NV.ndim != 2 or not all(logits_NV.shape):
            raise ShapeError("logits have the wrong shape", expected="(contexts, vocabulary)", actual=logits_NV.shape)
        self.exposes = exposes
        self._logits_NV = logits_NV
        self._rng = np.random.default_rng(seed)

    def contexts(self, rows: Sequence[int]) -> list[Request]:
        """The requests that ask for these rows and for nothing else yet."""
        return [Request(token_ids=(row,), max_tokens=1, temperature=0.0) for row in rows]

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Raises RefusedError as `core.exposure.check` does, InputError for a row that does not exist."""
        for request in requests:
            check(request, self.exposes)
        return [self._answer(request) for request in requests]

    def supports(self) -> Capabilities:
        return Capabilities(features=Feature.TOKEN_IDS)

    def metadata(self) -> Mapping[str, Any]:
        return {}

    def _answer(self, request: Request) -> Answer:
        row = request.token_ids[0] if request.token_ids else -1
        if not 0 <= row < len(self._logits_NV) or len(request.token_ids) > 2 or request.max_tokens > 1 or request.n > 1:
            raise InputError("these logits answer one token a row", expected=f"a row below {len(self._logits_NV)}")
        revealed = self._revealed(request, row, None)
        logprobs = None if revealed.logprobs is None else _float32(revealed.logprobs)
        choice = Choice(text="", finish=Finish.LENGTH, token_ids_T=revealed.token_ids_T, logprobs=logprobs)
        answer = Answer(choices=(choice,), prompt_tokens=len(request.token_ids))
        if Reveal.PROMPT not in request.reveal:
            return answer
        scored = [self._revealed(request, row, token_id).logprobs for token_id in request.token_ids[1:]]
        blank = Logprobs.untold(request, self._logits_NV.shape[1], positions=1)  # the first token has no context
        return replace(
            answer,
            prompt_ids_P=np.array(request.token_ids, dtype=np.int64),
            prompt_logprobs=Logprobs.joined([blank, *(_float32(part) for part in scored if part is not None)]),
        )

    def _revealed(self, request: Request, row: int, token_id: int | None) -> Revealed:
        forced_T = None if token_id is None else np.array([token_id], dtype=np.int64)
        # Named by its row, so that frozen noise is the same however a token of this context is read.
        context = b"row %d" % row
        row_TV = self._logits_NV[row : row + 1]
        return apply(row_TV, request, self.exposes, forced_T=forced_T, noise_rng=self._rng, context=context)


def _float32(logprobs: Logprobs) -> Logprobs:
    """What is left of logprobs that a server tells in float32."""
    arrays = {name: array for name, array in vars(logprobs).items() if array is not None and array.dtype.kind == "f"}
    return replace(logprobs, **{name: array.astype(np.float32).astype(np.float64) for name, array in arrays.items()})
