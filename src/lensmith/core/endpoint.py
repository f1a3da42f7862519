"""What a language model behind an interface can be asked, and what it answers.

A local model, an HTTP server and a fake all satisfy `Endpoint`, so what evaluates or audits a model needs nothing else
of it. One request type expresses every read-out that the two leak papers use (Carlini et al., arXiv 2403.06634;
Finlayson et al., arXiv 2403.09539) and that current servers offer: top-k, the whole vocabulary, chosen ids, the
sampled token alone, prompt logprobs (echo), each with a bias or an allow-list. Logprobs are numpy arrays, because a
whole vocabulary for thousands of contexts must not become Python objects.

Legend: T answer positions, P prompt positions, K top tokens, W wanted ids, V vocabulary. Logprobs are natural.
"""

import enum
import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Unpack, runtime_checkable

import numpy as np

from lensmith.core.arrays import FloatArray, IdArray
from lensmith.core.errors import ErrorParts, InputError, NotExposedError
from lensmith.core.types import Message

NO_TOKEN = -1
"""Stands in id arrays where an endpoint told less than was asked for; the logprob there is NaN."""

TEXT_IDS_FROM = 1 << 40
"""Ids from here on are an endpoint's own numbers for tokens of which a server tells the text and not the id. They name
columns; they cannot be asked for, biased or sent."""


class Reveal(enum.Flag):
    """What an answer tells besides its text, the top logprobs and the wanted ids."""

    NOTHING = 0
    SAMPLED = enum.auto()
    """The logprob of each token of the answer."""
    VOCABULARY = enum.auto()
    """The logprobs of the whole vocabulary at each position."""
    PROMPT = enum.auto()
    """All of the above at the prompt's positions too (echo, teacher forcing)."""


