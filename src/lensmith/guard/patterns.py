"""Who asks what, how often, and when that looks like an extraction; in bounded memory.

The patterns are the read-outs of Carlini et al. (arXiv 2403.06634, section on defences) and Finlayson et al. (arXiv
2403.09539) as a server meets them: one prompt under many biases, tokens forced one at a time, a one-token request with
logprobs again and again, ids in a sweep, contexts of random text. Each has honest relatives, so each needs a volume
that honest use rarely has, and by default is only told. What cannot be bounded by recognising it is bounded outright:
how many ids a client may bias on one prompt. With fewer than the model's width, one context's logits stay unread.

Time is counted in fixed windows from a client's first request on.
"""

import contextlib
import enum
import itertools
import math
import statistics
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from lensmith.core.endpoint import Feature, RefusedError
from lensmith.guard.config import OnExtraction, PatternConfig, ResourceLimits
from lensmith.openai_api import BusyError

_FEWEST_WORDS = 6

Item = TypeVar("Item")


class Pattern(enum.Enum):
    """What a client's requests look like. The value names it in the metrics and the log."""

    MANY_BIASES = "many-biases-on-one-prompt"
    FORCED_TOKENS = "forced-tokens"
    ONE_TOKEN_LOGPROBS = "one-token-logprobs"
    ID_SWEEP = "token-id-sweep"
    RANDOM_CONTEXTS = "random-contexts"


THRESHOLDS = {
    Pattern.MANY_BIASES: 16,
    Pattern.FORCED_TOKENS: 32,
    Pattern.ONE_TOKEN_LOGPROBS: 500,
    Pattern.ID_SWEEP: 256,
    Pattern.RANDOM_CONTEXTS: 32,
}
"""Within one window and of one client: different biases on one prompt, forced one-token requests, one-token requests
with logprobs (and more than half of all its requests), distinct ids named in biases, allow-lists and wanted ids, and
distinct random contexts that something was read from. More is a pattern."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What matters of one request. `prompts` are hashes of what the model sees (several in a batch)."""

    prompts: tuple[bytes, ...]
    bias: tuple[tuple[int, float], ...] = ()
    named_ids: tuple[int, ...] = ()
    reads_logprobs: bool = False
    is_one_token: bool = False
    is_forced: bool = False
    is_random: bool = False

    @property
    def reads_out(self) -> bool:
        """Whether it uses anything that a read-out needs."""
        return bool(self.named_ids) or self.reads_logprobs


@dataclass(kw_only=True)
class PromptState:
    """What one client did with one prompt: the ids that it biased, and hashes of whole biases."""

    biased_ids: set[int] = field(default_factory=set)
    biases: set[int] = field(default_factory=set)


@dataclass(kw_only=True)
class ClientState:
    """What is remembered of one client within its window; `allowance` is how many requests it may still make now."""

    window_ends: float
    allowance: float
    refilled: float
    requests: int = 0
    one_token: int = 0
    forced: int = 0
    ids: set[int] = field(default_factory=set)
    contexts: set[bytes] = field(default_factory=set)
    prompts: dict[bytes, PromptState] = field(default_factory=dict)
    patterns: set[Pattern] = field(default_factory=set)


