"""Answers and chunks of a stream, read strictly and written anew: what is not known here does not pass.

Ids, times and the model's name are the guard's and the client's own, because an upstream's tell which server it is,
when it started and where its files lie.

The fields of an upstream answer, one by one: each has the type that the protocol says, or the answer does not pass.

Error messages name the field and the type that came, never the value: they may reach a log.
"""

import contextlib
import dataclasses
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lensmith.core.endpoint import Reveal
from lensmith.core.exposure import Exposure
from lensmith.guard.logprobs import Position, Teller, Told
from lensmith.guard.policy import Decision
from lensmith.guard.strict_json import LARGEST_INT, Json, kind_of
from lensmith.openai_api import TOKEN_ID_PREFIX, Kind, MalformedAnswerError

FINISHES = {
    **{word: word for word in ("stop", "length", "tool_calls", "function_call", "content_filter")},
    **dict.fromkeys(("stop_sequence", "eos_token"), "stop"),
    "abort": "abort",
}
"""Why an answer ended, as servers say it and as it is told: TGI has words of its own for a stop. vLLM and SGLang say
`abort` of an answer that they broke off, and OpenAI has no word for that: as `stop` it would look complete."""
_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_HIGHEST_ID = 1 << 40


def get_object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if not isinstance(value, Mapping):
        raise _wrong(name, "an object", value)
    return value


def get_list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    return value


def get_text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise _wrong(name, "text", value)
    return value


def get_count(body: Mapping[str, Any], name: str, most: int) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _wrong(name, f"a whole number from 0 to {most}", value)
    return value


def get_finish(body: Mapping[str, Any]) -> str | None:
    value = body.get("finish_reason")
    if value is None:
        return None
    if not isinstance(value, str) or value not in FINISHES:
        raise _wrong("finish_reason", " or ".join(sorted(FINISHES)), value)
    return FINISHES[value]


def get_usage(body: Mapping[str, Any]) -> Json | None:
    """The three counts; what else servers report there (cached tokens and the like) is left out."""
    if body.get("usage") is None:
        return None
    usage = get_object(body, "usage")
    return {name: get_count(usage, name, LARGEST_INT) for name in _USAGE if usage.get(name) is not None}


def get_message(body: Mapping[str, Any], name: str) -> Json:
    """A message or the delta of one: role, texts and calls of tools."""
    message = get_object(body, name)
    result: Json = {}
    if message.get("role") is not None:
        if message["role"] != "assistant":
            raise _wrong(f"{name}.role", "assistant", message["role"])
        result["role"] = "assistant"
    result |= {each: get_text(message, each) for each in _TEXTS if message.get(each) is not None}
    if message.get("tool_calls") is not None:
        result["tool_calls"] = [_tool_call(call) for call in get_list(message, "tool_calls")]
    return result


def _tool_call(call: object) -> Json:
    if not isinstance(call, Mapping):
        raise _wrong("tool_calls", "objects", call)
    function = get_object(call, "function")
    result: Json = {"index": get_count(call, "index", 1 << 20)} if "index" in call else {}
    result |= {"id": get_text(call, "id")} if call.get("id") is not None else {}
    shown = {each: get_text(function, each) for each in ("name", "arguments") if function.get(each) is not None}
    return {**result, "type": "function", "function": shown}


# --- logprobs -----------------------------------------------------------------------------------------------------


def read_told(entry: object) -> Told:
    """A token as chat answers tell it: an object. llama.cpp adds its id."""
    if not isinstance(entry, Mapping):
        raise _wrong("logprobs", "objects", entry)
    token_id = None if entry.get("id") is None else get_count(entry, "id", _HIGHEST_ID)
    data = None if entry.get("bytes") is None else _bytes(entry["bytes"])
    return _told(entry.get("token"), entry.get("logprob"), token_id, data)


def read_named(name: object, logprob: object) -> Told:
    """A token as completions tell it: a name and a number."""
    return _told(name, logprob, None, None)


def _told(name: object, logprob: object, token_id: int | None, data: bytes | None) -> Told:
    if not isinstance(name, str):
        raise _wrong("token", "text", name)
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise _wrong("logprob", "a number", logprob)
    if token_id is None and name.startswith(TOKEN_ID_PREFIX):
        digits = name[len(TOKEN_ID_PREFIX) :]
        token_id = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None
    return Told(name=name, logprob=float(logprob), token_id=token_id, data=data)


def _bytes(value: object) -> bytes:
    if isinstance(value, list):
        with contextlib.suppress(TypeError, ValueError):
            return bytes(value)
    raise _wrong("bytes", "numbers from 0 to 255", value)


