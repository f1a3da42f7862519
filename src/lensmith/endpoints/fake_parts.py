"""Parts of the fake endpoint: an answer in the making, a rate limit, and logprobs put together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lensmith.core.endpoint import NO_TOKEN, Finish, Logprobs, Request
from lensmith.core.exposure import Revealed
from lensmith.core.wire import BusyError
from lensmith.endpoints.fake_tokens import FakeTokens


@dataclass(kw_only=True)
class Unfinished:
    """One answer in the making."""

    request: Request
    digest: Any
    rng: np.random.Generator
    replica: int
    token_ids: list[int] = field(default_factory=list)
    revealed: list[Revealed] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None

    def add(self, revealed: Revealed, tokens: FakeTokens, end_id: int | None) -> None:
        """Takes the next token. The tokens of a stop string stay, as in vLLM; its text goes."""
        token_id = int(revealed.token_ids_T[0])
        self.revealed.append(revealed)
        self.token_ids.append(token_id)
        self.digest.update(np.int64(token_id).tobytes())
        self.text += tokens.text(token_id)
        places = [place for stop in self.request.stop if (place := self.text.find(stop)) >= 0]
        if places:
            self.text, self.finish = self.text[: min(places)], Finish.STOP
        elif token_id == end_id:
            self.finish = Finish.STOP
        elif len(self.token_ids) == self.request.max_tokens:
            self.finish = Finish.LENGTH


class RateLimit:
    """At most so many requests a second, with one second's worth at once."""

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self._per_s, self._clock = per_s, clock
        self._left, self._at = max(1.0, per_s), clock()

    def take(self, count: int) -> None:
        now = self._clock()
        most = max(1.0, self._per_s)
        self._left, self._at = min(most, self._left + (now - self._at) * self._per_s), now
        if self._left < min(count, most):
            wait_s = (min(count, most) - self._left) / self._per_s
            raise BusyError("too many requests", status=429, retry_after_s=wait_s)
        self._left -= count


def joined(parts: Sequence[Logprobs]) -> Logprobs:
    """The positions of all parts in turn."""
    wholes = [part.vocabulary_TV for part in parts if part.vocabulary_TV is not None]
    return Logprobs(
        sampled_T=np.concatenate([part.sampled_T for part in parts]),
        top_ids_TK=np.concatenate([part.top_ids_TK for part in parts]),
        top_TK=np.concatenate([part.top_TK for part in parts]),
        wanted_TW=np.concatenate([part.wanted_TW for part in parts]),
        vocabulary_TV=np.concatenate(wholes) if wholes else None,
    )


def untold(like: Logprobs) -> Logprobs:
    """One position of which nothing is told."""
    whole_TV = like.vocabulary_TV
    return Logprobs(
        sampled_T=np.full(1, np.nan),
        top_ids_TK=np.full((1, like.top_ids_TK.shape[1]), NO_TOKEN, dtype=np.int64),
        top_TK=np.full((1, like.top_TK.shape[1]), np.nan),
        wanted_TW=np.full((1, like.wanted_TW.shape[1]), np.nan),
        vocabulary_TV=None if whole_TV is None else np.full((1, whole_TV.shape[1]), np.nan),
    )
