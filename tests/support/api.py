"""One request through `openai_api`, which reads and writes batches."""

from collections.abc import Mapping
from typing import Any

from lensmith.core.endpoint import Answer
from lensmith.openai_api import Kind, TokenNames, WireRequest, read_requests, write_answers


def read_one(kind: Kind, body: Mapping[str, Any], **options: Any) -> WireRequest:
    """The request in a body with one prompt."""
    (wire,) = read_requests(kind, body, **options)
    return wire


def write_one(wire: WireRequest, answer: Answer, names: TokenNames, **options: Any) -> dict[str, Any]:
    """The response body of one request."""
    return write_answers([wire], [answer], names, **options)
