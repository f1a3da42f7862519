"""What an interface reveals of the model behind it, as one value, and the one place where that is enforced.

A server, a fake and the study of defences all call `apply`, so they cannot disagree; a guard that sees JSON only is
tested for equality with it. The switches are those that decide whether the two leak papers' read-outs exist (Carlini
et al., arXiv 2403.06634, section on defences; Finlayson et al., arXiv 2403.09539) and those that servers have today.

Order of enforcement at each position: bias, then penalties (repetition, frequency, presence, as vLLM has it), then the
allow-list; the token is chosen from what comes out; logprobs are taken before or after all of it; the top is ranked;
then noise is added and the values are rounded. Noise and rounding touch what is told, never what is chosen, and no
value above 0 is told. Ties rank by id.

A penalty is a bias on tokens that stand already, which a client writes into the prompt or has the model write: where
the answer turns from one token to another as a penalty grows, it tells the gap between two logits, and the repetition
penalty, which multiplies, even their absolute size. So penalties are a bias to an interface, unless it says otherwise.
They name no ids, and add up over an answer: no limit on either can be kept, so that only an open bias lets them in.

Legend: T positions, V vocabulary, K top tokens, W wanted ids.

An exposure as a person types it: `top-logprobs=5,no-logit-bias`.

Each part is a field of `Exposure` with dashes: `field=value`, or `no-field` for its strictest value (no rounding and no
noise for `no-decimals` and `no-noise-nats`), or `field` alone for a switch that is turned on. `all` lifts a limit. The
first part may be `text-only` or `everything`; without it, what is not named is as in `Exposure()`.
"""

import dataclasses
import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.core.arrays import Float64Array, FloatArray, IdArray
from lensmith.core.config import from_dict, nearest_hint, to_dict
from lensmith.core.endpoint import (
    NO_TOKEN,
    Feature,
    Logprobs,
    RefusedError,
    Request,
    Reveal,
    features_where,
    needed_features,
)
from lensmith.core.errors import ConfigError, InputError, ShapeError

LARGEST_BIAS = 100.0
"""OpenAI's largest bias, in nats: it decides any choice, so that nothing is kept by a limit above it."""


class Taken(enum.Enum):
    """When logprobs are taken. vLLM and llama.cpp: before the bias; SGLang and TGI: after it."""

    BEFORE_BIAS = "before-bias"
    AFTER_BIAS = "after-bias"


class Sampled(enum.Enum):
    """Whether the logprob of the chosen token is told, which a bias can make any token."""

    SHOWN = "shown"
    MASKED = "masked"
    """Only where the token is among the `top_logprobs` that the interface may tell anyway."""
    HIDDEN = "hidden"


class Together(enum.Enum):
    """Whether one request may both bias (or restrict) tokens and read logprobs."""

    ALLOWED = "allowed"
    REFUSED = "refused"


class PenaltyUse(enum.Enum):
    """Where a request may have penalties."""

    WITH_BIAS = "with-bias"
    """Where a bias is open: `logit_bias` of `LARGEST_BIAS` or more, and no limit on `biased_ids`."""
    ALLOWED = "allowed"
    REFUSED = "refused"


