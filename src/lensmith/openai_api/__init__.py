"""OpenAI's JSON and the core types, in both directions, without a web framework.

The one place to import from; the parts are in `types` (names, usage, errors), `requests` and `answers` (the server's
side), `dialects`, `vocabulary` and `client` (the client's side).
"""

from lensmith.openai_api.answers import (
    SSE_DONE,
    Delta,
    echo_of,
    sse,
    write_answer,
    write_answers,
    write_chunk,
    write_error,
    write_usage_chunk,
)
from lensmith.openai_api.client import kind_of, read_answer, write_request
from lensmith.openai_api.dialects import DIALECTS, Dialect, WantedIds
from lensmith.openai_api.requests import CHANGING_FIELDS, READ_OUT_FIELDS, read_request, read_requests, told_only
from lensmith.openai_api.types import (
    MASKED_LOGPROB,
    PARAMS,
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
    "CHANGING_FIELDS",
    "DIALECTS",
    "MASKED_LOGPROB",
    "PARAMS",
    "READ_OUT_FIELDS",
    "SSE_DONE",
    "TOKEN_ID_PREFIX",
    "BusyError",
    "Delta",
    "Dialect",
    "EndpointError",
    "Kind",
    "MalformedAnswerError",
    "TextVocabulary",
    "TokenNames",
    "Usage",
    "WantedIds",
    "WireError",
    "WireRequest",
    "echo_of",
    "kind_of",
    "read_answer",
    "read_request",
    "read_requests",
    "sse",
    "told_only",
    "write_answer",
    "write_answers",
    "write_chunk",
    "write_error",
    "write_request",
    "write_usage_chunk",
]
