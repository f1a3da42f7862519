"""Server-sent events, written and read: the data of each event, and `[DONE]` after the last."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lensmith.openai_api.types import MalformedAnswerError

DONE = b"[DONE]"
SSE_DONE = b"data: [DONE]\n\n"

_WITHOUT_USE = (b"event", b"id", b"retry")


def sse(data: Mapping[str, Any]) -> bytes:
    """One server-sent event. After the last one comes `SSE_DONE`."""
    return b"data: " + json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n\n"


class EventReader:
    """Collects bytes and gives out the data of each event once its blank line has come.

    Comments (servers send them to keep a connection alive) and fields without use here are dropped. Raises
    MalformedAnswerError for a line that is no field, and for an event longer than `most_bytes`.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The events that this piece completes; to be read to the end before the next piece."""
        self._rest += piece  # in place: a long line in many small pieces is not copied for each
        if b"\n" in piece:
            *lines, last = bytes(self._rest).split(b"\n")
            self._rest = bytearray(last)
            for line in lines:
                event = self._line(line.removesuffix(b"\r"))
                if event is not None:
                    yield event
        if len(self._rest) + self._size > self._most_bytes:
            raise _too_long()

    def close(self) -> Iterator[bytes]:
        """An event whose blank line did not come before the end of the stream."""
        return self.feed(b"\n\n")

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            event = b"\n".join(self._data) if self._data else None
            self._data, self._size = [], 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value)
            if self._size > self._most_bytes:
                raise _too_long()
            self._data.append(value.removeprefix(b" "))
        elif name and name not in _WITHOUT_USE:
            raise MalformedAnswerError("a line of the stream is no field")
        return None


def _too_long() -> MalformedAnswerError:
    return MalformedAnswerError("an event of the stream is too long")