class Noise(enum.Enum):
    """Whether a repeated request meets new noise, which averages out, or the same."""

    FRESH = "fresh"
    FROZEN = "frozen"


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What an interface reveals. Counts: None is no limit, 0 is never. The default is a common public interface.

    `logit_bias` is the largest absolute bias. `biased_ids`, `wanted_ids` and `allowed_ids` limit how many ids one
    request may name. `penalties` may be allowed where a bias is not, for honest clients use them; beside logprobs they
    always need an open bias. `decimals` rounds what is told; `noise_nats` is the standard deviation of what is added to
    it, keyed by `noise_seed` (a secret) where it is frozen.
    """

    top_logprobs: int | None = 20
    sampled_logprob: Sampled = Sampled.MASKED
    logprobs_taken: Taken = Taken.BEFORE_BIAS
    logit_bias: float = LARGEST_BIAS
    biased_ids: int | None = None
    bias_with_logprobs: Together = Together.ALLOWED
    penalties: PenaltyUse = PenaltyUse.WITH_BIAS
    wanted_ids: int | None = 0
    allowed_ids: int | None = 0
    echo: bool = False
    decimals: int | None = None
    noise_nats: float = 0.0
    noise: Noise = Noise.FRESH
    noise_seed: int = 0
    metadata: bool = True

    def __post_init__(self) -> None:
        for name in ("top_logprobs", "biased_ids", "wanted_ids", "allowed_ids", "decimals", "noise_seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name}: must not be negative", expected="0 or more", actual=value)
        for name in ("logit_bias", "noise_nats"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}: not possible", expected="0 or more, finite", actual=getattr(self, name))

    @property
    def is_bias_open(self) -> bool:
        """Whether any bias goes that can matter."""
        return self.logit_bias >= LARGEST_BIAS and self.biased_ids is None

    @property
    def features(self) -> Feature:
        """Which steering and which read-outs a request may ask for at all."""
        allowed = {
            Feature.LOGIT_BIAS: self.logit_bias > 0 and self.biased_ids != 0,
            Feature.PENALTIES: self.penalties is PenaltyUse.ALLOWED
            or (self.penalties is PenaltyUse.WITH_BIAS and self.is_bias_open),
            Feature.ALLOWED_IDS: self.allowed_ids != 0,
            Feature.TOP_LOGPROBS: self.top_logprobs != 0,
            Feature.WANTED_IDS: self.wanted_ids != 0,
            Feature.SAMPLED_LOGPROB: self.sampled_logprob is not Sampled.HIDDEN,
            Feature.VOCABULARY_LOGPROBS: self.top_logprobs is None,
            Feature.PROMPT_LOGPROBS: self.echo,
        }
        return features_where(allowed)

    @classmethod
    def text_only(cls) -> "Exposure":
        """Text and nothing else."""
        return cls(
            top_logprobs=0,
            sampled_logprob=Sampled.HIDDEN,
            logit_bias=0.0,
            biased_ids=0,
            bias_with_logprobs=Together.REFUSED,
            metadata=False,
        )

    @classmethod
    def everything(cls) -> "Exposure":
        """Whatever a request can ask for, exactly."""
        return cls(
            top_logprobs=None,
            sampled_logprob=Sampled.SHOWN,
            logit_bias=1e9,
            wanted_ids=None,
            allowed_ids=None,
            echo=True,
        )


@dataclass(frozen=True, kw_only=True)
class PrecedingTokens:
    """The tokens before a position, which penalties move: those of the prompt, and those of the answer so far."""

    prompt_ids: Sequence[int] | IdArray
    answer_ids: Sequence[int] | IdArray


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """The tokens chosen (or forced) at T positions, and what is told of them. None: no logprobs were asked for."""

    token_ids_T: IdArray
    logprobs: Logprobs | None


def check(request: Request, exposure: Exposure) -> None:
    """Raises RefusedError where the exposure does not allow what the request asks, before any model runs."""
    biases, allowed = request.logit_bias, request.allowed_ids or ()
    largest = max(map(abs, biases.values()), default=0.0)
    asked = needed_features(request) & Feature.PENALTIES
    if biases and (exposure.logit_bias == 0 or exposure.biased_ids == 0):
        raise _refused("logit bias is off", Feature.LOGIT_BIAS)
    if largest > exposure.logit_bias:
        raise _refused(
            "a bias is too large", Feature.LOGIT_BIAS, f"-{exposure.logit_bias:g} to {exposure.logit_bias:g}", largest
        )
    if _exceeds(len(biases), exposure.biased_ids):
        raise _refused("too many biased ids", Feature.LOGIT_BIAS, f"at most {exposure.biased_ids}", len(biases))
    if asked and Feature.PENALTIES not in exposure.features:
        raise _refused("penalties are off, or a bias is off or limited", asked)
    if request.allowed_ids is not None and _exceeds(len(allowed), exposure.allowed_ids):
        raise _refused("the allow-list", Feature.ALLOWED_IDS, f"at most {exposure.allowed_ids} ids", len(allowed))
    if _exceeds(request.top_logprobs, exposure.top_logprobs):
        limit = f"at most {exposure.top_logprobs}"
        raise _refused("too many top logprobs", Feature.TOP_LOGPROBS, limit, request.top_logprobs)
    if _exceeds(len(request.wanted_ids), exposure.wanted_ids):
        limit = f"at most {exposure.wanted_ids}"
        raise _refused("too many wanted ids", Feature.WANTED_IDS, limit, len(request.wanted_ids))
    if Reveal.VOCABULARY in request.reveal and exposure.top_logprobs is not None:
        raise _refused("the whole vocabulary is not told", Feature.VOCABULARY_LOGPROBS)
    if Reveal.SAMPLED in request.reveal and exposure.sampled_logprob is Sampled.HIDDEN:
        raise _refused("the sampled token's logprob is not told", Feature.SAMPLED_LOGPROB)
    if Reveal.PROMPT in request.reveal and not exposure.echo:
        raise _refused("the prompt's logprobs are not told", Feature.PROMPT_LOGPROBS)
    needs_open_bias = asked and not exposure.is_bias_open
    is_apart = exposure.bias_with_logprobs is Together.REFUSED
    if request.wants_logprobs and (needs_open_bias or (request.steers and is_apart)):
        feature = Feature.LOGIT_BIAS | Feature.ALLOWED_IDS | asked
        raise _refused("bias, penalties or allow-list together with logprobs", feature)


def apply(
    logits_TV: FloatArray,
    request: Request,
    exposure: Exposure,
    *,
    forced_T: IdArray | None = None,
    preceding: PrecedingTokens | None = None,
    rng: np.random.Generator | None = None,
    noise_rng: np.random.Generator | None = None,
    context: bytes | None = None,
) -> Revealed:
    """Chooses a token at each position and tells what the exposure allows of it.

    `logits_TV`: raw logits of one sequence, any float type, computed in float64 here; -inf marks a token that does not
    exist. `forced_T`: the tokens that stand there already (teacher forcing, or a sampler elsewhere that used
    `biased_logits`). `preceding`: what stands before the position; needed with penalties, and then there is one
    position only, as what is chosen there counts at the next. `rng` draws tokens; None makes one from the request's
    seed, so a caller that comes back for every token must pass its own. `noise_rng` draws fresh noise; None takes the
    system's entropy: a client that names a seed must not be able to draw the noise again and subtract it. `context` is
    what frozen noise belongs to; None takes the prompt and the tokens before each position. Raises RefusedError as
    `check` does, ShapeError and InputError for impossible values.
    """
    check(request, exposure)
    raw_TV = _checked_logits(logits_TV)
    rng = np.random.default_rng(request.seed) if rng is None else rng
    biased_TV = biased_logits(raw_TV, request, preceding)
    if forced_T is not None and forced_T.shape != raw_TV.shape[:1]:
        raise ShapeError("one forced token for each position", expected=raw_TV.shape[:1], actual=forced_T.shape)
    token_ids_T = (
        _choose(biased_TV, request, rng) if forced_T is None else _ids(forced_T.tolist(), raw_TV, "forced tokens")
    )
    if not request.wants_logprobs:
        return Revealed(token_ids_T=token_ids_T, logprobs=None)
    logprobs_TV = log_softmax(raw_TV if exposure.logprobs_taken is Taken.BEFORE_BIAS else biased_TV)
    top_ids_TK = _ranked(logprobs_TV, request.top_logprobs)
    hidden_T = _hidden(logprobs_TV, token_ids_T, request, exposure)
    noise_rng = np.random.default_rng() if noise_rng is None else noise_rng
    told_TV = _told(logprobs_TV, exposure, noise_rng, _contexts(request, token_ids_T, context))
    top_ids_TK, top_TK = _sorted_top(top_ids_TK, told_TV)
    sampled_T = np.take_along_axis(told_TV, token_ids_T[:, None], axis=1)[:, 0]
    return Revealed(
        token_ids_T=token_ids_T,
        logprobs=Logprobs(
            sampled_T=np.where(hidden_T, np.nan, sampled_T),
            top_ids_TK=top_ids_TK,
            top_TK=top_TK,
            wanted_TW=told_TV[:, _ids(request.wanted_ids, told_TV, "wanted_ids")],
            vocabulary_TV=told_TV if Reveal.VOCABULARY in request.reveal else None,
        ),
    )


def biased_logits(logits_TV: FloatArray, request: Request, preceding: PrecedingTokens | None = None) -> Float64Array:
    """The logits that a token is chosen from: bias added, penalties taken off, ids outside the allow-list at -inf.

    Before temperature. `preceding` is needed where the request has penalties, as in `apply`.
    """
    biased_TV = logits_TV.astype(np.float64)
    ids = _ids(request.logit_bias, logits_TV, "logit_bias")
    biased_TV[:, ids] += np.array([*request.logit_bias.values()], dtype=np.float64)
    if request.penalties.are_on:
        _penalise(biased_TV, request, preceding)
    if request.allowed_ids is not None:
        outside_V = np.ones(biased_TV.shape[1], dtype=bool)
        outside_V[_ids(request.allowed_ids, logits_TV, "allowed_ids")] = False
        biased_TV[:, outside_V] = -np.inf
        if np.isneginf(biased_TV.max(axis=1)).any():
            raise InputError("allowed_ids: none of these tokens exists")
    return biased_TV


def _penalise(biased_1V: Float64Array, request: Request, preceding: PrecedingTokens | None) -> None:
    """Moves the logits of what stands already, in place."""
    if preceding is None or len(biased_1V) != 1:
        raise ShapeError(
            "penalties need the tokens before the position", expected="one position, and the tokens before it"
        )
    penalties, logits_V = request.penalties, biased_1V[0]
    answer_ids, counts = np.unique(_ids(preceding.answer_ids, biased_1V, "the answer"), return_counts=True)
    moved = np.union1d(_ids(preceding.prompt_ids, biased_1V, "the prompt"), answer_ids)
    biased = logits_V[moved]
    logits_V[moved] = np.where(biased > 0, biased / penalties.repetition, biased * penalties.repetition)
    logits_V[answer_ids] -= penalties.frequency * counts + penalties.presence


def visible_metadata(facts: Mapping[str, Any], exposure: Exposure) -> dict[str, Any]:
    """What an interface tells of itself: all of `facts`, or the name that clients need to address the model."""
    return dict(facts) if exposure.metadata else {key: value for key, value in facts.items() if key == "id"}


def log_softmax(logits_TV: Float64Array) -> Float64Array:
    """Natural logprobs along the last axis."""
    shifted_TV = logits_TV - logits_TV.max(axis=-1, keepdims=True)
    result: Float64Array = shifted_TV - np.log(np.exp(shifted_TV).sum(axis=-1, keepdims=True))
    return result


# --- choosing -----------------------------------------------------------------------------------------------------


def _choose(biased_TV: Float64Array, request: Request, rng: np.random.Generator) -> IdArray:
    if request.temperature == 0:
        return np.asarray(biased_TV.argmax(axis=1), dtype=np.int64)
    # The maximum goes first, so that a temperature near 0 divides nothing that could overflow upwards.
    with np.errstate(over="ignore"):
        scaled_TV = (biased_TV - biased_TV.max(axis=1, keepdims=True)) / request.temperature
    probabilities_TV = np.exp(log_softmax(scaled_TV))
    return np.array([_draw(row_V, request.top_p, rng) for row_V in probabilities_TV], dtype=np.int64)


def _draw(probabilities_V: Float64Array, top_p: float, rng: np.random.Generator) -> int:
    """Samples from the smallest set of most likely tokens that holds `top_p` of the probability."""
    order_V = np.argsort(-probabilities_V, kind="stable")
    cumulative_V = np.cumsum(probabilities_V[order_V])
    kept = int(np.searchsorted(cumulative_V, top_p * cumulative_V[-1])) + 1
    cumulative_V = cumulative_V[:kept]
    return int(order_V[np.searchsorted(cumulative_V, rng.random() * cumulative_V[-1], side="right")])


# --- telling ------------------------------------------------------------------------------------------------------


def _ranked(logprobs_TV: Float64Array, count: int) -> IdArray:
    """The ids of the `count` most likely tokens at each position (all of them where there are fewer), ties by id."""
    count = min(count, logprobs_TV.shape[1])
    top_TK = np.empty((len(logprobs_TV), count), dtype=np.int64)
    for position, row_V in enumerate(logprobs_TV if count else ()):
        weakest = np.partition(row_V, len(row_V) - count)[len(row_V) - count]
        candidates = np.flatnonzero(row_V >= weakest)
        top_TK[position] = candidates[np.argsort(-row_V[candidates], kind="stable")[:count]]
    return top_TK


def _hidden(logprobs_TV: Float64Array, token_ids_T: IdArray, request: Request, exposure: Exposure) -> NDArray[np.bool_]:
    """Where the sampled token's logprob is not told."""
    if Reveal.SAMPLED not in request.reveal:
        return np.ones(len(token_ids_T), dtype=bool)
    if exposure.sampled_logprob is Sampled.SHOWN or exposure.top_logprobs is None:
        return np.zeros(len(token_ids_T), dtype=bool)
    tellable_TK = _ranked(logprobs_TV, exposure.top_logprobs)
    tellable_T: NDArray[np.bool_] = (tellable_TK == token_ids_T[:, None]).any(axis=1)
    return ~tellable_T


