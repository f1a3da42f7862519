"""The messages of a chat request: what is sent on, what `openai_api` is shown, and when two are the same."""

import re
from collections.abc import Mapping
from typing import Any

from lensmith.guard.config import GuardConfig, UnknownFields
from lensmith.guard.frozen_noise import one_spelling, text_hash
from lensmith.guard.strict_json import Json, json_type, write_object
from lensmith.openai_api import WireError

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_TEXT_FIELDS = {
    "assistant": frozenset({"name", "refusal", "reasoning_content", "reasoning"}),
    "tool": frozenset({"name", "tool_call_id"}),
}
"""The fields that chat templates read beside the content, by role; `reasoning` is vLLM's name of `reasoning_content`.

Elsewhere most templates drop them, so that a client could vary them without changing what the model sees.
"""
_WIRE_ROLES = frozenset({"system", "developer", "user", "assistant"})
_PICTURE = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
_REMOTE = re.compile(r"https?://", re.IGNORECASE)


def clean_messages(value: object, config: GuardConfig) -> list[Json]:
    """The messages, written anew with the fields that the guard knows. Raises WireError.

    With frozen noise, in one spelling (`one_spelling`).
    """
    if not isinstance(value, list) or not value:
        raise WireError("messages: is needed", param="messages", expected="a list of at least one message")
    messages = [_message(message, f"messages[{place}]", config) for place, message in enumerate(value)]
    return one_spelling(messages) if config.is_noise_frozen else messages


def api_messages(messages: list[Json], config: GuardConfig) -> list[Json]:
    """The messages as `openai_api` can read them.

    Only frozen noise depends on what they say (it belongs to a context); without it, one placeholder stands for all,
    and no picture is decoded. Messages of tools, which our own server does not take, are shown as the user's text.
    """
    if not config.is_noise_frozen:
        return [{"role": "user", "content": "-"}]
    plain = {"role", "content"}
    return [
        message
        if message["role"] in _WIRE_ROLES and message["content"] is not None and message.keys() == plain
        else {"role": "user", "content": write_object(message).decode()}
        for message in messages
    ]


def prompt_hash(messages: list[Json]) -> bytes:
    """What the model sees, as a hash that is equal for all messages that a template may make equal (`text_hash`).

    Roles, names and calls are left out, and of pictures all but their number.
    """
    texts, pictures = [], 0
    for message in messages:
        content = message["content"]
        parts = content if isinstance(content, list) else []
        text = [content] if isinstance(content, str) else [part["text"] for part in parts if part["type"] == "text"]
        texts.append("".join(text))
        pictures += sum(part["type"] == "image_url" for part in parts)
    return text_hash(texts, pictures=pictures)


def _message(message: object, where: str, config: GuardConfig) -> Json:
    if not isinstance(message, Mapping):
        raise _wrong(where, "an object with role and content", message)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise WireError(f"{where}.role: not possible", param=f"{where}.role", expected=" or ".join(sorted(ROLES)))
    given = {name: value for name, value in message.items() if value is not None}
    text_fields = _TEXT_FIELDS.get(role, frozenset({"name"}))
    calls = {"tool_calls"} if role == "assistant" else set()
    _no_others(given, {"role", "content", *calls, *text_fields}, where, config)
    result: Json = {"role": role, "content": _content(message.get("content"), f"{where}.content", config)}
    result |= {name: _text(given[name], f"{where}.{name}") for name in sorted(text_fields & given.keys())}
    if calls & given.keys():
        result["tool_calls"] = _tool_calls(given["tool_calls"], f"{where}.tool_calls")
    if result["content"] is None and "tool_calls" not in result:
        raise _wrong(f"{where}.content", "text, or a list of parts", None)
    return result


def _content(content: object, where: str, config: GuardConfig) -> str | list[Json] | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, "text, or a list of parts", content)
    return [_part(part, f"{where}[{place}]", config) for place, part in enumerate(content)]


def _part(part: object, where: str, config: GuardConfig) -> Json:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text":
        _no_others(part, {"type", "text"}, where, config)
        return {"type": "text", "text": _text(part.get("text"), f"{where}.text")}
    if isinstance(part, Mapping) and kind == "image_url":
        _no_others(part, {"type", "image_url"}, where, config)
        image = part.get("image_url")
        if not isinstance(image, Mapping):
            raise _wrong(f"{where}.image_url", "an object with a url", image)
        _no_others(image, {"url", "detail"}, where, config)
        url = _url(_text(image.get("url"), f"{where}.image_url.url"), f"{where}.image_url.url", config)
        detail = {} if image.get("detail") is None else {"detail": _text(image["detail"], f"{where}.image_url.detail")}
        return {"type": "image_url", "image_url": {"url": url, **detail}}
    raise WireError(f"{where}.type: not possible", param=f"{where}.type", expected="text or image_url")


def _url(url: str, where: str, config: GuardConfig) -> str:
    # A server that fetches what a client names can be sent to places that the client cannot reach itself.
    if _PICTURE.match(url) or (config.remote_pictures and _REMOTE.match(url)):
        return url
    expected = "data:image/...;base64,..." + (", http or https" if config.remote_pictures else "")
    raise WireError(f"{where}: not possible", param=where, expected=expected)


def _tool_calls(calls: object, where: str) -> list[Json]:
    if not isinstance(calls, list):
        raise _wrong(where, "a list of calls", calls)
    result = []
    for place, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(function, Mapping):
            raise _wrong(f"{where}[{place}]", "an object with a function", call)
        name = _text(function.get("name"), f"{where}[{place}].function.name")
        arguments = _text(function.get("arguments"), f"{where}[{place}].function.arguments")
        identity = {} if call.get("id") is None else {"id": _text(call["id"], f"{where}[{place}].id")}
        result.append({**identity, "type": "function", "function": {"name": name, "arguments": arguments}})
    return result


def _no_others(value: Mapping[str, Any], known: set[str], where: str, config: GuardConfig) -> None:
    if config.unknown_fields is UnknownFields.REFUSE and not value.keys() <= known:
        raise WireError(f"{where}: has a field that is not known here", param=where, expected=", ".join(sorted(known)))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "text", value)
    return value


def _wrong(where: str, expected: str, actual: object) -> WireError:
    return WireError(f"{where}: not possible", param=where, expected=expected, actual=json_type(actual))
