"""The client's side of the API: a request becomes the JSON body that a server of some dialect reads, and the body that
comes back an `Answer`, or an error that names the wrong part.

What a reasoning model thinks aloud stands beside the answer, as `reasoning_content` (vLLM, SGLang, llama-server) or
`reasoning` (vLLM's newer name, OpenRouter); it is no text of the answer.

Nothing malformed becomes a NaN: NaN says that the server did not say. -9999.0 is OpenAI's sign for a sampled token
whose logprob is withheld (NaN here); elsewhere, and whatever is smaller, it stands for minus infinity.

Where a server names tokens by text only, `TextVocabulary` numbers the texts. In completions the top logprobs are keyed
by text, so of tokens with equal texts one is left: what is there is kept.

Legend: T positions, K top tokens, W wanted ids, V vocabulary, E entries listed at one position.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter, methodcaller
from typing import Any

import numpy as np

from lensmith.core.arrays import Float64Array, IdArray
from lensmith.core.endpoint import (
    NO_TOKEN,
    TEXT_IDS_FROM,
    Answer,
    Choice,
    Feature,
    Finish,
    Logprobs,
    Penalties,
    RefusedError,
    Request,
    Reveal,
    needed_features,
)
from lensmith.core.errors import InputError
from lensmith.core.types import Message, Part, Picture, ToolCall
from lensmith.openai_api.dialects import Dialect, WantedIds
from lensmith.openai_api.reading import CLIENT
from lensmith.openai_api.types import MASKED_LOGPROB, TOKEN_ID_PREFIX, Kind
from lensmith.openai_api.vocabulary import TextVocabulary

LARGEST_VOCABULARY = 1 << 22

_LOGPROB, _TOKEN, _ID = itemgetter("logprob"), itemgetter("token"), itemgetter("id")
_BYTES = methodcaller("get", "bytes")

_REASONINGS = ("reasoning_content", "reasoning")

_MAGIC = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}


def kind_of(request: Request) -> Kind:
    """The interface that a request goes to: chat where it has messages."""
    return Kind.CHAT if request.messages else Kind.COMPLETION


def write_request(
    request: Request, *, kind: Kind, model: str, dialect: Dialect, stream: bool = False
) -> dict[str, Any]:
    """The JSON body of a request.

    Pictures without bytes must be at an http(s) URL. Raises RefusedError where this interface has no field for a
    feature that the request uses: to leave it out would ask something else.
    """
    if kind is not kind_of(request):
        raise InputError("the request is for the other interface", expected=kind_of(request).value, actual=kind.value)
    _refuse_unspeakable(request, kind, dialect)
    body: dict[str, Any] = {"model": model, **_prompt(request)}
    most = max(request.max_tokens, 1 if kind is Kind.CHAT else dialect.least_tokens)
    body[dialect.chat_tokens_field if kind is Kind.CHAT else "max_tokens"] = most
    body |= {"temperature": request.temperature, "top_p": request.top_p}
    body |= {"n": request.n} if request.n != 1 else {}
    body |= {"stop": list(request.stop)} if request.stop else {}
    body |= {"seed": request.seed} if request.seed is not None else {}
    if request.logit_bias:
        body["logit_bias"] = {str(token_id): bias for token_id, bias in request.logit_bias.items()}
    if request.allowed_ids is not None:
        body["allowed_token_ids"] = list(request.allowed_ids)
    penalties = vars(request.penalties)
    body |= {f"{name}_penalty": value for name, value in penalties.items() if value != getattr(Penalties, name)}
    if request.wants_logprobs:
        body |= _logprobs(request, kind, dialect)
    if dialect.returns_ids:
        body["return_token_ids"] = True
    return {**body, "stream": True} if stream else body


def _logprobs(request: Request, kind: Kind, dialect: Dialect) -> dict[str, Any]:
    count = max(request.top_logprobs, dialect.least_top)
    if Reveal.VOCABULARY in request.reveal and dialect.vocabulary_count is not None:
        count = dialect.vocabulary_count
    body: dict[str, Any] = {"logprobs": count}
    if kind is Kind.CHAT:
        body = {"logprobs": True, **({"top_logprobs": count} if count else {})}
    body |= {"logprob_token_ids": list(request.wanted_ids)} if request.wanted_ids else {}
    body |= {"return_tokens_as_token_ids": True} if dialect.names_ids else {}
    return {**body, "echo": True} if Reveal.PROMPT in request.reveal else body


def _refuse_unspeakable(request: Request, kind: Kind, dialect: Dialect) -> None:
    speakable = dialect.features
    speakable &= ~(Feature.PROMPT_LOGPROBS if kind is Kind.CHAT else Feature.NOTHING)
    speakable &= ~(Feature.WANTED_IDS if kind not in dialect.wanted_in else Feature.NOTHING)
    missing = needed_features(request) & ~speakable
    if missing:
        names = " and ".join(str(feature.name).lower().replace("_", " ") for feature in missing)
        raise RefusedError(
            f"the {dialect.name} interface ({kind.value}) has no field for: {names}",
            feature=missing,
            hint="name another dialect, if the server speaks it",
        )


def _prompt(request: Request) -> dict[str, Any]:
    if request.messages:
        return {"messages": [_message(message) for message in request.messages]}
    return {"prompt": request.prompt or list(request.token_ids)}


def _message(message: Message) -> dict[str, Any]:
    is_text = len(message.parts) == 1 and isinstance(message.parts[0], str)
    body = {"role": message.role, "content": message.parts[0] if is_text else [*map(_part, message.parts)] or ""}
    if message.tool_calls:
        body["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    return {**body, "tool_call_id": message.tool_call_id} if message.tool_call_id else body


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": _url(part)}}


def _url(picture: Picture) -> str:
    if picture.data:
        media = next((media for magic, media in _MAGIC.items() if picture.data.startswith(magic)), "image/png")
        return f"data:{media};base64,{base64.b64encode(picture.data).decode()}"
    if not picture.url.startswith(("http://", "https://")):
        raise InputError(
            "a picture on its way to a server needs its bytes", expected="data, or an http(s) URL", actual=picture.url
        )
    return picture.url


# --- answers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """What stands at one position beside its token: E ids and logprobs in the server's order."""

    ids_E: IdArray
    values_E: Float64Array


