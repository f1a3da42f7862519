"""Answers and chunks of a stream, read strictly and written anew: what is not known here does not pass.

Ids, times and the model's name are the guard's and the client's own, because an upstream's tell which server it is,
when it started and where its files lie. Errors name a part and the type that came, never a value: they reach a log.
"""

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
from lensmith.guard.logprobs import LogprobFilter, Position, TokenLogprob
from lensmith.guard.policy import Decision
from lensmith.guard.strict_json import LARGEST_INT, Json, json_type
from lensmith.openai_api import TOKEN_ID_PREFIX, Kind, MalformedAnswerError
from lensmith.openai_api.reading import AnswerReader

READER = AnswerReader(show=json_type)

_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_HIGHEST_ID = 1 << 40
_CHAT_OBJECTS = ("chat.completion", "chat.completion.chunk")
_LONGEST_FINGERPRINT = 128


@dataclass(kw_only=True)
class _Choice:
    filter: LogprobFilter
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
        choices = [self._whole_choice(choice) for choice in READER.as_list(body.get("choices"), "choices")]
        if len(choices) != self.decision.choices:
            raise MalformedAnswerError("wrong number of choices", expected=self.decision.choices, actual=len(choices))
        usage = _usage(body)
        return {**self._envelope(body), "choices": choices, **({} if usage is None else {"usage": usage})}

    def chunk(self, body: Mapping[str, Any]) -> Json | None:
        """A chunk as the client may see it; None where nothing is left of it."""
        choices = [self._chunk_choice(choice) for choice in READER.as_list(body.get("choices"), "choices")]
        wants_usage = self.decision.wires[0].include_usage
        usage = _usage(body) if wants_usage else None
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
        named, listed = body.get("model"), self.listed_models
        if isinstance(named, str) and named in listed:
            return named
        return listed[0] if len(listed) == 1 else ""

    def _whole_choice(self, choice: object) -> Json:
        body, index, state = self._open(choice)
        if state.is_finished:
            raise MalformedAnswerError("a choice stands twice", actual=index)
        state.is_finished = True
        finish = _finish_reason(body)
        if finish is None:
            raise MalformedAnswerError("a choice without a reason for its end")
        if self.decision.kind is Kind.CHAT:
            shown: Json = {
                "message": {"role": "assistant", "content": None, **_message(body.get("message"), "message")}
            }
        else:
            shown = {"text": READER.as_text(body.get("text"), "text")}
        return {"index": index, **shown, "logprobs": self._logprobs(state, body), "finish_reason": finish}

    def _chunk_choice(self, choice: object) -> Json:
        body, index, state = self._open(choice)
        is_chat = self.decision.kind is Kind.CHAT
        shown = (
            {"delta": _message(body.get("delta"), "delta")}
            if is_chat
            else {"text": READER.as_text(body.get("text"), "text")}
        )
        finish = _finish_reason(body)
        state.is_finished |= finish is not None
        return {"index": index, **shown, "logprobs": self._logprobs(state, body), "finish_reason": finish}

    def _open(self, choice: object) -> tuple[Mapping[str, Any], int, _Choice]:
        body = READER.as_object(choice, "choices")
        index = READER.as_count(body.get("index"), "index", self.decision.choices - 1)
        if index not in self._choices:
            asked = self.decision.wires[index // self.decision.request.n].request
            request = dataclasses.replace(
                self.decision.request, messages=asked.messages, prompt=asked.prompt, token_ids=asked.token_ids
            )
            # Fresh noise from the system's own source: a client could draw and subtract what the request's seed gives.
            top = self.decision.upstream.get("top_logprobs" if self.decision.kind is Kind.CHAT else "logprobs", 0)
            is_echoed = self.decision.wires[0].echo
            kept = LogprobFilter(request, self.exposure, np.random.default_rng(), asked_top=top, is_echoed=is_echoed)
            self._choices[index] = _Choice(filter=kept)
        return body, index, self._choices[index]

    # --- logprobs -------------------------------------------------------------------------------------------------

    def _logprobs(self, state: _Choice, body: Mapping[str, Any]) -> Json | None:
        if body.get("logprobs") is None or not self.decision.request.wants_logprobs:
            return None
        value = READER.as_object(body["logprobs"], "logprobs")
        if self.decision.kind is Kind.CHAT:
            if value.get("content") is None:
                return {"content": None}
            shown = [state.filter.visible(position) for position in _chat_positions(value)]
            return {
                "content": [
                    {**_as_chat_token(each.sampled), "top_logprobs": [*map(_as_chat_token, each.listed)]}
                    for each in shown
                ]
            }
        positions = self._positions(state, value)
        tokens = value["tokens"] if "tokens" in value else [each.sampled.name for each in positions if each]
        offsets = _offsets(value, tokens, state.offset)
        state.offset += len(READER.as_text(body.get("text"), "text"))
        shown_or_null = [None if position is None else state.filter.visible(position) for position in positions]
        return {
            "tokens": tokens,
            "token_logprobs": [None if each is None else each.sampled.logprob for each in shown_or_null],
            "top_logprobs": self._top_column(shown_or_null),
            "text_offset": offsets,
        }

    def _positions(self, state: _Choice, value: Mapping[str, Any]) -> Sequence[Position | None]:
        if "content" in value and "tokens" not in value:
            return _chat_positions(value)  # llama.cpp's server writes a chat's logprobs for completions too
        positions = _completion_positions(value, first_may_be_null=self.decision.wires[0].echo and not state.has_begun)
        if positions and positions[0] is None:
            state.filter.skip(_token(value["tokens"][0], 0.0))
        state.has_begun |= bool(positions)
        return positions

    def _top_column(self, shown: Sequence[Position | None]) -> list[Json | None] | None:
        request = self.decision.request
        if not (request.top_logprobs or request.wanted_ids or Reveal.VOCABULARY in request.reveal):
            return None
        return [None if each is None else {one.name: one.logprob for one in each.listed} for each in shown]


# --- the parts of an answer -----------------------------------------------------------------------------------------


def _finish_reason(choice: Mapping[str, Any]) -> str | None:
    value = choice.get("finish_reason")
    return None if value is None else READER.finish_reason(value, "finish_reason").word


def _usage(body: Mapping[str, Any]) -> Json | None:
    """The three counts; what else servers report there (cached tokens and the like) is left out."""
    if body.get("usage") is None:
        return None
    usage = READER.as_object(body["usage"], "usage")
    return {name: READER.as_count(usage[name], name, LARGEST_INT) for name in _USAGE if usage.get(name) is not None}


def _message(value: object, where: str) -> Json:
    """A message or the delta of one: role, texts and calls of tools."""
    message = READER.as_object(value, where)
    result: Json = {}
    if message.get("role") is not None:
        if message["role"] != "assistant":
            READER.fail(f"{where}.role", "assistant", message["role"])
        result["role"] = "assistant"
    result |= {name: READER.as_text(message[name], name) for name in _TEXTS if message.get(name) is not None}
    if message.get("tool_calls") is not None:
        result["tool_calls"] = [_tool_call(call) for call in READER.entries(message["tool_calls"], "tool_calls")]
    return result


def _tool_call(call: Mapping[str, Any]) -> Json:
    function = READER.as_object(call.get("function"), "function")
    result: Json = {"index": READER.as_count(call["index"], "index", 1 << 20)} if "index" in call else {}
    result |= {"id": READER.as_text(call["id"], "id")} if call.get("id") is not None else {}
    shown = {
        name: READER.as_text(function[name], name) for name in ("name", "arguments") if function.get(name) is not None
    }
    return {**result, "type": "function", "function": shown}


# --- logprobs -----------------------------------------------------------------------------------------------------


def _chat_positions(logprobs: Mapping[str, Any]) -> list[Position]:
    """The positions of a chat; llama.cpp adds the ids of its tokens."""
    return [
        Position(
            sampled=_chat_token(entry),
            listed=tuple(map(_chat_token, READER.entries(entry.get("top_logprobs"), "top_logprobs"))),
        )
        for entry in READER.entries(READER.as_list(logprobs.get("content"), "content"), "content")
    ]


def _completion_positions(logprobs: Mapping[str, Any], *, first_may_be_null: bool) -> list[Position | None]:
    """The positions of a completion. The first token of an echoed prompt has no context, and so no logprob."""
    columns = READER.columns(logprobs, "logprobs")
    positions: list[Position | None] = []
    for place, (token, logprob, top) in enumerate(zip(columns.tokens, columns.logprobs, columns.tops, strict=True)):
        if logprob is None and place == 0 and first_may_be_null:
            positions.append(None)
            continue
        listed = tuple(_token(name, value) for name, value in (top or {}).items())
        positions.append(Position(sampled=_token(token, logprob), listed=listed, is_keyed=True))
    return positions


def _chat_token(entry: Mapping[str, Any]) -> TokenLogprob:
    token_id, data = entry.get("id"), entry.get("bytes")
    if token_id is not None:
        READER.as_count(token_id, "id", _HIGHEST_ID)
    return _token(entry.get("token"), entry.get("logprob"), token_id, None if data is None else _bytes(data))


def _token(name: object, logprob: object, token_id: int | None = None, data: bytes | None = None) -> TokenLogprob:
    name = READER.as_text(name, "token")
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        READER.fail("logprob", "a number", logprob)
    if token_id is None and name.startswith(TOKEN_ID_PREFIX):
        digits = name[len(TOKEN_ID_PREFIX) :]
        token_id = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None
    return TokenLogprob(name=name, logprob=float(logprob), token_id=token_id, data=data)


def _bytes(value: object) -> bytes:
    try:
        return bytes(READER.as_list(value, "bytes"))
    except (TypeError, ValueError):
        return READER.fail("bytes", "numbers from 0 to 255", value)


def _as_chat_token(token: TokenLogprob) -> Json:
    return {"token": token.name, "logprob": token.logprob, "bytes": None if token.data is None else list(token.data)}


def _offsets(value: Mapping[str, Any], tokens: Sequence[str], start: int) -> list[int]:
    """Where each token begins in the text, as the server says; else from the tokens' names, where those are texts."""
    if value.get("text_offset") is None:
        return [*itertools.accumulate(map(len, tokens[:-1]), initial=start)] if tokens else []
    offsets = READER.as_list(value["text_offset"], "text_offset")
    if len(offsets) != len(tokens):
        raise MalformedAnswerError("columns of logprobs differ in length")
    return [READER.as_count(offset, "text_offset", LARGEST_INT) for offset in offsets]
