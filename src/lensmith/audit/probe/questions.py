"""What an interface allows, found out by asking: about forty one-token requests that decide which read-outs exist.

An interface's own word counts for little: parameters are ignored in silence, capped, or refused together. So each
question is put as a request whose answer can only come out one way if the read-out exists (the list is that of the
capability matrix of today's servers). Nothing here depends on which server it is.

Beside what exists, answers show how fine values are: rounded to decimals, or on the lattice that logits of 16 bits
leave in them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.audit.estimators.noise import decimals_of
from lensmith.audit.probe.capabilities import LARGE_TOP, Probed, SampledFound
from lensmith.audit.querying.meter import BudgetError
from lensmith.core.endpoint import TEXT_IDS_FROM, Answer, Choice, Endpoint, RefusedError, Request, Reveal
from lensmith.core.errors import AccessError, InputError, LensmithError, NotExposedError
from lensmith.core.exposure import Taken
from lensmith.openai_api import EndpointError


def lattice_step(values: NDArray[np.float64]) -> float:
    """The largest power of two, at most 1, of which all differences are multiples; 0 where that is below 2**-12."""
    differences = np.diff(np.unique(values))
    if len(differences) < 4:
        return 0.0
    for power in range(13):
        step = 2.0**-power
        if np.allclose(differences / step, np.round(differences / step), rtol=0, atol=1e-3):
            return step
    return 0.0


LEAST_FALL_NATS = 2.0
"""A forced token's logprob taken before the bias lies at least this far below one taken after it (which is near 0)."""


def bisect(works: int, fails: int, test: Callable[[int], bool]) -> int:
    """The largest count that works, between one that does and one that does not."""
    while fails - works > 1:
        middle = (works + fails) // 2
        works, fails = (middle, fails) if test(middle) else (works, middle)
    return works


def num_returned(choice: Choice) -> int:
    """How many top logprobs the first position has."""
    logprobs = choice.logprobs
    if logprobs is None or not logprobs.top_TK.size:
        return 0
    return int(np.isfinite(logprobs.top_TK[0]).sum())


def _tells_ids(choice: Choice) -> bool:
    """Whether the top tokens of the first position are told by id, none by its text alone."""
    assert choice.logprobs is not None, "asked of choices with logprobs"
    return bool((choice.logprobs.top_ids_TK[0] < TEXT_IDS_FROM).all())


def same_answer(one: Choice, other: Choice) -> bool:
    """Whether both say the same: by token ids where both tell them, else by text."""
    if len(one.token_ids_T) and len(other.token_ids_T):
        return bool(np.array_equal(one.token_ids_T, other.token_ids_T))
    return one.text == other.text


def sampled_found(values: Sequence[float]) -> SampledFound:
    """What the sampled tokens' logprobs, each forced from outside the top, say of how they are told."""
    finite = [value for value in values if math.isfinite(value)]
    if not values:
        return SampledFound.UNKNOWN
    if not finite:
        return SampledFound.MASKED
    # One token may be likely by itself; a true value is known by one that lies far below.
    return SampledFound.TRUE_VALUE if min(finite) < -LEAST_FALL_NATS else SampledFound.AFTER_BIAS


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The pairs of a nested mapping, their names joined by dots."""
    pairs: list[tuple[str, Any]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            pairs += flat(item, f"{name}.")
        elif isinstance(item, list | tuple):
            pairs += flat({str(index): inner for index, inner in enumerate(item)}, f"{name}.")
        else:
            pairs.append((name, item))
    return pairs


STEER = 100.0
"""A bias that makes any token the greedy one, and the largest that common servers take."""
_TOP_STEPS = (1, 2, 5, 20, 50, 128, LARGE_TOP, 8192)
_TELLING_TOP = 20
"""The most that the usual interfaces tell; asked for in any case where texts make fewer of them."""
_COUNT_STEPS = (1, 2, 16, 128, 300, 1024)
_RANGE_STEPS = (1.0, 5.0, 20.0, STEER)
_SMALL_IDS = (5, 11, 23, 42, 61, 89)
"""Ids that any vocabulary has; some may be special or be likely by themselves, so several are tried."""
_GROUPS = ((5, 1), (0, 40), (40, 40), (80, 10))
"""First id and number of ids of groups that are biased together."""
_VOCABULARY_END = 1 << 20
_REPEATS = 5
_FIRST_LIVENESS_SEED = 1_000
_LATTICE_VALUES = 12
"""The likeliest tokens have the largest logits, and so the coarsest steps."""
_FACTS = frozenset(
    "n_embd hidden_size d_model width n_vocab vocab_size vocabulary_size n_params parameters n_layer num_hidden_layers "
    "layers architecture architectures dtype quantization".split()
)
"""Names under which servers state a model's size or kind."""