@dataclass(frozen=True, kw_only=True)
class _Positions:
    """The logprobs of T positions; `listed` is None at a position without any."""

    ids_T: IdArray
    sampled_T: Float64Array
    listed: list[_Listed | None]

    def part(self, positions: slice) -> "_Positions":
        return _Positions(
            ids_T=self.ids_T[positions], sampled_T=self.sampled_T[positions], listed=self.listed[positions]
        )


def read_answer(
    kind: Kind, body: Mapping[str, Any], request: Request, dialect: Dialect, vocabulary: TextVocabulary
) -> Answer:
    """The answer in a response body. Raises MalformedAnswerError, which names the part that is wrong.

    `vocabulary_TV` of tokens known by text has a column for each text met so far, in the order of their ids.
    """
    choices = CLIENT.as_list(body.get("choices") if isinstance(body, Mapping) else None, "choices")
    if len(choices) != request.n:
        CLIENT.fail("choices", f"{request.n} of them", len(choices))
    ordered = sorted(range(request.n), key=lambda place: _index(choices[place], place))
    usage = body.get("usage")
    read = [
        _ChoiceReader(kind, body, request, dialect, vocabulary, choices[place], f"choices[{place}]")
        for place in ordered
    ]
    count = _count_prompt(read, usage, request) if Reveal.PROMPT in request.reveal else 0
    prompt_ids_P, prompt_logprobs = read[0].prompt(count)
    return Answer(
        choices=tuple(reader.choice(count) for reader in read),
        prompt_ids_P=prompt_ids_P,
        prompt_logprobs=prompt_logprobs,
        prompt_tokens=_reported_count(usage, "prompt_tokens"),
        completion_tokens=_reported_count(usage, "completion_tokens"),
    )


