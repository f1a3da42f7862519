"""Frozen noise in a proxy: one prompt must have one noise, though a guard does not see the tokens that a server makes.

Where many requests bring the model to the same tokens and each meets noise of its own, their mean is the exact value.
Where unlike tokens meet the same noise, a difference of two answers has none, which is worse. So a prompt is sent on in
one spelling, and logprobs are refused where a guard cannot know what a template or a tokenizer makes of a request. When
two prompts are the same is told by a hash that is coarse on purpose.

What is left open, since only the server could close it: a tokenizer or a template that makes equal what Unicode's form
NFC and `one_spelling` keep apart (other spaces, form NFKC, a system text that the template has by itself); a prompt
that is asked as a chat, as text and as token ids, which has a noise of each; a picture changed by a hair; several
models behind one guard, which share their noise, so that a difference between them has none.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lensmith.core.endpoint import Feature, RefusedError
from lensmith.guard.config import GuardConfig, TokenNaming
from lensmith.guard.strict_json import Json
from lensmith.openai_api import Kind, WireError, WireRequest, field_of

_UNREAD = frozenset({"name", "refusal", "reasoning_content", "reasoning"})
"""Fields of messages that most chat templates drop."""

_TOOLS = ("tools", "tool_choice", "response_format")
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
    others = [name for name in _TOOLS if not field_of(name).is_off(fields.get(name))]
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
    header, _, data = url.partition(",")
    shown = [kind for start, kind in _SIGNATURES.items() if data.startswith(start)]
    return f"data:image/{shown[0]};base64,{data}" if shown else f"{header.lower()},{data}"


# --- the same text ------------------------------------------------------------------------------------------------

_ROLE_NAMES = "system|developer|user|assistant|tool|function|model|ipython"
_MARK = re.compile(rf"(?:^|<[^<>]{{1,64}}+>|\[/?[A-Z_]{{3,32}}+\])(?:{_ROLE_NAMES})*")
"""What stands between turns, as most chat templates write it, without white space."""

_SPECIAL = re.compile(
    r"<[|\uff5c][^<>\s]{1,64}+>|<</?SYS>>|\[/?[A-Z_]{3,32}+\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|cls|sep|think|image|image_soft_token|tool_call|tool_response"
    r"|(?:start|end)_of_(?:turn|image))>"
)
"""What servers read as one token in a text that a client wrote: turns of a conversation can be forged with it."""

_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]+"
)
_LONG_TEXT = 1 << 16
"""Form NFKC makes some texts 18 times as long; form NFC at most three times, and so it does for longer texts."""

COMBINING_RANGES = (
    (0x300, 0x3100),
    (0xA600, 0xAC00),
    (0xFB00, 0xFE30),
    (0x10000, 0x12000),
    (0x16A00, 0x17000),
    (0x1BC00, 0x1BD00),
    (0x1D100, 0x1D300),
    (0x1E000, 0x1EA00),
)
"""Where all marks stand that combine with the letter before them."""

_MOST_MARKS = 30  # Unicode's stream-safe form (UAX 15, section 13) has no more on one letter
_COMBINING = [
    point for start, end in COMBINING_RANGES for point in range(start, end) if unicodedata.combining(chr(point))
]


def _char_class(points: Sequence[int]) -> str:
    """The points as ranges: to look through single ones beyond U+FFFF is slow."""
    firsts = [point for before, point in zip([-1, *points], points, strict=False) if point != before + 1]
    lasts = [point for point, after in zip(points, [*points[1:], -1], strict=True) if after != point + 1]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(firsts, lasts, strict=True))


_TOO_MANY_MARKS = re.compile(f"[{_char_class(_COMBINING)}]{{{_MOST_MARKS + 1},}}")
"""To put marks in order takes time that grows as the square of their number."""


def text_hash(texts: Sequence[str], *, pictures: int = 0) -> bytes:
    """A hash of a prompt's turns that does not see what can be varied without changing the prompt.

    Neither white space, nor what Unicode's form NFKC makes equal, nor the marks between turns with the role that
    follows: a client can write a template's marks into a text, or the whole of it into a completion. Two prompts with
    one hash share one budget, so that to be too coarse is safe, and to be too fine renews a budget for free.
    """
    text = "".join("<|>".join(["", *texts]).split())
    if not text.isascii():
        text = _TOO_MANY_MARKS.sub("", text)
        text = unicodedata.normalize("NFKC" if len(text) <= _LONG_TEXT else "NFC", text)
        text = _INVISIBLE.sub("", text)
    return hashlib.sha256(b"%d:%s" % (pictures, _MARK.sub("", text).encode())).digest()


def one_form(text: str) -> str:
    """The text in Unicode's form NFC. Raises WireError for more marks on one letter than any script has."""
    if text.isascii():
        return text
    if _TOO_MANY_MARKS.search(text):
        raise WireError("too many combining marks on one letter", expected=f"at most {_MOST_MARKS}")
    return unicodedata.normalize("NFC", text)


def has_special_token(text: str) -> bool:
    """Whether a server may read a part of the text as a token that no text is made of."""
    return _SPECIAL.search(text) is not None
