"""The server's side of the wire, inwards: a JSON body becomes requests, or an error that names the wrong field.

As strict about types and ranges as OpenAI is. Fields that nobody knows are ignored, as servers do, and so are those
that change nothing in an answer. Those that another server takes as a read-out, as a way to steer tokens or to change
the prompt or the answer are refused: to ignore them would answer something else than was asked. Which is which stands
in `fields`; null switches any field off.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lensmith.core.endpoint import TEXT_IDS_FROM, Penalties, Request, Reveal
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure, Sampled
from lensmith.core.types import Message, Part, Picture, ToolCall
from lensmith.openai_api.fields import FIELDS, Bounds, ServerFate, Values
from lensmith.openai_api.types import Kind, WireError, WireRequest, shortened

Encode = Callable[[str], tuple[int, ...]]

Role = Literal["system", "user", "assistant", "tool"]
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_WIRE_NAMES = {"wanted_ids": "logprob_token_ids", "allowed_ids": "allowed_token_ids"}


def read_requests(
    kind: Kind,
    body: Mapping[str, Any],
    *,
    encode: Encode | None = None,
    chat_tokens: int = 1024,
    bounds: Bounds = Bounds.SERVER,
) -> tuple[WireRequest, ...]:
    """The requests in a body: one for each prompt of a batch (completions only), in order.

    `encode`, where given, turns text prompts into token ids; without it a text prompt stays text (`Request.prompt`).
    `chat_tokens` is how long a chat answer may be where the body names no limit (completions: 16, as OpenAI).
    `bounds` says whose limits the values are held to. Raises WireError, whose `param` names the field.
    """
    if not isinstance(body, Mapping):
        raise WireError("the body must be a JSON object", expected="an object", actual=type(body).__name__)
    fields = {key: value for key, value in body.items() if value is not None}
    _refuse_undone(fields)
    shared = _shared(kind, fields, chat_tokens, bounds)
    asked = [{"messages": _messages(fields)}] if kind is Kind.CHAT else _prompts(fields, encode, bounds)
    try:
        requests = [Request(**prompt, **shared) for prompt in asked]
    except InputError as error:
        name = error.problem.partition(":")[0]
        raise _wrong(_WIRE_NAMES.get(name, name), str(error.expected), error.actual) from error
    return tuple(_wire_request(kind, fields, request) for request in requests)


def visible_request(request: Request, exposure: Exposure) -> Request:
    """The request without the sampled token's logprob where the exposure hides it and other logprobs are asked for.

    OpenAI's `logprobs: true` asks for the sampled token and the top ones at once, so it must not be refused for the
    former; the former is then written as -9999.0.
    """
    others = request.top_logprobs or request.wanted_ids or request.reveal & ~Reveal.SAMPLED
    if exposure.sampled_logprob is not Sampled.HIDDEN or not others:
        return request
    return dataclasses.replace(request, reveal=request.reveal & ~Reveal.SAMPLED)


# --- the parts of a request ---------------------------------------------------------------------------------------


def _wire_request(kind: Kind, fields: Mapping[str, Any], request: Request) -> WireRequest:
    stream = _flag(fields, "stream")
    options = _typed(fields, "stream_options", dict, {})
    if options and not stream:
        raise WireError("stream_options: only with stream", param="stream_options", expected="stream: true")
    return WireRequest(
        kind=kind,
        request=request,
        model=_typed(fields, "model", str, ""),
        stream=stream,
        include_usage=_flag(options, "include_usage"),
        tokens_as_ids=_flag(fields, "return_tokens_as_token_ids"),
        token_ids=_flag(fields, "return_token_ids"),
        echo=kind is Kind.COMPLETION and _flag(fields, "echo"),
        user=_typed(fields, "user", str, None),
    )


def _shared(kind: Kind, fields: Mapping[str, Any], chat_tokens: int, bounds: Bounds) -> dict[str, Any]:
    allowed = fields.get("allowed_token_ids")
    return {
        "max_tokens": _max_tokens(kind, fields, chat_tokens, bounds),
        "temperature": _number(fields, "temperature", 1.0, bounds),
        "top_p": _number(fields, "top_p", 1.0, bounds),
        "stop": _stop(fields, bounds),
        "n": _whole(fields, "n", 1, bounds),
        "seed": _whole(fields, "seed", 0, bounds) % (1 << 64) if "seed" in fields else None,
        "logit_bias": _logit_bias(fields),
        "allowed_ids": None if allowed is None else _token_ids(allowed, "allowed_token_ids"),
        "penalties": Penalties(
            presence=_number(fields, "presence_penalty", 0.0, bounds),
            frequency=_number(fields, "frequency_penalty", 0.0, bounds),
            repetition=_number(fields, "repetition_penalty", 1.0, bounds),
        ),
        "wanted_ids": _token_ids(fields.get("logprob_token_ids", []), "logprob_token_ids"),
        **(_chat_logprobs(fields) if kind is Kind.CHAT else _completion_logprobs(fields)),
    }


def _max_tokens(kind: Kind, fields: Mapping[str, Any], chat_tokens: int, bounds: Bounds) -> int:
    if kind is Kind.COMPLETION:
        return _whole(fields, "max_tokens", 16, bounds)
    older = _whole(fields, "max_tokens", chat_tokens, bounds, least=1)
    return _whole(fields, "max_completion_tokens", older, bounds)


def _chat_logprobs(fields: Mapping[str, Any]) -> dict[str, Any]:
    logprobs, top = _flag(fields, "logprobs"), _whole(fields, "top_logprobs", 0)
    if _flag(fields, "echo"):
        raise WireError("echo: not with chat", param="echo", hint="ask at completions")
    if not logprobs and (top or fields.get("logprob_token_ids")):
        name = "top_logprobs" if top else "logprob_token_ids"
        raise WireError(f"{name}: only with logprobs", param=name, expected="logprobs: true")
    return _revealed(Reveal.SAMPLED if logprobs else Reveal.NOTHING, top)


def _completion_logprobs(fields: Mapping[str, Any]) -> dict[str, Any]:
    if "logprobs" not in fields:
        if fields.get("logprob_token_ids"):
            raise WireError("logprob_token_ids: only with logprobs", param="logprob_token_ids", expected="logprobs: 0")
        return _revealed(Reveal.NOTHING, 0)
    prompt = Reveal.PROMPT if _flag(fields, "echo") else Reveal.NOTHING
    return _revealed(Reveal.SAMPLED | prompt, _whole(fields, "logprobs", 0))


def _revealed(reveal: Reveal, top: int) -> dict[str, Any]:
    return (
        {"reveal": reveal | Reveal.VOCABULARY, "top_logprobs": 0}
        if top == -1
        else {"reveal": reveal, "top_logprobs": top}
    )


def _prompts(fields: Mapping[str, Any], encode: Encode | None, bounds: Bounds) -> list[dict[str, Any]]:
    prompt = fields.get("prompt")
    is_batch = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = prompt if is_batch and isinstance(prompt, list) else [prompt]
    most = _values("prompt").upper(bounds)
    if len(prompts) > most:
        raise WireError("too many prompts", param="prompt", expected=f"at most {most}", actual=len(prompts))
    return [_prompt(each, encode) for each in prompts]


def _prompt(prompt: object, encode: Encode | None) -> dict[str, Any]:
    if isinstance(prompt, str):
        text = _text(prompt, "prompt")
        token_ids = encode(text) if encode is not None else ()
    else:
        text, token_ids = "", _token_ids(prompt, "prompt")
    if not text and not token_ids:
        raise WireError("prompt: is empty", param="prompt", expected="text, or at least one token id")
    return {"token_ids": token_ids} if token_ids else {"prompt": text}


def _messages(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise WireError("messages: is needed", param="messages", expected="a list of at least one message")
    return tuple(_message(message, f"messages[{place}]") for place, message in enumerate(messages))


def _message(message: object, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise _wrong(where, "an object with role and content", message)
    name = message.get("role")
    if not isinstance(name, str) or name not in _ROLES:
        raise _wrong(f"{where}.role", " or ".join(_ROLES), name)
    role = _ROLES[name]
    call_id = message.get("tool_call_id") if role == "tool" else None
    return Message(
        role=role,
        parts=_parts(message, role, where),
        tool_calls=_tool_calls(message, where) if role == "assistant" else (),
        tool_call_id="" if call_id is None else _text(call_id, f"{where}.tool_call_id"),
    )


def _parts(message: Mapping[str, Any], role: Role, where: str) -> tuple[Part, ...]:
    """What a message says. An assistant's may say nothing: where it called tools, or refused."""
    content = message.get("content")
    if role == "assistant" and content is None:
        refusal = message.get("refusal")
        if refusal is not None:
            content = _text(refusal, f"{where}.refusal")
        elif message.keys() & {"content", "tool_calls", "function_call"}:
            content = ""
    if isinstance(content, str):
        text = _text(content, f"{where}.content")
        return (text,) if text else ()
    if not isinstance(content, list):
        raise _wrong(f"{where}.content", "text, or a list of parts", content)
    return tuple(_part(part, f"{where}.content[{place}]") for place, part in enumerate(content))


