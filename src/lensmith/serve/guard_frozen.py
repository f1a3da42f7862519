"""Frozen noise in a proxy: one prompt must have one noise, though a guard does not see the tokens that a server makes.

Where many requests bring the model to the same tokens and each meets noise of its own, their mean is the exact value.
Where unlike tokens meet the same noise, a difference of two answers has none, which is worse. So a prompt is sent on in
one spelling, and logprobs are refused where a guard cannot know what a template or a tokenizer makes of a request.

What is left open, since only the server could close it: a tokenizer or a template that makes equal what Unicode's form
NFC and `one_spelling` keep apart (other spaces, form NFKC, a system text that the template has by itself); a prompt
that is asked as a chat, as text and as token ids, which has a noise of each; a picture changed by a hair; several
models behind one guard, which share their noise, so that a difference between them has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lensmith.core.endpoint import Feature, RefusedError
from lensmith.core.wire import Kind, WireRequest
from lensmith.serve.guard_config import GuardConfig, TokenNaming
from lensmith.serve.guard_json import Json
from lensmith.serve.guard_text import has_special_token, one_form

_UNREAD = frozenset({"name", "refusal", "reasoning_content", "reasoning"})
"""Fields of messages that most chat templates drop."""

_TOOLS = ("tools", "tool_choice", "response_format")
_NO_TOOLS: tuple[object, ...] = ([], "none", "auto", {"type": "text"})
_SIGNATURES = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}
"""How base64 of a picture begins, by its type."""


def one_spelling(messages: list[Json]) -> list[Json]:
    """The messages without what most chat templates drop: space around a text, names, thoughts, the ids of calls.

    Texts take Unicode's form NFC, as many tokenizers have them read; neighbouring texts are one, on lines of their own
    (so vLLM joins them); `developer` is `system`, which templates that know both treat alike; a picture's type is the
    one that its bytes show. It is the prompt that is made one, and not its name: what is judged is what is sent.
    """
    calls: dict[str, str] = {}
    return [_one_spelling(message, calls) for message in messages]


def one_text(prompt: object) -> object:
    """A completion's prompt, or a batch of them, with texts in form NFC."""
    if isinstance(prompt, list):
        return [one_text(each) if isinstance(each, str) else each for each in prompt]
    return one_form(prompt) if isinstance(prompt, str) else prompt


def check_frozen(wires: Sequence[WireRequest], fields: Mapping[str, Any], config: GuardConfig) -> None:
    """Raises RefusedError for logprobs whose noise could be had twice. For requests with logprobs and frozen noise."""
    others = [name for name in _TOOLS if fields.get(name, "none") not in _NO_TOOLS]
    others += [name for name in config.pass_fields if name in fields]
    if others:
        raise _refused(f"{others[0]} together with logprobs", f"leave {others[0]} out")
    if wires[0].kind is Kind.CHAT:
        _check_messages(fields["messages"])
        texts = _texts(fields["messages"])
    else:
        _check_positions(wires, config)
        texts = iter([wire.request.prompt for wire in wires])
    if any(map(has_special_token, texts)):
        raise _refused("special tokens in a text together with logprobs", "write them otherwise")


def _check_messages(messages: list[Json]) -> None:
    if any(message["role"] in ("tool", "function") or "tool_calls" in message for message in messages):
        raise _refused("calls of tools together with logprobs", "what a template makes of them cannot be known")
    if messages[-1]["role"] == "assistant":  # some servers continue it, as if the model had written it
        raise _refused("logprobs behind a message of the assistant", "end with another message")
    urls = [part["image_url"]["url"] for part in _parts(messages) if part["type"] == "image_url"]
    if not all(url.startswith("data:") for url in urls):
        raise _refused("logprobs behind a picture by URL", "send its bytes")


def _check_positions(wires: Sequence[WireRequest], config: GuardConfig) -> None:
    """What stands behind the first token could be had with the prompt ending anywhere before it.

    With ids for all tokens, the noise belongs to those before a position. Texts would not do: other tokens join to the
    same text, and would share its noise.
    """
    has_ids = config.token_naming is TokenNaming.IDS and all(wire.request.token_ids for wire in wires)
    if not has_ids and (wires[0].echo or wires[0].request.max_tokens > 1):
        hint = "max_tokens 1 without echo, or a chat"
        if config.token_naming is TokenNaming.IDS:
            hint += ", or a prompt of token ids"
        raise _refused("logprobs of more than the first token of a completion", hint)


def _refused(problem: str, hint: str) -> RefusedError:
    return RefusedError(f"refused with frozen noise: {problem}", feature=Feature.SAMPLED_LOGPROB, hint=hint)


def _parts(messages: list[Json]) -> Iterator[Json]:
    for message in messages:
        if isinstance(message["content"], list):
            yield from message["content"]


def _texts(messages: list[Json]) -> Iterator[str]:
    yield from (message["content"] for message in messages if isinstance(message["content"], str))
    yield from (part["text"] for part in _parts(messages) if part["type"] == "text")


# --- one spelling -------------------------------------------------------------------------------------------------


def _one_spelling(message: Json, calls: dict[str, str]) -> Json:
    result = {name: value for name, value in message.items() if name not in _UNREAD}
    result["role"] = "system" if message["role"] == "developer" else message["role"]
    content = message["content"]
    if isinstance(content, list):
        content = _trimmed(_merged(content))
    result["content"] = one_form(content).strip() if isinstance(content, str) else content

    def renamed(identity: str) -> str:
        return calls.setdefault(identity, f"call{len(calls):05}")

    if "tool_calls" in message:
        result["tool_calls"] = [
            {**call, "id": renamed(call["id"])} if "id" in call else call for call in message["tool_calls"]
        ]
    if "tool_call_id" in message:
        result["tool_call_id"] = renamed(message["tool_call_id"])
    return result


def _merged(parts: list[Json]) -> list[Json]:
    """The parts with neighbouring texts joined, and without empty ones."""
    result: list[Json] = []
    for part in parts:
        if part["type"] != "text":
            result.append({"type": "image_url", "image_url": {"url": _one_url(part["image_url"]["url"])}})
        elif not part["text"]:
            continue
        elif result and result[-1]["type"] == "text":
            result[-1] = {"type": "text", "text": one_form(f"{result[-1]['text']}\n{part['text']}")}
        else:
            result.append({"type": "text", "text": one_form(part["text"])})
    return result


def _trimmed(parts: list[Json]) -> str | list[Json]:
    """Parts without space at the outer ends; between parts it may be the text's own."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    for place, trim in ((0, str.lstrip), (-1, str.rstrip)):
        if parts[place]["type"] == "text":
            parts[place] = {**parts[place], "text": trim(parts[place]["text"])}
    return [part for part in parts if part.get("text") != ""]


def _one_url(url: str) -> str:
    if url[:5].lower() != "data:":
        return url
    told, _, data = url.partition(",")
    shown = [kind for start, kind in _SIGNATURES.items() if data.startswith(start)]
    return f"data:image/{shown[0]};base64,{data}" if shown else f"{told.lower()},{data}"