@dataclass(frozen=True, kw_only=True)
class Penalties:
    """What moves the logits of tokens that stand already, before the temperature; the defaults move none.

    `presence` is taken off once from each token of the answer so far, and `frequency` for each time that it stands
    there (OpenAI's definition). `repetition` divides the logit of each token of the prompt or the answer so far where
    it is over 0, and multiplies it elsewhere (CTRL, arXiv 1909.05858, as transformers and vLLM do it).
    """

    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0

    @property
    def are_on(self) -> bool:
        return self != Penalties()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question: `messages` (text and pictures), or without a chat template a `prompt`, or exact `token_ids`.

    `temperature` 0 is greedy. `n` independent answers are sampled. `stop` ends an answer before any of its strings.
    `logit_bias` is added to the logits of those ids before a token is chosen; `allowed_ids`, where not None, are the
    only ids that can be chosen (as a grammar or an allow-list does). `penalties` move what stands already, after the
    bias. `top_logprobs` most likely tokens and the `wanted_ids` are told at each position. Whether logprobs see bias
    and penalties is the endpoint's affair, not the request's.
    Raises InputError for a request that no endpoint could answer.
    """

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    token_ids: tuple[int, ...] = ()
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_ids: tuple[int, ...] | None = None
    penalties: Penalties = field(default_factory=Penalties)
    top_logprobs: int = 0
    wanted_ids: tuple[int, ...] = ()
    reveal: Reveal = Reveal.NOTHING

    def __post_init__(self) -> None:
        given = [name for name in ("messages", "prompt", "token_ids") if getattr(self, name)]
        _require(len(given) == 1, "messages", "one of messages, prompt and token_ids", " and ".join(given) or "none")
        _require(self.max_tokens >= 0, "max_tokens", "0 or more", self.max_tokens)
        _require(0 <= self.temperature < math.inf, "temperature", "0 or more, and finite", self.temperature)
        _require(0 < self.top_p <= 1, "top_p", "over 0, at most 1", self.top_p)
        _require(self.n >= 1, "n", "1 or more", self.n)
        _require(all(self.stop), "stop", "no empty string", self.stop)
        _require(self.top_logprobs >= 0, "top_logprobs", "0 or more", self.top_logprobs)
        _require(self.allowed_ids is None or bool(self.allowed_ids), "allowed_ids", "None, or at least one id", "none")
        _require(all(map(math.isfinite, self.logit_bias.values())), "logit_bias", "finite", dict(self.logit_bias))
        for name in ("presence", "frequency"):
            value = getattr(self.penalties, name)
            _require(math.isfinite(value), f"{name}_penalty", "finite", value)
        repetition = self.penalties.repetition
        _require(0 < repetition < math.inf, "repetition_penalty", "over 0, and finite", repetition)
        for name in ("token_ids", "logit_bias", "allowed_ids", "wanted_ids"):
            ids = getattr(self, name) or ()
            _require(all(0 <= token_id < TEXT_IDS_FROM for token_id in ids), name, "token ids of 0 or more", ids)
        _require(len(set(self.wanted_ids)) == len(self.wanted_ids), "wanted_ids", "each id once", self.wanted_ids)

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.top_logprobs or self.wanted_ids or self.reveal)

    @property
    def steers(self) -> bool:
        """Whether it moves or restricts tokens."""
        return bool(self.logit_bias) or self.allowed_ids is not None or self.penalties.are_on


@dataclass(frozen=True, kw_only=True)
class Logprobs:
    """Logprobs at T positions. NaN: not told. Parts that were not asked for have no columns (or are all NaN)."""

    sampled_T: FloatArray
    """Of the token that stands at each position."""
    top_ids_TK: IdArray
    top_TK: FloatArray
    """Of the most likely tokens, most likely first."""
    wanted_TW: FloatArray
    """Of the request's `wanted_ids`, in their order."""
    vocabulary_TV: FloatArray | None = None
    """Of every token, by id."""

    @classmethod
    def untold(cls, request: "Request", vocabulary_size: int, *, positions: int) -> "Logprobs":
        """Positions of which nothing is told, with the columns that the request asks for."""
        shape_TK = (positions, min(request.top_logprobs, vocabulary_size))
        return cls(
            sampled_T=np.full(positions, np.nan),
            top_ids_TK=np.full(shape_TK, NO_TOKEN, dtype=np.int64),
            top_TK=np.full(shape_TK, np.nan),
            wanted_TW=np.full((positions, len(request.wanted_ids)), np.nan),
            vocabulary_TV=(
                np.full((positions, vocabulary_size), np.nan) if Reveal.VOCABULARY in request.reveal else None
            ),
        )

    @classmethod
    def joined(cls, parts: "Sequence[Logprobs]") -> "Logprobs":
        """The positions of all parts in turn, of one request; at least one part."""
        columns: dict[str, list[Any]] = {name: [vars(part)[name] for part in parts] for name in vars(parts[0])}
        joined: dict[str, Any] = {
            name: None if each[0] is None else np.concatenate(each) for name, each in columns.items()
        }
        return cls(**joined)

    def part(self, positions: slice) -> "Logprobs":
        """Those of some positions."""
        cut: dict[str, Any] = {name: None if each is None else each[positions] for name, each in vars(self).items()}
        return Logprobs(**cut)


