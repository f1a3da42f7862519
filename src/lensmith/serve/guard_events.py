"""Server-sent events from a server that may send anything: the data of each event as it completes, within a limit."""

from collections.abc import Iterator

from lensmith.core.wire import MalformedAnswerError

_IGNORED = (b"event", b"id", b"retry")


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
        elif name and name not in _IGNORED:
            raise MalformedAnswerError("a line of the stream is no field")
        return None


def _too_long() -> MalformedAnswerError:
    return MalformedAnswerError("an event of the stream is too long")
