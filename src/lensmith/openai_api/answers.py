"""The server's side of the wire, outwards: answers, chunks of a stream and errors become JSON as OpenAI writes it.

Top logprobs come first, most likely first; the request's wanted ids follow in their order (a chat answer lists them
even where they are among the top; in completions, whose logprobs are keyed by the token's name, equal names merge). The
whole vocabulary stands in the order of ids, without bytes. A logprob that is not told, and minus infinity, is -9999.0.

Legend: T positions, K top tokens, W wanted ids, V vocabulary.
"""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import NO_TOKEN, Answer, Choice, Finish, Logprobs, RefusedError, Request, Reveal
from lensmith.core.errors import ImageError, InputError, LensmithError, NotExposedError
from lensmith.openai_api.fields import PARAMS
from lensmith.openai_api.types import (
    MASKED_LOGPROB,
    TOKEN_ID_PREFIX,
    BusyError,
    Kind,
    TokenNames,
    Usage,
    WireError,
    WireRequest,
    shortened,
)

_OBJECTS = {
    Kind.CHAT: ("chat.completion", "chat.completion.chunk"),
    Kind.COMPLETION: ("text_completion", "text_completion"),
}
_LONGEST_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What a stream adds to one choice. `offset` is how many characters of its text came before (completions).

    `logprobs` are those of `token_ids`, and `offsets` where these begin in the choice's text: a token can be told after
    some of its characters. None: they begin one after another at `offset`. `is_first` marks the first delta of a
    choice, which names the role in a chat.
    """

    index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: Logprobs | None = None
    finish: Finish | None = None
    offset: int = 0
    offsets: tuple[int, ...] | None = None
    is_first: bool = False


@dataclass(frozen=True, kw_only=True)
class Echo:
    """The prompt as it stands before an answer: `offsets` are where each of its tokens begins."""

    text: str
    offsets: tuple[int, ...]


def echo_of(wire: WireRequest, prompt_ids: Sequence[int], names: TokenNames, offsets_P: IdArray | None = None) -> Echo:
    """The echo of a prompt, as its text where it was one. `offsets_P` None: tokens are found by their bytes."""
    text = wire.request.prompt or b"".join(map(names.data, prompt_ids)).decode("utf-8", "replace")
    offsets = _offsets(prompt_ids, names, 0, len(text)) if offsets_P is None else [*map(int, offsets_P)]
    return Echo(text=text, offsets=tuple(offsets))


def write_answers(
    wires: Sequence[WireRequest],
    answers: Sequence[Answer],
    names: TokenNames,
    *,
    answer_id: str,
    created: int,
    usage: Usage,
) -> dict[str, Any]:
    """The response body of a batch of prompts (`read_requests`): the choices of all, numbered through, in order."""
    write = _chat_choice if wires[0].kind is Kind.CHAT else _completion_choice
    pairs = [(wire, answer, choice) for wire, answer in zip(wires, answers, strict=True) for choice in answer.choices]
    body = _envelope(wires[0], answer_id, created, is_chunk=False)
    body["choices"] = [
        {"index": index, **write(wire, answer, choice, names)} for index, (wire, answer, choice) in enumerate(pairs)
    ]
    body["usage"] = usage.to_json()
    return body


def write_chunk(wire: WireRequest, delta: Delta, names: TokenNames, *, answer_id: str, created: int) -> dict[str, Any]:
    """One chunk of a stream, as `sse` sends it. An echoed prompt is the server's to put into the first delta."""
    body = _envelope(wire, answer_id, created, is_chunk=True)
    finish = delta.finish.value if delta.finish else None
    choice: dict[str, Any] = {"index": delta.index, "logprobs": None, "finish_reason": finish}
    if wire.kind is Kind.CHAT:
        content = {"content": delta.text} if delta.text or delta.is_first or not delta.finish else {}
        choice["delta"] = {"role": "assistant", **content} if delta.is_first else content
        if delta.logprobs is not None:
            choice["logprobs"] = {"content": _content(wire, delta.token_ids, delta.logprobs, names)}
    else:
        choice["text"] = delta.text
        if delta.logprobs is not None:
            end = delta.offset + len(delta.text)
            found = _offsets(delta.token_ids, names, delta.offset, end) if delta.offsets is None else delta.offsets
            choice["logprobs"] = _columns(wire, delta.token_ids, [delta.logprobs], names, offsets=found)
    if wire.token_ids:
        choice["token_ids"] = list(delta.token_ids)
    body["choices"] = [choice]
    if wire.include_usage:
        body["usage"] = None
    return body


