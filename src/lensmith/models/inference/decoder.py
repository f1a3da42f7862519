"""Requests to answers, token by token: rows join and leave between steps, whatever the others do.

The one decoding loop of what answers requests: a local endpoint runs it until all is answered, a server runs it in a
thread of its own. Logits become an answer in `core.exposure.apply` and nowhere else. A choice draws from a generator of
its own, so that with a seed it is the same in any company; in float32 its logits are, too, but for their last digits.

Legend: B rows, P prompt positions, C positions of a chunk, T answer positions, V vocabulary.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lensmith.core.arrays import Float32Array, IdArray
from lensmith.core.endpoint import Finish, Logprobs, Penalties, Request, Reveal
from lensmith.core.errors import InputError, LensmithError
from lensmith.core.exposure import Exposure, Noise, PrecedingTokens, Revealed, apply, check
from lensmith.models.inference.answers import Failed, Piece, PromptRead, Sink
from lensmith.models.inference.kv_cache import SPARE_COLUMNS, SlotCache
from lensmith.models.inference.prefill import Prefill, Prompt, ReadPrompt
from lensmith.models.inference.text_stream import Released, TextStream, context_of


@dataclass(eq=False, kw_only=True)
class Job:
    """One request with its prompt. `cancelled` may be set at any time, from any thread: its rows leave."""

    request: Request
    prompt: Prompt
    sink: Sink
    cancelled: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    """How token ids become text, and which of them end an answer."""

    decode: Callable[[Sequence[int]], str]
    end_ids: frozenset[int]


class Answers(enum.Enum):
    """What becomes of an answer's keys and values."""

    FORGOTTEN = "forgotten"
    KEPT = "kept"
    """The prefill keeps them: the next prompt of a conversation goes on from there."""


@dataclass(frozen=True, kw_only=True)
class _Token:
    """A token of an answer, and the character of its text at which it begins."""

    token_id: int
    offset: int
    logprobs: Logprobs | None


class _Row:
    """One choice of a job while it runs."""

    def __init__(self, job: Job, choice: int, text: Text) -> None:
        seed = job.request.seed
        self.job, self.choice, self._text = job, choice, text
        self.rng = np.random.default_rng(None if seed is None else (seed % (1 << 64), choice))
        # An answer to messages is a text of its own; any other goes on with the prompt's.
        before = [] if job.request.messages else context_of(text.decode, job.prompt.token_ids_P.tolist())
        self.stream = TextStream(text.decode, job.request.stop, before)
        self.tokens: list[int] = []
        self.logits_V: Float32Array | None = None
        """Of the last token, which is not read yet."""
        self.finish: Finish | None = None
        self._held_back: list[_Token] = []

    @property
    def echoes_prompt(self) -> bool:
        return Reveal.PROMPT in self.job.request.reveal and self.choice == 0

    @property
    def is_running(self) -> bool:
        return self.finish is None and not self.job.cancelled

    def take(self, revealed: Revealed, most_tokens: int) -> Piece | None:
        """Takes in the next token; what can be told of the answer now, if anything."""
        token = int(revealed.token_ids_T[0])
        self.tokens.append(token)
        if token in self._text.end_ids:
            # An end token is told with its logprobs; it has no text, and a stop string cannot span it.
            rest = self.stream.finish()
            self._note(token, revealed.logprobs)
            return self._end(Finish.STOP, rest)
        self._note(token, revealed.logprobs)
        released = self.stream.push(token)
        if released.stopped:
            return self._end(Finish.STOP, released)
        if len(self.tokens) >= most_tokens:
            rest = self.stream.finish()
            both = Released(text=released.text + rest.text, tokens=released.tokens + rest.tokens)
            return self._end(Finish.STOP if rest.stopped else Finish.LENGTH, replace(both, stopped=rest.stopped))
        return self._piece(released.text, released.tokens) if released.tokens or released.text else None

    def _note(self, token: int, logprobs: Logprobs | None) -> None:
        self._held_back.append(_Token(token_id=token, offset=self.stream.length, logprobs=logprobs))

    def _end(self, finish: Finish, released: Released) -> Piece:
        self.finish = finish
        tokens = released.tokens if released.stopped else len(self._held_back)
        return self._piece(released.text, tokens)

    def _piece(self, text: str, tokens: int) -> Piece:
        released, self._held_back = self._held_back[:tokens], self._held_back[tokens:]
        logprobs = [token.logprobs for token in released if token.logprobs is not None]
        return Piece(
            choice=self.choice,
            text=text,
            token_ids=tuple(token.token_id for token in released),
            offsets=tuple(token.offset for token in released),
            logprobs=Logprobs.joined(logprobs) if logprobs else None,
            finish=self.finish,
        )