class ClientStatistics:
    """The statistics of all clients. Not for several threads: a guard is one event loop."""

    def __init__(self, config: PatternConfig, limits: ResourceLimits, *, clock: Callable[[], float]) -> None:
        self._config, self._limits, self._clock = config, limits, clock
        self._clients: OrderedDict[str, ClientState] = OrderedDict()
        self._open_prompts = 0
        self._holders: OrderedDict[str, ClientState] = OrderedDict()
        """Clients with prompts, in the order of their last bias."""
        self._first_end = math.inf
        """No holder's window ends earlier, so that nobody looks for one before."""
        self._answering: Counter[str] = Counter()

    @property
    def states(self) -> Mapping[str, ClientState]:
        """What is remembered, by client; the one that asked last stands last."""
        return MappingProxyType(self._clients)

    @property
    def open_prompts(self) -> int:
        """How many prompts with a bias are remembered, of all clients together."""
        return self._open_prompts

    def arrive(self, client: str) -> None:
        """Counts a request before it is read. Raises BusyError (429) where the client asks too often."""
        state = self._state(client)
        per_minute = self._config.requests_per_minute
        if per_minute is None:
            return
        now = self._clock()
        state.allowance = min(per_minute, state.allowance + (now - state.refilled) * per_minute / 60)
        state.refilled = now
        if state.allowance < 1:
            raise BusyError("too many requests", retry_after_s=math.ceil((1 - state.allowance) * 60 / per_minute))
        state.allowance -= 1

    @contextlib.contextmanager
    def answering(self, client: str) -> Iterator[None]:
        """Around a request in progress. Raises BusyError (429) where the client has as many as it may have."""
        most = self._limits.concurrent_per_client
        if most is not None and self._answering[client] >= most:
            raise BusyError("too many requests of one client at a time", retry_after_s=1, expected=f"at most {most}")
        self._answering[client] += 1
        try:
            yield
        finally:
            self._answering[client] -= 1
            if not self._answering[client]:
                del self._answering[client]

    def admit(self, client: str, seen: Observation) -> tuple[Pattern, ...]:
        """Counts what a request asks and returns the patterns that it completes (each once a window).

        Raises RefusedError where the bias goes beyond what one prompt may have, or the client is blocked for now.
        """
        state = self._state(client)
        if state.patterns and seen.reads_out and self._config.on_extraction is OnExtraction.BLOCK:
            raise RefusedError("refused: these requests look like an extraction", feature=_features(seen))
        prompts = self._note_bias(client, state, seen) if seen.bias else []
        state.requests += 1
        state.one_token += seen.is_one_token and seen.reads_logprobs
        state.forced += seen.is_forced
        _add(state.ids, seen.named_ids, THRESHOLDS[Pattern.ID_SWEEP])
        if seen.is_random and seen.reads_out:
            _add(state.contexts, seen.prompts, THRESHOLDS[Pattern.RANDOM_CONTEXTS])
        new = tuple(pattern for pattern in _patterns(state, prompts) if pattern not in state.patterns)
        state.patterns.update(new)
        return new

    def _note_bias(self, client: str, state: ClientState, seen: Observation) -> list[PromptState]:
        """All prompts are checked before any is noted, so that a refused request leaves nothing behind."""
        ids, most = {token_id for token_id, _ in seen.bias}, self._config.bias_per_prompt
        for key in seen.prompts:
            known = state.prompts.get(key)
            if most is not None and len(ids | known.biased_ids if known else ids) > most:
                raise _too_many(f"at most {most} ids on one prompt in {self._config.window_s:g} s")
        keys = dict.fromkeys(seen.prompts)
        self._make_room(state, [*keys])
        for key in keys:
            if key not in state.prompts:
                state.prompts[key] = PromptState()
                self._open_prompts += 1
        self._holders[client] = state
        self._holders.move_to_end(client)
        self._first_end = min(self._first_end, state.window_ends)
        prompts = [state.prompts[key] for key in keys]
        for prompt in prompts:
            if most is not None:
                prompt.biased_ids |= ids
            _add(prompt.biases, [hash(seen.bias)], THRESHOLDS[Pattern.MANY_BIASES])
        return prompts

    def _make_room(self, state: ClientState, keys: list[bytes]) -> None:
        """Forgets prompts so that these may be open: a client's own where it has too many, else of all together.

        First go those whose window has ended. With a limit on biases, to forget others would lift it: there the
        request is refused.
        """
        is_bounded = self._config.bias_per_prompt is not None
        count = sum(key not in state.prompts for key in keys)
        excess = len(state.prompts) + count - self._limits.prompts
        if excess > 0 and (is_bounded or len(keys) > self._limits.prompts):
            raise _too_many("biases on fewer prompts at a time")
        for key in [key for key in keys if key in state.prompts]:  # asked again: at the end, among the newest
            state.prompts[key] = state.prompts.pop(key)
        for key in [*itertools.islice(state.prompts, max(0, excess))]:
            self._forget(state, key)
        if self._open_prompts + count > self._limits.open_prompts:
            self._forget_ended()
        while self._open_prompts + count > self._limits.open_prompts:
            name, holder = next(iter(self._holders.items()), ("", state))
            if is_bounded or holder is state:
                raise _too_many("biases on fewer prompts at a time")
            self._forget(holder, next(iter(holder.prompts)))
            if not holder.prompts:
                del self._holders[name]

    def _forget(self, state: ClientState, key: bytes) -> None:
        del state.prompts[key]
        self._open_prompts -= 1

    def _forget_all(self, client: str) -> None:
        """Of the client only its prompts: what it may still ask in this minute stays known."""
        state = self._holders.pop(client, None)
        if state is not None:
            self._open_prompts -= len(state.prompts)
            state.prompts.clear()

    def _forget_ended(self) -> None:
        """Looks at all holders only when a window has ended since, so that each costs one look at most."""
        now = self._clock()
        if now < self._first_end:
            return
        for client in [client for client, state in self._holders.items() if now >= state.window_ends]:
            self._forget_all(client)
        self._first_end = min((state.window_ends for state in self._holders.values()), default=math.inf)

    def _state(self, client: str) -> ClientState:
        now = self._clock()
        state = self._clients.get(client)
        if state is None:
            while len(self._clients) >= self._limits.clients:
                oldest, _ = self._clients.popitem(last=False)
                self._forget_all(oldest)
            state = self._fresh(now, allowance=float(self._config.requests_per_minute or 0), refilled=now)
        elif now >= state.window_ends:
            self._forget_all(client)
            state = self._fresh(now, allowance=state.allowance, refilled=state.refilled)
        self._clients[client] = state
        self._clients.move_to_end(client)
        return state

    def _fresh(self, now: float, *, allowance: float, refilled: float) -> ClientState:
        return ClientState(window_ends=now + self._config.window_s, allowance=allowance, refilled=refilled)


