"""What a guard lets through of the logprobs in an answer: the counterpart of `core.exposure.apply` for JSON.

The server was asked for enough to know whether the sampled token is inside the cap; here it is masked where that is not
proven, the top is cut, noise and rounding are applied, and ties are put into an order that says nothing.

Where it equals `core.exposure` on the server: everywhere without noise if tokens are named by id (llama.cpp tells ids
beside the text; vLLM and our own server on request), else up to the order of tokens that rounding made equal, which
stand by text. Frozen noise: for tokens named by id, behind a prompt of token ids; behind others, from a server that
keys it by the request as `core.exposure.apply` does (a fake; our own keys it by the prompt's tokens, which a guard does
not know); else it is as frozen, but other noise. What it cannot close in a proxy stands in `frozen_noise`. Fresh
noise: as a distribution. Stricter than the server where a server's list leaves doubt, because it lists the sampled
token though it is not among the top (vLLM), or keys logprobs by text, so that a token vanishes behind another one with
its text (completions; llama-cpp-python): then a token is told only if the mass of the listed ones leaves no room for
likelier ones, or the cap does.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lensmith.core.arrays import Float64Array
from lensmith.core.endpoint import Request, Reveal
from lensmith.core.exposure import Exposure, Noise, Sampled, frozen_noise, prompt_context
from lensmith.openai_api import MASKED_LOGPROB, MalformedAnswerError

_SAME_NATS = 1e-4
"""A server may compute the sampled token's logprob and its place in the list separately."""
_ABOVE_ZERO_NATS = 1e-2
_ABOVE_ONE = 0.05
"""How far rounded logprobs may add up beyond 1; more, and they are logits or something else that must not pass."""


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """One token and its logprob (-9999.0: not told). `token_id` where the server names it, `data` its bytes."""

    name: str
    logprob: float
    token_id: int | None = None
    data: bytes | None = None

    @property
    def is_masked(self) -> bool:
        return self.logprob <= MASKED_LOGPROB

    @property
    def noise_key(self) -> int:
        """What frozen noise belongs to: the id, else 63 bits of a hash of the text."""
        if self.token_id is not None:
            return self.token_id
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class Position:
    """One position: the token that stands there, and those that are told beside it."""

    sampled: TokenLogprob
    listed: tuple[TokenLogprob, ...] = ()
    is_keyed: bool = False
    """Whether the list came as an object with names for keys, so that no name stands twice."""


