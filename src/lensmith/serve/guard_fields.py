"""The fields of an upstream answer, one by one: each has the type that the protocol says, or the answer does not pass.

Error messages name the field and the type that came, never the value: they may reach a log.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from lensmith.core.wire import TOKEN_ID_PREFIX, MalformedAnswerError
from lensmith.serve.guard_json import LARGEST_INT, Json, kind_of
from lensmith.serve.guard_logprobs import Told

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
