"""The messages of a chat request: what of them is sent on, how the wire module sees them, and when two are the same."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from lensmith.core.wire import WireError
from lensmith.serve.guard_config import GuardConfig, UnknownFields
from lensmith.serve.guard_json import Json, kind_of, write_object

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
TEXT_FIELDS = ("name", "tool_call_id", "refusal", "reasoning_content")
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


def one_spelling(messages: list[Json]) -> list[Json]:
    """The messages without what most chat templates drop: space around a text, names, the ids of calls, a lone part.

    Frozen noise belongs to what is sent on. Were variants that reach the model as the same tokens sent on as they are,
    each would meet noise of its own, and their mean tells the exact value. To give unlike prompts the same noise would
    be worse: a difference of two answers has none. So it is the prompt that is made one, and not its name.
    """
    calls: dict[str, str] = {}
    return [_one_spelling(message, calls) for message in messages]


def _one_spelling(message: Json, calls: dict[str, str]) -> Json:
    result = {name: value for name, value in message.items() if name not in ("name", "refusal")}
    content = message["content"]
    if isinstance(content, list):
        content = _trimmed([_plain(part) for part in content])
    result["content"] = content.strip() if isinstance(content, str) else content

    def renamed(identity: str) -> str:
        return calls.setdefault(identity, f"call{len(calls):05}")

    if "tool_calls" in message:
        result["tool_calls"] = [
            {**call, "id": renamed(call["id"])} if "id" in call else call for call in message["tool_calls"]
        ]
    if "tool_call_id" in message:
        result["tool_call_id"] = renamed(message["tool_call_id"])
    return result


def _plain(part: Json) -> Json:
    return part if part["type"] == "text" else {**part, "image_url": {"url": part["image_url"]["url"]}}


def _trimmed(parts: list[Json]) -> str | list[Json]:
    """Parts without space at the outer ends; between parts it may be the text's own."""
    if [part["type"] for part in parts] == ["text"]:
        return str(parts[0]["text"])
    for place, trim in ((0, str.lstrip), (-1, str.rstrip)):
        if parts and parts[place]["type"] == "text":
            parts[place] = {**parts[place], "text": trim(parts[place]["text"])}
    return parts


def wire_messages(messages: list[Json], config: GuardConfig) -> list[Json]:
    """The messages as the wire module can read them.

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
    """What the model sees, as a hash: equal for messages that differ only in what chat templates drop.

    Names, call ids and white space can be varied without changing the prompt, which would renew a budget for free.
    """
    digest = hashlib.sha256()
    for message in messages:
        content = message["content"]
        parts: list[Json] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        text = "".join("".join(part["text"].split()) for part in parts if part["type"] == "text")
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        calls = [call["function"] for call in message.get("tool_calls", [])]
        if text or urls or calls:
            digest.update(write_object({"role": message["role"], "text": text, "urls": urls, "calls": calls}))
    return digest.digest()


def _message(message: object, where: str, config: GuardConfig) -> Json:
    if not isinstance(message, Mapping):
        raise _wrong(where, "an object with role and content", message)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise WireError(f"{where}.role: not possible", param=f"{where}.role", expected=" or ".join(sorted(ROLES)))
    _no_others(message, {"role", "content", "tool_calls", *TEXT_FIELDS}, where, config)
    result: Json = {"role": role, "content": _content(message.get("content"), f"{where}.content", config)}
    for name in TEXT_FIELDS:
        if message.get(name) is not None:
            result[name] = _text(message[name], f"{where}.{name}")
    if message.get("tool_calls") is not None:
        result["tool_calls"] = _tool_calls(message["tool_calls"], f"{where}.tool_calls")
    if result["content"] is None and (role != "assistant" or "tool_calls" not in result):
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
    return WireError(f"{where}: not possible", param=where, expected=expected, actual=kind_of(actual))