@dataclass(frozen=True, kw_only=True)
class ProbeOutcome:
    """What was found. `ended_by` is why not all questions were asked: a spent budget, or an endpoint that is gone."""

    found: Probed
    ended_by: LensmithError | None = None


def probe_so_far(endpoint: Endpoint, contexts: Sequence[Request]) -> ProbeOutcome:
    """Asks what the interface allows. `contexts`: the same question in several forms; the first that works is kept.

    Raises NotExposedError where no form gets an answer. What was found stays where the budget or the endpoint ends in
    the middle.
    """
    prober = _Prober(endpoint, contexts)
    questions = (
        prober.logprobs,
        prober.repeats,
        prober.whole_vocabulary,
        prober.chosen_ids,
        prober.bias,
        prober.bias_limits,
        prober.bias_and_logprobs,
        prober.allow_list,
        prober.echo,
        prober.vocabulary,
        prober.facts,
        prober.end,
    )
    try:
        for question in questions:
            question()
    except (BudgetError, EndpointError, AccessError) as error:
        return ProbeOutcome(found=prober.found, ended_by=error)
    return ProbeOutcome(found=prober.found)


class _Prober:
    """The questions, in an order in which each can use what the ones before found."""

    def __init__(self, endpoint: Endpoint, contexts: Sequence[Request]) -> None:
        self.endpoint = endpoint
        self.notes: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._liveness_checks = 0
        self.found = Probed(context=contexts[0])
        self._baseline = self._first_answer(contexts)

    def _first_answer(self, contexts: Sequence[Request]) -> Choice:
        failures: list[LensmithError] = []
        for context in contexts:
            plain = replace(context, max_tokens=1, temperature=0.0)
            try:
                answer = self.endpoint.answer([plain])[0]
            except (RefusedError, InputError) as error:
                failures.append(error)
                continue
            self._learn(context=plain)
            return answer.choices[0]
        problems = dict.fromkeys(failure.problem for failure in failures)
        is_usage = all(failure.exit_code == InputError.exit_code for failure in failures)
        if is_usage and len(problems) == 1:  # a wrong key, an unknown model, a URL of something else: said once
            raise failures[0]
        raise (InputError if is_usage else NotExposedError)(
            "the endpoint answers no simple request",
            expected="one greedy token",
            actual="; ".join(problems),
            hint="check the URL, --model and the key",
        )

    def _learn(self, **changes: Any) -> None:
        self.found = replace(self.found, **changes, notes=dict(self.notes), failed=dict(self._failed))

    def _ask(self, name: str, **changes: Any) -> Answer | None:
        """The answer, or None where the interface does not give one; why not is noted under `name`.

        A question that fails is asked once more. One that fails again is no refusal: it stays undecided.
        """
        try:
            return self._answer(replace(self.found.context, **changes))
        except (BudgetError, AccessError):
            raise
        except (RefusedError, InputError) as error:
            self.notes[name] = f"refused: {error.problem}"
        except LensmithError as error:
            # A server that breaks on a question must still be there for the others.
            if not self._is_alive():
                raise
            self._failed[name] = error.problem if error.actual is None else f"{error.problem}: {error.actual}"
            self.notes[name] = f"failed: {self._failed[name]}"
        return None

    def _answer(self, request: Request) -> Answer:
        try:
            return self.endpoint.answer([request])[0]
        except EndpointError:
            return self.endpoint.answer([request])[0]

    def _is_alive(self) -> bool:
        """Whether a plain question gets an answer; its seed makes it one that is not in the log."""
        self._liveness_checks += 1
        try:
            self.endpoint.answer([replace(self.found.context, seed=_FIRST_LIVENESS_SEED + self._liveness_checks)])
        except (BudgetError, AccessError):
            raise
        except LensmithError:
            return False
        return True

    def end(self) -> None:
        """Refusals count only where the endpoint still answers after them: a door that was closed refuses all."""
        is_refused = any(note.startswith("refused") for note in self.notes.values())
        if is_refused and not self._is_alive():
            raise EndpointError("the endpoint no longer answers a plain question, so its refusals say nothing")
        self._learn()

    def _largest(self, name: str, steps: Sequence[Any], works: Callable[[Any], bool]) -> Any:
        """The last of the growing steps that works, None if the first does not."""
        best = None
        for step in steps:
            if not works(step):
                break
            best = step
        self.notes.setdefault(name, "none" if best is None else f"{best:g}")
        return best

    # --- what is told ----------------------------------------------------------------------------------------------

    def logprobs(self) -> None:
        """The cap on top logprobs, whether ids are told, and how fine the values are."""
        top: list[Choice] = []

        def returns(count: int) -> bool:
            answer = self._ask("more top logprobs", top_logprobs=count)
            returned = 0 if answer is None else num_returned(answer.choices[0])
            if answer is None or not returned:
                return False
            top.append(answer.choices[0])
            # Where tokens go by their texts, those that share one are told as one: fewer than asked may be no cap.
            return returned >= count or (count < _TELLING_TOP and not _tells_ids(answer.choices[0]))

        self._largest("top logprobs", _TOP_STEPS, returns)
        if not top:
            return
        counts = [num_returned(choice) for choice in top]
        best = top[int(np.argmax(counts))]
        logprobs = best.logprobs
        assert logprobs is not None, "only choices with logprobs were kept"
        values = logprobs.top_TK[0][np.isfinite(logprobs.top_TK[0])].astype(np.float64)
        self._learn(
            top_logprobs=max(counts),
            returns_ids=_tells_ids(best),
            decimals=decimals_of(values),
            step_nats=lattice_step(values[:_LATTICE_VALUES]),
        )

    def repeats(self) -> None:
        """The same request again: other seeds make it another request to us and the same to a greedy server."""
        count = min(self.found.top_logprobs, 5)
        requests = [replace(self.found.context, top_logprobs=count, seed=seed) for seed in range(_REPEATS)]
        try:
            answers = self.endpoint.answer(requests)
        except (RefusedError, InputError):
            requests = [replace(self.found.context, top_logprobs=count, max_tokens=1)] * _REPEATS
            answers = self.endpoint.answer(requests)
        texts = {answer.choices[0].text for answer in answers}
        spread = 0.0
        if count:
            rows = [np.sort(answer.choices[0].logprobs.top_TK[0]) for answer in answers if answer.choices[0].logprobs]
            if len({len(row) for row in rows}) == 1:
                spread = float(np.ptp(np.stack(rows), axis=0).max())
        self.notes["repeats"] = f"{len(texts)} different answers to {_REPEATS} equal requests, {spread:.3g} nats apart"
        self._learn(deterministic=len(texts) == 1 and spread == 0.0, spread_nats=spread)

    def whole_vocabulary(self) -> None:
        answer = self._ask("whole vocabulary", reveal=Reveal.VOCABULARY)
        logprobs = None if answer is None else answer.choices[0].logprobs
        row = None if logprobs is None else logprobs.vocabulary_TV
        if row is not None and row.size and np.isfinite(row[0]).sum() > 1:
            self.notes["whole vocabulary"] = f"{np.isfinite(row[0]).sum()} logprobs"
            # Tokens that are known by text collide, so their number is not the vocabulary's.
            size = int(row.shape[1]) if self.found.returns_ids else None
            self._learn(whole_vocabulary=True, vocabulary_size=size)
        else:
            self.notes.setdefault("whole vocabulary", "not told")

    def chosen_ids(self) -> None:
        size = self.found.vocabulary_size or math.inf

        def returns(count: int) -> bool:
            if count > size:
                return False
            answer = self._ask("more chosen ids", wanted_ids=tuple(range(count)))
            logprobs = None if answer is None else answer.choices[0].logprobs
            return logprobs is not None and logprobs.wanted_TW.size > 0 and np.isfinite(logprobs.wanted_TW[0]).any()

        steps = (1, 2, 20, 64, 128, 1024)
        best = self._largest("chosen ids", steps, returns) or 0
        if 0 < best < steps[-1]:
            best = bisect(best, steps[steps.index(best) + 1], returns)
        self._learn(wanted_ids=best)

    # --- steering --------------------------------------------------------------------------------------------------

    def bias(self) -> None:
        """Whether a large bias makes a token that is not the greedy one come out."""
        steers = any(self._steers({token_id: STEER}) for token_id in _SMALL_IDS)
        # A server with a narrower range refuses 100, and what it takes may be too little for an unlikely token.
        for size in _RANGE_STEPS[-2::-1]:
            steers = steers or any(
                self._steers(dict.fromkeys(range(first, first + count), size)) for first, count in _GROUPS
            )
        self.notes["bias"] = "steers the greedy token" if steers else self.notes.get("bias", "has no effect")
        baseline = self._baseline
        if self.notes["bias"] == "has no effect" and not baseline.text and not len(baseline.token_ids_T):
            self._failed["bias"] = "answers have neither text nor token ids: what a bias does to them cannot be seen"
        self._learn(bias_steers=steers)

    def bias_limits(self) -> None:
        if not self.found.bias_steers:
            return

        def takes(biases: Mapping[int, float]) -> bool:
            return self._ask("larger or more biases", logit_bias=biases) is not None

        largest = self._largest("largest bias", _RANGE_STEPS, lambda size: takes({_SMALL_IDS[0]: size}))
        count = self._largest("biased ids", _COUNT_STEPS, lambda count: takes(dict.fromkeys(range(count), 1.0)))
        self._learn(largest_bias=largest or 0.0, biased_ids=count or 0)

    def bias_and_logprobs(self) -> None:
        """Where logprobs are taken, and what is told of a forced token outside the top."""
        if not self.found.bias_steers:
            return
        size = self.found.largest_bias
        sampled: list[float] = []
        moved: list[bool] = []
        for token_id in _SMALL_IDS:
            answer = self._ask(
                "bias with logprobs",
                logit_bias={token_id: size},
                top_logprobs=min(self.found.top_logprobs, 5),
                reveal=Reveal.SAMPLED,
            )
            if answer is None:
                answer = self._ask(
                    "bias with top logprobs",
                    logit_bias={token_id: size},
                    top_logprobs=max(1, min(self.found.top_logprobs, 5)),
                )
            logprobs = None if answer is None else answer.choices[0].logprobs
            if logprobs is None:
                continue
            if len(logprobs.sampled_T):
                sampled.append(float(logprobs.sampled_T[0]))
            if logprobs.top_TK.size and np.isfinite(logprobs.top_TK[0, 0]):
                # After the bias the forced token has nearly all probability; before it, the row is the baseline's.
                moved.append(float(logprobs.top_TK[0, 0]) > -1e-3)
        if not sampled and not moved:
            self.notes.setdefault("bias with logprobs", "no logprobs")
            return
        self._learn(bias_with_logprobs=True, taken=self._taken(sampled, moved), sampled=sampled_found(sampled))
        taken = self.found.taken
        self.notes["logprobs are taken"] = "could not be told" if taken is None else taken.value
        self.notes["forced token outside the top"] = self.found.sampled.value
        self._learn()

    def _taken(self, sampled: Sequence[float], moved: Sequence[bool]) -> Taken | None:
        lowest = min((value for value in sampled if math.isfinite(value)), default=None)
        if lowest is not None and lowest < -LEAST_FALL_NATS:
            return Taken.BEFORE_BIAS
        if moved:
            return Taken.AFTER_BIAS if sum(moved) > len(moved) / 2 else Taken.BEFORE_BIAS
        return None if lowest is None else Taken.AFTER_BIAS

    def allow_list(self) -> None:
        """An allow-list of one token: does it steer, and is its true logprob told?"""
        values: list[float] = []
        steers = False
        for token_id in _SMALL_IDS[:4]:
            answer = self._ask("allow-list", allowed_ids=(token_id,), reveal=Reveal.SAMPLED)
            if answer is None:
                answer = self._ask("allow-list", allowed_ids=(token_id,))
            if answer is None:
                return
            choice = answer.choices[0]
            steers = steers or not same_answer(choice, self._baseline)
            if choice.logprobs is not None and len(choice.logprobs.sampled_T):
                values.append(float(choice.logprobs.sampled_T[0]))
        true_value = sampled_found(values) is SampledFound.TRUE_VALUE
        self.notes["allow-list"] = "steers" if steers else "has no effect"
        self._learn(allow_list=steers, allow_list_true_value=steers and true_value)

    def _steers(self, biases: Mapping[int, float]) -> bool:
        answer = self._ask("bias", logit_bias=biases)
        return answer is not None and not same_answer(answer.choices[0], self._baseline)

    # --- the rest --------------------------------------------------------------------------------------------------

    def echo(self) -> None:
        ids = self._ask("prompt of token ids", messages=(), prompt="", token_ids=_SMALL_IDS)
        self._learn(takes_token_ids=ids is not None)
        answer = self._ask("echo", reveal=Reveal.PROMPT | Reveal.SAMPLED, top_logprobs=min(1, self.found.top_logprobs))
        logprobs = None if answer is None else answer.prompt_logprobs
        if logprobs is not None and np.isfinite(logprobs.sampled_T[1:]).any():
            self.notes["echo"] = f"{len(logprobs.sampled_T)} prompt logprobs"
            self._learn(echo=True)
        else:
            self.notes.setdefault("echo", "not told")

    def vocabulary(self) -> None:
        """The number of ids, by bisection: one that exists can be forced, allowed, or put into a prompt."""
        exists = self._test_of_ids()
        if self.found.vocabulary_size is None and exists is not None and not exists(_VOCABULARY_END):
            size = bisect(1, _VOCABULARY_END, exists) + 1
            self.notes["vocabulary"] = f"{size} ids are taken"
            self._learn(vocabulary_size=size)
        stated = self.endpoint.supports().vocabulary_size
        if self.found.vocabulary_size is None and stated is not None:
            self.notes["vocabulary"] = f"{stated}, by its own word"
            self._learn(vocabulary_size=stated)

    def _test_of_ids(self) -> Callable[[int], bool] | None:
        """How to find out whether an id exists, if there is a way."""
        if self.found.bias_steers:
            return self._exists
        if self.found.allow_list:
            return lambda token_id: self._ask("vocabulary", allowed_ids=(token_id,)) is not None
        if self.found.takes_token_ids:
            changes = {"messages": (), "prompt": ""}
            return lambda token_id: self._ask("vocabulary", token_ids=(*_SMALL_IDS, token_id), **changes) is not None
        return None

    def _exists(self, token_id: int) -> bool:
        """An id that can be forced exists; so does the greedy token itself, which can only be pushed away."""
        size = self.found.largest_bias
        return self._steers({token_id: size}) or self._steers({token_id: -size})

    def facts(self) -> None:
        """What the interface says of the model by itself."""
        try:
            metadata = dict(flat(self.endpoint.metadata()))
        except BudgetError:
            raise
        except LensmithError as error:
            self.notes["metadata"] = f"refused: {error.problem}"
            metadata = {}
        facts = {name: value for name, value in metadata.items() if name.rpartition(".")[2] in _FACTS}
        self.notes.setdefault("metadata", ", ".join(sorted(facts)) or "tells no size")
        self._learn(facts=facts)