def _told(
    logprobs_TV: Float64Array, exposure: Exposure, rng: np.random.Generator, contexts: list[bytes]
) -> Float64Array:
    told_TV = logprobs_TV
    if exposure.noise_nats and exposure.noise is Noise.FRESH:
        told_TV = told_TV + exposure.noise_nats * rng.standard_normal(told_TV.shape)
    elif exposure.noise_nats:
        ids_V = np.arange(told_TV.shape[1])
        frozen_TV = [frozen_noise(context, ids_V, exposure.noise_seed) for context in contexts]
        told_TV = told_TV + exposure.noise_nats * np.reshape(frozen_TV, told_TV.shape)
    if exposure.decimals is not None:
        told_TV = np.round(told_TV, exposure.decimals)
    return np.minimum(told_TV, 0.0) + 0.0


def frozen_noise(context: bytes, token_ids: IdArray, seed: int) -> Float64Array:
    """Standard normal values that depend on nothing but the context, the token and the seed.

    A token has the same value whether it is read alone or with others, so that a guard, which sees a few tokens only,
    adds what a server adds.
    """
    key = hashlib.sha256(b"%d:%s" % (seed, context)).digest()
    low, high = np.frombuffer(key[:16], dtype="<u8").tolist()
    counters = token_ids.astype(np.uint64) * np.uint64(2)
    uniform_1 = _hash_to_unit(counters + np.uint64(1), low, high)
    uniform_2 = _hash_to_unit(counters, low, high)
    result: Float64Array = np.sqrt(-2 * np.log(uniform_1)) * np.cos(2 * np.pi * uniform_2)
    return result


