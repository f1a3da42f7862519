"""Keeps an audit within its means: a rate, a budget of queries and tokens, and a log that no restart pays for twice.

Every request of an audit passes here. What was answered is written down as one JSON line before anyone sees it, so an
audit that was interrupted asks again only what it does not know. Large answers (a whole vocabulary) are charged in the
log but not kept in it: whoever reads them keeps what it needs (see `stages.matrix`).
"""

import base64
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from lensmith.audit.findings.finding import Cost
from lensmith.audit.querying.event_log import EventLog
from lensmith.core.endpoint import (
    TEXT_IDS_FROM,
    Answer,
    Capabilities,
    Choice,
    Endpoint,
    Feature,
    Finish,
    Logprobs,
    RefusedError,
    Request,
)
from lensmith.core.errors import ConfigError, InputError, LensmithError
from lensmith.core.types import Picture

KEEP_BYTES = 32_768
"""Answers whose arrays are larger than this are not kept in the log."""
_CHARS_A_TOKEN = 4
_FIRST_BATCH, _LEAST_BATCH, _MOST_BATCH = 8, 4, 128
"""Questions that are sent at once. Fewer would leave a server idle that works on several; what is under way when an
audit is interrupted is paid for and lost."""
_BATCH_S = 2.0
"""How long a batch may take before the next is smaller, and under half of which the next is larger."""


class BudgetError(LensmithError):
    """The budget does not reach for what was about to be asked."""

    exit_code = 3


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an audit may take. Rates and budgets are on unless a person lifts them; None is no limit."""

    queries_per_s: float | None = 50.0
    max_queries: int | None = 20_000
    max_tokens: int | None = 5_000_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0:
                raise ConfigError(f"{name}: not possible", expected="more than 0", actual=value)


class TokenTexts(Protocol):
    """A client's numbers, from TEXT_IDS_FROM on, for tokens that a server names by text."""

    def __len__(self) -> int: ...

    def number(self, name: bytes) -> int:
        """The number of a token; the next free one where it was not met before."""

    def data(self, token_id: int) -> bytes:
        """The bytes of a token that was met."""