def _reported_count(usage: object, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return count if type(count) is int and count >= 0 else None


def _count_prompt(readers: Sequence["_ChoiceReader"], usage: object, request: Request) -> int:
    """How many of an echoed choice's positions are the prompt's, which is the same in all choices."""
    totals = [len(reader.positions.ids_T) for reader in readers if reader.positions is not None]
    answered = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    if readers[0].prompt_ids_P is not None:
        count = len(readers[0].prompt_ids_P)
    elif request.token_ids:
        count = len(request.token_ids)
    elif isinstance(answered, int):
        count = (sum(totals) - answered) // len(totals)
    else:
        count = sum(offset < len(request.prompt) for offset in readers[0].offsets())
    if not 0 < count <= min(totals):
        CLIENT.fail("choices[0].logprobs", "the prompt's positions and the answer's", f"{count} of {min(totals)}")
    return count


class _ChoiceReader:
    """Reads one choice."""

    def __init__(  # noqa: PLR0917 (one caller, above)
        self,
        kind: Kind,
        body: Mapping[str, Any],
        request: Request,
        dialect: Dialect,
        vocabulary: TextVocabulary,
        choice: Mapping[str, Any],
        where: str,
    ) -> None:
        self._kind, self._request, self._dialect, self._where = kind, request, dialect, where
        self._choice_json, self._vocabulary = choice, vocabulary
        self._echoes = Reveal.PROMPT in request.reveal
        self._ids_T = _id_list(choice.get("token_ids"), f"{where}.token_ids")
        prompt_ids = choice.get("prompt_token_ids", body.get("prompt_token_ids"))
        self.prompt_ids_P = _id_list(prompt_ids, f"{where}.prompt_token_ids")
        self.positions = self._read_positions() if request.wants_logprobs else None

    def choice(self, count: int) -> Choice:
        """The choice behind the first `count` positions, which are the prompt's."""
        where = self._where
        finish = CLIENT.finish_reason(self._choice_json.get("finish_reason"), f"{where}.finish_reason").finish
        text = self._text(count)
        ids_T = np.empty(0, np.int64) if self._ids_T is None else self._ids_T
        logprobs = None
        if self.positions is not None:
            answered = self.positions.part(slice(count, None))
            if self._ids_T is None:
                ids_T = answered.ids_T
            elif len(ids_T) != len(answered.ids_T):
                CLIENT.fail(f"{where}.token_ids", f"{len(answered.ids_T)} as in logprobs", len(ids_T))
            logprobs = self._logprobs(answered)
        if self._request.max_tokens == 0 and len(ids_T):  # asked for one, because this server has no zero
            text, finish, ids_T = "", Finish.LENGTH, ids_T[:0]
            logprobs = None if self.positions is None else self._logprobs(self.positions.part(slice(0, 0)))
        reasoning = "" if self._request.max_tokens == 0 else self._reasoning()
        return Choice(text=text, finish=finish, token_ids_T=ids_T, logprobs=logprobs, reasoning=reasoning)

    def prompt(self, count: int) -> tuple[IdArray | None, Logprobs | None]:
        """The prompt's ids and logprobs, where they were asked for."""
        if not self._echoes or self.positions is None:
            return None, None
        part = self.positions.part(slice(0, count))
        return part.ids_T, self._logprobs(part)

    # --- text and counts ------------------------------------------------------------------------------------------

    def _text(self, count: int) -> str:
        message = self._choice_json.get("message") if self._kind is Kind.CHAT else self._choice_json
        name = "content" if self._kind is Kind.CHAT else "text"
        text = message.get(name) if isinstance(message, Mapping) else None
        if text is None and self._kind is Kind.CHAT and isinstance(message, Mapping):
            text = ""  # an answer whose first token ends it, or one that is still being thought about
        if not isinstance(text, str):
            CLIENT.fail(f"{self._where}.{name}", "text", text)
        if self._echoes:
            text = self._after_prompt(text, count)
        return text

    def _reasoning(self) -> str:
        message = self._choice_json.get("message") if self._kind is Kind.CHAT else None
        texts = [message.get(name) for name in _REASONINGS] if isinstance(message, Mapping) else []
        return next((text for text in texts if isinstance(text, str) and text), "")

    def _after_prompt(self, text: str, count: int) -> str:
        if self._request.prompt and text.startswith(self._request.prompt):
            return text[len(self._request.prompt) :]
        offsets = self.offsets()
        if offsets:
            return text[offsets[count] :] if count < len(offsets) else ""
        return CLIENT.fail(f"{self._where}.text", "the prompt and the answer, with text_offset", text[:40])

    def offsets(self) -> list[int]:
        """Where each token begins in the text; empty where the server does not say."""
        logprobs = self._choice_json.get("logprobs")
        offsets = logprobs.get("text_offset") if isinstance(logprobs, Mapping) else None
        return offsets if isinstance(offsets, list) and set(map(type, offsets)) <= {int} else []

    # --- positions ------------------------------------------------------------------------------------------------

    def _read_positions(self) -> _Positions:
        logprobs, where = self._choice_json.get("logprobs"), f"{self._where}.logprobs"
        if not isinstance(logprobs, Mapping):
            if logprobs is None and self._request.max_tokens == 0 and not self._echoes:
                return _Positions(ids_T=np.empty(0, np.int64), sampled_T=np.empty(0), listed=[])
            CLIENT.fail(where, "an object, since logprobs were asked for", logprobs)
        if "content" in logprobs:  # llama-server answers completions so too
            return self._from_content(CLIENT.as_list(logprobs["content"], f"{where}.content"), f"{where}.content")
        return self._from_columns(logprobs, where)

    def _from_content(self, content: list[Any], where: str) -> _Positions:
        sampled = self._listed_of(content, where)
        listed: list[_Listed | None] = []
        for place, entry in enumerate(content):
            top, path = entry.get("top_logprobs"), f"{where}[{place}].top_logprobs"
            entries = [each for each in CLIENT.as_list([] if top is None else top, path) if not _is_null(each)]
            listed.append(self._listed_of(entries, path))
        return _Positions(ids_T=sampled.ids_E, sampled_T=_unmasked(sampled.values_E), listed=listed)

    def _listed_of(self, entries: list[Any], where: str) -> _Listed:
        try:
            values = [*map(_LOGPROB, entries)]
            if entries and "id" in entries[0]:
                ids_E = _id_list([*map(_ID, entries)], f"{where}.id")
                assert ids_E is not None
            else:
                ids_E = self._ids_of([*map(_TOKEN, entries)], entries, where)
        except (TypeError, KeyError) as error:
            return CLIENT.fail(where, "objects with token and logprob", f"{type(error).__name__}: {error}")
        return _Listed(ids_E=ids_E, values_E=_values(values, where))

    def _ids_of(self, names: list[Any], entries: list[Any], where: str) -> IdArray:
        if not set(map(type, names)) <= {str}:
            CLIENT.fail(f"{where}.token", "text", "something else")
        is_by_id = self._dialect.names_ids and bool(names) and names[0].startswith(TOKEN_ID_PREFIX)
        data = [] if is_by_id else [*map(_BYTES, entries)]
        if not any(data):
            return self._vocabulary.numbers(names, self._dialect)
        try:
            if not set(map(type, data)) <= {list, type(None)}:
                raise TypeError("bytes are a list")
            named = [bytes(each) if each else name for each, name in zip(data, names, strict=True)]
        except (TypeError, ValueError) as error:
            CLIENT.fail(f"{where}.bytes", "a list of bytes as whole numbers", error)
        return np.fromiter(map(self._vocabulary.number, named), np.int64, len(named))

    def _from_columns(self, logprobs: Mapping[str, Any], where: str) -> _Positions:
        columns = CLIENT.columns(logprobs, where)
        values = columns.logprobs
        bare = 1 if self._echoes and values and values[0] is None else 0
        sampled_T = np.concatenate([np.full(bare, np.nan), _values(values[bare:], f"{where}.token_logprobs")])
        listed = [
            None if top is None else self._from_dict(top, f"{where}.top_logprobs[{place}]")
            for place, top in enumerate(columns.tops)
        ]
        ids_T = self._vocabulary.numbers(columns.tokens, self._dialect)
        return _Positions(ids_T=ids_T, sampled_T=_unmasked(sampled_T), listed=listed)

    def _from_dict(self, top: Mapping[str, Any], where: str) -> _Listed:
        values = {name: value for name, value in top.items() if value is not None}
        ids_E = self._vocabulary.numbers([*values], self._dialect)
        return _Listed(ids_E=ids_E, values_E=_values(values.values(), where))

    # --- what was asked for ---------------------------------------------------------------------------------------

    def _logprobs(self, positions: _Positions) -> Logprobs:
        request, count = self._request, len(positions.listed)
        top_ids_TK = np.full((count, request.top_logprobs), NO_TOKEN, dtype=np.int64)
        top_TK = np.full((count, request.top_logprobs), np.nan)
        wanted_TW = np.full((count, len(request.wanted_ids)), np.nan)
        whole = Reveal.VOCABULARY in request.reveal
        for place, listed in enumerate(positions.listed):
            if listed is None:
                continue
            ids_K, values_K = self._top(listed)
            top_ids_TK[place, : len(ids_K)], top_TK[place, : len(ids_K)] = ids_K, values_K
            wanted_TW[place] = _pick(listed, request.wanted_ids)
        return Logprobs(
            sampled_T=positions.sampled_T if Reveal.SAMPLED in request.reveal else np.full(count, np.nan),
            top_ids_TK=top_ids_TK,
            top_TK=top_TK,
            wanted_TW=wanted_TW,
            vocabulary_TV=_whole(positions.listed, len(self._vocabulary), self._where) if whole else None,
        )

    def _top(self, listed: _Listed) -> tuple[IdArray, Float64Array]:
        """The most likely of what is listed. Some servers add the sampled token, or order by something else."""
        request, ids_E, values_E = self._request, listed.ids_E, listed.values_E
        if not request.top_logprobs:
            return ids_E[:0], values_E[:0]
        if request.wanted_ids and Reveal.VOCABULARY not in request.reveal:
            if self._dialect.wanted_ids is WantedIds.INSTEAD_OF_TOP:
                return ids_E[:0], values_E[:0]
            ids_E, values_E = ids_E[: request.top_logprobs], values_E[: request.top_logprobs]
            _, first = np.unique(ids_E, return_index=True)
            ids_E, values_E = ids_E[np.sort(first)], values_E[np.sort(first)]
        exists_E = ~np.isneginf(values_E)
        ids_E, values_E = ids_E[exists_E], values_E[exists_E]
        order_K = np.argsort(-values_E, kind="stable")[: request.top_logprobs]
        return ids_E[order_K], values_E[order_K]


def _whole(listed: list[_Listed | None], texts: int, where: str) -> Float64Array:
    """Logprobs by id, NaN where none came; by text id (from 0) where the server names texts."""
    present = [each.ids_E for each in listed if each is not None and len(each.ids_E)]
    least, most = min((ids.min() for ids in present), default=0), max((ids.max() for ids in present), default=-1)
    base = TEXT_IDS_FROM if least >= TEXT_IDS_FROM else 0
    if most - base >= LARGEST_VOCABULARY:
        CLIENT.fail(f"{where}.logprobs", f"ids below {LARGEST_VOCABULARY}, or all tokens by text", int(most))
    size = texts if base else int(most) + 1
    whole_TV = np.full((len(listed), size), np.nan)
    for place, each in enumerate(listed):
        if each is not None:
            whole_TV[place, each.ids_E - base] = each.values_E
    return whole_TV


def _pick(listed: _Listed, wanted_ids: tuple[int, ...]) -> Float64Array:
    picked_W = np.full(len(wanted_ids), np.nan)
    if not wanted_ids or not len(listed.ids_E):
        return picked_W
    order_E = np.argsort(listed.ids_E, kind="stable")
    sorted_E = listed.ids_E[order_E]
    places_W = np.minimum(np.searchsorted(sorted_E, wanted_ids), len(sorted_E) - 1)
    found_W = sorted_E[places_W] == wanted_ids
    picked_W[found_W] = listed.values_E[order_E[places_W[found_W]]]
    return picked_W


def _is_null(entry: object) -> bool:
    """Whether a server names a token without its logprob (one that is masked, as a rule): it counts as not listed."""
    return isinstance(entry, Mapping) and "logprob" in entry and entry["logprob"] is None


# --- values -------------------------------------------------------------------------------------------------------


def _values(values: Any, where: str) -> Float64Array:
    """Numbers as an array; -9999.0 and less is minus infinity."""
    if not set(map(type, values)) <= {float, int}:
        CLIENT.fail(where, "numbers", "something else")
    try:
        values_E = np.fromiter(values, np.float64, len(values))
    except OverflowError:
        CLIENT.fail(where, "numbers", "one too large")
    if not np.isfinite(values_E).all():
        CLIENT.fail(where, "finite numbers", "NaN or infinity")
    values_E[values_E <= MASKED_LOGPROB] = -np.inf
    return values_E


def _unmasked(sampled_T: Float64Array) -> Float64Array:
    return np.where(np.isneginf(sampled_T), np.nan, sampled_T)


def _id_list(value: object, where: str) -> IdArray | None:
    if value is None:
        return None
    ids = CLIENT.as_list(value, where)
    if not set(map(type, ids)) <= {int} or not all(0 <= token_id < TEXT_IDS_FROM for token_id in ids):
        CLIENT.fail(where, "token ids", "something else")
    return np.array(ids, dtype=np.int64)


def _index(choice: object, place: int) -> int:
    index = choice.get("index", place) if isinstance(choice, Mapping) else None
    if not isinstance(index, int):
        CLIENT.fail(f"choices[{place}]", "an object with an index", choice)
    return index
