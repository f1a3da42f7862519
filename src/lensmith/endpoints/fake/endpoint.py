"""A language model that needs no weights: the public test bed of leaks, with a known truth for each switch.

It satisfies `core.endpoint.Endpoint`; what it tells goes through `core.exposure.apply`, as in a server. The next
token's logits are a random function of all tokens before it (prompt and answer alike), so greedy answers can be
continued, and a token that stands in the prompt has the logprob that it would have had as an answer.

Legend: T answer positions, P prompt positions, V vocabulary, N contexts.
"""

import functools
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lensmith.core.arrays import Float32Array, FloatArray
from lensmith.core.endpoint import (
    Answer,
    Capabilities,
    Choice,
    Feature,
    Finish,
    Logprobs,
    Penalties,
    RefusedError,
    Request,
    Reveal,
)
from lensmith.core.errors import InputError, ShapeError
from lensmith.core.exposure import (
    Exposure,
    Noise,
    PrecedingTokens,
    Revealed,
    Sampled,
    apply,
    check,
    prompt_context,
    visible_metadata,
)
from lensmith.core.types import Picture
from lensmith.endpoints.fake.columns import apply_to_named
from lensmith.endpoints.fake.model import FakeModel, FakeModelConfig, FakeTruth, Lattice, Norm
from lensmith.endpoints.fake.tokens import FakeTokens
from lensmith.openai_api import BusyError


@dataclass(kw_only=True)
class Unfinished:
    """One answer in the making."""

    request: Request
    prompt_ids: tuple[int, ...]
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


__all__ = ["FakeEndpoint", "FakeTruth", "Lattice", "LogitsEndpoint", "Norm"]

_EVERYTHING = Exposure.everything()
_WIDE_VOCABULARY = 4096  # from here on it pays to give `apply` only the columns that a request names