def _hash_to_unit(counters: NDArray[np.uint64], low: int, high: int) -> Float64Array:
    """SplitMix64's finalizer, keyed twice, to numbers in (0, 1]."""
    with np.errstate(over="ignore"):
        mixed = counters * np.uint64(0x9E3779B97F4A7C15) + np.uint64(low)
        for key in (high, low):
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = (mixed ^ (mixed >> np.uint64(31))) ^ np.uint64(key)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 1) / 2**53


def prompt_context(request: Request) -> bytes:
    """What frozen noise belongs to before the first token. A prompt of ids is continued by the ids that follow it.

    So the noise is the same wherever the prompt ends among the tokens: else each end would give one more draw.
    """
    if request.token_ids and not request.messages and not request.prompt:
        return b"".join(token_id.to_bytes(8, "big") for token_id in request.token_ids)
    return repr((request.messages, request.prompt, request.token_ids)).encode()


def _contexts(request: Request, token_ids_T: IdArray, context: bytes | None) -> list[bytes]:
    """What frozen noise belongs to at each position: the context, then the tokens before that position."""
    digest = hashlib.sha256(prompt_context(request) if context is None else context)
    contexts = []
    for token_id in token_ids_T.tolist():
        contexts.append(digest.digest())
        digest.update(token_id.to_bytes(8, "big"))
    return contexts


