"""What a server's refusal means: the error body of OpenAI, FastAPI or llama.cpp becomes a typed error.

A refusal is RefusedError where it is about something that was asked; its feature is read from the error's code
(`refused:...`, ours), its `param`, the location that FastAPI names, or a field name in the message.
"""

import re
from collections.abc import Mapping
from typing import Any

import httpx

from lensmith.core.endpoint import Feature, RefusedError
from lensmith.core.errors import AccessError, InputError, LensmithError
from lensmith.openai_api import FIELDS, EndpointError
from lensmith.openai_api.refusals import Refusal, read_refusal
from lensmith.openai_api.types import shortened

_PAGE_STATUSES = frozenset({200, 404, 405, 501})
"""With these, a server of pages answers a path that it does not know, or a method."""
_REFUSALS = frozenset({400, 405, 413, 415, 422, 501})
_ORDINARY_WORDS = (
    Feature.SEED | Feature.STOP | Feature.PICTURES | Feature.MESSAGES | Feature.PROMPT_TEXT | Feature.TOKEN_IDS
)
"""Features whose fields' names stand in any message: that a server could not process a prompt is no refusal."""

_ASKING_FIELDS = {
    **{name: next(iter(field.features)) for name, field in FIELDS.items() if field.features},
    "image_url": Feature.PICTURES,
}
_FEATURES = {
    name: _ASKING_FIELDS[name]
    for name in sorted(_ASKING_FIELDS, key=lambda name: (bool(_ASKING_FIELDS[name] & _ORDINARY_WORDS), -len(name)))
}
"""The feature behind each field, names that are no ordinary words and longer ones first: a message may hold several."""

_LONGEST_MESSAGE = 400


class NotFoundError(RefusedError):
    """The server has no such path or no such model: as a rule the URL or the name is wrong."""

    exit_code = 2


class NoEndpointError(InputError):
    """Something for people answers where an endpoint should."""


class DoubtfulRefusalError(RefusedError):
    """Reads as a refusal, but its status means other things too: the same request may be answered the next time."""


def error_of(response: httpx.Response, body: Mapping[str, Any] | None, asked: Feature | None = None) -> LensmithError:
    """The error that a response with an error status means.

    `body` is what was sent, `asked` the features behind it: a server may need one top logprob for something else.
    """
    refusal, status = read_refusal(response.content), response.status_code
    message = shortened(refusal.message, _LONGEST_MESSAGE)
    if status == 401:
        return AccessError("the endpoint does not know this API key", actual=message, hint="give --api-key")
    if status == 404 or (status == 400 and (refusal.code == "model_not_found" or refusal.path == ("model",))):
        problem = f"the endpoint has no such path or model: {message}"
        return NotFoundError(
            problem, actual=response.url, hint="check the URL (it ends in /v1 as a rule) and the model's name"
        )
    feature = _feature(refusal, body or {}, asked)
    if asked is not None and feature is Feature.TOP_LOGPROBS and not feature & asked:
        feature = asked & Feature.VOCABULARY_LOGPROBS or Feature.SAMPLED_LOGPROB
    if status in _REFUSALS:
        return RefusedError(f"the endpoint refused ({status}): {message}", feature=feature)
    if status == 403 or (status == 500 and feature & ~_ORDINARY_WORDS):
        return DoubtfulRefusalError(f"the endpoint refused ({status}): {message}", feature=feature)
    return EndpointError(f"the endpoint failed ({status})", actual=message)


def no_endpoint(response: httpx.Response) -> InputError | None:
    """The error where a server's first answer is a page for people; None where it is not. Reads no stream."""
    is_page = response.headers.get("content-type", "").lower().startswith("text/html")
    if not is_page and response.is_stream_consumed:
        is_page = response.content[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))
    if not is_page or response.status_code not in _PAGE_STATUSES:
        return None
    return NoEndpointError(
        "no OpenAI-compatible endpoint here; does the URL end in /v1?",
        expected="JSON",
        actual=f"a page (HTML) at {response.url}",
    )


def _feature(refusal: Refusal, body: Mapping[str, Any], asked: Feature | None) -> Feature:
    if refusal.code.startswith("refused:"):
        known = {str(feature.name).lower(): feature for feature in Feature}
        feature = Feature.NOTHING
        for name in refusal.code.removeprefix("refused:").split("+"):
            feature |= known.get(name, Feature.NOTHING)
        return feature
    sent = {name for name in _FEATURES if name in body or name == "image_url"}
    param = refusal.path[0] if refusal.path else ""
    if param == "top_logprobs" and param not in body:
        param = "logprobs"  # completions have one field for both
    message = refusal.message[:_LONGEST_MESSAGE]
    named = [str(param)] if param in sent else [name for name in sent if re.search(rf"\b{name}\b", message)]
    features = [_asked_by(name, body) for name in sorted(named, key=[*_FEATURES].index)]
    likely = [feature for feature in features if asked is None or feature & asked]
    return next(iter(likely or features), Feature.NOTHING)


def _asked_by(name: str, body: Mapping[str, Any]) -> Feature:
    """The feature that a field asks for in this body: one field may ask for several."""
    value = body.get(name)
    if name == "prompt":
        return Feature.PROMPT_TEXT if isinstance(value, str) else Feature.TOKEN_IDS
    if name in ("logprobs", "top_logprobs") and not isinstance(value, bool) and isinstance(value, int):
        if value == -1 or value >= 1 << 20:
            return Feature.VOCABULARY_LOGPROBS
        return Feature.TOP_LOGPROBS if value else Feature.SAMPLED_LOGPROB
    return _FEATURES[name]