class Meter:
    """An endpoint that is rate-limited, paid for and remembered. Satisfies `Endpoint`.

    `spent` counts what this audit has cost so far, earlier runs of it included. `answer` raises BudgetError before it
    sends what the budget does not cover; what was answered until then is in the log. How many questions are sent at
    once follows from how fast they are answered.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        budget: Budget,
        log: EventLog,
        on_progress: Callable[[Cost], None] | None = None,
        texts: TokenTexts | None = None,
    ) -> None:
        self.texts = texts
        """Where the endpoint names tokens by text: the numbers that stand for them, the same in every run."""
        self._texts_logged = 0
        self._endpoint = endpoint
        self._budget = budget
        self._log = log
        self._on_progress = on_progress
        self._known: dict[str, Answer] = {}
        self._refused: dict[str, LensmithError] = {}
        self._next_s = 0.0
        self._batch = min(_FIRST_BATCH, self._most_at_once)
        self._metadata: Mapping[str, Any] | None = None
        self._hidden_tokens = 0  # by which an answer took more than it was expected to, lately
        self.spent = Cost(queries=0)
        for event in log.past:
            if event["event"] == "asked":
                self._charge(event["queries"], event["tokens"], event["seconds"])
                if "answer" in event:
                    self._known[event["key"]] = _read_answer(event["answer"])
                elif "refusal" in event:
                    self._refused[event["key"]] = _read_refusal(event["refusal"])
                elif "metadata" in event:
                    self._metadata = event["metadata"]
            elif event["event"] == "texts" and texts is not None:
                self._learn_texts(event["names"])

    @property
    def queries_left(self) -> float:
        return math.inf if self._budget.max_queries is None else self._budget.max_queries - self.spent.queries

    @property
    def _most_at_once(self) -> int:
        """No more than the rate allows in a second."""
        rate = self._budget.queries_per_s
        return _MOST_BATCH if rate is None else max(1, min(_MOST_BATCH, math.ceil(rate)))

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        keys = [_key(request) for request in requests]
        refused = next((self._refused[key] for key in keys if key in self._refused), None)
        if refused is not None:
            raise refused
        known: dict[str, Answer] = {key: self._known[key] for key in keys if key in self._known}
        missing = [(key, request) for key, request in zip(keys, requests, strict=True) if key not in known]
        # A request that stands twice in one batch is meant twice: a repeat asks whether answers agree.
        results: dict[int, Answer] = {}
        indices = [place for place, key in enumerate(keys) if key not in known]
        done = 0
        while done < len(missing):
            part = self._affordable(missing[done : done + self._batch])
            answers = self._ask([request for _, request in part], [key for key, _ in part])
            results.update(zip(indices[done : done + len(part)], answers, strict=True))
            done += len(part)
        return [results[place] if place in results else known[key] for place, key in enumerate(keys)]

    def supports(self) -> Capabilities:
        return self._endpoint.supports()

    def metadata(self) -> Mapping[str, Any]:
        """What the endpoint says of itself: a query, once for all runs."""
        if self._metadata is None:
            self._reserve(1, 0)
            self._wait(1)
            began = time.monotonic()
            try:
                reported = json.loads(json.dumps(dict(self._endpoint.metadata()), default=str))
            except LensmithError:
                self._record(1, 0, time.monotonic() - began, key="", refused=True)
                raise
            self._record(1, 0, time.monotonic() - began, key="", metadata=reported)
            self._metadata = reported
        return self._metadata

    def _affordable(self, asked: list[tuple[str, Request]]) -> list[tuple[str, Request]]:
        """As many of them, in order, as the budget reaches for: at least one, which may then be refused."""
        tokens = 0
        for count, (_, request) in enumerate(asked):
            tokens += _least_tokens(request) + self._hidden_tokens
            if self._over(count + 1, tokens) is not None:
                return asked[: max(1, count)]
        return asked

    def _ask(self, requests: Sequence[Request], keys: Sequence[str]) -> list[Answer]:
        self._reserve(len(requests), sum(map(_least_tokens, requests)))
        self._wait(len(requests))
        began = time.monotonic()
        try:
            answers = [_as_written(answer) for answer in self._endpoint.answer(requests)]
        except LensmithError as error:
            self._record_failure(error, keys, time.monotonic() - began)
            raise
        self._log_texts()  # before the answers that use their numbers
        self._adapt(len(requests), time.monotonic() - began)
        seconds = (time.monotonic() - began) / max(1, len(requests))
        took = [_tokens(request, answer) for request, answer in zip(requests, answers, strict=True)]
        expected = map(_least_tokens, requests)
        hidden = (tokens - least for tokens, least in zip(took, expected, strict=True))
        self._hidden_tokens = max(0, max(hidden, default=0))
        for key, tokens, answer in zip(keys, took, answers, strict=True):
            if _num_bytes(answer) <= KEEP_BYTES:
                self._known[key] = answer
                self._record(1, tokens, seconds, key=key, answer=_write_answer(answer))
            else:
                self._record(1, tokens, seconds, key=key)
        return answers

    def _record_failure(self, error: LensmithError, keys: Sequence[str], seconds: float) -> None:
        """A refusal of one question is an answer, which stays; what failed otherwise may come right the next time.

        So may errors of a class of their own: a key that is not taken, a page in an endpoint's place, a refusal that is
        in doubt.
        """
        if len(keys) == 1 and type(error) in (RefusedError, InputError):
            self._refused[keys[0]] = error
            self._record(1, 0, seconds, key=keys[0], refusal=_write_refusal(error))
        else:
            self._record(len(keys), 0, seconds, key="", refused=True)

    def _adapt(self, asked: int, seconds: float) -> None:
        """Chooses how many questions are sent at once from how long these took."""
        if seconds > _BATCH_S:
            self._batch = min(self._most_at_once, max(_LEAST_BATCH, asked // 2))
        elif seconds < _BATCH_S / 2 and asked >= self._batch:
            self._batch = min(self._most_at_once, 2 * self._batch)

    def _learn_texts(self, names: Sequence[str]) -> None:
        assert self.texts is not None, "asked only where there are texts"
        for name in names:
            number = self.texts.number(base64.b64decode(name))
            if number != TEXT_IDS_FROM + self._texts_logged:
                raise InputError("the log's tokens do not fit the client's", hint="use a new client for each run")
            self._texts_logged += 1

    def _log_texts(self) -> None:
        if self.texts is None or len(self.texts) == self._texts_logged:
            return
        new = range(TEXT_IDS_FROM + self._texts_logged, TEXT_IDS_FROM + len(self.texts))
        self._log.write("texts", names=[base64.b64encode(self.texts.data(number)).decode() for number in new])
        self._texts_logged = len(self.texts)

    def _reserve(self, queries: int, tokens: int) -> None:
        error = self._over(queries, tokens)
        if error is not None:
            raise error

    def _over(self, queries: int, tokens: int) -> BudgetError | None:
        """The error where the budget does not reach for so many more."""
        budget, spent = self._budget, self.spent
        for name, limit, had, more in (
            ("queries", budget.max_queries, spent.queries, queries),
            ("tokens", budget.max_tokens, spent.tokens, tokens),
        ):
            if limit is not None and had + more > limit:
                return BudgetError(
                    f"the budget of {name} is spent",
                    expected=f"at most {limit}",
                    actual=f"{had} spent, {more} more needed",
                    hint=f"run the same command with a larger --budget-{name}: nothing that is known is asked again",
                )
        return None

    def _wait(self, queries: int) -> None:
        if self._budget.queries_per_s is None:
            return
        now = time.monotonic()
        time.sleep(max(0.0, self._next_s - now))
        self._next_s = max(now, self._next_s) + queries / self._budget.queries_per_s

    def _record(self, queries: int, tokens: int, seconds: float, **fields: Any) -> None:
        self._charge(queries, tokens, seconds)
        self._log.write("asked", queries=queries, tokens=tokens, seconds=round(seconds, 6), **fields)
        if self._on_progress is not None:
            self._on_progress(self.spent)

    def _charge(self, queries: int, tokens: int, seconds: float) -> None:
        had = self.spent
        self.spent = replace(
            had, queries=had.queries + queries, tokens=had.tokens + tokens, seconds=had.seconds + seconds
        )


# --- what a request costs -----------------------------------------------------------------------------------------


def _least_tokens(request: Request) -> int:
    """An estimate before the answer is there: a token is about four characters; pictures are not counted."""
    text = request.prompt + "".join(
        part for message in request.messages for part in message.parts if isinstance(part, str)
    )
    return len(request.token_ids) + len(text) // _CHARS_A_TOKEN + request.max_tokens * request.n


def _tokens(request: Request, answer: Answer) -> int:
    """What an answer took: no less than it shows, and what the endpoint says where that is more (reasoning that it
    hides, a `max_tokens` that it ignores)."""
    shown = sum(len(choice.token_ids_T) or request.max_tokens for choice in answer.choices)
    written = max(shown, answer.completion_tokens or 0)
    if answer.prompt_tokens is None:
        return _least_tokens(request) - request.max_tokens * request.n + written
    return answer.prompt_tokens + written


def _as_written(answer: Answer) -> Answer:
    """What a model thinks aloud is its greedy text like any other: where it has not come to an answer, that is read."""
    choices = tuple(choice if choice.text else replace(choice, text=choice.reasoning) for choice in answer.choices)
    return replace(answer, choices=choices)


# --- the log's form -----------------------------------------------------------------------------------------------


def _key(request: Request) -> str:
    digest = hashlib.sha256()
    for message in request.messages:
        for part in message.parts:
            content = (part.url, hashlib.sha256(part.data).digest()) if isinstance(part, Picture) else part
            digest.update(repr(content).encode() + b"\0")
    plain = replace(request, messages=(), prompt="", token_ids=(0,)) if request.messages else request
    roles = [message.role for message in request.messages]
    digest.update(repr((roles, asdict(plain))).encode())
    return digest.hexdigest()[:32]


def _num_bytes(answer: Answer) -> int:
    """Of its logprobs, without ids."""
    parts = [part for part in (*(choice.logprobs for choice in answer.choices), answer.prompt_logprobs) if part]
    arrays = [each for part in parts for each in (part.sampled_T, part.top_TK, part.wanted_TW, part.vocabulary_TV)]
    return sum(array.nbytes for array in arrays if array is not None)


def _write_answer(answer: Answer) -> dict[str, Any]:
    return {
        "choices": [
            {
                "text": choice.text,
                "finish": choice.finish.value,
                "ids": _pack(choice.token_ids_T),
                "logprobs": _write_logprobs(choice.logprobs),
                "reasoning": choice.reasoning,
            }
            for choice in answer.choices
        ],
        "prompt_ids": _pack(answer.prompt_ids_P),
        "prompt_logprobs": _write_logprobs(answer.prompt_logprobs),
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
    }


def _read_answer(value: Mapping[str, Any]) -> Answer:
    return Answer(
        choices=tuple(
            Choice(
                text=choice["text"],
                finish=Finish(choice["finish"]),
                token_ids_T=_unpack(choice["ids"]),
                logprobs=_read_logprobs(choice["logprobs"]),
                reasoning=choice.get("reasoning", ""),
            )
            for choice in value["choices"]
        ),
        prompt_ids_P=_unpack(value["prompt_ids"]),
        prompt_logprobs=_read_logprobs(value["prompt_logprobs"]),
        prompt_tokens=value["prompt_tokens"],
        completion_tokens=value.get("completion_tokens"),
    )


def _write_refusal(error: LensmithError) -> dict[str, Any]:
    parts = {"expected": error.expected, "actual": error.actual, "hint": error.hint}
    details = {name: str(part) for name, part in parts.items() if part is not None}
    feature = {"feature": error.feature.value} if isinstance(error, RefusedError) else {}
    return {"problem": error.problem, **feature, **details}


def _read_refusal(value: Mapping[str, Any]) -> LensmithError:
    parts = {name: value.get(name) for name in ("expected", "actual", "hint")}
    if "feature" in value:
        return RefusedError(value["problem"], feature=Feature(value["feature"]), **parts)
    return InputError(value["problem"], **parts)


def _write_logprobs(part: Logprobs | None) -> dict[str, Any] | None:
    return None if part is None else {name: _pack(array) for name, array in vars(part).items()}


def _read_logprobs(value: Mapping[str, Any] | None) -> Logprobs | None:
    return None if value is None else Logprobs(**{name: _unpack(packed) for name, packed in value.items()})


def _pack(array: Any) -> list[Any] | None:
    if array is None:
        return None
    return [str(array.dtype), list(array.shape), base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]


def _unpack(packed: Sequence[Any] | None) -> Any:
    if packed is None:
        return None
    kind, shape, data = packed
    return np.frombuffer(base64.b64decode(data), dtype=kind).reshape(shape).copy()