class LogprobFilter:
    """What may be seen of the positions of one choice, in order (frozen noise belongs to the tokens before).

    `asked_top` is how many top logprobs the server was asked for. `is_echoed`: the prompt's own positions come first.
    """

    def __init__(
        self,
        request: Request,
        exposure: Exposure,
        rng: np.random.Generator,
        *,
        asked_top: int,
        is_echoed: bool = False,
    ) -> None:
        self._request, self._exposure, self._rng, self._asked_top = request, exposure, rng, asked_top
        self._shows_all = exposure.sampled_logprob is Sampled.SHOWN or exposure.top_logprobs is None
        self._is_frozen = exposure.noise_nats > 0 and exposure.noise is Noise.FROZEN
        self._is_exact = exposure.noise_nats == 0 and exposure.decimals is None
        # An echoed prompt is before its positions as far as they have come, and no further.
        self._echoed = iter(request.token_ids if self._is_frozen and is_echoed else ())
        self._waits = self._is_frozen and is_echoed
        self._before = hashlib.sha256(prompt_context(request) if self._is_frozen and not is_echoed else b"")
        self._drawn: dict[int, float] = {}

    def skip(self, first: TokenLogprob) -> None:
        """Passes the first position of an echoed prompt, of which nothing is told."""
        self._waits = False
        self._pass(first)

    def _pass(self, sampled: TokenLogprob) -> None:
        expected = next(self._echoed, None)
        if self._waits or (expected is not None and sampled.token_id != expected):
            # Noise that belonged to other tokens than stand there could be had again elsewhere.
            raise MalformedAnswerError("the echoed prompt is not the one that was sent")
        self._before.update(sampled.noise_key.to_bytes(8, "big"))

    def visible(self, position: Position) -> Position:
        """What the client may know of a position. Raises MalformedAnswerError for what cannot be logprobs."""
        context = self._before.digest()
        self._pass(position.sampled)
        self._drawn = {}
        if max(each.logprob for each in (position.sampled, *position.listed)) > _ABOVE_ZERO_NATS:
            raise MalformedAnswerError("these are no logprobs", expected="at most 0")
        if Reveal.VOCABULARY in self._request.reveal:
            return self._visible_vocabulary(position, context)
        wanted_W, others = self._split(position)
        if math.fsum(math.exp(token.logprob) for token in others) > 1 + _ABOVE_ONE:
            raise MalformedAnswerError("these are no logprobs", expected="probabilities that add up to at most 1")
        ranked = _ranked(others)
        place = _place(position.sampled, ranked)
        ranked = ranked if self._shows_all else self._proven(ranked, place)
        top = self._changed(ranked, context)
        listed = top[place] if place is not None and place < len(top) else None
        shown = self._sampled(position.sampled, listed, context)
        best = self._ordered(top[: self._request.top_logprobs])
        return Position(sampled=shown, listed=(*best, *self._changed(wanted_W, context)))

    def _visible_vocabulary(self, position: Position, context: bytes) -> Position:
        """The whole vocabulary in the order that the server gave it, which is that of ids."""
        listed = self._changed(position.listed, context)
        place = _place(position.sampled, position.listed)
        shown = self._sampled(position.sampled, None if place is None else listed[place], context)
        return Position(sampled=shown, listed=listed)

    def _split(self, position: Position) -> tuple[tuple[TokenLogprob, ...], tuple[TokenLogprob, ...]]:
        """The wanted ids in their order, and the top: wanted ids stand last.

        In an object keyed by names, one that is among the top stands there only.
        """
        listed, count = position.listed, len(self._request.wanted_ids)
        if not count:
            return (), listed
        if any(token.token_id is None for token in listed):
            if len(listed) < count:
                raise MalformedAnswerError("the logprobs of wanted ids are missing", expected=count, actual=len(listed))
            return listed[-count:], listed[:-count]
        by_id = {token.token_id: token for token in listed}
        if not by_id.keys() >= set(self._request.wanted_ids):
            raise MalformedAnswerError("the logprobs of wanted ids are missing", expected=count)
        wanted = tuple(by_id[token_id] for token_id in self._request.wanted_ids)
        if position.is_keyed:
            return wanted, _descending(listed[: self._asked_top])
        is_listed_last = listed[-count:] == wanted
        return wanted, listed[:-count] if is_listed_last else _without(listed, self._request.wanted_ids)

    def _proven(self, ranked: list[TokenLogprob], place: int | None) -> list[TokenLogprob]:
        """The tokens that are proven to be among those that the exposure may tell, of a list sorted by logprob.

        At most one of them (at `place`) is no top token but the sampled one. If a token is listed below it, then that
        is a top token, and the sampled one above it too; if it is the last, only the mass that is left can prove it.
        """
        cap = self._exposure.top_logprobs
        assert cap is not None
        unlisted = 1 - math.fsum(math.exp(token.logprob) for token in ranked)
        has_ids = all(token.token_id is not None for token in ranked)
        has_bytes = all(token.data is not None for token in ranked)
        count = len(ranked)
        if place is not None and place == count - 1 and unlisted >= math.exp(ranked[place].logprob):
            ranked = ranked[:-1]
            count -= not has_bytes  # a list of its own makes room for the sampled token, an object of names is longer
        vanished = 0 if has_ids else max(0, self._asked_top - count)
        return [
            token
            for rank, token in enumerate(ranked[:cap])
            if rank + vanished < cap or unlisted < math.exp(token.logprob)
        ]

    def _sampled(self, sampled: TokenLogprob, listed: TokenLogprob | None, context: bytes) -> TokenLogprob:
        """The sampled token with the value that the list tells of it, so that noise is not drawn for it twice."""
        if Reveal.SAMPLED not in self._request.reveal:
            return replace(sampled, logprob=MASKED_LOGPROB)
        if listed is not None:
            return replace(sampled, logprob=listed.logprob)
        return self._changed((sampled,), context)[0] if self._shows_all else replace(sampled, logprob=MASKED_LOGPROB)

    def _changed(self, tokens: Sequence[TokenLogprob], context: bytes) -> tuple[TokenLogprob, ...]:
        """With noise and rounding, as `core.exposure` applies them."""
        if self._is_exact or not tokens:
            return tuple(each if each.logprob < 0 else replace(each, logprob=0.0) for each in tokens)
        values = np.array([each.logprob for each in tokens])
        if self._exposure.noise_nats:
            values = values + self._exposure.noise_nats * self._noise(tokens, context)
        if self._exposure.decimals is not None:
            values = np.round(values, self._exposure.decimals)
        values = np.minimum(values, 0.0) + 0.0
        return tuple(
            each if each.is_masked else replace(each, logprob=value)
            for each, value in zip(tokens, values.tolist(), strict=True)
        )

    def _noise(self, tokens: Sequence[TokenLogprob], context: bytes) -> Float64Array:
        """Standard normal values; at one position, a token that stands there twice has one value."""
        keys = [each.noise_key for each in tokens]
        if self._is_frozen:
            return frozen_noise(context, np.array(keys, dtype=np.int64), self._exposure.noise_seed)
        draws = self._rng.standard_normal(len(keys)).tolist()
        return np.array([self._drawn.setdefault(key, draw) for key, draw in zip(keys, draws, strict=True)])

    def _ordered(self, top: Sequence[TokenLogprob]) -> list[TokenLogprob]:
        """By what is told; ties by id, else by text, because the order of arrival is that of the exact values."""
        if self._is_exact and any(token.token_id is None for token in top):
            return list(top)
        if all(token.token_id is not None for token in top):
            return sorted(top, key=lambda token: (-token.logprob, token.token_id or 0))
        return sorted(top, key=lambda token: (-token.logprob, token.name))