def write_usage_chunk(wire: WireRequest, *, answer_id: str, created: int, usage: Usage) -> dict[str, Any]:
    """The last chunk of a stream that asked for its usage (`stream_options.include_usage`)."""
    return {**_envelope(wire, answer_id, created, is_chunk=True), "choices": [], "usage": usage.to_json()}


def write_error(error: LensmithError) -> tuple[int, dict[str, Any]]:
    """HTTP status and OpenAI's error body.

    What the client got wrong is told in full; a fault of the server's own is told as such and not described, because
    its text may name paths, sizes and versions. BusyError's `retry_after_s` is the server's to send as a header.
    """
    if isinstance(error, BusyError):
        kind = "rate_limit_error" if error.status == 429 else "overloaded_error"
        return error.status, _error(error.problem, kind, None, None)
    if isinstance(error, RefusedError):
        features = list(error.feature)
        param = PARAMS[features[0]] if features else None
        names = "+".join(str(feature.name).lower() for feature in features)
        return 400, _error(_describe(error), "invalid_request_error", param, f"refused:{names}")
    if isinstance(error, WireError):
        return 400, _error(_describe(error), "invalid_request_error", error.param, "invalid_value")
    if type(error) is InputError or isinstance(error, (ImageError, NotExposedError)):
        return 400, _error(_describe(error), "invalid_request_error", None, "invalid_value")
    return 500, _error("the server failed", "server_error", None, None)


# --- answers ------------------------------------------------------------------------------------------------------


def _envelope(wire: WireRequest, answer_id: str, created: int, *, is_chunk: bool) -> dict[str, Any]:
    return {"id": answer_id, "object": _OBJECTS[wire.kind][is_chunk], "created": created, "model": wire.model}


def _chat_choice(wire: WireRequest, answer: Answer, choice: Choice, names: TokenNames) -> dict[str, Any]:
    ids = [*map(int, choice.token_ids_T)]
    logprobs = None if choice.logprobs is None else {"content": _content(wire, ids, choice.logprobs, names)}
    body = {
        "message": {"role": "assistant", "content": choice.text},
        "logprobs": logprobs,
        "finish_reason": choice.finish.value,
    }
    return {**body, "token_ids": ids} if wire.token_ids else body


def _completion_choice(wire: WireRequest, answer: Answer, choice: Choice, names: TokenNames) -> dict[str, Any]:
    ids = [*map(int, choice.token_ids_T)]
    prompt_ids = [*map(int, answer.prompt_ids_P)] if answer.prompt_ids_P is not None else list(wire.request.token_ids)
    parts, shown, bare = [] if choice.logprobs is None else [choice.logprobs], ids, 0
    echo = echo_of(wire, prompt_ids, names, answer.prompt_offsets_P) if wire.echo else Echo(text="", offsets=())
    start, text = len(echo.text), echo.text + choice.text
    if choice.offsets_T is None:
        offsets = _offsets(ids, names, start, len(text))
    else:
        offsets = [start + int(offset) for offset in choice.offsets_T]
    if wire.echo and answer.prompt_logprobs is not None:
        parts, shown, bare = [answer.prompt_logprobs, *parts], [*prompt_ids, *ids], 1
        offsets = [*echo.offsets, *offsets]
    body = {
        "text": text,
        "logprobs": _columns(wire, shown, parts, names, offsets=offsets, bare=bare) if parts else None,
        "finish_reason": choice.finish.value,
    }
    return {**body, "token_ids": ids, "prompt_token_ids": prompt_ids} if wire.token_ids else body