def looks_random(text: str) -> bool:
    """Whether most words mix what words of no language and little code mix: scripts, digits inside, capitals inside.

    Tokens drawn at random and joined look so. Short texts never do.
    """
    words = [word for word in text.split() if len(word) > 2]
    odd = sum(map(_is_odd, words[:400]))
    return len(words) >= _FEWEST_WORDS and odd > len(words[:400]) / 2


def ids_look_random(token_ids: Sequence[int]) -> bool:
    """Whether a prompt of ids is spread over the vocabulary: in real text most ids are low, and some come again."""
    if len(token_ids) < _FEWEST_WORDS:
        return False
    spread = statistics.median(token_ids) > 0.2 * max(token_ids)
    return spread and len(set(token_ids)) >= 0.9 * len(token_ids)


def _is_odd(word: str) -> bool:
    inner = word[1:]
    has_upper = any(letter.isupper() for letter in inner)
    has_lower = any(letter.islower() for letter in inner)
    if has_upper and has_lower:
        return True
    if any(letter.isdigit() for letter in inner[:-1]) and sum(letter.isalpha() for letter in word) > 1:
        return True
    # The script is the first word of a letter's Unicode name: LATIN, CYRILLIC, HANGUL. A repeated look-up costs much.
    if word.isascii():
        return False
    scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in word if letter.isalpha()}
    return len(scripts - {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}) > 1


def _patterns(state: ClientState, prompts: Sequence[PromptState]) -> list[Pattern]:
    one_token = state.one_token if state.one_token > state.requests / 2 else 0
    counts = {
        Pattern.MANY_BIASES: max((len(prompt.biases) for prompt in prompts), default=0),
        Pattern.FORCED_TOKENS: state.forced,
        Pattern.ONE_TOKEN_LOGPROBS: one_token,
        Pattern.ID_SWEEP: len(state.ids),
        Pattern.RANDOM_CONTEXTS: len(state.contexts),
    }
    return [pattern for pattern, count in counts.items() if count > THRESHOLDS[pattern]]


def _add(known: set[Item], items: Sequence[Item], threshold: int) -> None:
    """Adds as many as are needed to see that there are more than the threshold."""
    for item in items:
        if len(known) > threshold:
            return
        known.add(item)


def _features(seen: Observation) -> Feature:
    reads = Feature.TOP_LOGPROBS if seen.reads_logprobs else Feature.NOTHING
    return reads | (Feature.LOGIT_BIAS if seen.bias else Feature.NOTHING)


def _too_many(expected: str) -> RefusedError:
    return RefusedError("refused: too many biased ids", feature=Feature.LOGIT_BIAS, expected=expected)