def _tool_calls(message: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    """The calls in an assistant's message; also one in OpenAI's older spelling."""
    calls, older = message.get("tool_calls"), message.get("function_call")
    if calls is None:
        return () if older is None else (_tool_call({"function": older}, where, f"{where}.function_call"),)
    if not isinstance(calls, list):
        raise _wrong(f"{where}.tool_calls", "a list of calls", calls)
    places = [f"{where}.tool_calls[{place}]" for place in range(len(calls))]
    return tuple(_tool_call(call, place, f"{place}.function") for call, place in zip(calls, places, strict=True))


def _tool_call(call: object, where: str, inner: str) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise _wrong(inner, "an object with name and arguments", function)
    arguments = _text(function.get("arguments"), f"{inner}.arguments") or "{}"  # as OpenAI writes those of none
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise _wrong(f"{inner}.arguments", "a JSON object, as text", arguments)
    call_id = call.get("id")
    return ToolCall(
        name=_text(function.get("name"), f"{inner}.name"),
        arguments=arguments,
        call_id="" if call_id is None else _text(call_id, f"{where}.id"),
    )


def _part(part: object, where: str) -> Part:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in ("text", "refusal"):
        return _text(part.get(kind), f"{where}.{kind}")
    if isinstance(part, Mapping) and kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else None
        if not isinstance(url, str):
            raise _wrong(f"{where}.image_url", "an object with a url", image)
        return _picture(url, f"{where}.image_url.url")
    raise _wrong(f"{where}.type", "text or image_url", kind)


def _picture(url: str, where: str) -> Picture:
    scheme = url.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return Picture(url=url)
    if scheme != "data":
        raise _wrong(where, "a data, http or https URL", f"{scheme[:20]}:")
    header, comma, text = url.partition(",")
    if not comma or not header.lower().startswith("data:image/") or not header.lower().endswith(";base64"):
        raise _wrong(where, "data:image/...;base64,...", header[:40])
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(where, "base64", str(error)) from error
    if not data:
        raise _wrong(where, "a picture", "no bytes")
    return Picture(data=data)


def _stop(fields: Mapping[str, Any], bounds: Bounds) -> tuple[str, ...]:
    stop = fields.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(each, str) and each for each in stops):
        raise _wrong("stop", "text, or a list of texts, none empty", stop)
    most = _values("stop").upper(bounds)
    if len(stops) > most:
        raise _wrong("stop", f"at most {most}", len(stops))
    return tuple(_text(each, "stop") for each in stops)


