"""The client's side of the wire, outwards: a request becomes the JSON body that a server of some dialect reads."""

import base64
from typing import Any

from lensmith.core.endpoint import Feature, RefusedError, Request, Reveal, needed_features
from lensmith.core.errors import InputError
from lensmith.core.types import Message, Part, Picture
from lensmith.core.wire_dialect import Dialect
from lensmith.core.wire_types import Kind

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
    if request.wants_logprobs:
        body |= _logprobs(request, kind, dialect)
    if dialect.tells_ids:
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
    if len(message.parts) == 1 and isinstance(message.parts[0], str):
        return {"role": message.role, "content": message.parts[0]}
    return {"role": message.role, "content": [_part(part) for part in message.parts] or ""}


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