def write_told(told: Told) -> Json:
    """A token as chat answers tell it."""
    return {"token": told.name, "logprob": told.logprob, "bytes": None if told.data is None else list(told.data)}


def _wrong(where: str, expected: str, actual: object) -> MalformedAnswerError:
    return MalformedAnswerError(f"{where}: not possible in an answer", expected=expected, actual=kind_of(actual))


_CHAT_OBJECTS = ("chat.completion", "chat.completion.chunk")
_LONGEST_FINGERPRINT = 128


@dataclass(kw_only=True)
class _Choice:
    teller: Teller
    has_begun: bool = False
    offset: int = 0
    is_finished: bool = False


@dataclass(kw_only=True)
class Rewriter:
    """Rewrites the answer to one request: one whole body, or the chunks of a stream in order.

    Raises MalformedAnswerError for anything that is not an answer to this request.
    """

    decision: Decision
    exposure: Exposure
    is_stream: bool
    listed_models: Sequence[str] = ()
    """The names that the upstream lists, where the request names no model."""
    answer_id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _choices: dict[int, _Choice] = field(default_factory=dict)

    def whole(self, body: Mapping[str, Any]) -> Json:
        """The answer's body as the client may see it."""
        choices = [self._whole_choice(choice) for choice in get_list(body, "choices")]
        if len(choices) != self.decision.choices:
            raise MalformedAnswerError("wrong number of choices", expected=self.decision.choices, actual=len(choices))
        usage = get_usage(body)
        return {**self._envelope(body), "choices": choices, **({} if usage is None else {"usage": usage})}

    def chunk(self, body: Mapping[str, Any]) -> Json | None:
        """A chunk as the client may see it; None where nothing is left of it."""
        choices = [self._chunk_choice(choice) for choice in get_list(body, "choices")]
        wants_usage = self.decision.wires[0].include_usage
        usage = get_usage(body) if wants_usage else None
        if not choices and usage is None:
            return None
        return {**self._envelope(body), "choices": choices, **({"usage": usage} if wants_usage else {})}

    @property
    def is_finished(self) -> bool:
        """Whether every choice of a stream has said why it ended."""
        finished = sum(choice.is_finished for choice in self._choices.values())
        return finished == self.decision.choices

    def _envelope(self, body: Mapping[str, Any]) -> Json:
        is_chat = self.decision.kind is Kind.CHAT
        result: Json = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{self.answer_id}",
            "object": _CHAT_OBJECTS[self.is_stream] if is_chat else "text_completion",
            "created": self.created,
            "model": self.decision.wires[0].model or self._unasked_model(body),
        }
        fingerprint = body.get("system_fingerprint")
        if self.exposure.metadata and isinstance(fingerprint, str):
            result["system_fingerprint"] = fingerprint[:_LONGEST_FINGERPRINT]
        return result

    def _unasked_model(self, body: Mapping[str, Any]) -> str:
        """The model that answered, by a name that the list of models has: another could be a file's path."""
        told, listed = body.get("model"), self.listed_models
        if isinstance(told, str) and told in listed:
            return told
        return listed[0] if len(listed) == 1 else ""

    def _whole_choice(self, choice: object) -> Json:
        body, index, state = self._open(choice)
        if state.is_finished:
            raise MalformedAnswerError("a choice stands twice", actual=index)
        state.is_finished = True
        finish = get_finish(body)
        if finish is None:
            raise MalformedAnswerError("a choice without a reason for its end")
        if self.decision.kind is Kind.CHAT:
            shown: Json = {"message": {"role": "assistant", "content": None, **get_message(body, "message")}}
        else:
            shown = {"text": get_text(body, "text")}
        return {"index": index, **shown, "logprobs": self._logprobs(state, body), "finish_reason": finish}

    def _chunk_choice(self, choice: object) -> Json:
        body, index, state = self._open(choice)
        is_chat = self.decision.kind is Kind.CHAT
        shown = {"delta": get_message(body, "delta")} if is_chat else {"text": get_text(body, "text")}
        finish = get_finish(body)
        state.is_finished |= finish is not None
        return {"index": index, **shown, "logprobs": self._logprobs(state, body), "finish_reason": finish}

    def _open(self, choice: object) -> tuple[Mapping[str, Any], int, _Choice]:
        if not isinstance(choice, Mapping):
            raise MalformedAnswerError("choices: not possible", expected="objects", actual=kind_of(choice))
        index = get_count(choice, "index", self.decision.choices - 1)
        if index not in self._choices:
            asked = self.decision.wires[index // self.decision.told.n].request
            request = dataclasses.replace(
                self.decision.told, messages=asked.messages, prompt=asked.prompt, token_ids=asked.token_ids
            )
            # Fresh noise from the system's own source: a client could draw and subtract what the request's seed gives.
            top = self.decision.upstream.get("top_logprobs" if self.decision.kind is Kind.CHAT else "logprobs", 0)
            is_echoed = self.decision.wires[0].echo
            teller = Teller(request, self.exposure, np.random.default_rng(), asked_top=top, is_echoed=is_echoed)
            self._choices[index] = _Choice(teller=teller)
        return choice, index, self._choices[index]

    # --- logprobs -------------------------------------------------------------------------------------------------

    def _logprobs(self, state: _Choice, body: Mapping[str, Any]) -> Json | None:
        if body.get("logprobs") is None or not self.decision.told.wants_logprobs:
            return None
        value = get_object(body, "logprobs")
        if self.decision.kind is Kind.CHAT:
            if value.get("content") is None:
                return {"content": None}
            told = [state.teller.tell(position) for position in _of_chat(value)]
            return {
                "content": [
                    {**write_told(each.sampled), "top_logprobs": [*map(write_told, each.listed)]} for each in told
                ]
            }
        positions = self._positions(state, value)
        tokens = get_list(value, "tokens") if "tokens" in value else [each.sampled.name for each in positions if each]
        tokens = [get_text({"token": token}, "token") for token in tokens]
        offsets = _offsets(value, tokens, state.offset)
        state.offset += len(get_text(body, "text"))
        told_or_null = [None if position is None else state.teller.tell(position) for position in positions]
        return {
            "tokens": tokens,
            "token_logprobs": [None if each is None else each.sampled.logprob for each in told_or_null],
            "top_logprobs": self._top_column(told_or_null),
            "text_offset": offsets,
        }

    def _positions(self, state: _Choice, value: Mapping[str, Any]) -> Sequence[Position | None]:
        if "content" in value and "tokens" not in value:
            return _of_chat(value)  # llama.cpp's server writes a chat's logprobs for completions too
        positions = _of_completion(value, first_may_be_null=self.decision.wires[0].echo and not state.has_begun)
        if positions and positions[0] is None:
            state.teller.skip(read_named(value["tokens"][0], 0.0))
        state.has_begun |= bool(positions)
        return positions

    def _top_column(self, told: Sequence[Position | None]) -> list[Json | None] | None:
        request = self.decision.told
        if not (request.top_logprobs or request.wanted_ids or Reveal.VOCABULARY in request.reveal):
            return None
        return [None if each is None else {one.name: one.logprob for one in each.listed} for each in told]


def _of_chat(value: Mapping[str, Any]) -> list[Position]:
    positions = []
    for entry in get_list(value, "content"):
        sampled = read_told(entry)
        listed = [] if entry.get("top_logprobs") is None else get_list(entry, "top_logprobs")
        positions.append(Position(sampled=sampled, listed=tuple(map(read_told, listed))))
    return positions


def _of_completion(value: Mapping[str, Any], *, first_may_be_null: bool) -> list[Position | None]:
    """The positions of a completion. The first token of an echoed prompt has no context, and so no logprob."""
    tokens, logprobs = get_list(value, "tokens"), get_list(value, "token_logprobs")
    tops = [None] * len(tokens) if value.get("top_logprobs") is None else get_list(value, "top_logprobs")
    if not len(tokens) == len(logprobs) == len(tops):
        raise MalformedAnswerError("columns of logprobs differ in length")
    positions: list[Position | None] = []
    for place, (token, logprob, top) in enumerate(zip(tokens, logprobs, tops, strict=True)):
        if logprob is None and place == 0 and first_may_be_null:
            positions.append(None)
            continue
        if top is not None and not isinstance(top, Mapping):
            raise MalformedAnswerError("top_logprobs: not possible", expected="objects", actual=kind_of(top))
        listed = tuple(read_named(name, each) for name, each in (top or {}).items())
        positions.append(Position(sampled=read_named(token, logprob), listed=listed, is_keyed=True))
    return positions


def _offsets(value: Mapping[str, Any], tokens: Sequence[str], start: int) -> list[int]:
    """Where each token begins in the text, as the server says; else from the tokens' names, where those are texts."""
    if value.get("text_offset") is None:
        return [*itertools.accumulate(map(len, tokens[:-1]), initial=start)] if tokens else []
    offsets = get_list(value, "text_offset")
    if len(offsets) != len(tokens):
        raise MalformedAnswerError("columns of logprobs differ in length")
    return [get_count({"text_offset": offset}, "text_offset", LARGEST_INT) for offset in offsets]