class FakeEndpoint:
    """A random model behind an interface that reveals `exposes`.

    `model`: the fields of `FakeModelConfig`, of which `vocabulary` and `width` are needed; `head_VH` takes the place of
    the head that the seed gives. The service: `duplicate_texts` tokens share the text of another; `end_id` ends an
    answer; `replicas` copies that differ by `replica_spread` of the hidden state answer in turns that nobody can
    foresee; `jitter_nats` is fresh Gaussian noise on each logit; `requests_per_s` raises BusyError beyond that rate
    (`clock` in seconds); `context_tokens` is the longest prompt with its answer; `metadata` is told where the exposure
    allows it. Everything follows from the model's `seed` and the order of calls.
    """

    def __init__(
        self,
        *,
        exposes: Exposure = _EVERYTHING,
        head_VH: FloatArray | None = None,
        duplicate_texts: int = 0,
        end_id: int | None = None,
        replicas: int = 1,
        replica_spread: float = 1e-3,
        jitter_nats: float = 0.0,
        requests_per_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        context_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        **model: Any,
    ) -> None:
        self.config = FakeModelConfig(**model)
        self.exposes = exposes
        self.queries = 0
        """Requests answered so far."""
        self._end_id, self._duplicates = end_id, duplicate_texts
        self._replicas, self._replica_spread, self._jitter_nats = replicas, replica_spread, jitter_nats
        self._limit = None if requests_per_s is None else RateLimit(requests_per_s, clock)
        self._context_tokens = context_tokens
        self._metadata = {"id": "fake", **(metadata or {})}
        self._model = FakeModel(self.config, head_VH=head_VH)
        self._chance = np.random.default_rng([self.config.seed, 1])
        self._lock = threading.Lock()

    # --- the endpoint ---------------------------------------------------------------------------------------------

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, in order. Raises RefusedError, InputError or BusyError before any."""
        prompts = [self._checked_prompt(request) for request in requests]
        with self._lock:
            if self._limit is not None:
                self._limit.take(len(requests))
            self.queries += len(requests)
            sequences = [
                self._sequence(request, prompt, number)
                for request, prompt in zip(requests, prompts, strict=True)
                for number in range(request.n)
            ]
            self._generate(sequences)
            remaining = iter(sequences)
            return [
                self._answer(request, prompt, [next(remaining) for _ in range(request.n)])
                for request, prompt in zip(requests, prompts, strict=True)
            ]

    def supports(self) -> Capabilities:
        """What the exposure allows."""
        exposes = self.exposes
        features = Feature.MESSAGES | Feature.PICTURES | Feature.PROMPT_TEXT | Feature.TOKEN_IDS
        return Capabilities(
            features=features | Feature.SEED | Feature.STOP | exposes.features,
            max_top_logprobs=exposes.top_logprobs,
            vocabulary_size=self.config.rows if exposes.metadata else None,
            context_tokens=self._context_tokens,
        )

    def metadata(self) -> dict[str, Any]:
        return visible_metadata(self._metadata, self.exposes)

    # --- what only a test knows -----------------------------------------------------------------------------------

    @property
    def truth(self) -> FakeTruth:
        """What an auditor should find."""
        return self._model.truth

    @functools.cached_property
    def tokens(self) -> FakeTokens:
        """Names of the tokens, and the way from text to ids."""
        return FakeTokens(self.config.rows, duplicates=self._duplicates, end_id=self._end_id)

    def prompt_ids(self, request: Request) -> tuple[int, ...]:
        """The tokens that the model sees before it answers; never empty."""
        if request.token_ids:
            return request.token_ids
        if request.prompt:
            return self.tokens.encode(request.prompt)
        text = "".join(
            f"<{message.role}>"
            + "".join(f"{call.name}({call.arguments})" for call in message.tool_calls)
            + "".join(part if isinstance(part, str) else _digest_of(part) for part in message.parts)
            for message in request.messages
        )
        return self.tokens.encode(text)

    def true_logits(self, request: Request) -> Float32Array:
        """The logits (V,) of the first token of the answer, before any bias and jitter."""
        first_V: Float32Array = self._model.logits([_context(self.prompt_ids(request))])[0]
        return first_V

    # --- generation -----------------------------------------------------------------------------------------------

    def _checked_prompt(self, request: Request) -> tuple[int, ...]:
        check(request, self.exposes)
        rows = self.config.rows
        named = [*request.token_ids, *request.logit_bias, *request.wanted_ids, *(request.allowed_ids or ())]
        if named and max(named) >= rows:
            raise InputError("a token id is outside the vocabulary")  # its size is not told: it may be a secret
        prompt = self.prompt_ids(request)
        length = len(prompt) + request.max_tokens
        if self._context_tokens is not None and length > self._context_tokens:
            raise RefusedError("the prompt is too long", expected=f"at most {self._context_tokens}", actual=length)
        return prompt

    def _sequence(self, request: Request, prompt: tuple[int, ...], number: int) -> Unfinished:
        seed = [request.seed, number] if request.seed is not None else int(self._chance.integers(1 << 62))
        replica = int(self._chance.integers(self._replicas)) if self._replicas > 1 else 0
        return Unfinished(
            request=request,
            prompt_ids=prompt,
            digest=hashlib.sha256(np.array(prompt, dtype=np.int64).tobytes()),
            rng=np.random.default_rng(seed),
            replica=replica,
        )

    def _generate(self, sequences: list[Unfinished]) -> None:
        active = [sequence for sequence in sequences if sequence.request.max_tokens > 0]
        while active:
            for sequence, logits_V in self._next_logits(active):
                revealed = self._reveal(sequence, logits_V)
                sequence.add(revealed, self.tokens, self._end_id)
            active = [sequence for sequence in active if sequence.finish is None]

    def _next_logits(self, sequences: list[Unfinished]) -> Iterator[tuple[Unfinished, Float32Array]]:
        """The logits (V,) of each sequence's next token, not in order, as many at once as memory should hold."""
        rows = self._model.rows_at_once
        for replica in range(self._replicas):
            mine = [sequence for sequence in sequences if sequence.replica == replica]
            for start in range(0, len(mine), rows):
                block = mine[start : start + rows]
                contexts = [sequence.digest.digest() for sequence in block]
                yield from zip(block, self._logits(contexts, replica), strict=True)

    def _logits(self, contexts: list[bytes], replica: int) -> Float32Array:
        logits_NV = self._model.logits(contexts, replica=replica, replica_spread=self._replica_spread)
        if self._jitter_nats:
            jitter_NV = self._chance.standard_normal(logits_NV.shape, dtype=np.float32)
            logits_NV = logits_NV + np.float32(self._jitter_nats) * jitter_NV
        return logits_NV

    def _reveal(self, sequence: Unfinished, logits_V: Float32Array) -> Revealed:
        if self._few_columns_do(sequence.request):
            return apply_to_named(logits_V, sequence.request, self.exposes)
        context = None
        if self.exposes.noise_nats and self.exposes.noise is Noise.FROZEN:
            context = _noise_context(prompt_context(sequence.request), sequence.token_ids)
        return apply(
            logits_V[None],
            sequence.request,
            self.exposes,
            preceding=PrecedingTokens(prompt_ids=sequence.prompt_ids, answer_ids=sequence.token_ids),
            rng=sequence.rng,
            noise_rng=self._chance,
            context=context,
        )

    def _few_columns_do(self, request: Request) -> bool:
        """Whether what is told depends on a few logits and the sum of the others."""
        exposes = self.exposes
        masks = exposes.sampled_logprob is Sampled.MASKED and exposes.top_logprobs is not None
        return (
            self.config.rows >= _WIDE_VOCABULARY
            and request.wants_logprobs
            and not request.penalties.are_on
            and request.temperature == 0
            and not request.top_logprobs
            and Reveal.VOCABULARY not in request.reveal
            and not exposes.noise_nats
            and not (masks and Reveal.SAMPLED in request.reveal)
        )

    # --- answers --------------------------------------------------------------------------------------------------

    def _answer(self, request: Request, prompt: tuple[int, ...], sequences: list[Unfinished]) -> Answer:
        has_prompt = Reveal.PROMPT in request.reveal
        return Answer(
            choices=tuple(self._choice(sequence) for sequence in sequences),
            prompt_ids_P=np.array(prompt, dtype=np.int64) if has_prompt else None,
            prompt_logprobs=self._prompt_logprobs(request, prompt) if has_prompt else None,
            prompt_tokens=len(prompt),
        )

    def _choice(self, sequence: Unfinished) -> Choice:
        logprobs = None
        if sequence.request.wants_logprobs:
            parts = [revealed.logprobs for revealed in sequence.revealed if revealed.logprobs is not None]
            parts = parts or [Logprobs.untold(sequence.request, self.config.rows, positions=0)]
            logprobs = Logprobs.joined(parts)
        return Choice(
            text=sequence.text,
            finish=sequence.finish or Finish.LENGTH,
            token_ids_T=np.array(sequence.token_ids, dtype=np.int64),
            logprobs=logprobs,
        )

    def _prompt_logprobs(self, request: Request, prompt: tuple[int, ...]) -> Logprobs:
        """Of the prompt's own tokens; the first has no context, so that its values are NaN."""
        parts, rows = [Logprobs.untold(request, self.config.rows, positions=1)], self._model.rows_at_once
        request = replace(request, penalties=Penalties())  # they move what is chosen, and nothing is here
        for start in range(1, len(prompt), rows):
            places = range(start, min(start + rows, len(prompt)))
            logits_PV = self._logits([_context(prompt[:place]) for place in places], 0)
            forced_P = np.array([prompt[place] for place in places], dtype=np.int64)
            context = _noise_context(b"", prompt[:start])
            revealed = apply(
                logits_PV, request, self.exposes, forced_T=forced_P, noise_rng=self._chance, context=context
            )
            parts += [revealed.logprobs] if revealed.logprobs is not None else []
        return Logprobs.joined(parts)


