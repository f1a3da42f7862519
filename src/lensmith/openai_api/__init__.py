"""OpenAI's JSON and the core types, in both directions, without a web framework.

The one place to import from; the parts are in `types` (names, usage, errors), `requests` and `answers` (the server's
side), `fields` (what becomes of each field of a request), `dialects`, `vocabulary` and `client` (the client's side).
"""

from lensmith.openai_api.answers import (
    Delta,
    echo_of,
    write_answers,
    write_chunk,
    write_error,
    write_usage_chunk,
)
from lensmith.openai_api.client import kind_of, read_answer, write_request
from lensmith.openai_api.dialects import DIALECTS, Dialect, WantedIds
from lensmith.openai_api.events import SSE_DONE, sse
from lensmith.openai_api.fields import FIELDS, PARAMS, Bounds, Field, GuardFate, Purpose, ServerFate, Vendor, field_of
from lensmith.openai_api.requests import read_requests, visible_request
from lensmith.openai_api.types import (
    MASKED_LOGPROB,
    TOKEN_ID_PREFIX,
    BusyError,
    EndpointError,
    Kind,
    MalformedAnswerError,
    TokenNames,
    Usage,
    WireError,
    WireRequest,
)
from lensmith.openai_api.vocabulary import TextVocabulary

__all__ = [
    "DIALECTS",
    "FIELDS",
    "MASKED_LOGPROB",
    "PARAMS",
    "SSE_DONE",
    "TOKEN_ID_PREFIX",
    "Bounds",
    "BusyError",
    "Delta",
    "Dialect",
    "EndpointError",
    "Field",
    "GuardFate",
    "Kind",
    "MalformedAnswerError",
    "Purpose",
    "ServerFate",
    "TextVocabulary",
    "TokenNames",
    "Usage",
    "Vendor",
    "WantedIds",
    "WireError",
    "WireRequest",
    "echo_of",
    "field_of",
    "kind_of",
    "read_answer",
    "read_requests",
    "sse",
    "visible_request",
    "write_answers",
    "write_chunk",
    "write_error",
    "write_request",
    "write_usage_chunk",
]