def _ranked(listed: Sequence[TokenLogprob]) -> list[TokenLogprob]:
    """Most likely first; ties by id where ids are told, else as the server has them."""
    has_ids = all(token.token_id is not None for token in listed)
    shown = [each for each in listed if not each.is_masked]
    return sorted(shown, key=lambda each: (-each.logprob, (each.token_id or 0) if has_ids else 0))


def _descending(listed: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
    if any(later.logprob > token.logprob for token, later in pairwise(listed)):
        raise MalformedAnswerError("top logprobs beside wanted ids are not in order", expected="most likely first")
    return listed


def _place(sampled: TokenLogprob, listed: Sequence[TokenLogprob]) -> int | None:
    """Where the sampled token stands in the list: the same name and id, and the same logprob.

    A name alone will not do: several tokens decode to the same text, and a likely one would vouch for an unlikely one.
    """
    for place, token in enumerate(listed):
        same = token.name == sampled.name and token.token_id == sampled.token_id
        if same and abs(token.logprob - sampled.logprob) <= _SAME_NATS:
            return place
    return None


def _without(listed: tuple[TokenLogprob, ...], token_ids: Sequence[int]) -> tuple[TokenLogprob, ...]:
    """The list without one entry for each of the ids, the last one that has it."""
    left = list(listed)
    for token_id in token_ids:
        place = max(place for place, token in enumerate(left) if token.token_id == token_id)
        del left[place]
    return tuple(left)