class Finish(enum.Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One sampled answer. `token_ids_T` is empty where an endpoint tells text only.

    `offsets_T`: the character of the text at which each token begins, where that is known.
    `reasoning` is what the model wrote before its answer, where a server tells the two apart: no part of `text`.
    """

    text: str
    finish: Finish
    token_ids_T: IdArray
    logprobs: Logprobs | None = None
    offsets_T: IdArray | None = None
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one request: `n` choices, and with `Reveal.PROMPT` the prompt's logprobs.

    `prompt_logprobs` has P positions; the first has no context, so that its values are NaN. `prompt_offsets_P`: the
    character of the request's prompt at which each of its tokens begins, where that is known. `completion_tokens`: what
    all choices together took by the endpoint's own word, with what it shows to nobody; None where it does not say.
    """

    choices: tuple[Choice, ...]
    prompt_ids_P: IdArray | None = None
    prompt_logprobs: Logprobs | None = None
    prompt_offsets_P: IdArray | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Feature(enum.Flag):
    """What a request can use. An endpoint names those it has."""

    NOTHING = 0
    MESSAGES = enum.auto()
    PICTURES = enum.auto()
    PROMPT_TEXT = enum.auto()
    TOKEN_IDS = enum.auto()
    SEED = enum.auto()
    STOP = enum.auto()
    LOGIT_BIAS = enum.auto()
    ALLOWED_IDS = enum.auto()
    PRESENCE_PENALTY = enum.auto()
    FREQUENCY_PENALTY = enum.auto()
    REPETITION_PENALTY = enum.auto()
    PENALTIES = PRESENCE_PENALTY | FREQUENCY_PENALTY | REPETITION_PENALTY
    TOP_LOGPROBS = enum.auto()
    WANTED_IDS = enum.auto()
    SAMPLED_LOGPROB = enum.auto()
    VOCABULARY_LOGPROBS = enum.auto()
    PROMPT_LOGPROBS = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an endpoint says that it can do. An auditor tests it; the limits are None where unknown or absent."""

    features: Feature
    max_top_logprobs: int | None = None
    vocabulary_size: int | None = None
    context_tokens: int | None = None


class RefusedError(NotExposedError):
    """An endpoint refuses a request because of one feature that it uses.

    `feature` is NOTHING where the endpoint did not say which.
    """

    def __init__(self, problem: str, *, feature: Feature = Feature.NOTHING, **parts: Unpack[ErrorParts]) -> None:
        self.feature = feature
        super().__init__(problem, **parts)


@runtime_checkable
class Endpoint(Protocol):
    """A language model that answers requests."""

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, in order; the endpoint batches them as it can.

        Raises RefusedError where it does not allow what a request asks, InputError where a request makes no sense.
        """

    def supports(self) -> Capabilities:
        """What the endpoint says that it can do, without asking the model anything."""

    def metadata(self) -> Mapping[str, Any]:
        """What the endpoint tells of itself, as JSON values; empty where it tells nothing."""


def needed_features(request: Request) -> Feature:
    """What an endpoint must support to answer this request."""
    pictures = any(not isinstance(part, str) for message in request.messages for part in message.parts)
    used = {
        Feature.MESSAGES: bool(request.messages),
        Feature.PICTURES: pictures,
        Feature.PROMPT_TEXT: bool(request.prompt),
        Feature.TOKEN_IDS: bool(request.token_ids),
        Feature.SEED: request.seed is not None,
        Feature.STOP: bool(request.stop),
        Feature.LOGIT_BIAS: bool(request.logit_bias),
        Feature.ALLOWED_IDS: request.allowed_ids is not None,
        Feature.PRESENCE_PENALTY: request.penalties.presence != 0,
        Feature.FREQUENCY_PENALTY: request.penalties.frequency != 0,
        Feature.REPETITION_PENALTY: request.penalties.repetition != 1,
        Feature.TOP_LOGPROBS: request.top_logprobs > 0,
        Feature.WANTED_IDS: bool(request.wanted_ids),
        Feature.SAMPLED_LOGPROB: Reveal.SAMPLED in request.reveal,
        Feature.VOCABULARY_LOGPROBS: Reveal.VOCABULARY in request.reveal,
        Feature.PROMPT_LOGPROBS: Reveal.PROMPT in request.reveal,
    }
    return features_where(used)


def features_where(holds: Mapping[Feature, bool]) -> Feature:
    """The features for which it holds, together."""
    return functools.reduce(operator.or_, (feature for feature in holds if holds[feature]), Feature.NOTHING)


def _require(holds: bool, name: str, expected: str, actual: object) -> None:
    if not holds:
        raise InputError(f"{name}: impossible request", expected=expected, actual=actual)