def _content(
    wire: WireRequest, token_ids: Sequence[int], logprobs: Logprobs, names: TokenNames
) -> list[dict[str, Any]]:
    """The logprobs of a chat answer: an object for each position."""
    whole = Reveal.VOCABULARY in wire.request.reveal

    def entry(token_id: int, value: float, *, has_bytes: bool) -> dict[str, Any]:
        data = [*names.data(token_id)] if has_bytes else None
        return {"token": _name(wire, token_id, names), "logprob": value, "bytes": data}

    content = []
    for position, token_id in enumerate(token_ids):
        own = entry(token_id, _number(logprobs.sampled_T[position]), has_bytes=True)
        listed = _listed(wire.request, logprobs, position)
        content.append({**own, "top_logprobs": [entry(*each, has_bytes=not whole) for each in listed]})
    return content


def _columns(
    wire: WireRequest,
    token_ids: Sequence[int],
    parts: Sequence[Logprobs],
    names: TokenNames,
    *,
    offsets: Sequence[int],
    bare: int = 0,
) -> dict[str, Any]:
    """The logprobs of a completion: a list for each part, over the positions of all `parts` in turn.

    The first `bare` positions have no context and so no logprobs: null, as OpenAI writes an echoed prompt's first.
    """
    request = wire.request
    sampled = [_number(value) for part in parts for value in part.sampled_T]
    tops = [
        {_name(wire, token_id, names): value for token_id, value in _listed(request, part, position)}
        for part in parts
        for position in range(len(part.sampled_T))
    ]
    has_top = request.top_logprobs or request.wanted_ids or Reveal.VOCABULARY in request.reveal
    return {
        "tokens": [_name(wire, token_id, names) for token_id in token_ids],
        "token_logprobs": [*([None] * bare), *sampled[bare:]],
        "top_logprobs": [*([None] * bare), *tops[bare:]] if has_top else None,
        "text_offset": list(offsets),
    }


def _listed(request: Request, logprobs: Logprobs, position: int) -> Iterator[tuple[int, float]]:
    """The tokens that are told at one position besides the sampled one, with their logprobs, in the order written."""
    if logprobs.vocabulary_TV is not None:
        listed_V = logprobs.vocabulary_TV[position]
        is_listed_V = ~np.isnan(listed_V)
        values = np.maximum(listed_V[is_listed_V], MASKED_LOGPROB).tolist()
        return zip(np.flatnonzero(is_listed_V).tolist(), values, strict=True)
    top_ids_K, top_K = logprobs.top_ids_TK[position], logprobs.top_TK[position]
    is_listed_K = top_ids_K != NO_TOKEN
    ids_E = [*top_ids_K[is_listed_K].tolist(), *request.wanted_ids]
    values_E = [*map(_number, top_K[is_listed_K].tolist()), *map(_number, logprobs.wanted_TW[position].tolist())]
    return zip(ids_E, values_E, strict=True)


def _name(wire: WireRequest, token_id: int, names: TokenNames) -> str:
    return f"{TOKEN_ID_PREFIX}{token_id}" if wire.tokens_as_ids else names.text(token_id)


def _number(value: float) -> float:
    return float(value) if value > MASKED_LOGPROB else MASKED_LOGPROB  # NaN and -inf compare as smaller


def _offsets(token_ids: Sequence[int], names: TokenNames, start: int, end: int) -> list[int]:
    """Where tokens begin in the text from `start` to `end`, which their bytes make up.

    Tokens of one character begin where it does, and one that the text leaves out, such as a last end token, at its end.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets = []
    for token_id in token_ids:
        offsets.append(min(start, end))
        start += len(decoder.decode(names.data(token_id)))
    return offsets


# --- errors -------------------------------------------------------------------------------------------------------


def _error(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _describe(error: LensmithError) -> str:
    parts = [error.problem]
    parts += [f"expected: {shortened(str(error.expected), _LONGEST_SHOWN)}"] if error.expected is not None else []
    parts += [f"got: {shortened(str(error.actual), _LONGEST_SHOWN)}"] if error.actual is not None else []
    parts += [f"try: {error.hint}"] if error.hint else []
    return "; ".join(parts)
