"""The Chrome DevTools protocol over a pair of pipes: calls, answers, events.

Pipes rather than a socket: no port is open to others on the machine, and the browser ends when our end closes, even
if this process is killed. Messages are JSON, each ended by a NUL byte.
"""

import asyncio
import json
from collections.abc import Callable
from io import FileIO
from typing import Any

Json = dict[str, Any]
EventHandler = Callable[[str, Json], None]


class ConnectionLostError(Exception):
    """The browser went away."""


class SessionLostError(Exception):
    """The page that a session belongs to crashed or was closed."""


class ProtocolError(Exception):
    """The browser refused a call."""


class _Reader(asyncio.Protocol):
    def __init__(self, on_message: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._parts: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        *whole, rest = data.split(b"\0")
        for message in whole:
            self._on_message(b"".join((*self._parts, message)))
            self._parts.clear()
        if rest:
            self._parts.append(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end()


class Connection:
    """One browser's DevTools connection, shared by the sessions of its pages."""

    def __init__(self) -> None:
        self._last_id = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[Json]]] = {}
        self._handlers: dict[str, EventHandler] = {}
        self._writer: asyncio.WriteTransport | None = None
        self.lost = False

    @classmethod
    async def open(cls, to_browser_fd: int, from_browser_fd: int) -> "Connection":
        """Takes both file descriptors over."""
        connection = cls()
        loop = asyncio.get_running_loop()
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, FileIO(to_browser_fd, "wb"))
        await loop.connect_read_pipe(
            lambda: _Reader(connection._receive, connection._end), FileIO(from_browser_fd, "rb")
        )
        connection._writer = writer
        return connection

    def send(self, method: str, params: Json | None = None, session: str = "") -> "asyncio.Future[Json]":
        """Sends at once; the answer may be awaited or, where it does not matter, left alone.

        Awaited, it raises ProtocolError, SessionLostError or ConnectionLostError.
        """
        future = self.expect(session)
        if self._writer is not None and not future.done():
            message: Json = {"id": self._last_id, "method": method, "params": params or {}}
            if session:
                message["sessionId"] = session
            self._writer.write(json.dumps(message).encode() + b"\0")
        return future

    def expect(self, session: str = "") -> "asyncio.Future[Json]":
        """A future for something that `session` will do: it fails when the session or the connection is lost."""
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._last_id += 1
        message_id = self._last_id
        self._waiting[message_id] = (session, future)

        def settle(done: "asyncio.Future[Json]") -> None:
            self._waiting.pop(message_id, None)
            if not done.cancelled():
                done.exception()  # marks it as seen: one that nobody awaits must not be reported as forgotten

        future.add_done_callback(settle)
        if self.lost:
            future.set_exception(ConnectionLostError("the browser is gone"))
        return future

    def listen(self, session: str, handler: EventHandler) -> None:
        """Hands the events of `session` ("" is the browser itself) to `handler`."""
        self._handlers[session] = handler

    def drop_session(self, session: str) -> None:
        """Forgets a session; calls still waiting on it raise SessionLostError."""
        self._handlers.pop(session, None)
        for owner, future in list(self._waiting.values()):
            if owner == session and not future.done():
                future.set_exception(SessionLostError("the page is gone"))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._end()

    def _receive(self, data: bytes) -> None:
        message = json.loads(data)
        if "id" not in message:
            handler = self._handlers.get(message.get("sessionId", ""))
            if handler is not None:
                handler(message["method"], message["params"])
            return
        _, future = self._waiting.get(message["id"], ("", None))
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(ProtocolError(message["error"].get("message", "unknown error")))
        else:
            future.set_result(message["result"])

    def _end(self) -> None:
        self.lost = True
        for _, future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(ConnectionLostError("the browser is gone"))
