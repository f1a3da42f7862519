"""What becomes of a request piece by piece, and the pieces put together to an answer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lensmith.core.endpoint import Answer, Choice, Finish, Logprobs, Request
from lensmith.models.inference.prefill import Prompt


@dataclass(frozen=True, kw_only=True)
class PromptRead:
    """The prompt of a job was read. `logprobs` (P positions) where its echo was asked for."""

    tokens: int
    known_tokens: int
    logprobs: Logprobs | None = None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What was added to one choice: text that is certain, and the tokens it comes from. `finish` ends the choice.

    `offsets`: where each of the tokens begins in the choice's whole text.
    """

    choice: int
    text: str
    token_ids: tuple[int, ...]
    offsets: tuple[int, ...] = ()
    logprobs: Logprobs | None = None
    finish: Finish | None = None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The job cannot be answered, and nothing more comes."""

    error: Exception


Event = PromptRead | Piece | Failed
Sink = Callable[[Event], None]
"""Takes a job's events: `PromptRead`, pieces in any order of choices, each choice ended; or `Failed` at any time."""


class Collector:
    """The sink that puts the events of one request together. `answer` once all of its choices ended.

    `on_text` gets the text of each piece as it comes, of all choices.
    """

    def __init__(
        self,
        request: Request,
        prompt: Prompt,
        vocabulary_size: int,
        on_text: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._request, self._prompt, self._vocabulary_size = request, prompt, vocabulary_size
        self._on_text = on_text
        self._pieces: list[list[Piece]] = [[] for _ in range(request.n)]
        self._prompt_logprobs: Logprobs | None = None
        self.known_tokens = 0
        """Of the prompt's, how many had been read before."""

    @property
    def is_complete(self) -> bool:
        return all(pieces and pieces[-1].finish is not None for pieces in self._pieces)

    @property
    def completion_tokens(self) -> int:
        return sum(len(piece.token_ids) for pieces in self._pieces for piece in pieces)

    def take(self, event: Event) -> None:
        """Raises what made the job fail."""
        match event:
            case PromptRead():
                self.known_tokens, self._prompt_logprobs = event.known_tokens, event.logprobs
            case Piece():
                self._pieces[event.choice].append(event)
                self._on_text(event.text)
            case Failed():
                raise event.error

    def text(self, choice: int = 0) -> str:
        """What is known of a choice's text by now."""
        return "".join(piece.text for piece in self._pieces[choice])

    def finish(self, choice: int = 0) -> Finish | None:
        """Why a choice ended; None while it runs."""
        pieces = self._pieces[choice]
        return pieces[-1].finish if pieces else None

    def answer(self) -> Answer:
        return Answer(
            choices=tuple(self._choice(choice) for choice in range(self._request.n)),
            prompt_ids_P=self._prompt.token_ids_P,
            prompt_logprobs=self._prompt_logprobs,
            prompt_offsets_P=self._prompt.offsets_P,
            prompt_tokens=self._prompt.length,
        )

    def _choice(self, choice: int) -> Choice:
        pieces, finish = self._pieces[choice], self.finish(choice)
        assert finish is not None, "an answer is asked for before it is complete"
        parts = [piece.logprobs for piece in pieces if piece.logprobs is not None]
        parts = parts or [Logprobs.untold(self._request, self._vocabulary_size, positions=0)]
        return Choice(
            text=self.text(choice),
            finish=finish,
            token_ids_T=np.array([token for piece in pieces for token in piece.token_ids], dtype=np.int64),
            logprobs=Logprobs.joined(parts) if self._request.wants_logprobs else None,
            offsets_T=np.array([offset for piece in pieces for offset in piece.offsets], dtype=np.int64),
        )
