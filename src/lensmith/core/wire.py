"""OpenAI's JSON and the core types, in both directions, without a web framework.

The one place to import from; the parts are in `wire_types` (names, usage, errors), `wire_read`, `wire_fields` and
`wire_write` (the server's side), `wire_dialect`, `wire_send` and `wire_parse` (the client's side).
"""

from lensmith.core.wire_dialect import DIALECTS, Dialect, WantedIds
from lensmith.core.wire_fields import CHANGING_FIELDS, READ_OUT_FIELDS
from lensmith.core.wire_parse import read_answer
from lensmith.core.wire_read import read_request, read_requests, told_only
from lensmith.core.wire_send import kind_of, write_request
from lensmith.core.wire_types import (
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
from lensmith.core.wire_vocabulary import TextVocabulary
from lensmith.core.wire_write import (
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