@dataclass(frozen=True, kw_only=True)
class _Beginning:
    """What a row starts from; `logprobs` of its prompt where they are told."""

    read: ReadPrompt
    logprobs: Logprobs | None = None


class Decoder:
    """Answers jobs on at most `slots` rows at once; not for several threads. Rows are served in the order they came.

    `spare_columns`: see `SlotCache`.
    """

    def __init__(
        self,
        prefill: Prefill,
        text: Text,
        exposure: Exposure,
        *,
        slots: int,
        max_length: int,
        answers: Answers = Answers.FORGOTTEN,
        spare_columns: int = SPARE_COLUMNS,
    ) -> None:
        if slots < 1:
            raise InputError("slots: nothing could run", expected="at least 1", actual=slots)
        self.prefill, self.text, self.exposure = prefill, text, exposure
        self.slots, self.max_length, self.answers = slots, max_length, answers
        self.generated_tokens = 0
        self.steps = 0
        self._waiting: deque[_Row] = deque()
        self._running: list[_Row] = []
        self._spare_columns = spare_columns
        self._cache = SlotCache(slots, spare_columns=spare_columns)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        return not self._running and not self._waiting

    def check(self, request: Request, prompt: Prompt, vocabulary_size: int) -> None:
        """Raises RefusedError where the exposure does not allow the request, InputError where it cannot be answered."""
        check(request, self.exposure)
        for name, ids in (
            ("logit_bias", request.logit_bias),
            ("allowed_token_ids", request.allowed_ids or ()),
            ("logprob_token_ids", request.wanted_ids),
            ("prompt", prompt.token_ids_P.tolist()),
        ):
            if ids and max(ids) >= vocabulary_size:
                raise InputError(f"{name}: a token id is outside the vocabulary")  # its size may be a secret
        if prompt.length + (request.max_tokens > 0) > self.max_length:
            raise InputError(
                "the prompt is longer than the model can read",
                expected=f"at most {self.max_length - 1} tokens",
                actual=f"{prompt.length} tokens",
            )

    def submit(self, job: Job) -> None:
        """Takes a job that passed `check`."""
        self._waiting.extend(_Row(job, choice, self.text) for choice in range(job.request.n))

    @torch.inference_mode()  # rows move within the cache, which is made of inference tensors
    def step(self) -> None:
        """One token for each row that runs or can start. A failure fails the jobs that it concerns, not the others."""
        self._leave()
        if any(row.job.cancelled for row in self._waiting):
            self._waiting = deque(row for row in self._waiting if not row.job.cancelled)
        rows = list(self._running)
        try:
            logits_BV = self.prefill.step(self._cache, [row.tokens[-1] for row in rows]) if rows else ()
        except Exception as error:  # noqa: BLE001  # as in `_attempt`
            self._fail_all(rows, error)
            return
        for row, logits_V in zip(rows, logits_BV, strict=True):
            self._choose(row, logits_V)
        self._start()
        self._leave()
        self.steps += 1

    def run(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Submits jobs and steps until nothing runs or waits; yields after each step. Closed early, it cancels them."""
        for job in jobs:
            self.submit(job)
        try:
            while not self.is_idle:
                self.step()
                yield
        except GeneratorExit:
            for job in jobs:
                job.cancelled = True
            raise

    def abandon(self, error: Exception) -> None:
        """Fails every job that runs or waits."""
        rows = [*self._running, *self._waiting]
        self._waiting.clear()
        self._fail_all(rows, error)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Reads the prompts of rows that find a free slot, and chooses their first tokens."""
        self._leave()  # rows that ended in this very step make room
        room = self.slots - len(self._running)
        rows = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        beginnings = self._attempt([row for row in rows if not row.echoes_prompt], self._read_prompts)
        for row in rows:
            if row.echoes_prompt:
                beginnings |= self._attempt([row], self._read_with_echo)
        for row in rows:
            if row in beginnings:
                self._begin(row, beginnings[row])

    def _attempt(
        self, rows: list[_Row], read: Callable[[list[_Row]], dict[_Row, _Beginning]]
    ) -> dict[_Row, _Beginning]:
        try:
            return read(rows) if rows else {}
        except Exception as error:  # noqa: BLE001  # whatever a model raises, its jobs must hear of it
            for row in rows:
                self._fail(row.job, error)
            return {}

    def _begin(self, row: _Row, beginning: _Beginning) -> None:
        job, read = row.job, beginning.read
        if job.cancelled:
            return
        if row.choice == 0:
            event = PromptRead(tokens=job.prompt.length, known_tokens=read.known_tokens, logprobs=beginning.logprobs)
            job.sink(event)
        if job.request.max_tokens == 0:
            job.sink(Piece(choice=row.choice, text="", token_ids=(), finish=Finish.LENGTH))
            return
        self._choose(row, read.logits_V)
        if row.is_running:
            self._cache.join(read.memory)
            self._running.append(row)

    def _choose(self, row: _Row, logits_V: Float32Array) -> None:
        request = row.job.request
        if row.job.cancelled:
            return
        try:
            context = self._context(row.job.prompt.keys_P, row.tokens)
            preceding = PrecedingTokens(prompt_ids=row.job.prompt.token_ids_P, answer_ids=row.tokens)
            revealed = apply(logits_V[None], request, self.exposure, preceding=preceding, rng=row.rng, context=context)
        except LensmithError as error:
            self._fail(row.job, error)
            return
        self.generated_tokens += 1
        row.logits_V = logits_V
        piece = row.take(revealed, min(request.max_tokens, self.max_length - row.job.prompt.length))
        if piece is not None:
            row.job.sink(piece)

    def _leave(self) -> None:
        """Rows that ended, or whose client went away, free their slots."""
        for index in reversed(range(len(self._running))):
            row = self._running[index]
            if not row.is_running:
                if self.answers is Answers.KEPT and row.logits_V is not None:
                    self.prefill.remember(row.job.prompt, row.tokens[:-1], self._cache.row(index), row.logits_V)
                self._cache.leave(index)
                last = self._running.pop()
                if index < len(self._running):
                    self._running[index] = last

    def _fail(self, job: Job, error: Exception) -> None:
        if not job.cancelled:
            job.cancelled = True
            job.sink(Failed(error=error))

    def _fail_all(self, rows: list[_Row], error: Exception) -> None:
        for row in rows:
            self._fail(row.job, error)
        self._running.clear()
        self._cache = SlotCache(self.slots, spare_columns=self._spare_columns)

    # --- prompts ------------------------------------------------------------------------------------------------------

    def _read_prompts(self, rows: list[_Row]) -> dict[_Row, _Beginning]:
        read = self.prefill.read([row.job.prompt for row in rows])
        return {row: _Beginning(read=result) for row, result in zip(rows, read, strict=True)}

    def _read_with_echo(self, rows: list[_Row]) -> dict[_Row, _Beginning]:
        """Also the prompt's logprobs at P positions: each token's, given those before it. One row."""
        [row] = rows
        prompt = row.job.prompt
        request = replace(row.job.request, penalties=Penalties())  # they move what is chosen, and nothing is here
        parts: list[Logprobs] = []

        def tell(start: int, logits_CV: Float32Array) -> None:
            following_C = prompt.token_ids_P[start + 1 : start + 1 + len(logits_CV)]
            if not len(following_C):
                return
            revealed = apply(
                logits_CV[: len(following_C)],
                request,
                self.exposure,
                forced_T=following_C,
                rng=row.rng,
                context=self._context(prompt.keys_P[: start + 1], []),
            )
            if revealed.logprobs is not None:
                parts.append(revealed.logprobs)

        read = self.prefill.read_all(prompt, tell)
        # The first position has no context, so that nothing can be told of it.
        first = Logprobs.untold(request, len(read.logits_V), positions=1)
        return {row: _Beginning(read=read, logprobs=Logprobs.joined([first, *parts]))}

    def _context(self, keys_P: IdArray, tokens: list[int]) -> bytes:
        """What frozen noise belongs to: the tokens before a position, wherever the prompt ends among them."""
        if not self.exposure.noise_nats or self.exposure.noise is not Noise.FROZEN:
            return b""
        return b"".join(key.to_bytes(8, "big", signed=True) for key in [*keys_P.tolist(), *tokens])
