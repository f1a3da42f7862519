"""How servers that are not ours read a request and write an answer, for `FakeServer`.

Each dialect ignores the fields that it does not know, as the servers do, and has its server's habits: vLLM puts the
sampled token first and tells wanted ids instead of the top; llama-cpp-python keys all logprobs by text, so that tokens
with equal texts vanish, and adds the sampled token; llama.cpp's own server writes ids, in the chat's shape everywhere.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lensmith.core.endpoint import Answer
from lensmith.core.wire import (
    MASKED_LOGPROB,
    TOKEN_ID_PREFIX,
    Dialect,
    Kind,
    TokenNames,
    Usage,
    WantedIds,
    WireError,
    WireRequest,
    write_answers,
)

Body = dict[str, Any]

_FIELDS_OF = {
    "names_ids": "return_tokens_as_token_ids",
    "tells_ids": "return_token_ids",
    "wanted_in": "logprob_token_ids",
}


def known_fields(body: Mapping[str, Any], kind: Kind, dialect: Dialect) -> Body:
    """What a server of this dialect sees of a body. Raises WireError for a prompt that it cannot read."""
    fields = dict(body)
    for attribute, name in _FIELDS_OF.items():
        if not getattr(dialect, attribute):
            fields.pop(name, None)
    if dialect.vocabulary_count != -1:
        fields.pop("allowed_token_ids", None)
    if dialect.most_choices == 1:
        fields.pop("n", None)
        if kind is Kind.COMPLETION and fields.get("max_tokens") == 0:
            del fields["max_tokens"]
    prompt = fields.get("prompt")
    is_text = isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(each, str) for each in prompt))
    if dialect.name == "llama-cpp-python" and kind is Kind.COMPLETION and not is_text:
        raise WireError("prompt: Input should be a valid string", param="prompt")
    return fields


def as_read(wire: WireRequest, dialect: Dialect) -> WireRequest:
    """The request as this server understands it."""
    request = wire.request
    if dialect.wanted_ids is WantedIds.INSTEAD_OF_TOP and request.wanted_ids:
        request = dataclasses.replace(request, top_logprobs=0)
    return dataclasses.replace(wire, request=request, tokens_as_ids=wire.tokens_as_ids and dialect.names_ids)


def write_in(
    dialect: Dialect, wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage
) -> Body:
    """The response body as this server writes it."""
    write = _WRITERS.get(dialect.name, _write_plain)
    return write(wires, answers, names, usage)


def _write_plain(wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage) -> Body:
    return write_answers(wires, answers, names, answer_id="fake-1", created=0, usage=usage)


def _write_vllm(wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage) -> Body:
    body = _write_plain(wires, answers, names, usage)
    request = wires[0].request
    for choice in body["choices"] if request.top_logprobs and not request.wanted_ids else ():
        logprobs = choice["logprobs"]
        for entry in logprobs.get("content", ()):
            if entry["logprob"] == MASKED_LOGPROB:
                continue
            own = {key: entry[key] for key in ("token", "logprob", "bytes")}
            others = [other for other in entry["top_logprobs"] if other["token"] != own["token"]]
            entry["top_logprobs"] = [own, *others][: request.top_logprobs]
        if "tokens" in logprobs:
            _put_sampled(logprobs, is_first=True)
    return body


def _write_llama_cpp_python(
    wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage
) -> Body:
    asked = [dataclasses.replace(wire, kind=Kind.COMPLETION) for wire in wires]
    body = _write_plain(asked, answers, names, usage)
    for choice in body["choices"]:
        if choice["logprobs"] is not None:
            choice["logprobs"]["top_logprobs"] = choice["logprobs"]["top_logprobs"] or [
                {} for _ in choice["logprobs"]["tokens"]
            ]
            _put_sampled(choice["logprobs"], is_first=False)
        if wires[0].kind is Kind.CHAT:
            choice["message"] = {"role": "assistant", "content": choice.pop("text")}
            choice["logprobs"] = choice["logprobs"] and {"content": _as_content(choice["logprobs"])}
    return body


def _write_llama_server(
    wires: Sequence[WireRequest], answers: Sequence[Answer], names: TokenNames, usage: Usage
) -> Body:
    asked = [dataclasses.replace(wire, kind=Kind.CHAT, tokens_as_ids=True) for wire in wires]
    body = _write_plain(asked, answers, names, usage)
    for choice in body["choices"]:
        for entry in (choice["logprobs"] or {}).get("content", ()):
            for each in (entry, *entry["top_logprobs"]):
                each["id"] = int(each["token"].removeprefix(TOKEN_ID_PREFIX))
                each["token"] = names.text(each["id"])
        if wires[0].kind is Kind.COMPLETION:
            choice["text"] = choice.pop("message")["content"]
    return body


def _put_sampled(logprobs: Body, *, is_first: bool) -> None:
    """Adds each position's own token to its top logprobs, before or after the others, unless its own is withheld."""
    tops = logprobs["top_logprobs"]
    for place, (token, value) in enumerate(zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)):
        if value is None:
            tops[place] = None  # an echoed prompt's first token
        elif value != MASKED_LOGPROB:
            own = {token: value}
            others = {name: other for name, other in tops[place].items() if name != token}
            tops[place] = {**own, **others} if is_first else {**tops[place], **own}


def _as_content(logprobs: Body) -> list[Body]:
    return [
        {
            "token": token,
            "logprob": value,
            "bytes": None,
            "top_logprobs": [{"token": name, "logprob": other, "bytes": None} for name, other in top.items()],
        }
        for token, value, top in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        )
    ]


_Writer = Callable[[Sequence[WireRequest], Sequence[Answer], TokenNames, Usage], Body]
_WRITERS: Mapping[str, _Writer] = {
    "vllm": _write_vllm,
    "llama-cpp-python": _write_llama_cpp_python,
    "llama-server": _write_llama_server,
}
