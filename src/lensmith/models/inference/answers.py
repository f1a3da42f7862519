"""What is told of an answer piece by piece, put together."""

from collections.abc import Sequence

import numpy as np

from lensmith.core.endpoint import Answer, Choice, Finish, Logprobs, Request, Reveal
from lensmith.models.inference.prefill import Prompt


def joined(parts: Sequence[Logprobs]) -> Logprobs:
    """Logprobs of consecutive positions of one request as one; at least one part."""
    if len(parts) == 1:
        return parts[0]
    whole = [part.vocabulary_TV for part in parts if part.vocabulary_TV is not None]
    return Logprobs(
        sampled_T=np.concatenate([part.sampled_T for part in parts]),
        top_ids_TK=np.concatenate([part.top_ids_TK for part in parts]),
        top_TK=np.concatenate([part.top_TK for part in parts]),
        wanted_TW=np.concatenate([part.wanted_TW for part in parts]),
        vocabulary_TV=np.concatenate(whole) if whole else None,
    )


def nothing_told(request: Request, vocabulary_size: int) -> Logprobs:
    """Logprobs of no position, for an answer without tokens."""
    count = min(request.top_logprobs, vocabulary_size)
    whole = Reveal.VOCABULARY in request.reveal
    return Logprobs(
        sampled_T=np.empty(0),
        top_ids_TK=np.empty((0, count), dtype=np.int64),
        top_TK=np.empty((0, count)),
        wanted_TW=np.empty((0, len(request.wanted_ids))),
        vocabulary_TV=np.empty((0, vocabulary_size)) if whole else None,
    )


class Gatherer:
    """Collects the pieces of one request. `answer` once all of its choices ended."""

    def __init__(self, request: Request, prompt: Prompt, vocabulary_size: int) -> None:
        self._request, self._prompt, self._vocabulary_size = request, prompt, vocabulary_size
        self._texts: list[list[str]] = [[] for _ in range(request.n)]
        self._tokens: list[list[int]] = [[] for _ in range(request.n)]
        self._offsets: list[list[int]] = [[] for _ in range(request.n)]
        self._logprobs: list[list[Logprobs]] = [[] for _ in range(request.n)]
        self._finish: list[Finish | None] = [None] * request.n
        self._prompt_logprobs: Logprobs | None = None

    @property
    def is_complete(self) -> bool:
        return None not in self._finish

    @property
    def completion_tokens(self) -> int:
        return sum(map(len, self._tokens))

    def add_prompt(self, logprobs: Logprobs | None) -> None:
        self._prompt_logprobs = logprobs

    def add(
        self,
        choice: int,
        text: str,
        *,
        token_ids: Sequence[int],
        offsets: Sequence[int],
        logprobs: Logprobs | None,
        finish: Finish | None,
    ) -> None:
        """What was added to one choice; `offsets` are where its tokens begin in the choice's whole text."""
        self._texts[choice].append(text)
        self._tokens[choice].extend(token_ids)
        self._offsets[choice].extend(offsets)
        if logprobs is not None:
            self._logprobs[choice].append(logprobs)
        self._finish[choice] = finish or self._finish[choice]

    def answer(self) -> Answer:
        return Answer(
            choices=tuple(self._choice(choice) for choice in range(self._request.n)),
            prompt_ids_P=self._prompt.token_ids_P,
            prompt_logprobs=self._prompt_logprobs,
            prompt_offsets_P=self._prompt.offsets_P,
            prompt_tokens=self._prompt.length,
        )

    def _choice(self, choice: int) -> Choice:
        told = self._logprobs[choice] or [nothing_told(self._request, self._vocabulary_size)]
        finish = self._finish[choice]
        assert finish is not None, "an answer is asked for before it is complete"
        return Choice(
            text="".join(self._texts[choice]),
            finish=finish,
            token_ids_T=np.array(self._tokens[choice], dtype=np.int64),
            logprobs=joined(told) if self._request.wants_logprobs else None,
            offsets_T=np.array(self._offsets[choice], dtype=np.int64),
        )