def _sorted_top(top_ids_TK: IdArray, told_TV: Float64Array) -> tuple[IdArray, Float64Array]:
    """The top tokens in the order of what is told, ties by id; -inf (a token that does not exist) is not told."""
    told_TK = np.take_along_axis(told_TV, top_ids_TK, axis=1)
    order_TK = np.lexsort((top_ids_TK, -told_TK), axis=1)
    ids_TK = np.take_along_axis(top_ids_TK, order_TK, axis=1)
    values_TK = np.take_along_axis(told_TK, order_TK, axis=1)
    missing_TK = np.isneginf(values_TK)
    return np.where(missing_TK, NO_TOKEN, ids_TK), np.where(missing_TK, np.nan, values_TK)


# --- checks -------------------------------------------------------------------------------------------------------


def _checked_logits(logits_TV: FloatArray) -> Float64Array:
    if logits_TV.ndim != 2:
        raise ShapeError("logits have the wrong shape", expected="(positions, vocabulary)", actual=logits_TV.shape)
    raw_TV = logits_TV.astype(np.float64)
    if (
        np.isnan(raw_TV).any()
        or np.isposinf(raw_TV).any()
        or not np.isfinite(raw_TV.max(axis=1, initial=-np.inf)).all()
    ):
        raise InputError("logits must be numbers", expected="finite, or -inf for some", actual="NaN, inf, or all -inf")
    return raw_TV