def _logit_bias(fields: Mapping[str, Any]) -> dict[int, float]:
    given = _typed(fields, "logit_bias", dict, {})
    biases: dict[int, float] = {}
    for key in given:
        is_id = isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 16
        if not is_id or int(key) >= TEXT_IDS_FROM:
            raise _wrong("logit_bias", "token ids, in decimal digits", key)
        if int(key) in biases:
            raise _wrong("logit_bias", "each id once", key)
        biases[int(key)] = _within(given[key], _values("logit_bias"), "logit_bias")
    return biases


# --- values -------------------------------------------------------------------------------------------------------


def _refuse_undone(fields: Mapping[str, Any]) -> None:
    """Raises WireError for a field that would change the answer and is not done here, unless it is switched off."""
    for name in sorted(fields.keys() & FIELDS.keys()):
        if FIELDS[name].server is ServerFate.REFUSED and not FIELDS[name].is_off(fields[name]):
            raise WireError(f"{name}: is not supported", param=name, hint=f"leave {name} out")


def _token_ids(value: object, name: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _wrong(name, "a list of token ids", value)
    for token_id in value:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < TEXT_IDS_FROM:
            raise _wrong(name, "token ids, whole numbers from 0", token_id)
    return tuple(value)


def _values(name: str) -> Values:
    values = FIELDS[name].values
    assert values is not None, name
    return values


def _whole(
    fields: Mapping[str, Any], name: str, usual: int, bounds: Bounds = Bounds.SERVER, *, least: int | None = None
) -> int:
    value, values = fields.get(name, usual), _values(name)
    least, most = int(values.least) if least is None else least, int(values.upper(bounds))
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON's 1.0 is 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, f"a whole number from {least} to {most}", value)
    return value


def _number(fields: Mapping[str, Any], name: str, usual: float, bounds: Bounds) -> float:
    return _within(fields.get(name, usual), _values(name), name, bounds)


def _within(value: object, values: Values, where: str, bounds: Bounds = Bounds.SERVER) -> float:
    most = values.upper(bounds)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not values.least <= value <= most:
        raise _wrong(where, f"a number from {values.least:g} to {most:g}", value)
    return float(value)


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return bool(value)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(where, "text that can be UTF-8", "half of a surrogate pair") from error
    return value


def _typed(fields: Mapping[str, Any], name: str, kind: type, usual: Any) -> Any:
    value = fields.get(name, usual)
    if value is not usual and not isinstance(value, kind):
        raise _wrong(name, "an object" if kind is dict else "text", value)
    return _text(value, name) if isinstance(value, str) else value


def _wrong(where: str, expected: str, actual: object) -> WireError:
    return WireError(f"{where}: not possible", param=where, expected=expected, actual=shortened(repr(actual), 80))