def _context(token_ids: Sequence[int]) -> bytes:
    return hashlib.sha256(np.array(token_ids, dtype=np.int64).tobytes()).digest()


def _noise_context(start: bytes, token_ids: Sequence[int]) -> bytes:
    """What frozen noise belongs to after these tokens: as `apply` has it for a whole sequence at once."""
    return start + b"".join(int(token_id).to_bytes(8, "big") for token_id in token_ids)


def _digest_of(picture: Picture) -> str:
    return hashlib.sha256(picture.data or picture.url.encode()).hexdigest()[:16]


class LogitsEndpoint:
    """Logits that are known, behind an interface: what a study of defences puts in front of the readers of an audit.

    Each row (V,) of a matrix is one context, addressed by its number as the only prompt token; a second one is what
    echo scores. Answers have one token and are told in float32, as servers tell them.
    """

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
        logprobs = None if revealed.logprobs is None else _as_float32(revealed.logprobs)
        choice = Choice(text="", finish=Finish.LENGTH, token_ids_T=revealed.token_ids_T, logprobs=logprobs)
        answer = Answer(choices=(choice,), prompt_tokens=len(request.token_ids))
        if Reveal.PROMPT not in request.reveal:
            return answer
        scored = [self._revealed(request, row, token_id).logprobs for token_id in request.token_ids[1:]]
        blank = Logprobs.untold(request, self._logits_NV.shape[1], positions=1)  # the first token has no context
        return replace(
            answer,
            prompt_ids_P=np.array(request.token_ids, dtype=np.int64),
            prompt_logprobs=Logprobs.joined([blank, *(_as_float32(part) for part in scored if part is not None)]),
        )

    def _revealed(self, request: Request, row: int, token_id: int | None) -> Revealed:
        forced_T = None if token_id is None else np.array([token_id], dtype=np.int64)
        # Named by its row, so that frozen noise is the same however a token of this context is read.
        context = b"row %d" % row
        row_TV = self._logits_NV[row : row + 1]
        return apply(row_TV, request, self.exposes, forced_T=forced_T, noise_rng=self._rng, context=context)


def _as_float32(logprobs: Logprobs) -> Logprobs:
    """What is left of logprobs that a server tells in float32."""
    arrays = {name: array for name, array in vars(logprobs).items() if array is not None and array.dtype.kind == "f"}
    return replace(logprobs, **{name: array.astype(np.float32).astype(np.float64) for name, array in arrays.items()})