def _ids(token_ids: Any, logits_TV: FloatArray, name: str) -> IdArray:
    ids = np.array([*token_ids], dtype=np.int64)
    if ((ids < 0) | (ids >= logits_TV.shape[1])).any():
        raise InputError(f"{name}: a token id is outside the vocabulary")  # its size is not told: it may be a secret
    return ids


def _exceeds(count: int, limit: int | None) -> bool:
    return limit is not None and count > limit


def _refused(problem: str, feature: Feature, expected: object = None, actual: object = None) -> RefusedError:
    return RefusedError(f"refused: {problem}", feature=feature, expected=expected, actual=actual)


BASES = {"text-only": Exposure.text_only, "everything": Exposure.everything}
ALL = "all"

_OFF: dict[str, Any] = {
    "top_logprobs": 0,
    "sampled_logprob": Sampled.HIDDEN.value,
    "logit_bias": 0.0,
    "biased_ids": 0,
    "bias_with_logprobs": Together.REFUSED.value,
    "penalties": PenaltyUse.REFUSED.value,
    "wanted_ids": 0,
    "allowed_ids": 0,
    "echo": False,
    "decimals": None,
    "noise_nats": 0.0,
    "metadata": False,
}
_FIELDS = {field.name: field for field in dataclasses.fields(Exposure)}


def parse_exposure(text: str) -> Exposure:
    """The exposure that `text` describes. Raises ConfigError, naming the nearest field or the possible values."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    base = BASES[words.pop(0)]() if words and words[0] in BASES else Exposure()
    changes: dict[str, Any] = {}
    for word in words:
        name, value = _parse_word(word)
        if name in changes:
            raise ConfigError(f"{_dashed(name)} stands twice in {text!r}")
        changes[name] = value
    return from_dict(Exposure, {**to_dict(base), **changes})


def spell_exposure(exposure: Exposure) -> str:
    """The shortest text that `parse_exposure` reads as this exposure without a base; empty for `Exposure()`."""
    values, usual = to_dict(exposure), to_dict(Exposure())
    return ",".join(_spell_word(name, values[name]) for name in values if values[name] != usual[name])


def _parse_word(word: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in word.partition("="))
    name = key.replace("-", "_")
    if not equals and name.startswith("no_") and name[3:] in _OFF:
        return name[3:], _OFF[name[3:]]
    if name not in _FIELDS:
        raise _unknown(key)
    if not equals:
        if not isinstance(_FIELDS[name].default, bool):
            raise ConfigError(f"{key}: needs a value", expected=f"{key}=..., or no-{key}", actual=word)
        return name, True
    return name, _parse_value(name, value, word)


def _parse_value(name: str, value: str, word: str) -> Any:
    default = _FIELDS[name].default
    if isinstance(default, enum.Enum):
        return value
    if isinstance(default, bool):
        raise ConfigError(f"{word}: takes no value", expected=f"{_dashed(name)} or no-{_dashed(name)}")
    if value == ALL and "None" in str(_FIELDS[name].type):
        return None
    try:
        return float(value) if isinstance(default, float) else int(value)
    except ValueError:
        expected = "a number" if isinstance(default, float) else f"a whole number, or {ALL}"
        raise ConfigError(f"{_dashed(name)}: not a number", expected=expected, actual=value) from None


def _spell_word(name: str, value: Any) -> str:
    if value is True:
        return _dashed(name)
    if name in _OFF and value == _OFF[name]:
        return f"no-{_dashed(name)}"
    return f"{_dashed(name)}={ALL if value is None else value}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _unknown(key: str) -> ConfigError:
    known = [*map(_dashed, _FIELDS), *(f"no-{_dashed(name)}" for name in _OFF), *BASES]
    where = "must come first" if key in BASES else "unknown"
    return ConfigError(f"{key}: {where}", expected=", ".join(known), hint=nearest_hint(key, known))
